// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"
)

// numbered gives the rules the numbers 1, 2, ... in their order.
func numbered(t testing.TB, texts ...string) []NumberedRule {
	t.Helper()
	out := make([]NumberedRule, len(texts))
	for i, text := range texts {
		out[i] = NumberedRule{uint16(i + 1), mustRule(t, text)}
	}
	return out
}

func mustCompile(t testing.TB, rules []NumberedRule, keep []SourcePrefix) *Compiled {
	t.Helper()
	c, err := Compile(rules, nil, knownSets(keep))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// knownSets returns the sets with these sources.
func knownSets(sources []SourcePrefix) (known []KnownSet) {
	nodes := make(map[uint16][]node)
	for _, s := range sources {
		nodes[s.Set] = append(nodes[s.Set], node{s.Prefix, s.Decision})
	}
	for set, of := range nodes {
		slices.SortFunc(of, func(a, b node) int { return comparePrefix(a.prefix, b.prefix) })
		known = append(known, KnownSet{Number: set, Contents: contentsOf(of)})
	}
	return known
}

// summary writes the port table as runs, and the sources.
func summary(c *Compiled) string {
	var b strings.Builder
	table := c.Tables[""]
	for i := 0; i < len(table); {
		j := i + 1
		for j < len(table) && j>>16 == i>>16 && table[j] == table[i] {
			j++
		}
		if e := table[i]; e != (PortEntry{}) {
			what := fmt.Sprintf("protocols %d-%d", i-protocolSlots, j-1-protocolSlots)
			if i < protocolSlots {
				what = PortRange{Protocols[i>>16], uint16(i & 0xffff), uint16((j - 1) & 0xffff)}.String()
			}
			fmt.Fprintf(&b, "%s rule %d set %d; ", what, e.Rule, e.Set)
		}
		i = j
	}
	for _, s := range c.Sources {
		fmt.Fprintf(&b, "set %d %s %s; ", s.Set, s.Prefix, decisionText(s.Decision))
	}
	return strings.TrimSuffix(b.String(), "; ")
}

func decisionText(d Decision) string {
	switch {
	case d.To != 0:
		return fmt.Sprintf("to %d", d.To)
	case d.Limited:
		return fmt.Sprintf("rule %d, limited", d.Rule)
	}
	return fmt.Sprintf("rule %d", d.Rule)
}

func TestCompile(t *testing.T) {
	for _, c := range []struct {
		name  string
		rules []string
		want  string
	}{
		{"nothing", nil, ""},
		{"open", []string{"http", "domain", "60000-61000/udp"},
			"53/tcp rule 2 set 0; 80/tcp rule 1 set 0; 53/udp rule 2 set 0; 60000-61000/udp rule 3 set 0; "},
		{"all protocols and ends", []string{"1/tcp", "65535/udp", "1-65535/sctp", "9/udplite"},
			"1/tcp rule 1 set 0; 65535/udp rule 2 set 0; 1-65535/sctp rule 3 set 0; 9/udplite rule 4 set 0; "},
		{"first rule counts", []string{"10/tcp", "5-20/tcp", "1-30/tcp", "30-31/tcp", "31/tcp"},
			"1-4/tcp rule 3 set 0; 5-9/tcp rule 2 set 0; 10/tcp rule 1 set 0; 11-20/tcp rule 2 set 0; 21-30/tcp rule 3 set 0; 31/tcp rule 4 set 0; "},
		{"one set for a range", []string{"60000-61000/udp from 192.0.2.0/24,2001:db8::/32"},
			"60000-61000/udp rule 0 set 1; set 1 192.0.2.0/24 rule 1; set 1 2001:db8::/32 rule 1"},
		{"one set for a service", []string{"domain from 192.0.2.1"},
			"53/tcp rule 0 set 1; 53/udp rule 0 set 1; set 1 192.0.2.1/32 rule 1"},
		{"combinations", []string{"1-10/tcp from 10.0.0.0/8", "5-15/tcp from 192.0.2.1", "20/udp from 192.0.2.1"},
			"1-4/tcp rule 0 set 1; 5-10/tcp rule 0 set 2; 11-15/tcp rule 0 set 3; 20/udp rule 0 set 4; " +
				"set 1 10.0.0.0/8 rule 1; set 2 10.0.0.0/8 rule 1; set 2 192.0.2.1/32 rule 2; set 3 192.0.2.1/32 rule 2; set 4 192.0.2.1/32 rule 3"},
		{"combination comes again", []string{"1-10/tcp from 10.0.0.0/8", "5/tcp from 192.0.2.1"},
			"1-4/tcp rule 0 set 1; 5/tcp rule 0 set 2; 6-10/tcp rule 0 set 1; set 1 10.0.0.0/8 rule 1; set 2 10.0.0.0/8 rule 1; set 2 192.0.2.1/32 rule 2"},
		{"first rule has the prefix", []string{"22/tcp from 10.0.0.0/8", "22/tcp from 192.0.2.1,10.0.0.0/8"},
			"22/tcp rule 0 set 1; set 1 10.0.0.0/8 rule 1; set 1 192.0.2.1/32 rule 2"},
		{"rule without a prefix of its own", []string{"22-23/tcp from 10.0.0.0/8", "23/tcp from 10.0.0.0/8"},
			"22-23/tcp rule 0 set 1; set 1 10.0.0.0/8 rule 1"},
		{"open and restricted", []string{"22/tcp from 10.0.0.0/8", "ssh"}, "22/tcp rule 2 set 1; set 1 10.0.0.0/8 rule 1"},
		{"everyone, written out", []string{"22/tcp from 0.0.0.0/0,::/0"}, "22/tcp rule 1 set 0; "},
		{"one family", []string{"22/tcp from 0.0.0.0/0"}, "22/tcp rule 0 set 1; set 1 0.0.0.0/0 rule 1"},
		{"last port of one protocol, first of the next", []string{"65535/tcp from 192.0.2.1", "1/udp from 192.0.2.2"},
			"65535/tcp rule 0 set 1; 1/udp rule 0 set 2; set 1 192.0.2.1/32 rule 1; set 2 192.0.2.2/32 rule 2"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := summary(mustCompile(t, numbered(t, c.rules...), nil))
			if got != strings.TrimSuffix(c.want, "; ") {
				t.Errorf("got\n%s\nwant\n%s", got, c.want)
			}
		})
	}
}

