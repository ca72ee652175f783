// SPDX-License-Identifier: Apache-2.0

package maps

import (
	"errors"
	"maps"
	"testing"

	"github.com/cilium/ebpf"

	"github.com/portcullis-firewall/portcullis/bpf"
	"github.com/portcullis-firewall/portcullis/policy"
)

// forwardSet makes a set for rules of which all but the first are about what is routed.
func forwardSet(t *testing.T, texts ...string) (*Set, []Rule) {
	t.Helper()
	rules, plain := rulesOf(t, texts...)
	for i := range rules[1:] {
		rules[i+1].Rule.Forward, plain[i+1].Forward = true, true
	}
	set := newSet(t, &policy.Policy{Open: plain}, nil)
	if err := set.SetFeatures(FeaturesOf(plain)); err != nil {
		t.Fatal(err)
	}
	return set, rules
}

func entriesOf(t *testing.T, set *Set) map[uint32]bpf.FirewallForwarder {
	t.Helper()
	entries, err := set.readForwarders()
	if err != nil {
		t.Fatal(err)
	}
	return entries
}

func TestForwarders(t *testing.T) {
	set, rules := forwardSet(t, "80/tcp", "53/udp", "all on eth1,lan*", "22/tcp on docker0")
	list := []Interface{
		{Index: 2, Name: "eth0", Judged: true}, {Index: 3, Name: "eth1"}, {Index: 4, Name: "lan7", Judged: true}, {Index: 5, Name: "wg0"},
		{Index: 6, Name: "br0", Guests: true}, {Index: 7, Name: "docker0", Guests: true},
	}
	set.SetInterfaces(list)
	if err := set.PutRules(rules, nil, nil); err != nil {
		t.Fatal(err)
	}
	have := entriesOf(t, set)
	others, lan, docker := have[0].Set, have[3].Set, have[7].Set
	if others == 0 || lan == 0 || docker == 0 || others == lan || lan == docker || others == docker {
		t.Fatalf("entries %v: want three sets", have)
	}
	want := map[uint32]bpf.FirewallForwarder{
		0: {Set: others, Flags: anything}, 2: {Set: others, Flags: judged}, 3: {Set: lan}, 4: {Set: lan, Flags: judged},
		6: {Set: others, Flags: begins}, 7: {Set: docker}, // which a rule names
	}
	if !maps.Equal(have, want) {
		t.Errorf("entries are\n%v, want\n%v", have, want)
	}
	if outdated, err := set.OutdatedInterfaces(list); err != nil || len(outdated) > 0 {
		t.Errorf("outdated %v, %v", outdated, err)
	}

	// The host changes: one goes, one comes of a known group, one of a group that was not there.
	list = append(list[:2:2], Interface{Index: 8, Name: "lan8"}, Interface{Index: 9, Name: "docker0", Judged: true})
	if outdated, err := set.OutdatedInterfaces(list); err != nil || len(outdated) != 2 || outdated[0].Name != "lan8" || outdated[1].Name != "docker0" {
		t.Errorf("outdated %v, %v", outdated, err)
	}
	if !maps.Equal(entriesOf(t, set), want) {
		t.Error("to ask what is outdated has changed something")
	}
	if err := set.SyncInterfaces(list); err != nil {
		t.Fatal(err)
	}
	want = map[uint32]bpf.FirewallForwarder{
		0: {Set: others, Flags: anything}, 2: {Set: others, Flags: judged}, 3: {Set: lan}, 8: {Set: lan}, 9: {Set: docker, Flags: judged},
	}
	if have := entriesOf(t, set); !maps.Equal(have, want) {
		t.Errorf("entries are\n%v, want\n%v", have, want)
	}

	// Without its rules, and with nobody to say which interfaces there are, nothing is let through.
	if err := set.PutRules(rules[:1], rules, rules); err != nil {
		t.Fatal(err)
	}
	for index, entry := range entriesOf(t, set) {
		if entry.Set != 0 {
			t.Errorf("interface %d has set %d still", index, entry.Set)
		}
	}
}

