// SPDX-License-Identifier: Apache-2.0

package maps

import (
	"errors"
	"maps"
	"testing"

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
	if have := entriesOf(t, set); len(have) != 1 || have[0] != (bpf.FirewallForwarder{}) {
		t.Errorf("entries %v, want none", have)
	}
	// Programs that are loaded without it do not ask for forward rules.
	forward := numbered(5, mustRule(t, "22/tcp"))
	forward.Rule.Forward = true
	if err := set.PutRules(append(more, forward), more, more); !errors.Is(err, ErrFeatures) {
		t.Errorf("a first forward rule: %v", err)
	}
}
