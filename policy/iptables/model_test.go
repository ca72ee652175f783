// SPDX-License-Identifier: Apache-2.0

package iptables

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"

	"github.com/portcullis-firewall/portcullis/policy"
)

// The model decides about one packet at a time, as netfilter does, and shares
// nothing with the translation: its rules are never read from text.

// modelPacket is one packet.
type modelPacket struct {
	in, out  string
	src      netip.Addr
	state    string // NEW, ESTABLISHED, RELATED or INVALID
	protocol string
	port     uint16
	icmp     string // echo-request and the like
	flags    string // of TCP
	dst      netip.Addr
	to       string // LOCAL, MULTICAST or BROADCAST
	chance   uint64 // what limits and the like say, a bit a rule
}

// within reports whether the count of a rule with a limit is not used up.
func (p modelPacket) within(chance int) bool { return p.chance>>(chance-1)&1 != 0 }

func (p modelPacket) String() string {
	return fmt.Sprintf("%s>%s %s>%s %s %s port %d %s%s to %s, chance %x", p.in, p.out, p.src, p.dst, p.state, p.protocol, p.port, p.icmp, p.flags, p.to, p.chance)
}

// modelRule is one rule; zero values ask for nothing.
type modelRule struct {
	line        int
	in, out     string
	notIn       bool
	src         netip.Prefix
	notSrc      bool
	dst         netip.Prefix
	notDst      bool
	states      []string
	protocol    string
	notProtocol bool
	first, last uint16
	notPorts    bool
	icmp        string
	syn         bool
	notSyn      bool
	to          string
	chance      int  // 1+index of a bit
	bounded     bool // by a count for each source, of which that bit tells
	above       bool // for what exceeds it
	target      string
	goesTo      bool
}

type modelChain struct {
	name, policy string
	policyLine   int
	rules        []*modelRule
}

type model struct {
	chains []*modelChain // the first are INPUT and FORWARD
	text   string
}

func (m *model) chain(name string) *modelChain {
	for _, c := range m.chains {
		if c.name == name {
			return c
		}
	}
	return nil
}

func (r *modelRule) matches(p modelPacket) bool {
	is := func(asked, same, not bool) bool { return !asked || same != not }
	named := func(test, name string) bool {
		if prefix, wild := strings.CutSuffix(test, "+"); wild {
			return strings.HasPrefix(name, prefix)
		}
		return test == name
	}
	// An IPv4 network holds no IPv6 address, and icmp stands for either family's.
	return is(r.in != "", named(r.in, p.in), r.notIn) &&
		is(r.out != "", named(r.out, p.out), false) &&
		is(r.src.IsValid(), r.src.IsValid() && r.src.Contains(p.src), r.notSrc) &&
		is(r.dst.IsValid(), r.dst.IsValid() && r.dst.Contains(p.dst), r.notDst) &&
		is(r.states != nil, slices.Contains(r.states, p.state), false) &&
		is(r.protocol != "", r.protocol == p.protocol, r.notProtocol) &&
		is(r.last > 0, r.first <= p.port && p.port <= r.last, r.notPorts) &&
		is(r.icmp != "", r.icmp == p.icmp, false) &&
		is(r.syn, p.flags == "SYN", r.notSyn) &&
		is(r.to != "", r.to == p.to, false) &&
		(r.chance == 0 || p.within(r.chance) != r.above)
}

// decide plays a packet through a chain: whether it is accepted, and by which
// line.
func (m *model) decide(name string, p modelPacket) (accepted bool, line int) {
	c := m.chain(name)
	verdict, line := m.walk(c, p)
	if verdict == "" {
		return c.policy == "ACCEPT", c.policyLine
	}
	return verdict == "ACCEPT", line
}

// kept is the rules that a text names, out of those of the model, with nothing else behind them.
func (m *model) kept(text string) *model {
	out := &model{}
	for _, c := range m.chains {
		kept := &modelChain{name: c.name, policy: "ACCEPT"}
		for _, r := range c.rules {
			if slices.Contains(strings.Split(text, "\n"), r.write(c.name)) {
				kept.rules = append(kept.rules, r)
			}
		}
		out.chains = append(out.chains, kept)
	}
	return out
}