// A group of interfaces that comes after the rules gets its set.
func TestASetForAnInterfaceThatComes(t *testing.T) {
	set, rules := forwardSet(t, "80/tcp", "53/udp", "all on eth1")
	set.SetInterfaces([]Interface{{Index: 2, Name: "eth0"}})
	if err := set.PutRules(rules, nil, nil); err != nil {
		t.Fatal(err)
	}
	list := []Interface{{Index: 2, Name: "eth0"}, {Index: 3, Name: "eth1"}}
	if outdated, err := set.OutdatedInterfaces(list); err != nil || len(outdated) != 1 || outdated[0].Name != "eth1" {
		t.Errorf("outdated %v, %v", outdated, err)
	}
	if err := set.SyncInterfaces(list); err != nil {
		t.Fatal(err)
	}
	sets, err := set.rangeSets()
	if err != nil {
		t.Fatal(err)
	}
	entry := entriesOf(t, set)[3]
	if entry.Set == 0 || stateOf(&sets[entry.Set]) != bpf.FirewallRangeSetStateSET_IN_USE {
		t.Errorf("eth1 has %+v, which is no set in use", entry)
	}
	// A change of other rules leaves what is routed as it is.
	if err := set.AddRules([]Rule{numbered(9, mustRule(t, "8080/tcp"))}); err != nil {
		t.Fatal(err)
	}
	if got := entriesOf(t, set)[3]; got != entry {
		t.Errorf("eth1 has %+v, and had %+v", got, entry)
	}
}

// What was dropped is forgotten where it is in the way of a set for an interface that comes.
func TestDroppedSetsMakeRoomForAnInterface(t *testing.T) {
	if !WaitForPackets() {
		t.Skip("this kernel cannot wait for packets")
	}
	set, rules := forwardSet(t, "80/tcp", "53/udp", "all on eth1")
	list := []Interface{{Index: 2, Name: "eth0"}}
	set.SetInterfaces(list)
	if err := set.PutRules(rules, nil, nil); err != nil {
		t.Fatal(err)
	}
	sets, err := set.rangeSets()
	if err != nil {
		t.Fatal(err)
	}
	for i := range sets[1:] {
		if s := &sets[i+1]; stateOf(s) == bpf.FirewallRangeSetStateSET_FREE {
			setState(s, bpf.FirewallRangeSetStateSET_DROPPED)
		}
	}
	if err := set.SyncInterfaces(append(list, Interface{Index: 3, Name: "eth1"})); err != nil {
		t.Fatal(err)
	}
	if entriesOf(t, set)[3].Set == 0 {
		t.Error("eth1 has no set")
	}
}

// Guests are known where no rule is about what is routed, and changes of other rules leave that as it is.
func TestGuestsWithoutForwardRules(t *testing.T) {
	set, rules := forwardSet(t, "80/tcp from 192.0.2.1")
	set.SetInterfaces([]Interface{{Index: 6, Name: "br0", Guests: true}})
	if err := set.PutRules(rules, nil, nil); err != nil {
		t.Fatal(err)
	}
	want := map[uint32]bpf.FirewallForwarder{0: {Flags: anything}, 6: {Flags: begins}}
	set.interfaces = nil // as whoever opens it next
	more, _ := rulesOf(t, "81/tcp from 192.0.2.1")
	if err := set.PutRules(more, rules, rules); err != nil {
		t.Fatal(err)
	}
	if have := entriesOf(t, set); !maps.Equal(have, want) {
		t.Errorf("entries %v, want %v", have, want)
	}
	if err := set.SyncInterfaces(nil); err != nil {
		t.Fatal(err)
	}
	if have := entriesOf(t, set); len(have) != 1 || have[0] != (bpf.FirewallForwarder{Flags: anything}) {
		t.Errorf("entries %v, want none but that of no interface", have)
	}
	// Programs that are loaded without it do not ask for forward rules.
	forward := numbered(5, mustRule(t, "22/tcp"))
	forward.Rule.Forward = true
	if err := set.PutRules(append(more, forward), more, more); !errors.Is(err, ErrFeatures) {
		t.Errorf("a first forward rule: %v", err)
	}
}

// A port that is open may be a container's, whose answers come in fragments, too.
func TestOpenPortsLetFragmentsThrough(t *testing.T) {
	set, rules := forwardSet(t, "80/tcp")
	flags := func() uint16 { return entriesOf(t, set)[noInterface].Flags }
	put := func(rules, old []Rule) {
		t.Helper()
		if err := set.PutRules(rules, old, old); err != nil {
			t.Fatal(err)
		}
	}
	for _, known := range []bool{false, true} {
		if known {
			set.SetInterfaces([]Interface{{Index: 2, Name: "eth0", Judged: true}})
		}
		put(nil, nil)
		if flags() != 0 {
			t.Errorf("interfaces known %t: flags %d without rules", known, flags())
		}
		put(rules, nil)
		if flags() != anything {
			t.Errorf("interfaces known %t: flags %d with a rule", known, flags())
		}
		put(nil, rules)
		if flags() != 0 {
			t.Errorf("interfaces known %t: flags %d once the rule is gone", known, flags())
		}
	}
	if err := set.AddRules(rules); err != nil || flags() != anything {
		t.Errorf("a rule that is added: flags %d, %v", flags(), err)
	}
	list := []Interface{{Index: 2, Name: "eth0", Judged: true}, {Index: 3, Name: "br0", Guests: true}}
	for _, open := range []bool{true, false} {
		if err := set.SyncInterfaces(list[:1]); err != nil || (flags() == anything) != open {
			t.Errorf("synced, open %t: flags %d, %v", open, flags(), err)
		}
		put(nil, rules)
	}
	if err := set.SyncInterfaces(list); err != nil {
		t.Fatal(err)
	}
	set.interfaces = nil // as whoever opens it next
	put(rules, nil)
	put(nil, rules)
	if flags() != anything {
		t.Errorf("flags %d with guests, once the rule is gone", flags())
	}
}

