// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestKey(t *testing.T) {
	for _, c := range []struct {
		a, b string
		same bool
	}{
		{"http", "80/tcp", true},
		{"domain", "53/tcp", false},
		{"80/tcp", "80/udp", false},
		{"80/tcp", "80-81/tcp", false},
		{"1-20/tcp", "1-2/tcp", false},
		{"80/tcp from 192.0.2.0/25,192.0.2.128/25", "http from 192.0.2.0/24", true},
		{"80/tcp from 192.0.2.0/24,192.0.2.7", "http from 192.0.2.0/24", true},
		{"80/tcp from 0.0.0.0/0,::/0", "http", true},
		{"80/tcp from 0.0.0.0/0", "http", false},
		{"80/tcp from 0.0.0.0/0", "80/tcp from ::/0", false},
		{"80/tcp from 192.0.2.1,192.0.2.3", "80/tcp from 192.0.2.3,192.0.2.1", true},
		{"80/tcp from 2001:db8::1", "80/tcp from 2001:db8::2", false},
	} {
		a, b := mustRule(t, c.a), mustRule(t, c.b)
		if (a.Key() == b.Key()) != c.same || a.Equal(b) != c.same {
			t.Errorf("%q and %q: same key %t, equal %t, want %t", a, b, a.Key() == b.Key(), a.Equal(b), c.same)
		}
	}
}

// Sources in order make the key without being joined first: it is that of the same sources written in another way, and takes
// one allocation.
func TestKeyOfSourcesInOrder(t *testing.T) {
	random := rand.New(rand.NewPCG(3, 4))
	apart := 0
	for range 2000 {
		r := mustRule(t, "80/tcp")
		for range 1 + random.IntN(6) {
			a, bits := netip.AddrFrom4([4]byte{192, 0, byte(random.IntN(4)), byte(random.IntN(256))}), 20+random.IntN(13)
			if random.IntN(2) == 0 {
				a, bits = netip.AddrFrom16([16]byte{0x20, 1, 0xd, 0xb8, 7: byte(random.IntN(4)), 8: byte(random.IntN(4)), 15: byte(random.IntN(4))}), 48+random.IntN(81)
			}
			r.From = append(r.From, netip.PrefixFrom(a, bits).Masked())
		}
		if random.IntN(2) == 0 {
			slices.SortFunc(r.From, comparePrefix)
		}
		again := r
		again.From = append(slices.Clone(r.From), r.From[random.IntN(len(r.From))]) // which is never apart
		if areApart(again.From) {
			t.Fatalf("%v are said to be apart", again.From)
		}
		if r.Key() != again.Key() {
			t.Fatalf("%s and %s have different keys", r, again)
		}
		if areApart(r.From) {
			apart++
			if n := testing.AllocsPerRun(1, func() { r.Key() }); n > 2 {
				t.Fatalf("the key of %s takes %v allocations", r, n)
			}
		}
	}
	if apart < 500 {
		t.Errorf("only %d rules had sources in order: too few to tell", apart)
	}
	// A list that is so long that the key has a digest of it.
	long := mustRule(t, "80/tcp")
	for i := range 2 * longRanges {
		long.From = append(long.From, netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i / 128), byte(i%128) * 2, 0}), 24))
	}
	again := long
	again.From = append(slices.Clone(long.From), long.From[7])
	if !areApart(long.From) || long.Key() != again.Key() {
		t.Error("a long list has another key when it is in order")
	}
	again.From = long.From[1:]
	if long.Key() == again.Key() {
		t.Error("a shorter list has the same key")
	}
}

