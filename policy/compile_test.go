// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"reflect"
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

func mustCompile(t testing.TB, rules []NumberedRule, keep []SetDef) *Compiled {
	t.Helper()
	c, err := Compile(rules, keep)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// summary writes the port table as runs, and the sources.
func summary(c *Compiled) string {
	var b strings.Builder
	for i := 0; i < len(c.Ports); {
		j := i + 1
		for j < len(c.Ports) && j>>16 == i>>16 && c.Ports[j] == c.Ports[i] {
			j++
		}
		if e := c.Ports[i]; e != (PortEntry{}) {
			r := PortRange{Protocols[i>>16], uint16(i & 0xffff), uint16((j - 1) & 0xffff)}
			fmt.Fprintf(&b, "%s rule %d set %d; ", r, e.Rule, e.Set)
		}
		i = j
	}
	for _, s := range c.Sources {
		fmt.Fprintf(&b, "set %d %s rule %d; ", s.Set, s.Prefix, s.Rule)
	}
	return strings.TrimSuffix(b.String(), "; ")
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
	keep := []SetDef{{Set: 7, Rules: []uint16{3, 2}}, {Set: 1, Rules: []uint16{9}}}
	const want = "22/tcp rule 0 set 2; 23/tcp rule 0 set 7; set 2 10.0.0.0/8 rule 1; set 7 192.0.2.1/32 rule 2; set 7 192.0.2.2/32 rule 3"
	c := mustCompile(t, rules, keep)
	if got := summary(c); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	if got, want := c.Sets(), []SetDef{{2, []uint16{1}}, {7, []uint16{2, 3}}}; !reflect.DeepEqual(got, want) {
		t.Errorf("Sets: got %v, want %v", got, want)
	}
	if got, again := summary(mustCompile(t, rules, c.Sets())), summary(c); got != again {
		t.Errorf("not stable: got\n%s\nwant\n%s", got, again)
	}
	// The set of rules 2 and 3 stays 7 when others come and go before it.
	rest := append(numbered(t, "1/tcp from 192.0.2.9")[:0], NumberedRule{4, mustRule(t, "1/tcp from 192.0.2.9")}, rules[1], rules[2])
	const later = "1/tcp rule 0 set 1; 23/tcp rule 0 set 7; set 1 192.0.2.9/32 rule 4; set 7 192.0.2.1/32 rule 2; set 7 192.0.2.2/32 rule 3"
	if got := summary(mustCompile(t, rest, c.Sets())); got != later {
		t.Errorf("got\n%s\nwant\n%s", got, later)
	}
}

func TestCompileErrors(t *testing.T) {
	many := make([]NumberedRule, 0, 3000)
	for i := range 3000 {
		r := mustRule(t, fmt.Sprintf("%d-%d/tcp from 10.%d.%d.0/24", i+1, 60000-i, i>>8, i&255))
		many = append(many, NumberedRule{uint16(i + 1), r})
	}
	one := mustRule(t, "http")
	full := make([]SetDef, 65535)
	for i := range full {
		full[i] = SetDef{Set: uint16(i + 1), Rules: []uint16{uint16(i + 1), 9}}
	}
	for _, c := range []struct {
		name  string
		rules []NumberedRule
		keep  []SetDef
		want  string
	}{
		{"no number", []NumberedRule{{0, one}}, nil, `rule "http" has the number 0: every rule needs one of its own, from 1`},
		{"number twice", []NumberedRule{{1, one}, {1, one}}, nil, `rule "http" has the number 1: every rule needs one of its own, from 1`},
		{"keep zero", nil, []SetDef{{}}, "set number 0 to keep: every set needs one of its own, from 1"},
		{"keep twice", nil, []SetDef{{Set: 1}, {Set: 1}}, "set number 1 to keep: every set needs one of its own, from 1"},
		{"protocol", []NumberedRule{{1, Rule{Ports: []PortRange{{1, 2, 3}}}}}, nil, "rule 1 opens 2-3/1, which is no port range"},
		{"port zero", []NumberedRule{{1, Rule{Ports: []PortRange{{TCP, 0, 3}}}}}, nil, "rule 1 opens 0-3/tcp, which is no port range"},
		{"backwards", []NumberedRule{{1, Rule{Ports: []PortRange{{TCP, 4, 3}}}}}, nil, "rule 1 opens 4-3/tcp, which is no port range"},
		{"source", []NumberedRule{{1, Rule{Ports: one.Ports, From: make([]netip.Prefix, 1)}}}, nil, "rule 1 has a source that is no network"},
		{"no number left", numbered(t, "22/tcp from 192.0.2.1"), full, "too many combinations of restricted rules: more than 65535, let fewer rules overlap"},
		{"too many sources", many, nil, "too many combinations of restricted rules: their sources come to more than 1048576 entries, let fewer rules overlap"},
	} {
		_, err := Compile(c.rules, c.keep)
		if err == nil || err.Error() != c.want {
			t.Errorf("%s: got %v\nwant %s", c.name, err, c.want)
		}
		if want := strings.HasPrefix(c.want, "too many"); errors.Is(err, ErrTooManySets) != want {
			t.Errorf("%s: %T is of the wrong kind", c.name, err)
		}
	}
}

// TestCompileAgainstRules compares the tables with what the rules themselves
// say, on random rules that overlap a lot.
func TestCompileAgainstRules(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	var keep []SetDef
	for range 200 {
		var rules []NumberedRule
		ids := rnd.Perm(40)
		for i := range 1 + rnd.IntN(12) {
			first := 1 + rnd.IntN(30)
			text := fmt.Sprintf("%d-%d/%s", first, first+rnd.IntN(12), Protocols[rnd.IntN(2)])
			for j := range rnd.IntN(3) {
				text += []string{" from ", ","}[min(j, 1)] + netip.PrefixFrom(addr(fmt.Sprintf("10.%d.0.0", rnd.IntN(3))), 8+8*rnd.IntN(2)).Masked().String()
			}
			rules = append(rules, NumberedRule{uint16(ids[i] + 1), mustRule(t, text)})
		}
		c := mustCompile(t, rules, keep)
		keep = c.Sets()
		for _, proto := range Protocols {
			for port := uint16(0); port < 60; port++ {
				e := c.Ports[PortIndex(proto, port)]
				checkEntry(t, rules, c, e, proto, port)
			}
		}
		if t.Failed() {
			t.Fatalf("rules %v", rules)
		}
	}
}

func checkEntry(t *testing.T, rules []NumberedRule, c *Compiled, e PortEntry, proto Protocol, port uint16) {
	t.Helper()
	var open uint16
	for _, r := range rules {
		if open == 0 && r.Rule.Anyone() && r.Rule.Covers(proto, port) {
			open = r.ID
		}
	}
	if e.Rule != open {
		t.Errorf("%d/%s: open through %d, want %d", port, proto, e.Rule, open)
	}
	for _, src := range []string{"10.0.0.1", "10.1.0.1", "10.2.0.1", "10.9.0.1", "192.0.2.1"} {
		allowed, hit := false, false
		for _, r := range rules {
			allowed = allowed || !r.Rule.Anyone() && r.Rule.Allows(proto, port, addr(src))
		}
		for _, s := range c.Sources {
			hit = hit || s.Set == e.Set && s.Prefix.Contains(addr(src))
		}
		if hit != allowed {
			t.Errorf("%d/%s from %s: in set %d %v, want %v", port, proto, src, e.Set, hit, allowed)
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
	if took := time.Since(start); took > 3*time.Second {
		t.Errorf("it took %s", took)
	}
	if len(c.Sources) != 60001 || c.Ports[1].Set != c.Ports[3].Set || c.Ports[1].Set == c.Ports[2].Set {
		t.Errorf("%d sources, sets %v", len(c.Sources), c.Ports[1:4])
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
				if _, err := Compile(rules, nil); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
