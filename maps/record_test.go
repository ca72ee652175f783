// SPDX-License-Identifier: Apache-2.0

package maps

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/cilium/ebpf"

	"github.com/portcullis-firewall/portcullis/bpf"
	"github.com/portcullis-firewall/portcullis/policy"
)

func mustRule(t testing.TB, text string) policy.Rule {
	t.Helper()
	r, err := policy.ParseRule(text)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func numbered(id int, r policy.Rule) Rule {
	return Rule{NumberedRule: policy.NumberedRule{ID: uint16(id), Rule: r}}
}

// withSources returns a rule for a port with n sources of either family, counted from a first one.
func withSources(port uint16, n, first int) policy.Rule {
	r := policy.Rule{Ports: []policy.PortRange{{Protocol: policy.TCP, First: port, Last: port}}}
	for i := range n {
		v := first + i
		b := [16]byte{0x20, 0x01, 0x0d, 0xb8, 12: byte(v >> 24), byte(v >> 16), byte(v >> 8), byte(v)}
		addr := netip.AddrFrom16(b)
		if i%2 == 0 {
			addr = netip.AddrFrom4([4]byte{10, byte(v >> 16), byte(v >> 8), byte(v)})
		}
		r.From = append(r.From, netip.PrefixFrom(addr, addr.BitLen()))
	}
	r, err := policy.RestoreRule(r, r.Spelling())
	if err != nil {
		panic(err)
	}
	return r
}

func TestRuleSurvivesItsRecord(t *testing.T) {
	for _, r := range []policy.Rule{
		mustRule(t, "http"), mustRule(t, "domain"), mustRule(t, "80,443/tcp on eth0,wg* except 192.0.2.1 to 198.51.100.0/24,ff02::12"),
		mustRule(t, "gre limit 3/hour burst 9"), mustRule(t, "all from 2001:db8::1 limit 1000000/second"), withLists(t), mustRule(t, "1-65535/udplite"), mustRule(t, "ssh from 192.0.2.0/24,2001:db8::/32,0.0.0.0/0"),
		withSources(80, 1000, 0),
	} {
		want := numbered(9, r)
		want.Runtime = len(r.From) > 2
		want.Rule.Forward = len(r.To) > 0
		b := encodeRule(want)
		got, err := decodeRule(9, b)
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Fatalf("%.200q became %.200v, %v", r, got, err)
		}
		if size := recordSize(r); size != align(len(b)) {
			t.Errorf("%q: the record has %d bytes, and room for %d", r, len(b), size)
		}
		for n := range min(len(b), 200) {
			if got, err := decodeRule(9, b[:n]); err == nil {
				t.Errorf("the first %d bytes of %q are %q", n, r, got.Rule)
			}
		}
	}
}

// withLists returns a rule that names lists.
func withLists(t *testing.T) policy.Rule {
	t.Helper()
	networks := []netip.Prefix{netip.MustParsePrefix("203.0.113.0/24"), netip.MustParsePrefix("2001:db8::/32")}
	r, err := policy.Names{Lists: []policy.List{{Name: "office", Networks: networks}, {Name: "none"}}}.ParseRule(
		"ssh from @office,192.0.2.1 except @none to @office")
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// A record of schema v5 has no clauses but its sources.
func TestRecordOfV5(t *testing.T) {
	want := numbered(9, mustRule(t, "http from 192.0.2.0/24,2001:db8::/32"))
	want.Runtime = true
	b := encodeRule(want)
	b = append(slices.Clone(b[:recordHeadV5]), b[recordHead:]...)
	if got, err := decodeRecord(9, b, recordHeadV5); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("it is %v, %v", got, err)
	}
	if got, err := decodeRecord(9, b[:len(b)-1], recordHeadV5); err == nil {
		t.Errorf("cut off it is %v", got)
	}
}

// Numbering compares no rule with each other one: that would take a quarter of a minute here.
func TestManyRulesAreNumberedInTime(t *testing.T) {
	rules, old := make([]policy.Rule, MaxRules), make([]Rule, MaxRules)
	for i := range rules {
		rules[i] = policy.Rule{Ports: []policy.PortRange{{Protocol: policy.TCP, First: uint16(i + 1), Last: uint16(i + 1)}}}
		old[MaxRules-1-i] = numbered(i+1, rules[i])
	}
	before := cpuTime(t)
	out, err := Number(rules, old, MaxRules+1)
	if err != nil {
		t.Fatal(err)
	}
	if d := cpuTime(t) - before; d > 3*time.Second {
		t.Errorf("it took %v", d)
	}
	for i, n := range out {
		if int(n.ID) != i+1 {
			t.Fatalf("rule %d has the number %d", i+1, n.ID)
		}
	}
}