func TestCompileKeepsSetNumbers(t *testing.T) {
	rules := numbered(t, "22/tcp from 10.0.0.0/8", "23/tcp from 192.0.2.1", "23/tcp from 192.0.2.2")
	source := func(set uint16, prefix string, rule uint16) SourcePrefix {
		return SourcePrefix{set, netip.MustParsePrefix(prefix), Decision{Rule: rule}}
	}
	// In any order.
	keep := []SourcePrefix{source(7, "192.0.2.2/32", 3), source(1, "10.0.0.0/8", 9), source(7, "192.0.2.1/32", 2)}
	const want = "22/tcp rule 0 set 2; 23/tcp rule 0 set 7; set 2 10.0.0.0/8 rule 1; set 7 192.0.2.1/32 rule 2; set 7 192.0.2.2/32 rule 3"
	c := mustCompile(t, rules, keep)
	if got := summary(c); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	if got, again := summary(mustCompile(t, rules, c.Sources)), summary(c); got != again {
		t.Errorf("not stable: got\n%s\nwant\n%s", got, again)
	}
	// The set of rules 2 and 3 stays 7 when others come and go before it.
	rest := []NumberedRule{{4, mustRule(t, "1/tcp from 192.0.2.9")}, rules[1], rules[2]}
	const later = "1/tcp rule 0 set 1; 23/tcp rule 0 set 7; set 1 192.0.2.9/32 rule 4; set 7 192.0.2.1/32 rule 2; set 7 192.0.2.2/32 rule 3"
	if got := summary(mustCompile(t, rest, c.Sources)); got != later {
		t.Errorf("got\n%s\nwant\n%s", got, later)
	}
	// What is in force partly is not what is wanted.
	const partly = "23/tcp rule 0 set 1; set 1 192.0.2.1/32 rule 2; set 1 192.0.2.2/32 rule 3"
	if got := summary(mustCompile(t, rules[1:], keep[:1])); got != partly {
		t.Errorf("got\n%s\nwant\n%s", got, partly)
	}
}