func TestWithoutRulesSplitsOnlyPlainPorts(t *testing.T) {
	plain := Rule{Ports: []PortRange{{TCP, 53, 53}, {UDP, 53, 53}}}
	p := &Policy{Open: []Rule{plain, mustRule(t, "http")}}
	without, removed, notOpen, err := p.WithoutRules([]Rule{mustRule(t, "53/udp"), mustRule(t, "9/tcp")})
	if got := fmt.Sprint(without.Open, removed, notOpen, err); got != "[53/tcp http] [53/udp] [9/tcp] <nil>" {
		t.Error(got)
	}
	if fmt.Sprint(p.Open) != "[53/tcp,53/udp http]" {
		t.Errorf("the policy itself became %v", p.Open)
	}
	// Both, one after the other.
	without, removed, _, err = p.WithoutRules([]Rule{mustRule(t, "53/udp"), mustRule(t, "53/tcp")})
	if got := fmt.Sprint(without.Open, removed, err); got != "[http] [53/udp 53/tcp] <nil>" {
		t.Error(got)
	}
	var covered *CoveredError
	named := &Policy{Open: []Rule{mustRule(t, "domain")}}
	if _, _, _, err := named.WithoutRules([]Rule{mustRule(t, "53/udp")}); !errors.As(err, &covered) {
		t.Errorf("half of a service: %v", err)
	}
	if _, _, _, err := p.WithoutRules([]Rule{mustRule(t, "53/udp from 192.0.2.1")}); !errors.As(err, &covered) {
		t.Errorf("one source of all: %v", err)
	}
}

func TestMatcherAllowsWhatItsRulesDo(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	sources := []string{"", "", " from 192.0.2.0/24", " from 192.0.2.1,2001:db8::/32", " from 0.0.0.0/0", " from ::/0,198.51.100.0/25"}
	var rules []Rule
	for range 40 {
		first := 1 + random.IntN(60)
		rules = append(rules, mustRule(t, fmt.Sprintf("%d-%d/%s%s", first, first+random.IntN(4), []string{"tcp", "udp"}[random.IntN(2)], sources[random.IntN(len(sources))])))
	}
	m, err := NewMatcher(rules)
	if err != nil {
		t.Fatal(err)
	}
	allowed := 0
	for _, src := range []string{"192.0.2.1", "192.0.2.200", "198.51.100.7", "203.0.113.1", "2001:db8::1", "::1", "::ffff:192.0.2.1"} {
		for _, proto := range []Protocol{TCP, UDP, SCTP, 1} {
			for port := range uint16(70) {
				want := false
				for _, r := range rules {
					want = want || r.Allows(proto, port, addr(src))
				}
				if want {
					allowed++
				}
				if got := m.Allows(proto, port, addr(src)); got != want {
					t.Errorf("%s to %d/%s is allowed: %t, want %t", src, port, proto, got, want)
				}
			}
		}
	}
	if allowed == 0 {
		t.Error("nothing is allowed: the test shows nothing")
	}
}

// manyRules returns n rules for one port each, and manySources a rule with n sources.
func manyRules(n int) []Rule {
	rules := make([]Rule, n)
	for i := range rules {
		rules[i] = Rule{Ports: []PortRange{{TCP, uint16(i + 1), uint16(i + 1)}}}
	}
	return rules
}

func manySources(n, first int) Rule {
	r := Rule{Ports: []PortRange{{UDP, 9, 9}}}
	for i := range n {
		v := first + 2*i
		r.From = append(r.From, netip.PrefixFrom(netip.AddrFrom4([4]byte{byte(10 + v>>24), byte(v >> 16), byte(v >> 8), byte(v)}), 32))
	}
	return r
}