// Whatever order steps have, each interface has what held before or what will, and room is never short.
func TestForwarderSteps(t *testing.T) {
	list := []Interface{{Index: 2}, {Index: 3}, {Index: 4}, {Index: 5}, {Index: 6}}
	have := map[uint32]bpf.FirewallForwarder{
		0: {Set: 1}, 2: {Set: 1, Flags: judged}, 3: {Set: 2}, 5: {Set: 1, Flags: judged}, 9: {Set: 2}, 10: {Set: 2},
	}
	want := map[uint32]bpf.FirewallForwarder{
		0: {Set: 3, Flags: anything}, 2: {Set: 3, Flags: judged}, 4: {Set: 1}, 5: {Set: 4}, 6: {Set: 1},
	} // 3 is as the others from now on, and was not; 4 and 6 were
	at := func(entries map[uint32]bpf.FirewallForwarder, index int) bpf.FirewallForwarder {
		if entry, ok := entries[uint32(index)]; ok {
			return entry
		}
		return bpf.FirewallForwarder{Set: entries[noInterface].Set}
	}
	const room = 6
	steps, err := forwarderSteps(have, want, list, room)
	if err != nil {
		t.Fatal(err)
	}
	if steps[0].key != 5 {
		t.Errorf("the first step is %+v, want that which takes a flag away", steps[0])
	}
	now := maps.Clone(have)
	for _, step := range steps {
		if step.gone {
			delete(now, step.key)
		} else {
			now[step.key] = step.entry
		}
		if len(now) > room {
			t.Fatalf("%d entries after %+v", len(now), step)
		}
		for _, iface := range list {
			if entry := at(now, iface.Index); entry != at(have, iface.Index) && entry != at(want, iface.Index) {
				t.Errorf("interface %d has %+v after %+v", iface.Index, entry, step)
			}
		}
	}
	if !maps.Equal(now, want) {
		t.Errorf("entries are\n%v, want\n%v", now, want)
	}
	if _, err := forwarderSteps(have, want, list, room-1); !errors.Is(err, ErrNoRoom) {
		t.Errorf("with room for %d: %v", room-1, err)
	}
	if steps, err := forwarderSteps(want, want, list, room); err != nil || len(steps) > 0 {
		t.Errorf("%v, %v where nothing changes", steps, err)
	}
}

// More interfaces than there is room for change nothing, but that none counts as judged which is not.
func TestNoRoomForInterfaces(t *testing.T) {
	rules, plain := rulesOf(t, "80/tcp")
	set := newSet(t, &policy.Policy{Open: plain}, func(spec *ebpf.CollectionSpec) {
		spec.Maps[bpf.FirewallMapForwarders].MaxEntries = 3
	})
	list := []Interface{{Index: 2, Judged: true}, {Index: 3, Judged: true}}
	set.SetInterfaces(list)
	if err := set.PutRules(rules, nil, nil); err != nil {
		t.Fatal(err)
	}
	many := []Interface{{Index: 2}, {Index: 3, Judged: true}, {Index: 4, Judged: true}, {Index: 5, Judged: true}}
	if err := set.SyncInterfaces(many); !errors.Is(err, ErrNoRoom) {
		t.Errorf("error %v", err)
	}
	want := map[uint32]bpf.FirewallForwarder{0: {Flags: anything}, 2: {}, 3: {Flags: judged}}
	if have := entriesOf(t, set); !maps.Equal(have, want) {
		t.Errorf("entries %v, want %v", have, want)
	}
	set.SetInterfaces(many)
	if err := set.PutRules(nil, rules, rules); !errors.Is(err, ErrNoRoom) {
		t.Errorf("error %v", err)
	}
	holds(t, set, rules)
	if err := set.SyncInterfaces([]Interface{{Index: 7, Judged: true}, {Index: 8, Judged: true}}); err != nil {
		t.Errorf("two in place of two that are gone: %v", err)
	}
	if err := set.Distrust(nil); err != nil {
		t.Fatal(err)
	}
	want = map[uint32]bpf.FirewallForwarder{0: {Flags: anything}, 7: {}, 8: {}}
	if have := entriesOf(t, set); !maps.Equal(have, want) {
		t.Errorf("entries %v, want %v", have, want)
	}
}