// refuses reports whether a line is a REJECT.
func (m *model) refuses(line int) bool {
	for _, c := range m.chains {
		if slices.ContainsFunc(c.rules, func(r *modelRule) bool { return r.line == line && r.target == "REJECT" }) {
			return true
		}
	}
	return false
}

// drops reports whether a limit is that of a rule that drops what exceeds it.
func (m *model) drops(l policy.Limit) bool {
	for _, c := range m.chains {
		if slices.ContainsFunc(c.rules, func(r *modelRule) bool { return r.above && r.chance == int(l.Count) }) {
			return true
		}
	}
	return false
}

func (m *model) walk(c *modelChain, p modelPacket) (verdict string, line int) {
	for _, r := range c.rules {
		if !r.matches(p) {
			continue
		}
		switch r.target {
		case "ACCEPT", "DROP":
			return r.target, r.line
		case "REJECT":
			return "DROP", r.line
		case "RETURN":
			return "", 0
		case "LOG", "":
		default:
			if verdict, line := m.walk(m.chain(r.target), p); verdict != "" || r.goesTo {
				return verdict, line
			}
		}
	}
	return "", 0
}

// write is the rule as iptables-save prints it.
func (r *modelRule) write(chain string) string {
	words := []string{"-A", chain}
	add := func(asked, not bool, option string, args ...string) {
		if !asked {
			return
		}
		if not {
			words = append(words, "!")
		}
		words = append(append(words, option), args...)
	}
	add(r.src.IsValid(), r.notSrc, "-s", r.src.String())
	add(r.dst.IsValid(), r.notDst, "-d", r.dst.String())
	add(r.in != "", r.notIn, "-i", r.in)
	add(r.out != "", false, "-o", r.out)
	add(r.protocol != "", r.notProtocol, "-p", r.protocol)
	add(r.last > 0, false, "-m", r.protocol)
	add(r.last > 0, r.notPorts, "--dport", fmt.Sprintf("%d:%d", r.first, r.last))
	add(r.icmp != "", false, "--icmp-type", r.icmp)
	add(r.syn, r.notSyn, "--tcp-flags", "FIN,SYN,RST,ACK", "SYN")
	add(r.states != nil, false, "-m", "conntrack", "--ctstate", strings.Join(r.states, ","))
	add(r.to != "", false, "-m", "addrtype", "--dst-type", r.to)
	add(r.chance > 0 && !r.bounded, false, "-m", "limit", "--limit", fmt.Sprintf("%d/min", r.chance))
	// The rate tells which of the counts it is.
	bound := map[bool]string{false: "--hashlimit-upto", true: "--hashlimit-above"}[r.above]
	add(r.bounded, false, "-m", "hashlimit", bound, fmt.Sprintf("%d/min", r.chance), "--hashlimit-mode", "srcip",
		"--hashlimit-name", fmt.Sprintf("count%d", r.chance))
	jump := "-j"
	if r.goesTo {
		jump = "-g"
	}
	add(r.target != "", false, jump, r.target)
	return strings.Join(words, " ")
}

func pick[T any](random *rand.Rand, of ...T) T { return of[random.IntN(len(of))] }

var (
	modelInterfaces = []string{"eth0", "eth1", "wlan0"} // the last is never named
	modelSources    = []netip.Prefix{
		netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("10.1.0.0/16"), netip.MustParsePrefix("192.0.2.7/32"),
		netip.MustParsePrefix("0.0.0.0/0"), netip.MustParsePrefix("128.0.0.0/1"),
	}
	modelDestinations = []netip.Prefix{
		netip.MustParsePrefix("192.0.2.1/32"), netip.MustParsePrefix("192.0.2.0/30"), netip.MustParsePrefix("224.0.0.0/4"),
		netip.MustParsePrefix("224.0.0.251/32"), netip.MustParsePrefix("255.255.255.255/32"), netip.MustParsePrefix("203.0.113.0/24"),
	}
	modelPorts = []uint16{1, 22, 79, 80, 81, 443, 1000, 65535}
)

