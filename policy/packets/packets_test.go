// SPDX-License-Identifier: Apache-2.0

package packets

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/portcullis-firewall/portcullis/policy"
)

// decide returns what rules say about a packet, rule by rule.
func decide(p *policy.Policy, forward bool, iface string, proto policy.Protocol, port uint16, src, dst netip.Addr) (limit policy.Limit, ok bool) {
	if !forward && p.InputOf(iface) == policy.Accept || forward && p.Forward == policy.ForwardAccept {
		return policy.Limit{}, true
	}
	in := func(list []netip.Prefix, a netip.Addr) bool {
		return slices.ContainsFunc(list, func(p netip.Prefix) bool { return p.Contains(a) })
	}
	for _, r := range p.Open {
		covers := slices.ContainsFunc(r.Ports, func(p policy.PortRange) bool {
			return p.Protocol == proto && p.First <= port && port <= p.Last
		})
		if r.Forward != forward || !covers || !r.AppliesOn(iface) || len(r.From) > 0 && !in(r.From, src) || in(r.Except, src) || len(r.To) > 0 && !in(r.To, dst) {
			continue
		}
		if !ok || r.Limit.Compare(limit) > 0 {
			limit = r.Limit
		}
		ok = true
	}
	return limit, ok
}

var (
	protocols  = []policy.Protocol{policy.TCP, policy.UDP, 47}
	interfaces = []string{"eth0", "eth1", "wg0", "wg7", "wan7", "lo"}
	patterns   = []string{"eth0", "eth1", "wg7", "wg*", "w*", "*7", "e*0"}
)

func randomPrefix(r *rand.Rand) netip.Prefix {
	bits := r.IntN(9)
	if r.IntN(3) == 0 {
		addr := netip.AddrFrom16([16]byte{15: byte(r.IntN(256))})
		p, _ := addr.Prefix(120 + bits)
		if r.IntN(8) == 0 {
			p, _ = addr.Prefix(0)
		}
		return p
	}
	addr := netip.AddrFrom4([4]byte{255, 255, 255, byte(r.IntN(256))})
	p, _ := addr.Prefix(24 + bits)
	if r.IntN(8) == 0 {
		p, _ = addr.Prefix(0)
	}
	return p
}

func randomPrefixes(r *rand.Rand, chance int) (out []netip.Prefix) {
	if r.IntN(chance) > 0 {
		return nil
	}
	for range 1 + r.IntN(3) {
		out = append(out, randomPrefix(r))
	}
	return out
}

func randomRule(r *rand.Rand) policy.Rule {
	first := uint16(1 + r.IntN(5))
	rule := policy.Rule{
		Forward: r.IntN(3) == 0,
		Ports:   []policy.PortRange{{Protocol: protocols[r.IntN(2)], First: first, Last: first + uint16(r.IntN(3))}},
		From:    randomPrefixes(r, 2), Except: randomPrefixes(r, 3), To: randomPrefixes(r, 3),
	}
	if r.IntN(6) == 0 {
		rule.Ports = []policy.PortRange{{Protocol: 47}}
	}
	if r.IntN(4) == 0 {
		rule.Limit = policy.Limit{Count: uint32(1 + r.IntN(3)*60), Per: []time.Duration{time.Second, time.Minute}[r.IntN(2)], Burst: 5}
	}
	for r.IntN(3) == 0 {
		rule.On = append(rule.On, patterns[r.IntN(len(patterns))])
	}
	return rule
}

func randomInput(r *rand.Rand) map[string]policy.Verdict {
	if r.IntN(3) > 0 {
		return nil
	}
	return map[string]policy.Verdict{
		patterns[r.IntN(len(patterns))]: policy.Verdict(r.IntN(3)), patterns[r.IntN(len(patterns))]: policy.Verdict(r.IntN(3)),
	}
}

func matches(c Change, iface string, proto policy.Protocol, port uint16) bool {
	return c.AppliesOn(iface) && slices.ContainsFunc(c.Ports, func(p policy.PortRange) bool {
		return p.Protocol == proto && p.First <= port && port <= p.Last
	})
}

