// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"
)

func prefixes(texts ...string) (out []netip.Prefix) {
	for _, text := range texts {
		out = append(out, netip.MustParsePrefix(text))
	}
	return out
}

// everything is what the word all stands for.
func everything() (ports []PortRange) {
	for protocol := range 256 {
		last := uint16(0)
		if ProtocolIndex(Protocol(protocol)) >= 0 {
			last = 65535
		}
		ports = append(ports, PortRange{Protocol(protocol), 0, last})
	}
	return ports
}

func TestCompileClauses(t *testing.T) {
	ssh := []PortRange{{TCP, 22, 22}}
	six := Limit{Count: 6, Per: time.Minute, Burst: 5}
	ten := Limit{Count: 10, Per: time.Minute, Burst: 5}
	const gre = 47
	for _, c := range []struct {
		name  string
		rules []Rule
		want  string
	}{
		{"except", []Rule{{Ports: ssh, From: prefixes("10.0.0.0/8"), Except: prefixes("10.1.0.0/16")}},
			"22/tcp rule 0 set 1; set 1 10.0.0.0/8 rule 1; set 1 10.1.0.0/16 rule 0"},
		{"except of everybody", []Rule{{Ports: ssh, Except: prefixes("10.1.0.0/16")}},
			"22/tcp rule 0 set 1; set 1 0.0.0.0/0 rule 1; set 1 10.1.0.0/16 rule 0; set 1 ::/0 rule 1"},
		{"an exception of one rule that another lets in", []Rule{{Ports: ssh, Except: prefixes("10.1.0.0/16")}, {Ports: ssh, From: prefixes("10.1.2.0/24")}},
			"22/tcp rule 0 set 1; set 1 0.0.0.0/0 rule 1; set 1 10.1.0.0/16 rule 0; set 1 10.1.2.0/24 rule 2; set 1 ::/0 rule 1"},
		{"except everybody there is", []Rule{{Ports: ssh, From: prefixes("10.0.0.0/8"), Except: prefixes("10.0.0.0/8")}}, ""},
		{"a source within another of the same rule", []Rule{{Ports: ssh, From: prefixes("10.0.0.0/8", "10.1.0.0/16")}},
			"22/tcp rule 0 set 1; set 1 10.0.0.0/8 rule 1"},
		{"to", []Rule{{Ports: ssh, To: prefixes("192.0.2.1/32")}},
			"22/tcp rule 0 set 2; set 1 192.0.2.1/32 rule 1; set 2 0.0.0.0/0 to 1"},
		{"two rules for one port at two addresses", []Rule{{Ports: ssh, From: prefixes("10.0.0.0/8"), To: prefixes("192.0.2.1/32")}, {Ports: ssh, To: prefixes("192.0.2.2/32")}},
			"22/tcp rule 0 set 3; set 1 192.0.2.2/32 rule 2; set 2 192.0.2.1/32 rule 1; set 2 192.0.2.2/32 rule 2; set 3 0.0.0.0/0 to 1; set 3 10.0.0.0/8 to 2"},
		{"limit", []Rule{{Ports: ssh, Limit: six}},
			"22/tcp rule 0 set 1; set 1 0.0.0.0/0 rule 1, limited; set 1 ::/0 rule 1, limited"},
		{"of two limits the most generous", []Rule{{Ports: ssh, Limit: six}, {Ports: ssh, Limit: ten}},
			"22/tcp rule 0 set 1; set 1 0.0.0.0/0 rule 2, limited; set 1 ::/0 rule 2, limited"},
		{"no limit for some", []Rule{{Ports: ssh, Limit: six}, {Ports: ssh, From: prefixes("10.0.0.0/8")}},
			"22/tcp rule 0 set 1; set 1 0.0.0.0/0 rule 1, limited; set 1 10.0.0.0/8 rule 2; set 1 ::/0 rule 1, limited"},
		{"no limit for everybody", []Rule{{Ports: ssh, Limit: six}, {Ports: ssh}},
			"22/tcp rule 2 set 1; set 1 0.0.0.0/0 rule 1, limited; set 1 ::/0 rule 1, limited"},
		{"no limit at one address", []Rule{{Ports: ssh, Limit: six}, {Ports: ssh, To: prefixes("192.0.2.1/32")}},
			"22/tcp rule 0 set 2; set 1 0.0.0.0/0 rule 1, limited; set 1 192.0.2.1/32 rule 2; set 1 ::/0 rule 1, limited; set 2 0.0.0.0/0 to 1; set 2 ::/0 rule 1, limited"},
		{"a protocol", []Rule{{Ports: []PortRange{{gre, 0, 0}}}, {Ports: []PortRange{{89, 0, 0}}, From: prefixes("192.0.2.1/32")}},
			"protocols 47-47 rule 1 set 0; protocols 89-89 rule 0 set 1; set 1 192.0.2.1/32 rule 2"},
		{"all", []Rule{{Ports: everything(), From: prefixes("192.0.2.1/32")}, {Ports: everything(), From: prefixes("192.0.2.2/32")}},
			"0-65535/tcp rule 0 set 1; 0-65535/udp rule 0 set 1; 0-65535/sctp rule 0 set 1; 0-65535/udplite rule 0 set 1; " +
				"protocols 0-5 rule 0 set 1; protocols 7-16 rule 0 set 1; protocols 18-131 rule 0 set 1; protocols 133-135 rule 0 set 1; protocols 137-255 rule 0 set 1; " +
				"set 1 192.0.2.1/32 rule 1; set 1 192.0.2.2/32 rule 2"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var rules []NumberedRule
			for i, r := range c.rules {
				rules = append(rules, NumberedRule{uint16(i + 1), r})
			}
			if got := summary(mustCompile(t, rules, nil)); got != c.want {
				t.Errorf("got\n%s\nwant\n%s", got, c.want)
			}
		})
	}
}

