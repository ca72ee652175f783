// SPDX-License-Identifier: Apache-2.0

package maps

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/cilium/ebpf"

	"github.com/portcullis-firewall/portcullis/bpf"
	"github.com/portcullis-firewall/portcullis/policy"
)

// rulesOf are rules with the numbers 1, 2, ...
func rulesOf(t testing.TB, texts ...string) (rules []Rule, plain []policy.Rule) {
	t.Helper()
	for i, text := range texts {
		r := mustRule(t, text)
		rules, plain = append(rules, numbered(i+1, r)), append(plain, r)
	}
	return rules, plain
}

// open returns the ports of those asked for that have an entry in the table of an interface.
func open(t testing.TB, set *Set, rules []policy.Rule, iface string, ports ...uint16) (listed []uint16) {
	t.Helper()
	table, err := set.Ports(policy.GroupOf(rules, iface))
	if err != nil {
		t.Fatal(err)
	}
	for _, port := range ports {
		if table[policy.PortIndex(policy.TCP, port)] != (policy.PortEntry{}) {
			listed = append(listed, port)
		}
	}
	return listed
}

func TestTablesOfGroups(t *testing.T) {
	rules, plain := rulesOf(t, "80/tcp", "22/tcp on eth1", "25/tcp on eth1 from 192.0.2.1", "443/tcp on wg*")
	set := newSet(t, &policy.Policy{Open: plain}, nil)
	ifaces := []string{"eth0", "eth1", "wg0", "wg1"}
	groups := policy.GroupsOf(plain, ifaces)
	if err := set.AddTables(groups); err != nil {
		t.Fatal(err)
	}
	if got := set.Groups(); len(got) != 3 || !slices.Equal(got, groups) {
		t.Fatalf("there are tables for %q, want %q", got, groups)
	}
	check := func(set *Set, want map[string][]uint16) {
		t.Helper()
		for iface, ports := range want {
			if got := open(t, set, plain, iface, 22, 25, 80, 443, 8080); !slices.Equal(got, ports) {
				t.Errorf("%s: open are %v, want %v", iface, got, ports)
			}
		}
	}
	if err := set.PutRules(rules, nil, nil); err != nil {
		t.Fatal(err)
	}
	check(set, map[string][]uint16{"eth0": {80}, "eth1": {22, 25, 80}, "wg0": {80, 443}})
	more := numbered(9, mustRule(t, "8080/tcp on wg*"))
	if err := set.AddRules([]Rule{more}); err != nil {
		t.Fatal(err)
	}
	check(set, map[string][]uint16{"eth0": {80}, "eth1": {22, 25, 80}, "wg1": {80, 443, 8080}})

	dir := bpffs(t)
	if err := set.Ruleset.Pin(dir); err != nil {
		t.Fatal(err)
	}
	opened, err := OpenRuleset(dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer opened.Close()
	again := &Set{set.State, opened}
	check(again, map[string][]uint16{"eth0": {80}, "eth1": {22, 25, 80}, "wg1": {80, 443, 8080}})
	for _, g := range groups {
		mine, err := set.AllOf(g)
		if err != nil {
			t.Fatal(err)
		}
		theirs, err := again.IDsOf(g)
		if err != nil {
			t.Fatal(err)
		}
		info, err := mine[portsMap].Info()
		if id, _ := info.ID(); err != nil || !theirs[id] {
			t.Errorf("%q: the table that was opened is another one: %v", g, err)
		}
	}
	// What is adopted comes with its tables, and what is not needed goes with its pin.
	fresh := newSet(t, &policy.Policy{Open: plain}, nil)
	if err := fresh.Adopt(dir); err != nil {
		t.Fatal(err)
	}
	check(fresh, map[string][]uint16{"eth0": {80}, "eth1": {22, 25, 80}, "wg1": {80, 443, 8080}})
	keep := policy.GroupOf(plain, "wg0")
	if err := opened.KeepTables([]policy.Group{keep}); err != nil {
		t.Fatal(err)
	}
	if got := opened.Groups(); !slices.Equal(got, []policy.Group{"", keep}) {
		t.Errorf("left are the tables for %q", got)
	}
	left, _ := filepath.Glob(filepath.Join(dir, portsPin+"*"))
	if want := []string{filepath.Join(dir, portsPin), filepath.Join(dir, TablePin(keep))}; !slices.Equal(left, want) {
		t.Errorf("pinned are %q, want %q", left, want)
	}
}

// A table that is found without its pin, and is another group's, is not taken for that of all.
func TestATableIsNotTakenForAnother(t *testing.T) {
	set := newSet(t, policy.Default(), nil)
	const group = "eth1"
	if err := set.AddTables([]policy.Group{group}); err != nil {
		t.Fatal(err)
	}
	dir := bpffs(t)
	if err := set.Ruleset.Pin(dir); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(dir, portsPin)); err != nil {
		t.Fatal(err)
	}
	for _, g := range []policy.Group{"", group} {
		opened, err := OpenRuleset(dir, func(string) (*ebpf.Map, error) {
			m, err := set.Table(g)
			if err != nil {
				return nil, err
			}
			return m.Clone()
		})
		if (err == nil) != (g == "") {
			t.Errorf("the table of %q is opened as that of all: %v", g, err)
		}
		if err == nil {
			opened.Close()
		}
	}
}