func TestCompileErrors(t *testing.T) {
	many := make([]NumberedRule, 0, 3000)
	for i := range 3000 {
		r := mustRule(t, fmt.Sprintf("%d-%d/tcp from 10.%d.%d.0/24", i+1, 60000-i, i>>8, i&255))
		many = append(many, NumberedRule{uint16(i + 1), r})
	}
	one := mustRule(t, "http")
	full := make([]SourcePrefix, 65535)
	for i := range full {
		full[i] = SourcePrefix{uint16(i + 1), netip.MustParsePrefix("192.0.2.7/32"), Decision{Rule: uint16(i + 1)}}
	}
	for _, c := range []struct {
		name  string
		rules []NumberedRule
		keep  []SourcePrefix
		want  string
	}{
		{"no number", []NumberedRule{{0, one}}, nil, `rule "http" has the number 0: every rule needs one of its own, from 1`},
		{"number twice", []NumberedRule{{1, one}, {1, one}}, nil, `rule "http" has the number 1: every rule needs one of its own, from 1`},
		{"keep zero", nil, []SourcePrefix{{Prefix: netip.MustParsePrefix("192.0.2.7/32")}}, "a set is kept as number 0: sets are numbered from 1"},
		{"protocol", []NumberedRule{{1, Rule{Ports: []PortRange{{1, 2, 3}}}}}, nil, "rule 1: " + PortRange{1, 2, 3}.String() + " is no range of ports"},
		{"backwards", []NumberedRule{{1, Rule{Ports: []PortRange{{TCP, 4, 3}}}}}, nil, "rule 1: 4-3/tcp is no range of ports"},
		{"source", []NumberedRule{{1, Rule{Ports: one.Ports, From: make([]netip.Prefix, 1)}}}, nil, "rule 1 has a source that is no network"},
		{"exception", []NumberedRule{{1, Rule{Ports: one.Ports, Except: make([]netip.Prefix, 1)}}}, nil, "rule 1 excepts a source that is no network"},
		{"address", []NumberedRule{{1, Rule{Ports: one.Ports, To: make([]netip.Prefix, 1)}}}, nil, "rule 1 is for an address that is none"},
		{"no number left", numbered(t, "22/tcp from 192.0.2.1"), full, "too many combinations of restricted rules: more than 65535, let fewer rules overlap"},
		{"too many sources", many, nil, "too many combinations of restricted rules: their sources come to more than 1048576 entries, let fewer rules overlap"},
	} {
		_, err := Compile(c.rules, nil, knownSets(c.keep))
		if err == nil || err.Error() != c.want {
			t.Errorf("%s: got %v\nwant %s", c.name, err, c.want)
		}
		if want := strings.HasPrefix(c.want, "too many"); errors.Is(err, ErrTooManySets) != want {
			t.Errorf("%s: %T is of the wrong kind", c.name, err)
		}
	}
}

// A combination of rules that comes again must not be worked out again.
func TestCompileOfManyBorders(t *testing.T) {
	wide := Rule{Ports: []PortRange{{TCP, 1, 60000}}}
	for i := range 30000 {
		wide.From = append(wide.From, netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i >> 8), byte(i), 0}), 24))
	}
	odd := Rule{From: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}}
	for port := uint16(1); port < 50000; port += 2 {
		odd.Ports = append(odd.Ports, PortRange{TCP, port, port})
	}
	start := time.Now()
	c := mustCompile(t, []NumberedRule{{1, wide}, {2, odd}}, nil)
	if took := time.Since(start); took > 15*time.Second { // a second here; the race detector and a busy machine take more
		t.Errorf("it took %s", took)
	}
	table := c.Tables[""]
	if len(c.Sources) != 60001 || table[1].Set != table[3].Set || table[1].Set == table[2].Set {
		t.Errorf("%d sources, sets %v", len(c.Sources), table[1:4])
	}
}

func benchmarkRules(b *testing.B, n int, format string) []NumberedRule {
	b.Helper()
	rules := make([]NumberedRule, n)
	for i := range rules {
		rules[i] = NumberedRule{uint16(i + 1), mustRule(b, fmt.Sprintf(format, i+1, i>>8, i&255))}
	}
	return rules
}

func BenchmarkCompile(b *testing.B) {
	for _, c := range []struct {
		name   string
		rules  int
		format string
	}{
		{"few", 5, "%d/tcp from 10.%d.%d.0/24"},
		{"10000-open", 10000, "%[1]d/tcp"},
		{"10000-wide", 10000, "%[1]d-65535/tcp"},
		{"10000-restricted", 10000, "%d/tcp from 10.%d.%d.0/24"},
		{"10000-one-port", 10000, "22/tcp from 10.%[2]d.%[3]d.0/24"},
	} {
		b.Run(c.name, func(b *testing.B) {
			rules := benchmarkRules(b, c.rules, c.format)
			b.ReportAllocs()
			for b.Loop() {
				if _, err := Compile(rules, nil, nil); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
