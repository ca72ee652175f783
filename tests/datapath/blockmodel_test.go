// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/portcullis-firewall/portcullis/bpf"
	dpmaps "github.com/portcullis-firewall/portcullis/maps"
	"github.com/portcullis-firewall/portcullis/tests/internal/frame"
	"github.com/portcullis-firewall/portcullis/tests/internal/testdp"
)

// sources is what blocks whom, by looking at each: the model that the datapath has to agree with.
type sources struct {
	trust []netip.Prefix
	bans  map[netip.Prefix]time.Duration // when they end; 0: never
	lists []dpmaps.BlockList
}

// verdict returns the reason for which an address is dropped at a time, or 0, and the list.
func (s *sources) verdict(a netip.Addr, at time.Duration) (bpf.FirewallReason, string) {
	holds := func(p netip.Prefix) bool { return p.Contains(a) }
	if slices.ContainsFunc(s.trust, holds) {
		return 0, ""
	}
	for p, end := range s.bans {
		if holds(p) && (end == 0 || end > at) {
			return bpf.FirewallReasonDROP_BANNED, ""
		}
	}
	for _, l := range s.lists {
		if slices.ContainsFunc(l.Prefixes, holds) {
			return bpf.FirewallReasonDROP_BLOCKED, l.Name
		}
	}
	return 0, ""
}

// anyAddress draws an address, most of them from few networks, so that what is drawn meets.
func anyAddress(r *rand.Rand, family int) netip.Addr {
	if family == 4 {
		var b [4]byte
		binary.BigEndian.PutUint32(b[:], r.Uint32())
		if r.IntN(4) > 0 {
			b[0], b[1], b[2] = 203, byte(r.IntN(2)), byte(r.IntN(4))
		}
		return netip.AddrFrom4(b)
	}
	var b [16]byte
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	if r.IntN(4) > 0 {
		copy(b[:], []byte{0x20, 0x01, 0x0d, byte(r.IntN(4)), 0, byte(r.IntN(2)), 0, 0})
		if r.IntN(2) == 0 {
			clear16(b[8:15])
		}
	}
	return netip.AddrFrom16(b)
}

func clear16(b []byte) {
	for i := range b {
		b[i] = 0
	}
}

func anyPrefix(r *rand.Rand, family int) netip.Prefix {
	a := anyAddress(r, family)
	bits := a.BitLen()
	if r.IntN(2) == 0 {
		bits -= r.IntN(bits / 2)
	}
	return around(a, bits)
}

func anyPrefixes(r *rand.Rand, family, most int) (out []netip.Prefix) {
	for range r.IntN(most + 1) {
		out = append(out, anyPrefix(r, family))
	}
	return out
}

// Whatever is put and removed, in whatever order, the datapath drops those whom the model does, and counts them where it
// does.
func TestBlockedAndBannedAreThoseOfAModel(t *testing.T) {
	d := load(t, testdp.Options{Policy: "input: accept", Bans: 4096, Blocking: 4096})
	defer clear(t, d)
	rounds := 60
	if testing.Short() {
		rounds = 10
	}
	for _, w := range worlds {
		r := rand.New(rand.NewPCG(16, uint64(w.family)))
		clear(t, d)
		d.Forget(t)
		model := sources{bans: make(map[netip.Prefix]time.Duration)}
		var now time.Duration // that the clock was moved by
		for round := range rounds {
			switch r.IntN(5) {
			case 0:
				model.trust, model.lists = anyPrefixes(r, w.family, 4), nil
				for i := range r.IntN(4) {
					name := fmt.Sprint("list ", r.IntN(2)*4+i)
					model.lists = append(model.lists, dpmaps.BlockList{Name: name, Prefixes: anyPrefixes(r, w.family, 40)})
				}
				putLists(t, d, model.trust, model.lists...)
			case 1:
				var gone []netip.Prefix
				for p, end := range model.bans {
					if r.IntN(2) == 0 && (end == 0 || end > now) {
						gone = append(gone, p)
						delete(model.bans, p)
					}
				}
				if missing, err := d.Set.RemoveBans(d.Clock(t), gone); err != nil || len(missing) > 0 {
					t.Fatal(missing, err)
				}
			case 2:
				if err := d.Set.TidyGate(); err != nil {
					t.Fatal(err)
				}
			case 3:
				now += time.Hour
				d.Advance(t, time.Hour)
			default:
				clock := d.Clock(t)
				var list []dpmaps.Ban
				for _, p := range anyPrefixes(r, w.family, 30) {
					ban := dpmaps.Ban{Prefix: p, Since: clock.Time, Reason: fmt.Sprint(r.IntN(3))}
					model.bans[p] = 0
					if r.IntN(2) == 0 { // it ends in the middle of an hour: real time goes on, too
						model.bans[p] = now + time.Duration(r.IntN(4))*time.Hour + 30*time.Minute
						ban.Until = clock.Time.Add(model.bans[p] - now)
					}
					list = append(list, ban)
				}
				if n, err := d.Set.PutBans(clock, list); err != nil || n != len(list) {
					t.Fatal(n, err)
				}
			}
			compareWithModel(t, d, w, r, &model, now, round)
		}
	}
}