// drawModel makes up rules.
func drawModel(random *rand.Rand) *model {
	m := &model{}
	for _, name := range []string{"INPUT", "FORWARD", "one", "two"} {
		m.chains = append(m.chains, &modelChain{name: name, policy: pick(random, "DROP", "DROP", "DROP", "ACCEPT")})
	}
	chances := 0
	interfaces := pick(random, []string{"eth0"}, []string{"eth0"}, []string{"eth0", "eth1", "eth+"}, []string{"eth0", "eth1"})
	for i, c := range m.chains {
		if c.name == "FORWARD" && random.IntN(10) < 7 { // else nothing can be translated but all
			c.rules = append(c.rules, &modelRule{states: []string{"RELATED", "ESTABLISHED"}, target: "ACCEPT"})
		}
		for range random.IntN(6) {
			r := &modelRule{}
			chance := func(percent int) bool { return random.IntN(100) < percent }
			if chance(25) {
				r.in, r.notIn = pick(random, interfaces...), chance(15)
			}
			if c.name == "FORWARD" && chance(30) {
				r.out = pick(random, interfaces...)
			}
			if chance(25) {
				r.src, r.notSrc = pick(random, modelSources...), chance(20)
			}
			if chance(12) {
				r.dst, r.notDst = pick(random, modelDestinations...), chance(20)
			}
			if chance(30) {
				r.states = pick(random, []string{"NEW"}, []string{"RELATED", "ESTABLISHED"}, []string{"INVALID"}, []string{"NEW", "INVALID"})
			}
			if chance(70) {
				r.protocol = pick(random, "tcp", "tcp", "udp", "icmp", "gre", "89")
				r.notProtocol = chance(5)
			}
			ports := r.protocol == "tcp" || r.protocol == "udp"
			if ports && !r.notProtocol && chance(80) {
				a, b := pick(random, modelPorts...), pick(random, modelPorts...)
				if chance(60) {
					b = a
				}
				r.first, r.last, r.notPorts = min(a, b), max(a, b), chance(10)
			}
			if r.protocol == "tcp" && !r.notProtocol && chance(15) {
				r.syn, r.notSyn = true, chance(50)
			}
			if r.protocol == "icmp" && !r.notProtocol && chance(50) {
				r.icmp = pick(random, "echo-request", "echo-reply", "destination-unreachable")
			}
			if c.name != "FORWARD" && chance(5) {
				r.to = pick(random, "LOCAL", "MULTICAST", "BROADCAST")
			}
			if chance(12) {
				chances++
				r.chance, r.bounded = chances, chance(60)
			}
			if r.bounded && chance(70) {
				r.states = []string{"NEW"}
			}
			targets := []string{"ACCEPT", "ACCEPT", "ACCEPT", "ACCEPT", "DROP", "REJECT", "LOG", ""}
			if i == 2 || i == 3 {
				targets = append(targets, "RETURN", "RETURN")
			}
			if c.name != "two" {
				targets = append(targets, "two", "two")
			}
			if i < 2 {
				targets = append(targets, "one", "one")
			}
			r.target = pick(random, targets...)
			r.goesTo = (r.target == "one" || r.target == "two") && chance(20)
			c.rules = append(c.rules, r)
			if r.chance == 0 && chance(15) {
				chances++
				c.rules = append(c.rules[:len(c.rules)-1], drawAbove(random, r, chances)...)
			}
		}
	}
	m.render()
	return m
}