func TestCompileGroups(t *testing.T) {
	rules := []NumberedRule{
		{1, Rule{Ports: []PortRange{{TCP, 80, 80}}}},
		{2, Rule{Ports: []PortRange{{TCP, 22, 22}}, On: []string{"eth1"}}},
		{3, Rule{Ports: []PortRange{{TCP, 5432, 5432}}, On: []string{"wg*", "eth1"}, From: prefixes("10.0.0.0/8")}},
		{4, Rule{Ports: []PortRange{{TCP, 5432, 5432}}, From: prefixes("10.0.0.0/8"), On: []string{"eth2"}}},
	}
	var list []Rule
	for _, r := range rules {
		list = append(list, r.Rule)
	}
	groups := GroupsOf(list, []string{"eth0", "eth1", "wg0", "wg1", "eth3"})
	if len(groups) != 3 || groups[0] != "" {
		t.Fatalf("groups %q", groups)
	}
	c, err := Compile(rules, groups, nil)
	if err != nil {
		t.Fatal(err)
	}
	for iface, want := range map[string][3]PortEntry{
		"eth0": {{Rule: 1}, {}, {}},
		"eth1": {{Rule: 1}, {Rule: 2}, {Set: 1}},
		"wg7":  {{Rule: 1}, {}, {Set: 1}},
	} {
		table := c.Tables[GroupOf(list, iface)]
		got := [3]PortEntry{table[PortIndex(TCP, 80)], table[PortIndex(TCP, 22)], table[PortIndex(TCP, 5432)]}
		if got != want {
			t.Errorf("%s: got %v, want %v", iface, got, want)
		}
	}
	if len(c.Sources) != 1 {
		t.Errorf("sources %v, want those of one set: no interface is one of rule 4's", c.Sources)
	}
}

// randomRules overlap a lot, with every clause.
func randomRules(rnd *rand.Rand) (rules []NumberedRule) {
	pick := func(most int, from ...string) (out []string) {
		for range rnd.IntN(most + 1) {
			out = append(out, from[rnd.IntN(len(from))])
		}
		return out
	}
	sources := []string{"10.0.0.0/8", "10.1.0.0/16", "10.1.2.0/24", "10.1.2.3/32", "0.0.0.0/0", "::/0", "2001:db8::/32", "2001:db8:1::/48", "2001:db8:1::1/128"}
	addresses := []string{"192.0.2.1/32", "192.0.2.0/24", "2001:db8:ff::1/128", "2001:db8:ff::/48"}
	ids := rnd.Perm(40)
	for i := range 1 + rnd.IntN(8) {
		var r Rule
		for range 1 + rnd.IntN(2) {
			first := uint16(rnd.IntN(6))
			r.Ports = append(r.Ports, PortRange{Protocols[rnd.IntN(2)], first, first + uint16(rnd.IntN(4))})
		}
		switch rnd.IntN(6) {
		case 0:
			r.Ports = everything()
		case 1:
			r.Ports = []PortRange{{Protocol(rnd.IntN(3)), 0, 0}}
		}
		r.On = pick(2, "eth0", "eth*", "wg0")
		r.From = prefixes(pick(3, sources...)...)
		r.Except = prefixes(pick(2, sources...)...)
		r.To = prefixes(pick(2, addresses...)...)
		if rnd.IntN(3) == 0 {
			r.Limit = Limit{Count: uint32(1 + rnd.IntN(2)), Per: []time.Duration{time.Second, time.Minute}[rnd.IntN(2)], Burst: uint32(1 + rnd.IntN(2))}
		}
		rules = append(rules, NumberedRule{uint16(ids[i] + 1), r})
	}
	return rules
}

