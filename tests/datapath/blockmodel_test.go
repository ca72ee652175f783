// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cilium/ebpf"

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

// A million bans that end within a day: none a second late, none early.
func TestBansEndInTime(t *testing.T) {
	count, samples := 1<<20, 30000
	if testing.Short() {
		count, samples = 1<<16, 5000
	}
	d, err := testdp.Open(testdp.Options{Policy: "input: accept", Bans: uint32(count)})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	w := worlds[0]
	r := rand.New(rand.NewPCG(24, 60))
	list := make([]dpmaps.Ban, count)
	clock := d.Clock(t)
	for i := range list {
		// Each once, all over the addresses.
		var b [4]byte
		binary.BigEndian.PutUint32(b[:], uint32(i)*2654435761+uint32(r.IntN(2))<<31)
		a := netip.AddrFrom4(b)
		list[i] = dpmaps.Ban{Prefix: single(a), Since: clock.Time, Until: clock.Time.Add(time.Duration(r.Int64N(int64(24 * time.Hour)))), Reason: "test"}
	}
	list = uniqueBans(list)
	start := time.Now()
	if n, err := d.Set.PutBans(clock, list); err != nil || n != len(list) {
		t.Fatal(n, err)
	}
	t.Logf("%d bans in %s", len(list), time.Since(start))
	// At each moment of the day the sampled ones that are about to end, and those that ended a second ago.
	type moment struct {
		at   uint64 // jiffies
		addr netip.Addr
		end  uint64
		drop bool
	}
	var day []moment
	for range samples {
		b := list[r.IntN(len(list))]
		end := clock.Jiffies + uint64(b.Until.Sub(clock.Time).Seconds()*testdp.HZ)
		if end > clock.Jiffies+2*testdp.HZ {
			day = append(day, moment{end - 40, b.Prefix.Addr(), end, true})
		}
		day = append(day, moment{end + testdp.HZ, b.Prefix.Addr(), end, false})
	}
	slices.SortFunc(day, func(a, b moment) int { return cmp.Compare(a.at, b.at) })
	frameFor := sourcePatcher(w)
	asked := 0
	for _, m := range day {
		if now := d.Now(t); now < m.at {
			d.Advance(t, time.Duration(m.at-now)*time.Second/testdp.HZ)
		}
		passes := d.Passes(t, testdp.XDP, frameFor(m.addr), testdp.From{})
		if m.drop && d.Now(t) >= m.end {
			continue // the machine was busy with something else
		}
		asked++
		if passes == m.drop {
			t.Fatalf("%d jiffies after the end of its ban, a packet of %s passes: %v", int64(d.Now(t)-m.end), m.addr, passes)
		}
	}
	if asked < len(day)*3/4 {
		t.Errorf("of %d moments %d were met", len(day), asked)
	}
	if n, err := d.Set.ForgetEndedBans(d.Clock(t)); err != nil || n < len(list)*99/100 {
		t.Errorf("a day later %d bans of %d are forgotten: %v", n, len(list), err)
	}
}