// A packet is in a change if and only if the two policies decide differently on it, and the change says how.
func TestChangesAreThoseOfPackets(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for round := range 400 {
		old := &policy.Policy{Input: policy.Verdict(r.IntN(6) / 4), InputOn: randomInput(r), Interfaces: []string{"eth0", "e*"}[:r.IntN(3)]}
		if r.IntN(4) == 0 {
			old.Forward = policy.ForwardAccept
		}
		for range r.IntN(6) {
			old.Open = append(old.Open, randomRule(r))
		}
		new := old.Clone()
		for range 1 + r.IntN(3) {
			if len(new.Open) > 0 && r.IntN(2) == 0 {
				new.Open = slices.Delete(new.Open, 0, 1)
			} else {
				new.Open = append(new.Open, randomRule(r))
			}
		}
		if r.IntN(4) == 0 {
			new.InputOn = randomInput(r)
		}
		changes := Diff(old, new)
		for range 500 {
			src, dst := randomPrefix(r).Addr(), randomPrefix(r).Addr()
			if src.BitLen() != dst.BitLen() {
				continue
			}
			iface, proto, port := interfaces[r.IntN(len(interfaces))], protocols[r.IntN(3)], uint16(r.IntN(9))
			if proto == 47 {
				port = 0
			}
			forward := r.IntN(3) == 0
			before, wasOpen := decide(old, forward, iface, proto, port, src, dst)
			after, isOpen := decide(new, forward, iface, proto, port, src, dst)
			differs := wasOpen != isOpen || rate(before) != rate(after)
			var holds []Change
			for _, c := range changes {
				if c.Forward != forward || !matches(c, iface, proto, port) {
					continue
				}
				was, open := c.Old.Allows(src, dst)
				is, opens := c.New.Allows(src, dst)
				if open != wasOpen || opens != isOpen || rate(was) != rate(before) || rate(is) != rate(after) {
					t.Fatalf("round %d: %s says otherwise of %s to %s on %s %d/%d than\n%v %v, %v %v", round, c, src, dst, iface, port, proto, wasOpen, before, isOpen, after)
				}
				holds = append(holds, c)
			}
			if differs && len(holds) != 1 || len(holds) > 1 {
				t.Fatalf("round %d: %s to %s on %s %d/%d: %v %v -> %v %v in the changes %v", round, src, dst, iface, port, proto, wasOpen, before, isOpen, after, holds)
			}
		}
	}
}

// rate makes limits comparable that are written in other units.
func rate(l policy.Limit) string {
	if l.Count == 0 {
		return ""
	}
	return fmt.Sprint(float64(l.Count)/l.Per.Seconds(), l.Burst)
}

func TestNoPacketsChangeWithOtherWords(t *testing.T) {
	prefixes := func(texts ...string) (out []netip.Prefix) {
		for _, text := range texts {
			out = append(out, netip.MustParsePrefix(text))
		}
		return out
	}
	http := []policy.PortRange{{Protocol: policy.TCP, First: 80, Last: 80}}
	for name, sides := range map[string][2][]policy.Rule{
		"halves": {
			{{Ports: http, From: prefixes("10.0.0.0/8")}},
			{{Ports: http, From: prefixes("10.0.0.0/9")}, {Ports: http, From: prefixes("10.128.0.0/9")}},
		},
		"covered": {
			{{Ports: http}},
			{{Ports: http}, {Ports: http, From: prefixes("10.0.0.0/8")}},
		},
		"excepted and let in": {
			{{Ports: http}},
			{{Ports: http, Except: prefixes("10.0.0.0/8")}, {Ports: http, From: prefixes("10.0.0.0/8")}},
		},
		"everybody in numbers": {
			{{Ports: http}},
			{{Ports: http, From: prefixes("0.0.0.0/0", "::/0")}},
		},
	} {
		if changes := Diff(&policy.Policy{Open: sides[0]}, &policy.Policy{Open: sides[1]}); len(changes) > 0 {
			t.Errorf("%s: %v", name, changes)
		}
	}
}

func TestChangesRead(t *testing.T) {
	net := []netip.Prefix{netip.MustParsePrefix("203.0.113.0/24")}
	http := []policy.PortRange{{Protocol: policy.TCP, First: 80, Last: 80}}
	var many []netip.Prefix
	for i := range 1200 {
		many = append(many, netip.PrefixFrom(netip.AddrFrom4([4]byte{100, byte(i >> 7), byte(i << 1), 0}), 24))
	}
	for want, sides := range map[string][2]policy.Rule{
		"80/tcp on eth0: from 203.0.113.0/24 -> anybody": {
			{Ports: http, On: []string{"eth0"}, From: net}, {Ports: http, On: []string{"eth0"}},
		},
		"80/tcp on w* (not wg0): nobody -> anybody": {
			{Ports: http, On: []string{"wg0"}}, {Ports: http, On: []string{"w*"}},
		},
		"80/tcp: nobody -> anybody limit 6/minute":     {{}, {Ports: http, Limit: policy.Limit{Count: 6, Per: time.Minute, Burst: 5}}},
		"80/tcp: anybody -> anybody to 203.0.113.0/24": {{Ports: http}, {Ports: http, To: net}},
		"80/tcp: from 1,199 networks -> from 1,200 networks (+ 100.0.0.0/24)": {
			{Ports: http, From: many[1:]}, {Ports: http, From: many},
		},
	} {
		changes := Diff(&policy.Policy{Open: sides[:1]}, &policy.Policy{Open: sides[1:]})
		if len(changes) != 1 || changes[0].String() != want {
			t.Errorf("%q instead of %q", changes, want)
		}
	}
}