type packet struct {
	iface    string
	proto    Protocol
	port     uint16
	src, dst netip.Addr
}

func randomPacket(rnd *rand.Rand) packet {
	p := packet{iface: []string{"eth0", "eth1", "wg0", "lan"}[rnd.IntN(4)]}
	switch rnd.IntN(3) {
	case 0:
		p.proto = Protocol(rnd.IntN(5))
	default:
		p.proto, p.port = Protocols[rnd.IntN(2)], uint16(rnd.IntN(10))
	}
	sources, addresses := []string{"10.0.0.1", "10.1.0.1", "10.1.2.1", "10.1.2.3", "198.51.100.1"}, []string{"192.0.2.1", "192.0.2.2", "198.51.100.2"}
	if rnd.IntN(2) == 0 {
		sources, addresses = []string{"2001:db8::1", "2001:db8:1::1", "2001:db8:1::2", "2001:db9::1"}, []string{"2001:db8:ff::1", "2001:db8:ff::2", "2001:db9::2"}
	}
	p.src, p.dst = addr(sources[rnd.IntN(len(sources))]), addr(addresses[rnd.IntN(len(addresses))])
	return p
}

// bruteForce asks each rule: whether one lets the packet in, whether all that
// do have a limit, and which one then decides.
func bruteForce(rules []NumberedRule, p packet) (admits, limited bool, by uint16) {
	within := func(list []netip.Prefix, a netip.Addr) bool {
		return slices.ContainsFunc(list, func(p netip.Prefix) bool { return p.Contains(a) })
	}
	var best *NumberedRule
	for i := range rules {
		r := &rules[i].Rule
		on := len(r.On) == 0
		for _, pattern := range r.On {
			on = on || MatchInterface(pattern, p.iface)
		}
		if !on || !r.Covers(p.proto, p.port) || len(r.From) > 0 && !within(r.From, p.src) ||
			within(r.Except, p.src) || len(r.To) > 0 && !within(r.To, p.dst) {
			continue
		}
		if r.Limit.Count == 0 {
			return true, false, 0
		}
		rate := func(n *NumberedRule) float64 { return float64(n.Rule.Limit.Count) / n.Rule.Limit.Per.Seconds() }
		if better := best == nil || rate(&rules[i]) > rate(best) || rate(&rules[i]) == rate(best) &&
			(r.Limit.Burst > best.Rule.Limit.Burst || r.Limit.Burst == best.Rule.Limit.Burst && rules[i].ID < best.ID); better {
			best = &rules[i]
		}
	}
	if best == nil {
		return false, false, 0
	}
	return true, true, best.ID
}

func TestCompileAgainstRules(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	var keep []SourcePrefix
	for range 400 {
		rules := randomRules(rnd)
		var list []Rule
		byID := make(map[uint16]Rule)
		for _, r := range rules {
			list = append(list, r.Rule)
			byID[r.ID] = r.Rule
		}
		c, err := Compile(rules, GroupsOf(list, []string{"eth0", "eth1", "wg0", "lan"}), knownSets(keep))
		if err != nil {
			t.Fatal(err)
		}
		checkNumbers(t, keep, c.Sources)
		keep = c.Sources
		sets := c.index()
		for range 400 {
			p := randomPacket(rnd)
			entry := c.Tables[GroupOf(list, p.iface)][PortIndex(p.proto, p.port)]
			d := Decision{Rule: entry.Rule}
			if d.Rule == 0 {
				d = sets.decide(entry.Set, p.src, p.dst)
			}
			admits, limited, by := bruteForce(rules, p)
			if d.Rule != 0 != admits || d.Limited != limited || limited && d.Rule != by {
				t.Fatalf("%+v: got %+v, want that it passes: %v, limited: %v, by rule %d\n%s", p, d, admits, limited, by, describe(rules))
			}
			if d.Rule == 0 {
				continue
			}
			// It counts under a rule that lets it in.
			if one, _, _ := bruteForce([]NumberedRule{{d.Rule, byID[d.Rule]}}, p); !one {
				t.Fatalf("%+v counts under rule %d, which does not let it in\n%s", p, d.Rule, describe(rules))
			}
		}
	}
}

