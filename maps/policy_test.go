// SPDX-License-Identifier: Apache-2.0

package maps

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/portcullis-firewall/portcullis/bpf"
	"github.com/portcullis-firewall/portcullis/policy"
	"github.com/portcullis-firewall/portcullis/policy/policytest"
)

// What a policy says reaches the datapath as a constant, as the size of a map,
// or as the rules' tables. A field that reaches none has no effect.
func TestEveryFieldReachesTheDatapath(t *testing.T) {
	// Says where the programs are attached, and what is in the state.
	elsewhere := []string{"Interfaces", "WatchOnly"}
	base := datapathOf(t, policytest.Base(t))
	if again := datapathOf(t, policytest.Base(t)); again != base {
		t.Fatal("the same policy makes two datapaths")
	}
	for _, v := range policytest.Variants(t) {
		// What is said of an interface may be what counts there anyway.
		differs := slices.ContainsFunc(interfacesNamed, func(iface string) bool {
			return !v.Policy.For(iface).Equal(policytest.Base(t).For(iface))
		})
		// Which are no part of what counts for packets to this host.
		differs = differs || !slices.EqualFunc(v.Policy.ForwardRules(), policytest.Base(t).ForwardRules(), policy.Rule.Equal)
		field, _, _ := strings.Cut(v.Field, "[")
		want := differs && !slices.Contains(elsewhere, field)
		if changed := datapathOf(t, v.Policy) != base; changed != want {
			t.Errorf("%s: the datapath changes: %v", v.Field, changed)
		}
	}
}

var loadObject = sync.OnceValues(bpf.LoadFirewall)

// interfacesNamed are such as the rules and settings of the policies name.
var interfacesNamed = []string{"eth0", "eth1", "eth01", "wg0", "more"}

// datapathOf describes all of a datapath that a policy decides.
func datapathOf(t *testing.T, p *policy.Policy) string {
	t.Helper()
	object, err := loadObject()
	if err != nil {
		t.Fatal(err)
	}
	spec := object.Copy()
	Resize(spec, p)
	var b strings.Builder
	var open []policy.NumberedRule
	for i, r := range p.Open {
		open = append(open, policy.NumberedRule{ID: uint16(i + 1), Rule: r})
		fmt.Fprintf(&b, "limit %v\n", limitOf(r))
	}
	groups := newForwardGroups(p.Open)
	rules, err := policy.Compile(open, policy.GroupsOf(p.Open, interfacesNamed), nil, groups.groups(interfacesNamed)...)
	if err != nil {
		t.Fatal(err)
	}
	for _, iface := range interfacesNamed {
		if err := (&Constants{Policy: p.For(iface), HZ: 100, Features: FeaturesOf(p.Open)}).Set(spec); err != nil {
			t.Fatal(err)
		}
		for _, name := range slices.Sorted(maps.Keys(spec.Variables)) {
			fmt.Fprintf(&b, "%s %x\n", name, spec.Variables[name].Value)
		}
		fmt.Fprintf(&b, "%s forwards %d\n", iface, rules.Forward[groups.of(iface)])
		for i, entry := range rules.Tables[policy.GroupOf(p.Open, iface)] {
			if entry != (policy.PortEntry{}) {
				fmt.Fprintf(&b, "%s %d %v\n", iface, i, entry)
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(spec.Maps)) {
		fmt.Fprintf(&b, "%s %d %x\n", name, spec.Maps[name].MaxEntries, spec.Maps[name].Contents)
	}
	fmt.Fprintf(&b, "%v\n", rules.Sources)
	lists, trust, known := BlockListsOf(p)
	if !known {
		t.Fatal("what lists hold is not known")
	}
	blocking, err := NewBlocking(lists, trust)
	if err != nil {
		t.Fatal(err)
	}
	for _, image := range []*rangeImage{blocking.block, blocking.trust} {
		if image != nil {
			fmt.Fprintf(&b, "%x\n", image.lines)
		}
	}
	return b.String()
}
