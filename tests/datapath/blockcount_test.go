// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"github.com/portcullis-firewall/portcullis/bpf"
	dpmaps "github.com/portcullis-firewall/portcullis/maps"
	"github.com/portcullis-firewall/portcullis/tests/internal/testdp"
)

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

// Each reason knows how many bans there are for it, whatever is put, replaced, ended and forgotten.
func TestBansAreCountedByReason(t *testing.T) {
	d := load(t, testdp.Options{Policy: server, Bans: 1024})
	defer clear(t, d)
	clear(t, d)
	r := rand.New(rand.NewPCG(7, 1))
	reasons := []string{"", "sshd", "nginx", "crowdsec: http"}
	bans := func(n int) (list []dpmaps.Ban) {
		seen := make(map[netip.Prefix]bool)
		for range n {
			p := single(netip.AddrFrom4([4]byte{10, 0, 0, byte(r.IntN(200))}))
			switch r.IntN(4) {
			case 0:
				p = single(netip.AddrFrom16([16]byte{0x20, 1, 15: byte(r.IntN(50))}))
			case 1:
				p = netip.PrefixFrom(netip.AddrFrom4([4]byte{172, 16, byte(r.IntN(20))}), 24)
			}
			if !seen[p] {
				seen[p] = true
				list = append(list, dpmaps.Ban{Prefix: p, Since: time.Now(), Reason: reasons[r.IntN(len(reasons))]})
			}
		}
		return list
	}
	check := func(round int) {
		t.Helper()
		want := make(map[string]int)
		for b, err := range d.Set.Bans(dpmaps.Clock{}) { // those that have ended, too
			if err != nil {
				t.Fatal(err)
			}
			want[b.Reason]++
		}
		list, err := d.Set.BanReasons()
		if err != nil {
			t.Fatal(err)
		}
		for _, reason := range list {
			if reason.Bans != want[reason.Text] {
				t.Fatalf("round %d: %d bans for %q, want %d", round, reason.Bans, reason.Text, want[reason.Text])
			}
			if reason.Bans > 0 && time.Since(reason.Last) > time.Hour {
				t.Errorf("round %d: the last ban for %q was at %v", round, reason.Text, reason.Last)
			}
			delete(want, reason.Text)
		}
		if len(want) > 0 {
			t.Fatalf("round %d: nobody counts %v", round, want)
		}
	}
	for round := range 200 {
		clock, list := d.Clock(t), bans(1+r.IntN(40))
		if r.IntN(2) == 0 {
			for i := range list {
				list[i].Until = clock.Time.Add(time.Duration(1+r.IntN(60)) * time.Second)
			}
		}
		prefixes := make([]netip.Prefix, len(list))
		for i := range list {
			prefixes[i] = list[i].Prefix
		}
		var err error
		switch round % 5 {
		case 0, 1:
			_, err = d.Set.PutBans(clock, list)
		case 2: // as a command does: looked for, put for some seconds, and put again or taken back
			if _, err = d.Set.FindBans(clock, prefixes); err == nil {
				_, err = d.Set.PutCountedBans(clock, list)
			}
			if err == nil && r.IntN(2) == 0 {
				_, err = d.Set.RemoveBans(clock, prefixes[:len(prefixes)/2])
			}
			if err == nil {
				_, err = d.Set.PutCountedBans(clock, list)
			}
		case 3:
			_, err = d.Set.RemoveBans(clock, append(prefixes, prefixes...))
		case 4:
			d.Advance(t, 20*time.Second)
			if r.IntN(2) == 0 {
				_, err = d.Set.ForgetEndedBans(d.Clock(t))
			}
		}
		if err != nil {
			t.Fatal(err)
		}
		check(round)
		live := make(map[string]int)
		for b, err := range d.Set.Bans(d.Clock(t)) {
			if err != nil {
				t.Fatal(err)
			}
			live[b.Reason]++
		}
		now, exact, err := d.Set.CountBansByReason(d.Clock(t))
		for _, reason := range now {
			if err != nil || !exact || reason.Bans != live[reason.Text] {
				t.Fatalf("round %d: %d bans in force for %q, want %d; exact: %t, %v", round, reason.Bans, reason.Text, live[reason.Text], exact, err)
			}
		}
	}
	live := 0
	for range d.Set.Bans(d.Clock(t)) {
		live++
	}
	if n, err := d.Set.RemoveAllBans(d.Clock(t)); err != nil || n != live || live == 0 {
		t.Errorf("%d bans of %d were ended, %v", n, live, err)
	}
	check(-1)
	for b := range d.Set.Bans(d.Clock(t)) {
		t.Errorf("%v is left", b)
	}
}