// checkNumbers checks that no number that was in force means something else.
func checkNumbers(t *testing.T, before, after []SourcePrefix) {
	t.Helper()
	of := func(list []SourcePrefix) map[uint16]string {
		list = slices.Clone(list)
		slices.SortFunc(list, func(a, b SourcePrefix) int { return comparePrefix(a.Prefix, b.Prefix) })
		texts := make(map[uint16]string)
		for _, s := range list {
			texts[s.Set] += fmt.Sprintln(s.Prefix, s.Decision)
		}
		return texts
	}
	was, is := of(before), of(after)
	numbers := make(map[string]uint16)
	for set, text := range was {
		if have, ok := is[set]; ok && have != text {
			t.Fatalf("set %d was\n%sand is\n%s", set, text, have)
		}
		numbers[text] = set
	}
	for set, text := range is {
		if number, ok := numbers[text]; ok && was[set] != text {
			t.Fatalf("set %d is what set %d was", set, number)
		}
	}
}

func describe(rules []NumberedRule) (text string) {
	for _, r := range rules {
		text += fmt.Sprintf("%d: on %v from %v except %v to %v limit %v", r.ID, r.Rule.On, r.Rule.From, r.Rule.Except, r.Rule.To, r.Rule.Limit)
		text += fmt.Sprintln(" ports", r.Rule.Ports[:min(3, len(r.Rule.Ports))], len(r.Rule.Ports))
	}
	return text
}

// host returns the network of a host, another for each number.
func host(i int) netip.Prefix {
	return netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}), 32)
}

func BenchmarkCompileClauses(b *testing.B) {
	compile := func(b *testing.B, rules []Rule, ifaces []string) {
		var numbered []NumberedRule
		for i, r := range rules {
			numbered = append(numbered, NumberedRule{uint16(i + 1), r})
		}
		groups := GroupsOf(rules, ifaces)
		b.ReportAllocs()
		for b.Loop() {
			c, err := Compile(numbered, groups, nil)
			if err != nil {
				b.Fatal(err)
			}
			b.ReportMetric(float64(len(c.Sources)), "sources")
		}
	}
	for _, n := range []int{1000, 10000} {
		b.Run(fmt.Sprintf("%d rules of ten sources", n), func(b *testing.B) {
			rules := make([]Rule, n)
			for i := range rules {
				rules[i].Ports = []PortRange{{TCP, uint16(i + 1), uint16(i + 1)}}
				for j := range 10 {
					rules[i].From = append(rules[i].From, host(10*i+j))
				}
			}
			compile(b, rules, nil)
		})
		b.Run(fmt.Sprintf("%d rules of ten sources on one port", n), func(b *testing.B) {
			rules := make([]Rule, n)
			for i := range rules {
				rules[i].Ports = []PortRange{{TCP, 22, 22}}
				for j := range 10 {
					rules[i].From = append(rules[i].From, host(10*i+j))
				}
			}
			compile(b, rules, nil)
		})
	}
	b.Run("one rule of 100000 sources", func(b *testing.B) {
		r := Rule{Ports: []PortRange{{TCP, 22, 22}}}
		for i := range 100000 {
			r.From = append(r.From, host(i))
		}
		compile(b, []Rule{r}, nil)
	})
	b.Run("everything from a thousand hosts", func(b *testing.B) {
		rules := make([]Rule, 1000)
		for i := range rules {
			rules[i] = Rule{Ports: everything(), From: []netip.Prefix{host(i)}}
		}
		compile(b, rules, nil)
	})
	b.Run("eight groups", func(b *testing.B) {
		var ifaces []string
		rules := make([]Rule, 1000)
		for i := range rules {
			rules[i] = Rule{Ports: []PortRange{{TCP, uint16(i + 1), uint16(i + 1)}}, From: []netip.Prefix{host(i)}, On: []string{fmt.Sprintf("eth%d", i%8)}}
		}
		for i := range 8 {
			ifaces = append(ifaces, fmt.Sprintf("eth%d", i))
		}
		compile(b, rules, ifaces)
	})
}