func TestRulesThatNeedOtherPrograms(t *testing.T) {
	rules, plain := rulesOf(t, "80/tcp", "22/tcp from 192.0.2.1")
	set := newSet(t, &policy.Policy{Open: plain}, nil)
	if err := set.PutRules(rules, nil, nil); err != nil {
		t.Fatal(err)
	}
	for text, needs := range map[string]Features{"25/tcp limit 6/minute": UsesLimits, "25/tcp to 192.0.2.1": UsesAddresses} {
		more := append(slices.Clip(rules), numbered(7, mustRule(t, text)))
		if err := set.PutRules(more, rules, rules); !errors.Is(err, ErrFeatures) || !errors.Is(err, ErrNoRoom) {
			t.Errorf("%s: got %v", text, err)
		}
		holds(t, set, rules)
		if got := FeaturesOf([]policy.Rule{more[2].Rule}); got != needs {
			t.Errorf("%s needs %b, want %b", text, got, needs)
		}
	}
	if err := set.SetFeatures(UsesAddresses); err != nil {
		t.Fatal(err)
	}
	// It stays when the rest is recorded.
	if err := set.PutRunning(&Running{Policy: policy.Default()}); err != nil {
		t.Fatal(err)
	}
	more := append(slices.Clip(rules), numbered(7, mustRule(t, "25/tcp to 192.0.2.1")))
	if err := set.PutRules(more, rules, rules); err != nil {
		t.Error(err)
	}
}

func TestLimitsAreWritten(t *testing.T) {
	rules, plain := rulesOf(t, "22/tcp limit 6/minute", "80/tcp limit 1000000/second burst 65535", "443/tcp limit 7/day burst 1", "25/tcp")
	set := newSet(t, &policy.Policy{Open: plain}, nil)
	if err := set.SetFeatures(FeaturesOf(plain)); err != nil {
		t.Fatal(err)
	}
	if err := set.PutRules(rules, nil, nil); err != nil {
		t.Fatal(err)
	}
	m, err := set.Ruleset.Map(bpf.FirewallMapLimits)
	if err != nil {
		t.Fatal(err)
	}
	const second = 1000000000
	salts := make(map[uint64]bool)
	for id, want := range []bpf.FirewallLimit{
		{}, {Interval: 10 * second, Tolerance: 40 * second}, {Interval: 1000, Tolerance: 65534000}, {Interval: 12342857142857}, {},
	} {
		var got bpf.FirewallLimit
		if err := m.Lookup(uint32(id), &got); err != nil {
			t.Fatal(err)
		}
		if got.Interval != want.Interval || got.Tolerance != want.Tolerance {
			t.Errorf("rule %d: %+v, want %+v", id, got, want)
		}
		if salts[got.Salt] && got.Interval != 0 {
			t.Errorf("rule %d has the salt of another", id)
		}
		salts[got.Salt] = true
	}
	if a, b := limitOf(mustRule(t, "ssh limit 6/minute")), limitOf(plain[0]); a != b {
		t.Errorf("equal rules have the limits %+v and %+v", a, b)
	}
}

func TestAGroupThatIsTooLong(t *testing.T) {
	var texts []string
	for i := range 1200 {
		texts = append(texts, "80/tcp on eth0,wg"+strings.Repeat("x", 1+i%9)+string(rune('a'+i%26))+string(rune('a'+i/26%26)))
	}
	_, plain := rulesOf(t, texts...)
	for _, p := range []*policy.Policy{{Open: plain, Interfaces: []string{"eth0"}}, {Open: plain, Interfaces: []string{"eth1"}}} {
		if err := CheckCapacity(p); errors.Is(err, errGroupSize) != (p.Interfaces[0] == "eth0") {
			t.Errorf("%s: got %v", p.Interfaces[0], err)
		}
	}
	set := newSet(t, policy.Default(), nil)
	if err := set.AddTables([]policy.Group{policy.GroupOf(plain, "eth0")}); !errors.Is(err, errGroupSize) {
		t.Errorf("got %v", err)
	}
}

// bpffs returns a directory to pin in.
func bpffs(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("/sys/fs/bpf", "maps_test_")
	if err != nil {
		t.Skip(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}
