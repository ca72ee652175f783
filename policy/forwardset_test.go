// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
)

// decideForward is what the datapath does.
func (c *Compiled) decideForward(g Group, p Packet) Decision {
	x := c.index()
	d := x.find(c.Forward[g], SlotAddress(PortIndex(p.Protocol, p.Port)))
	if d.To != 0 {
		d = x.decide(d.To, p.Source, p.Destination)
	}
	return d
}

func TestForwardSetsSayWhatTheirRulesSay(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	pick := func(list ...string) string { return list[r.IntN(len(list))] }
	what := []string{"22/tcp", "80,443/tcp", "5000-5010/tcp", "1-65535/udp", "53/udp", "5000-5010/sctp", "gre", "esp", "all"}
	ifaces := []string{"eth0", "eth1", "wg0", "lan"}
	addresses := []netip.Addr{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.9"), netip.MustParseAddr("198.51.100.2"), netip.MustParseAddr("2001:db8::1")}
	letThrough, held := 0, 0
	for range 60 {
		var rules []NumberedRule
		var plain []Rule
		for i := range 1 + r.IntN(7) {
			rule, err := ParseRule(pick(what...) + pick("", "", " on eth0", " on eth1,wg*", " on lan") +
				pick("", " from 192.0.2.0/29", " from 192.0.2.0/24 except 192.0.2.9", " from 2001:db8::/64,192.0.2.9") + pick("", "", " to 198.51.100.2,2001:db8::1"))
			if err != nil {
				t.Fatal(err)
			}
			rule.Forward = r.IntN(4) > 0
			plain = append(plain, rule)
			rules = append(rules, NumberedRule{ID: uint16(i + 1), Rule: rule})
		}
		var groups []Group
		for _, iface := range ifaces {
			groups = append(groups, ForwardGroupOf(plain, iface))
		}
		c, err := Compile(rules, GroupsOf(plain, ifaces), nil, groups...)
		if err != nil {
			t.Fatal(err)
		}
		for _, iface := range ifaces {
			for _, p := range []PortRange{{TCP, 22, 22}, {TCP, 443, 443}, {TCP, 4999, 4999}, {TCP, 5000, 5000}, {TCP, 5010, 5010}, {TCP, 5011, 5011},
				{UDP, 0, 0}, {UDP, 53, 53}, {UDP, 65535, 65535}, {SCTP, 5005, 5005}, {47, 0, 0}, {50, 0, 0}, {1, 0, 0}, {58, 0, 0}, {255, 0, 0}} {
				for _, src := range addresses {
					for _, dst := range addresses {
						if src.Is4() != dst.Is4() {
							continue
						}
						packet := Packet{Interface: iface, Protocol: p.Protocol, Port: p.First, Source: src, Destination: dst, Forward: true}
						d := c.decideForward(ForwardGroupOf(plain, iface), packet)
						admits := slices.ContainsFunc(plain, func(r Rule) bool { return r.Admits(packet) })
						if admits != (d.Rule != 0) || admits && !plain[d.Rule-1].Admits(packet) {
							t.Fatalf("%+v: %+v, is let through: %t, by %v", packet, d, admits, Texts(plain))
						}
						if admits {
							letThrough++
						} else {
							held++
						}
					}
				}
			}
		}
	}
	if letThrough < 1000 || held < 1000 {
		t.Errorf("%d packets are let through, %d are not: nothing is shown", letThrough, held)
	}
}

// Rules about what is routed open no port of this host, and the other way round.
func TestForwardRulesHaveNoPorts(t *testing.T) {
	for _, forward := range []bool{false, true} {
		rule, err := ParseRule("22/tcp")
		if err != nil {
			t.Fatal(err)
		}
		rule.Forward = forward
		c, err := Compile([]NumberedRule{{ID: 1, Rule: rule}}, nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		opens, lets := c.Tables[""][PortIndex(TCP, 22)] != (PortEntry{}), c.Forward[""] != 0
		if opens == forward || lets != forward {
			t.Errorf("forward is %t: opens a port: %t, lets through: %t", forward, opens, lets)
		}
	}
}

// A set that says the same keeps its number, and another gets one of its own.
func TestForwardSetsAreKept(t *testing.T) {
	rules := func(texts ...string) (out []NumberedRule) {
		for i, text := range texts {
			rule, err := ParseRule(text)
			if err != nil {
				t.Fatal(err)
			}
			rule.Forward = true
			out = append(out, NumberedRule{ID: uint16(i + 1), Rule: rule})
		}
		return out
	}
	first, err := Compile(rules("22/tcp", "80/tcp on eth0"), nil, nil, "eth0")
	if err != nil {
		t.Fatal(err)
	}
	second, err := Compile(rules("22/tcp", "80/tcp on eth0", "443/tcp on eth0"), nil, first.Known(), "eth0")
	if err != nil {
		t.Fatal(err)
	}
	if first.Forward[""] != second.Forward[""] || first.Forward["eth0"] == second.Forward["eth0"] {
		t.Errorf("sets were %v, and are %v", first.Forward, second.Forward)
	}
}

func TestSlotNodesCoverTheirPlaces(t *testing.T) {
	table := &Table{}
	for i := range 70_001 {
		table[3+i].Rule = 7
	}
	covered := 0
	for _, n := range slotNodes(table) {
		covered += 1 << (32 - n.prefix.Bits())
		if n.prefix != n.prefix.Masked() || n.decision.Rule != 7 {
			t.Errorf("node %v", n)
		}
	}
	if covered != 70_001 {
		t.Errorf("%d places are covered", covered)
	}
	if got := fmt.Sprint(SlotAddress(PortIndex(UDP, 53))); got != "0.1.0.53" {
		t.Errorf("53/udp is %s", got)
	}
}