// drawAbove returns rules that drop what of a rule exceeds a limit, and mostly accept the rest of it, or of more.
func drawAbove(random *rand.Rand, r *modelRule, number int) []*modelRule {
	above, accept := *r, *r
	above.chance, above.bounded, above.above, above.target, above.goesTo = number, true, true, pick(random, "DROP", "DROP", "DROP", "REJECT"), false
	accept.target, accept.goesTo = "ACCEPT", false
	switch random.IntN(6) {
	case 0:
		accept.states = nil
	case 1:
		accept.src, accept.notSrc = netip.Prefix{}, false
	case 2:
		accept.first, accept.last, accept.notPorts = 0, 0, false
	case 3:
		above.first, above.last, above.notPorts = 0, 0, false // which counts more than is accepted
	}
	out := []*modelRule{&above}
	if random.IntN(3) == 0 {
		between := *r
		between.src = netip.Prefix{}
		if between.target = pick(random, "LOG", "", "DROP", "ACCEPT"); between.last > 0 {
			between.first, between.last = pick(random, modelPorts...), 65535
		}
		out = append(out, &between)
	}
	return append(out, &accept)
}

// render writes the text, and gives every rule its line.
func (m *model) render() {
	lines := []string{"*filter"}
	for i, c := range m.chains {
		policy := c.policy
		if i >= 2 {
			policy = "-"
		}
		lines = append(lines, fmt.Sprintf(":%s %s [0:0]", c.name, policy))
		c.policyLine = len(lines)
	}
	for _, c := range m.chains {
		for _, r := range c.rules {
			lines = append(lines, r.write(c.name))
			r.line = len(lines)
		}
	}
	m.text = strings.Join(append(lines, "COMMIT", ""), "\n")
}

// drawPacket makes up a packet that could come in.
func drawPacket(random *rand.Rand) modelPacket {
	p := modelPacket{
		in: pick(random, modelInterfaces...), to: "LOCAL", chance: pick(random, 0, ^uint64(0), random.Uint64()),
		src: pick(random, netip.MustParseAddr("10.1.2.3"), netip.MustParseAddr("10.200.0.1"), netip.MustParseAddr("192.0.2.7"),
			netip.MustParseAddr("198.51.100.1"), netip.MustParseAddr("1.1.1.1"), netip.MustParseAddr("2001:db8::1")),
		state:    pick(random, "NEW", "NEW", "NEW", "INVALID", "ESTABLISHED"),
		protocol: pick(random, "tcp", "tcp", "udp", "icmp", "gre", "89"),
	}
	switch p.protocol {
	case "tcp":
		p.port = pick(random, modelPorts...)
		p.flags = pick(random, "SYN", "SYN", "ACK")
		if p.state == "INVALID" {
			p.flags = "FIN"
		}
	case "udp":
		p.port = pick(random, modelPorts...)
		p.to = pick(random, "LOCAL", "LOCAL", "MULTICAST", "BROADCAST")
		if p.src.Is6() && p.to == "BROADCAST" || p.state != "NEW" {
			p.to = "LOCAL"
		}
	case "gre", "89":
		if p.state == "NEW" {
			p.to = pick(random, "LOCAL", "LOCAL", "MULTICAST")
		}
	case "icmp":
		p.icmp = map[string]string{"NEW": "echo-request", "INVALID": "destination-unreachable", "ESTABLISHED": "echo-reply"}[p.state]
		if p.state == "INVALID" && random.IntN(2) == 0 {
			p.icmp = "echo-reply"
		}
	}
	switch six := p.src.Is6(); {
	case p.to == "MULTICAST" && six:
		p.dst = netip.MustParseAddr("ff02::fb")
	case p.to == "MULTICAST":
		p.dst = pick(random, netip.MustParseAddr("224.0.0.251"), netip.MustParseAddr("239.1.1.1"))
	case six:
		p.dst = pick(random, netip.MustParseAddr("2001:db8:1::1"), netip.MustParseAddr("fe80::1"))
	case p.to == "BROADCAST":
		p.dst = pick(random, netip.MustParseAddr("255.255.255.255"), netip.MustParseAddr("192.0.2.3"))
	default:
		p.dst = pick(random, netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2"), netip.MustParseAddr("203.0.113.9"),
			netip.MustParseAddr("198.51.100.200"))
	}
	return p
}
