// SPDX-License-Identifier: Apache-2.0

package maps

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/portcullis-firewall/portcullis/bpf"
	"github.com/portcullis-firewall/portcullis/policy"
	"github.com/portcullis-firewall/portcullis/policy/policytest"
)

// What a policy says reaches the datapath as a constant, as the size of a map,
// or as the rules' tables. A field that reaches none has no effect.
func TestEveryFieldReachesTheDatapath(t *testing.T) {
	const elsewhere = "Interfaces" // says where the programs are attached
	base := datapathOf(t, policytest.Base(t))
	if again := datapathOf(t, policytest.Base(t)); again != base {
		t.Fatal("the same policy makes two datapaths")
	}
	for _, v := range policytest.Variants(t) {
		if changed := datapathOf(t, v.Policy) != base; changed == strings.HasPrefix(v.Field, elsewhere) {
			t.Errorf("%s: the datapath changes: %v", v.Field, changed)
		}
	}
}

// datapathOf describes all of a datapath that a policy decides.
func datapathOf(t *testing.T, p *policy.Policy) string {
	t.Helper()
	spec, err := bpf.LoadFirewall()
	if err != nil {
		t.Fatal(err)
	}
	Resize(spec, p)
	if err := (&Constants{Policy: p, HZ: 100, Features: FeaturesOf(p.Open)}).Set(spec); err != nil {
		t.Fatal(err)
	}
	var open []policy.NumberedRule
	for i, r := range p.Open {
		open = append(open, policy.NumberedRule{ID: uint16(i + 1), Rule: r})
	}
	rules, err := policy.Compile(open, policy.GroupsOf(p.Open, []string{"eth0", "eth1"}), nil)
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(spec.Variables)) {
		fmt.Fprintf(&b, "%s %x\n", name, spec.Variables[name].Value)
	}
	for _, name := range slices.Sorted(maps.Keys(spec.Maps)) {
		fmt.Fprintf(&b, "%s %d %x\n", name, spec.Maps[name].MaxEntries, spec.Maps[name].Contents)
	}
	for _, g := range rules.Groups() {
		for i, entry := range rules.Tables[g] {
			if entry != (policy.PortEntry{}) {
				fmt.Fprintf(&b, "%q %d %v\n", g, i, entry)
			}
		}
	}
	fmt.Fprintf(&b, "%v\n", rules.Sources)
	return b.String()
}