// cpuTime returns what the process has used, which no neighbour on the machine makes longer.
func cpuTime(t testing.TB) time.Duration {
	t.Helper()
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		t.Fatal(err)
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

// Where all numbers are taken, a policy of its own gets those of rules that go, and no other.
func TestNumbersThatRunOut(t *testing.T) {
	old := []Rule{numbered(1, mustRule(t, "1/tcp")), numbered(2, mustRule(t, "2/tcp")), numbered(3, mustRule(t, "3/tcp"))}
	open := []policy.Rule{mustRule(t, "7/tcp"), mustRule(t, "2/tcp"), mustRule(t, "8/tcp")}
	if _, err := Number(open, old, 4); !errors.Is(err, ErrNoRoom) {
		t.Errorf("beside the rules in force: %v", err)
	}
	out, err := NumberAnew(open, old, 4)
	if err != nil || out[0].ID != 1 || out[1].ID != 2 || out[2].ID != 3 {
		t.Errorf("in their place: %v, %v", out, err)
	}
	if out, err := NumberAnew(open, old, 5); err != nil || out[0].ID != 4 || out[1].ID != 2 || out[2].ID != 1 {
		t.Errorf("with one free: %v, %v", out, err)
	}
	if _, err := NumberAnew(append(open, mustRule(t, "9/tcp")), old, 4); !errors.Is(err, ErrNoRoom) {
		t.Errorf("four rules in three places: %v", err)
	}
}

func TestCheckCapacity(t *testing.T) {
	p := policy.Default()
	for port := 1; port <= MaxRules; port++ {
		p.Open = append(p.Open, policy.Rule{Ports: []policy.PortRange{{Protocol: policy.TCP, First: uint16(port), Last: uint16(port)}}})
	}
	if err := CheckCapacity(p); err != nil {
		t.Errorf("the most rules: %v", err)
	}
	p.Open = append(p.Open, mustRule(t, "1/udp"))
	if err := CheckCapacity(p); err == nil || !strings.Contains(err.Error(), "65536 rules, and 65535 is the most") {
		t.Errorf("one more: %v", err)
	}
	p.Open = []policy.Rule{withSources(80, 1<<20, 0)}
	if err := CheckCapacity(p); err != nil {
		t.Errorf("the most sources: %v", err)
	}
	p.Open = append(p.Open, mustRule(t, "81/tcp from 192.0.2.1"))
	if err := CheckCapacity(p); !errors.Is(err, policy.ErrTooManySets) || !strings.Contains(err.Error(), "1048576") {
		t.Errorf("one more: %v", err)
	}
}

// newSet makes maps for a policy, which adjust may change.
func newSet(t testing.TB, p *policy.Policy, adjust func(*ebpf.CollectionSpec)) *Set {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	spec, err := bpf.LoadFirewall()
	if err != nil {
		t.Fatal(err)
	}
	Resize(spec, p)
	ResizeFlows(spec, 1024)
	if adjust != nil {
		adjust(spec)
	}
	set, err := NewSet(spec, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { set.Close() })
	return set
}

// holds compares what is in the maps with rules.
func holds(t *testing.T, set *Set, want []Rule) {
	t.Helper()
	slices.SortFunc(want, func(a, b Rule) int { return int(a.ID) - int(b.ID) })
	got, err := set.Rules()
	if err != nil || !slices.EqualFunc(got, want, func(a, b Rule) bool {
		return a.ID == b.ID && a.Runtime == b.Runtime && a.Rule.String() == b.Rule.String()
	}) {
		t.Errorf("the rules are %.200v, %v, want %.200v", got, err, want)
	}
	plain := make([]policy.NumberedRule, len(want))
	for i, r := range want {
		plain[i] = r.NumberedRule
	}
	compiled, err := policy.Compile(plain, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	holdsSets(t, set, compiled)
	ports, err := set.Ports("")
	if err != nil {
		t.Fatal(err)
	}
	for i, entry := range compiled.Tables[""] {
		if ports[i].Rule != entry.Rule || (ports[i].Set == 0) != (entry.Set == 0) {
			t.Fatalf("port %d is %+v, want %+v", i&0xffff, ports[i], entry)
		}
	}
}

// holdsSets compares the sets in force with those of compiled rules, byte by byte.
func holdsSets(t *testing.T, set *Set, c *policy.Compiled) {
	t.Helper()
	known, err := set.knownSets()
	if err != nil {
		t.Fatal(err)
	}
	sets, _ := set.rangeSets()
	lines, err := set.Ruleset.memory(bpf.FirewallMapRangeLines)
	if err != nil {
		t.Fatal(err)
	}
	buckets, err := set.Ruleset.memory(bpf.FirewallMapRangeBuckets)
	if err != nil {
		t.Fatal(err)
	}
	inForce := make(map[policy.SetContents]*bpf.FirewallRangeSet)
	for _, k := range known {
		if !k.Dropped {
			inForce[k.Contents] = &sets[k.Number]
		}
	}
	images := imagesOf(c, nil)
	if len(inForce) != len(images) {
		t.Errorf("there are %d sets, want %d", len(inForce), len(images))
	}
	for number, image := range images {
		s := inForce[c.Contents[number]]
		if s == nil {
			t.Errorf("set %d is not there", number)
			continue
		}
		at := int(s.FirstLine) * rangeLineSize
		for _, line := range image.lines {
			if !bytes.Equal(lines[at:][:rangeLineSize], line[:]) {
				t.Fatalf("set %d has other ranges", number)
			}
			at += rangeLineSize
		}
		for i, bucket := range image.buckets {
			if view[rangeBucket](buckets)[int(s.FirstBucket)+i] != bucket {
				t.Fatalf("set %d has other buckets", number)
			}
		}
	}
}

// What has no room is refused before anything changes.
func TestNoRoomChangesNothing(t *testing.T) {
	p := policy.Default()
	set := newSet(t, p, func(spec *ebpf.CollectionSpec) {
		spec.Maps[bpf.FirewallMapRangeLines].MaxEntries = 100
		spec.Maps[bpf.FirewallMapRuleRecords].MaxEntries = 4000 / 8
		ResizeRules(spec, 64)
	})
	old := []Rule{numbered(1, withSources(80, 120, 0)), numbered(2, mustRule(t, "443/tcp"))} // 60 sources of each family
	if err := set.PutRules(old, nil, nil); err != nil {
		t.Fatal(err)
	}
	if err := set.putOffset(bpf.FirewallMapRuleOffsets, 2, Tally{Packets: 7}); err != nil {
		t.Fatal(err)
	}
	for name, rules := range map[string][]Rule{
		"sources beside those in force": {numbered(3, withSources(80, 120, 1000)), numbered(4, mustRule(t, "1/tcp"))},
		"a record":                      {numbered(2, mustRule(t, "443/tcp")), numbered(3, withSources(81, 800, 5000))},
		"a number":                      {numbered(64, mustRule(t, "1/tcp"))},
	} {
		if err := set.PutRules(rules, old, old); !errors.Is(err, ErrNoRoom) {
			t.Errorf("%s: %v", name, err)
		}
		holds(t, set, old)
	}
	if err := set.AddRules([]Rule{numbered(2, mustRule(t, "2/tcp")), numbered(64, mustRule(t, "3/tcp"))}); !errors.Is(err, ErrNoRoom) {
		t.Errorf("a rule more: %v", err)
	}
	holds(t, set, old)
	if counted, err := set.Counters(); err != nil || counted[RuleReason(2)] != 7 {
		t.Errorf("the rule has counted %d, %v", counted[RuleReason(2)], err)
	}
}

// Records come and go, of any size, and the room of those that go is used again.
func TestRecordsUseTheirRoomAgain(t *testing.T) {
	set := newSet(t, policy.Default(), func(spec *ebpf.CollectionSpec) {
		spec.Maps[bpf.FirewallMapRuleRecords].MaxEntries = 32 << 10 / 8
	})
	var old []Rule
	for round := range 200 {
		var next []Rule
		for id := 1 + round%3; id < 10; id += 1 + round%2 {
			next = append(next, numbered(id, withSources(uint16(id), (round*37+id*11)%90, round)))
			next[len(next)-1].Runtime = round%5 == 0
		}
		if err := set.PutRules(next, old, nil); err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
		holds(t, set, next)
		old = next
	}
}

// Rules and sources by the ten thousand are put in force, and taken back, in time that grows with them.
func TestManyRulesAndSources(t *testing.T) {
	p := policy.Default()
	var rules []Rule
	for i := range 60_000 {
		r := policy.Rule{Ports: []policy.PortRange{{Protocol: policy.UDP, First: uint16(i + 1), Last: uint16(i + 1)}}}
		p.Open, rules = append(p.Open, r), append(rules, numbered(i+1, r))
	}
	for i := range 100 {
		r := withSources(uint16(i+1), 2000, 2000*i)
		p.Open, rules = append(p.Open, r), append(rules, numbered(60_001+i, r))
	}
	set := newSet(t, p, nil)
	before := cpuTime(t)
	step := func(what string, err error) {
		t.Helper()
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		now := cpuTime(t)
		if d := now - before; d > 10*time.Second {
			t.Errorf("%s took %v", what, d)
		}
		before = now
	}
	step("to put them in force", set.PutRules(rules, nil, nil))
	step("to add a rule", set.AddRules([]Rule{numbered(60_200, mustRule(t, "65000/tcp"))}))
	all := append(slices.Clone(rules), numbered(60_200, mustRule(t, "65000/tcp")))
	step("to close a rule", set.PutRules(all[1:], all, all))
	step("to close all that have sources", set.PutRules(all[1:60_000], all[1:], all[1:]))
	holds(t, set, all[1:60_000])
}

// An upgrade by which a reason is inserted among the others, and one goes, keeps what each has counted under its name.
func TestAnUpgradeWithOneMoreReason(t *testing.T) {
	set := newSet(t, policy.Default(), nil)
	names := slices.Clone(reasonsV4)
	inserted := slices.Index(names, "pass dhcp")
	names = slices.Delete(names, inserted, inserted+1)
	names = slices.Insert(names, 3, "pass something that went")
	names = append(names, "seen something else")
	const version = "v0"
	olderSchemas[version] = olderSchema{reasons: names, rule0: uint32(len(names))}
	defer delete(olderSchemas, version)

	dir, err := os.MkdirTemp("/sys/fs/bpf", "portcullis-maps-")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	m, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.PerCPUArray, KeySize: 4, ValueSize: 8, MaxEntries: uint32(len(names)) + 16})
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	for i := range m.MaxEntries() {
		values := make([]uint64, ebpf.MustPossibleCPU())
		values[0] = uint64(1000 + i)
		if err := m.Put(i, values); err != nil {
			t.Fatal(err)
		}
	}
	if err := m.Pin(filepath.Join(dir, "counters")); err != nil {
		t.Fatal(err)
	}
	older := OpenOlder(version, dir, dir)
	if err := set.Inherit(older); err != nil {
		t.Fatal(err)
	}
	counters, err := set.Counters()
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range Reasons() {
		name, want := r.Verdict()+" "+r.String(), uint64(0)
		if i := slices.Index(names, name); i >= 0 {
			want = uint64(1000 + i)
		}
		if counters[r] != want {
			t.Errorf("%s: %d packets, want %d", name, counters[r], want)
		}
	}
	for id := range uint16(16) {
		if got, want := counters[RuleReason(id)], uint64(1000+len(names)+int(id)); got != want {
			t.Errorf("rule %d: %d packets, want %d", id, got, want)
		}
	}
}

// Each reason of schema v4 is one of today's, or its packets would be lost. Whoever renames one says here what it was.
func TestReasonsOfV4AreKnown(t *testing.T) {
	var today []string
	for _, r := range Reasons() {
		today = append(today, r.Verdict()+" "+r.String())
	}
	for _, name := range reasonsV4 {
		if !slices.Contains(today, name) {
			t.Errorf("%q is no reason of today", name)
		}
	}
	if RuleReason(0) < Reason(len(today)) || fmt.Sprint(RuleReason(7)) != "rule 7" {
		t.Errorf("rule 7 counts as %s", RuleReason(7))
	}
}