func compareWithModel(t *testing.T, d *testdp.Datapath, w world, r *rand.Rand, model *sources, now time.Duration, round int) {
	t.Helper()
	lists := make(map[string]uint64)
	before, err := d.Set.BlockLists()
	if err != nil {
		t.Fatal(err)
	}
	d.Counted(t)
	want := make(map[dpmaps.Reason]uint64)
	for i := range 100 {
		a := anyAddress(r, w.family)
		reason, list := model.verdict(a, now)
		if passes := d.Passes(t, testdp.Ingress[i%2], w.from(a, udp(9)), testdp.From{}); passes != (reason == 0) {
			t.Fatalf("round %d: a packet of %s passes: %v, and the model says %q %s of %+v", round, a, passes, reason, list, model)
		}
		if reason == 0 {
			reason = bpf.FirewallReasonPASS_INPUT
		}
		want[dpmaps.Reason(reason)]++
		if list != "" {
			lists[list]++
		}
		by, _, trusted, err := d.Set.BlockedBy(a)
		if err != nil || list != "" && by != list || trusted != slices.ContainsFunc(model.trust, func(p netip.Prefix) bool { return p.Contains(a) }) {
			t.Fatalf("round %d: %s is said to be blocked by %q (trusted: %v, %v), and the model says %q", round, a, by, trusted, err, list)
		}
		held, err := d.Set.BansOf(d.Clock(t), a)
		if err != nil {
			t.Fatal(err)
		}
		n := 0
		for p, end := range model.bans {
			if p.Contains(a) && (end == 0 || end > now) {
				n++
			}
		}
		if len(held) != n {
			t.Fatalf("round %d: %s is said to be held by %v, and the model says %d", round, a, held, n)
		}
	}
	for reason, n := range d.Counted(t) {
		if want[reason] != n && reason.Verdict() != dpmaps.Seen {
			t.Fatalf("round %d: %d packets are counted as %s, want %d", round, n, reason, want[reason])
		}
	}
	after, err := d.Set.BlockLists()
	if err != nil || len(after) != len(model.lists) {
		t.Fatalf("round %d: the lists in force are %v (%v), want %v", round, after, err, model.lists)
	}
	for i, l := range after {
		if l.Name != model.lists[i].Name || l.Networks4+l.Networks6 != len(model.lists[i].Prefixes) || l.Packets-before[i].Packets != lists[l.Name] {
			t.Fatalf("round %d: list %d is %+v, and was %+v, want %d packets of %s", round, i, l, before[i], lists[l.Name], model.lists[i].Name)
		}
	}
	seen := 0
	for ban, err := range d.Set.Bans(d.Clock(t)) {
		end, ok := model.bans[ban.Prefix]
		if err != nil || !ok || end != 0 && end <= now || ban.Until.IsZero() != (end == 0) {
			t.Fatalf("round %d: there is a ban %+v (%v), of which the model says %s, %v", round, ban, err, end, ok)
		}
		seen++
	}
	for p, end := range model.bans {
		if end != 0 && end <= now {
			delete(model.bans, p)
		}
	}
	if seen != len(model.bans) {
		t.Fatalf("round %d: there are %d bans, want %d", round, seen, len(model.bans))
	}
}

// sourcePatcher returns a function that makes a frame of a source, faster than by building it.
func sourcePatcher(w world) func(netip.Addr) []byte {
	in := w.in(udp(9))
	at := frame.EthernetLen + 12
	if w.family == 6 {
		at = frame.EthernetLen + 8
	}
	return func(a netip.Addr) []byte {
		copy(in[at:], a.AsSlice())
		return in
	}
}
