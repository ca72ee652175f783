// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"net/netip"
	"path"
	"testing"
	"time"
)

func FuzzMatchInterface(f *testing.F) {
	for _, s := range [][2]string{{"wg*", "wg0"}, {"*", "eth0"}, {"e*h*0", "eth0"}, {"eth0", "eth01"}, {"*0*", "eth0"}, {"a**b", "ab"}, {"e*0", "e0"}} {
		f.Add(s[0], s[1])
	}
	f.Fuzz(func(t *testing.T, pattern, name string) {
		for _, c := range pattern + name {
			if c != '*' && (c < 'a' || c > 'z') && (c < '0' || c > '9') {
				return // path.Match gives meaning to more
			}
		}
		want, err := path.Match(pattern, name)
		if err != nil {
			return
		}
		if got := MatchInterface(pattern, name); got != want {
			t.Errorf("MatchInterface(%q, %q) = %v", pattern, name, got)
		}
	})
}

func TestGroupsNameTheClausesThatMatch(t *testing.T) {
	port := []PortRange{{TCP, 80, 80}}
	all, eth0, wg := Rule{Ports: port}, Rule{Ports: port, On: []string{"eth0"}}, Rule{Ports: port, On: []string{"wg*", "eth0"}}
	rules := []Rule{all, eth0, wg, eth0}
	for _, test := range []struct {
		iface string
		group Group
		in    [3]bool
	}{
		{"lo", "", [3]bool{true, false, false}},
		{"eth0", "eth0\neth0,wg*", [3]bool{true, true, true}},
		{"wg7", "eth0,wg*", [3]bool{true, false, true}},
	} {
		g := GroupOf(rules, test.iface)
		if g != test.group {
			t.Errorf("group of %s is %q", test.iface, g)
		}
		for i, r := range []Rule{all, eth0, wg} {
			if r.In(g) != test.in[i] || r.AppliesOn(test.iface) != test.in[i] {
				t.Errorf("rule %d in %q: %v, applies: %v", i, g, r.In(g), r.AppliesOn(test.iface))
			}
		}
	}
}

func TestEachClauseMakesAnotherKey(t *testing.T) {
	net4 := []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}
	base := Rule{Ports: []PortRange{{TCP, 80, 80}}}
	variants := []Rule{base, base, base, base, base, base, base}
	variants[1].On = []string{"eth0"}
	variants[2].From = net4
	variants[3].Except = net4
	variants[4].To = net4
	variants[5].Limit = Limit{6, time.Minute, 5}
	variants[6].Limit = Limit{6, time.Minute, 6}
	keys := map[RuleKey]int{}
	for i, r := range variants {
		if j, ok := keys[r.Key()]; ok {
			t.Errorf("rules %d and %d have one key", i, j)
		}
		keys[r.Key()] = i
		if r.Unconditional() != (i < 2) {
			t.Errorf("rule %d: Unconditional is %v", i, r.Unconditional())
		}
	}
}