func uniqueBans(list []dpmaps.Ban) []dpmaps.Ban {
	seen := make(map[netip.Prefix]bool, len(list))
	return slices.DeleteFunc(list, func(b dpmaps.Ban) bool {
		twice := seen[b.Prefix]
		seen[b.Prefix] = true
		return twice
	})
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

// While lists are swapped and bans of neighbours come and go, two CPUs receive packets of an address that is on each of
// the lists, of a trusted one, and of a clean one beside them.
func TestBlockListsAreSwappedWhole(t *testing.T) {
	d := load(t, testdp.Options{Policy: "input: accept", Bans: 4096, Blocking: 1 << 15})
	defer clear(t, d)
	long := 4 * time.Second
	if testing.Short() {
		long = time.Second
	}
	for _, w := range worlds {
		t.Run(w.String(), func(t *testing.T) {
			clear(t, d)
			r := rand.New(rand.NewPCG(16, 9))
			bad, good, clean := w.stranger, w.friend, w.peer
			lists := make([]dpmaps.BlockList, 4)
			for i := range lists {
				lists[i].Name = fmt.Sprint("list ", i)
				lists[i].Prefixes = []netip.Prefix{single(bad), around(bad, bad.BitLen()-i), single(good)}
				for range 1 + 5000*i {
					if p := single(anyAddress(r, w.family)); p.Addr() != clean {
						lists[i].Prefixes = append(lists[i].Prefixes, p)
					}
				}
			}
			trust := []netip.Prefix{single(good)}
			putLists(t, d, trust, lists[0])
			var wrong, sent atomic.Int64
			var stops []func()
			var working sync.WaitGroup
			var stopped atomic.Bool
			for _, path := range testdp.Ingress {
				program := d.Program(path)
				frames := []struct {
					data   []byte
					passes bool
				}{{w.from(bad, udp(9)), false}, {w.from(good, udp(9)), true}, {w.from(clean, udp(9)), true}}
				working.Go(func() {
					for !stopped.Load() {
						for _, f := range frames {
							result, err := program.Run(&ebpf.RunOptions{Data: f.data})
							if err == nil {
								sent.Add(1)
								if result != testdp.Verdict(path, f.passes) {
									wrong.Add(1)
								}
							}
						}
					}
				})
			}
			stops = append(stops, func() { stopped.Store(true); working.Wait() })
			swaps := 0
			neighbours := []netip.Prefix{single(bad.Next()), single(good.Next()), single(clean.Next())}
			for start := time.Now(); time.Since(start) < long; swaps++ {
				putLists(t, d, trust, lists[r.IntN(len(lists))])
				if r.IntN(2) == 0 {
					if err := d.Set.TidyGate(); err != nil {
						t.Fatal(err)
					}
				}
				clock := d.Clock(t)
				var some []dpmaps.Ban
				for _, p := range neighbours {
					some = append(some, dpmaps.Ban{Prefix: p})
				}
				if _, err := d.Set.PutBans(clock, some); err != nil {
					t.Fatal(err)
				}
				if _, err := d.Set.RemoveBans(clock, neighbours); err != nil {
					t.Fatal(err)
				}
			}
			for _, stop := range stops {
				stop()
			}
			t.Logf("%d swaps, %d packets", swaps, sent.Load())
			if n := wrong.Load(); n > 0 {
				t.Errorf("in %d swaps %d packets of %d met something else than the old or the new list", swaps, n, sent.Load())
			}
			if swaps < 5 || sent.Load() < 1000 {
				t.Errorf("%d swaps met %d packets: too few to tell", swaps, sent.Load())
			}
		})
	}
}

// Packets are counted by list and by reason, and a ban goes on counting when it is put off.
func TestBlockedPacketsAreCounted(t *testing.T) {
	d := load(t, testdp.Options{Policy: server, Bans: 4096})
	defer clear(t, d)
	for _, w := range worlds {
		clear(t, d)
		r := &trial{Datapath: d}
		send := func(a netip.Addr, n int) {
			for range n {
				d.Passes(t, testdp.XDP, w.from(a, syn(80)), testdp.From{})
			}
		}
		counted := func() map[string]uint64 {
			out := make(map[string]uint64)
			lists, err := d.Set.BlockLists()
			if err != nil {
				t.Fatal(err)
			}
			for _, l := range lists {
				out[l.Name] = l.Packets
			}
			reasons, err := d.Set.BanReasons()
			if err != nil {
				t.Fatal(err)
			}
			for _, b := range reasons {
				out["banned: "+b.Text] += b.Packets
			}
			return out
		}
		lists := []dpmaps.BlockList{
			{Name: "one", Prefixes: []netip.Prefix{single(w.stranger)}},
			{Name: "two", Prefixes: []netip.Prefix{around(w.stranger, 24), single(w.friend)}},
		}
		putLists(t, d, nil, lists...)
		before := counted()
		expect := func(what, name string, want uint64) {
			t.Helper()
			if got := counted()[name] - before[name]; got != want {
				t.Errorf("%s: %s: %d packets of %s are counted, want %d", w, what, got, name, want)
			}
		}
		send(w.stranger, 3)
		send(w.friend, 2)
		expect("the first list that has it", "one", 3)
		expect("the other one", "two", 2)
		putLists(t, d, nil, lists[1], lists[0])
		send(w.stranger, 5)
		expect("in another order", "one", 3)
		expect("in another order", "two", 7)
		putLists(t, d, nil, lists[1])
		putLists(t, d, nil, lists[1], dpmaps.BlockList{Name: "three", Prefixes: []netip.Prefix{single(w.us.Next())}})
		if got := counted()["three"]; got != 0 {
			t.Errorf("%s: a new list begins with %d packets", w, got)
		}
		expect("beside a new one", "two", 7)

		clock := d.Clock(t)
		put := func(reason string, prefixes ...netip.Prefix) {
			var list []dpmaps.Ban
			for _, p := range prefixes {
				list = append(list, dpmaps.Ban{Prefix: p, Since: clock.Time, Reason: reason})
			}
			if _, err := d.Set.PutBans(clock, list); err != nil {
				t.Fatal(err)
			}
		}
		put("sshd", single(w.peer), around(w.friend, 24))
		send(w.peer, 4)
		send(w.friend, 6)
		put("nginx", single(w.peer))
		send(w.peer, 1)
		expect("by reason", "banned: sshd", 10)
		expect("by reason", "banned: nginx", 1)
		for ban, err := range d.Set.Bans(clock) {
			if err != nil {
				t.Fatal(err)
			}
			want := map[netip.Prefix]dpmaps.Ban{
				single(w.peer):       {Reason: "nginx", Packets: 5},
				around(w.friend, 24): {Reason: "sshd", Packets: 6},
			}[ban.Prefix]
			if ban.Reason != want.Reason || ban.Packets != want.Packets || ban.Since.Unix() != clock.Time.Unix() {
				t.Errorf("%s: the ban of %s is %+v, want %+v", w, ban.Prefix, ban, want)
			}
		}
		nobody(t, r)
	}
}

// When there is no room, those that have ended make some.
func TestBansWithoutRoom(t *testing.T) {
	d := load(t, testdp.Options{Policy: server, Bans: 64})
	defer clear(t, d)
	clear(t, d)
	room := int(d.Map(t, bpf.FirewallMapBans4).MaxEntries())
	clock := d.Clock(t)
	list := make([]dpmaps.Ban, room)
	a := netip.MustParseAddr("10.0.0.0")
	for i := range list {
		a = a.Next()
		list[i] = dpmaps.Ban{Prefix: single(a), Until: clock.Time.Add(time.Minute)}
	}
	if n, err := d.Set.PutBans(clock, list); err != nil || n != room {
		t.Fatal(n, err)
	}
	more := []dpmaps.Ban{{Prefix: single(a.Next())}, {Prefix: netip.MustParsePrefix("2001:db8::9/128")}}
	if n, err := d.Set.PutBans(clock, more); !isFull(err) || n != 0 {
		t.Errorf("%d bans found room beside %d: %v", n, room, err)
	}
	d.Advance(t, 2*time.Minute)
	if n, err := d.Set.PutBans(d.Clock(t), more); err != nil || n != 2 {
		t.Errorf("when all have ended, %d bans find room: %v", n, err)
	}
}