// Where input is accepted a rule lets in nobody who is not let in anyway.
func TestInputThatIsAccepted(t *testing.T) {
	http := []policy.Rule{{Ports: []policy.PortRange{{Protocol: policy.TCP, First: 80, Last: 80}}}}
	accepting := policy.Policy{Input: policy.Accept}
	on := policy.Policy{InputOn: map[string]policy.Verdict{"eth1": policy.Accept}, Open: http}
	for _, c := range []struct {
		old, new policy.Policy
		want     string
	}{
		{accepting, policy.Policy{}, "all: anybody -> nobody"},
		{accepting, policy.Policy{Open: http}, "all but 80/tcp: anybody -> nobody"},
		{policy.Policy{Open: http}, on, "all but 80/tcp on eth1: nobody -> anybody"},
		{policy.Policy{}, on, "80/tcp on other interfaces: nobody -> anybody\nall on eth1: nobody -> anybody"},
		{accepting, policy.Policy{Input: policy.Accept, Open: http}, ""},
	} {
		var got []string
		for _, change := range Diff(&c.old, &c.new) {
			got = append(got, change.String())
		}
		slices.Sort(got)
		if text := strings.Join(got, "\n"); text != c.want {
			t.Errorf("%q instead of %q", text, c.want)
		}
	}
}

func BenchmarkDiff(b *testing.B) {
	var rules []policy.Rule
	for i := range 10000 {
		rules = append(rules, policy.Rule{Ports: []policy.PortRange{{Protocol: policy.TCP, First: uint16(i + 1), Last: uint16(i + 1)}}})
	}
	var many []netip.Prefix
	for i := range 100000 {
		many = append(many, netip.PrefixFrom(netip.AddrFrom4([4]byte{100, byte(i >> 15), byte(i >> 7), byte(i << 1)}), 32))
	}
	rules[0].From, rules[1].From = many, many[1:]
	old, new := &policy.Policy{Open: rules}, &policy.Policy{Open: slices.Clone(rules)}
	new.Open[0].From = many[1:]
	for b.Loop() {
		if changes := Diff(old, new); len(changes) != 1 {
			b.Fatal(changes)
		}
	}
}

// A rule among many that let in others has a line that can be read.
func TestAChangeAmongManyGrantsReads(t *testing.T) {
	var many []policy.Rule
	for i := range 300 {
		r, err := policy.ParseRule(fmt.Sprintf("all from 100.64.%d.%d to 192.0.2.%d limit %d/minute", i/100, i%100, i%250, i+1))
		if err != nil {
			t.Fatal(err)
		}
		many = append(many, r)
	}
	one, err := policy.ParseRule("9/tcp from 203.0.113.9")
	if err != nil {
		t.Fatal(err)
	}
	with := &policy.Policy{Open: append(slices.Clone(many), one)}
	for _, c := range []struct {
		old, new *policy.Policy
		want     string
	}{
		{with, &policy.Policy{Open: many}, "9/tcp: from 203.0.113.9 -> nobody, beside 300 others that stay"},
		{&policy.Policy{Open: many}, with, "9/tcp: nobody -> from 203.0.113.9, beside 300 others that stay"},
	} {
		if changes := Diff(c.old, c.new); len(changes) != 1 || changes[0].String() != c.want {
			t.Errorf("%.500q instead of %q", changes, c.want)
		}
	}
	changes := Diff(&policy.Policy{}, &policy.Policy{Open: many})
	if len(changes) != 1 || len(changes[0].String()) > 2000 || !strings.HasSuffix(changes[0].String(), "; and 294 more") {
		t.Errorf("%.1000q", changes)
	}
}

// Rules for all protocols take as many borders as their joined ranges have, and not some hundreds each.
func TestManyRulesForAllProtocols(t *testing.T) {
	p := &policy.Policy{}
	for i := range 5000 {
		r, err := policy.ParseRule(fmt.Sprintf("all from 11.%d.%d.0/24", i/256, i%256))
		if err != nil {
			t.Fatal(err)
		}
		p.Open = append(p.Open, r)
	}
	start := time.Now()
	if changes := Diff(p, &policy.Policy{Open: p.Open[1:]}); len(changes) != 1 {
		t.Errorf("%v", changes)
	}
	sides := new(differ)
	sides.clauses = make(map[policy.RuleKey]int)
	borders := 0
	for _, s := range sides.sidesOf(p.Open) {
		borders += 2 * len(s.slots)
	}
	if most := 20 * len(p.Open); borders > most {
		t.Errorf("%d borders, more than %d; it took %v", borders, most, time.Since(start))
	}
}