// With 60,000 rules, and with a million sources, what compares each with each takes hours.
func TestManyRulesTakeNoLongerEach(t *testing.T) {
	start := cpuTime(t)
	step := func(what string) {
		if d := cpuTime(t) - start; d > 20*time.Second {
			t.Errorf("%s takes %v", what, d)
		}
		start = cpuTime(t)
	}
	rules := manyRules(60_000)
	p := &Policy{Open: rules}
	with, added := p.WithRules(append(manyRules(60_001), rules...))
	if step("to add rules"); len(added) != 1 || len(with.Open) != 60_001 {
		t.Errorf("%d rules were added", len(added))
	}
	if changes := Diff(p, with); len(changes) != 1 || p.Equal(with) {
		t.Errorf("%d changes", len(changes))
	}
	step("to compare")
	without, removed, _, err := with.WithoutRules(rules)
	if step("to remove rules"); err != nil || len(removed) != 60_000 || len(without.Open) != 1 {
		t.Errorf("%d rules were removed: %v", len(removed), err)
	}
	m, err := NewMatcher(with.Open)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 1_000_000 {
		if port := uint16(i % 65536); m.Allows(TCP, port, addr("192.0.2.1")) != (port > 0 && port <= 60_001) {
			t.Fatalf("port %d", port)
		}
	}
	step("to match")
	const million = 1_000_000
	even, odd := manySources(million, 0), manySources(million, 1)
	if even.Equal(odd) || !even.Equal(even) || even.Overlaps(odd) || !even.Overlaps(even) {
		t.Error("two lists of sources are taken for what they are not")
	}
	if _, _, notOpen, err := (&Policy{Open: []Rule{even}}).WithoutRules([]Rule{odd}); err != nil || len(notOpen) != 1 {
		t.Errorf("%d are not open, %v", len(notOpen), err)
	}
	step("to compare a million sources")
	many := &Policy{Open: []Rule{even}}
	if text := string(many.YAML()); strings.Count(text, ",") != million-1 {
		t.Error("not all sources are written")
	}
	step("to write a million sources")
}

// A file is read in time that grows with it, however its rules are written.
func TestManyRulesAreReadInTime(t *testing.T) {
	var b strings.Builder
	for i, r := range manyRules(60_000) {
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString(r.String())
	}
	inLine := b.String()
	for name, text := range map[string]string{
		"on one line":                        "open: [" + inLine + "]\n",
		"on one line, with other letters":    "# größe\nopen: [" + inLine + "]\n",
		"one a line":                         "open:\n- " + strings.ReplaceAll(inLine, ", ", "\n- ") + "\n",
		"a million sources":                  "open:\n- " + manySources(1_000_000, 0).String() + "\n",
		"a million sources, other letters":   "# größe\nopen:\n- " + manySources(1_000_000, 0).String() + "\n",
		"a thousand sources, many are twice": "open:\n- " + manySources(1000, 0).String() + strings.Repeat(",10.0.0.0", 500_000) + "\n",
	} {
		start := cpuTime(t)
		if _, err := Parse("f", []byte(text)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if d := cpuTime(t) - start; d > 20*time.Second {
			t.Errorf("%s: read in %v", name, d)
		}
	}
}

func BenchmarkDiffOfManyRules(b *testing.B) {
	p := &Policy{Open: manyRules(60_000)}
	for b.Loop() {
		if len(Diff(p, p)) > 0 {
			b.Fatal("a policy differs from itself")
		}
	}
}

// Many rules may name one long list: a key must neither hold all of it nor be that of a list which differs by one address.
func TestKeysOfLongListsAreShortAndTheirOwn(t *testing.T) {
	var list []netip.Prefix
	for i := range 1000 {
		list = append(list, netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i >> 8), byte(i), 1}), 32))
	}
	rule := Rule{Ports: []PortRange{{Protocol: TCP, First: 80, Last: 80}}, From: list}
	same, other := rule, rule
	same.From, other.From = slices.Clone(list), slices.Clone(list)
	slices.Reverse(same.From)
	other.From[500] = netip.MustParsePrefix("10.9.9.9/32")
	if rule.Key() != same.Key() {
		t.Error("the order of sources changes the key")
	}
	if rule.Key() == other.Key() {
		t.Error("another source does not change the key")
	}
	if n := len(rule.Key()); n > 256 {
		t.Errorf("the key of a rule with 1,000 sources has %d bytes", n)
	}
}
