// SPDX-License-Identifier: Apache-2.0

package iptables

import (
	"math/rand/v2"
	"net/netip"
	"slices"

	"github.com/portcullis-firewall/portcullis/policy"
)

// Probe is a packet that begins something, by which rules and a policy can be compared.
type Probe struct {
	Interface string
	Src, Dst  netip.Addr
	Protocol  policy.Protocol
	Port      uint16 // of the destination, of protocols that have ports
	ICMP      uint8  // the type, of ICMP
}

// prober draws what rules tell apart, and what lies beside it.
type prober struct {
	*translation
	random     *rand.Rand
	interfaces []string
	sources    [2][]netip.Addr // at the edges of what rules name
	around     [2][]addresses  // what rules name, and everybody
	to         [2][]netip.Addr
	ports      [2][]uint16 // of TCP and UDP
	portless   []policy.Protocol
}

// Probes returns packets that the rules could tell apart, at most so many, the same for the same seed. They come in by
// the interfaces of the policy.
func (r *Result) Probes(most int, seed uint64) []Probe {
	t := r.translation
	if t == nil {
		return nil
	}
	p := &prober{translation: t, random: rand.New(rand.NewPCG(seed, 5))}
	p.gather()
	seen := make(map[Probe]bool)
	var out []Probe
	for range most * 3 {
		one, ok := p.draw()
		if !ok || seen[one] {
			continue
		}
		seen[one] = true
		if out = append(out, one); len(out) == most {
			break
		}
	}
	return out
}

// gather finds what the rules name.
func (p *prober) gather() {
	for _, in := range p.filtered {
		p.interfaces = append(p.interfaces, p.deviceOf(in))
	}
	for _, f := range families {
		if !p.told[f] {
			continue
		}
		for _, place := range p.places[f] {
			if f == v4 {
				place = place.subtract(p.broadcasts)
			}
			if a := p.inside(place); a.IsValid() {
				p.to[f] = append(p.to[f], a)
			}
		}
		p.around[f] = []addresses{everyone[f], everyone[f]}
		for _, name := range p.inOrder(f, "INPUT") {
			for _, r := range p.chains[f][name].rules {
				p.gatherRule(f, r)
			}
		}
	}
	for i, common := range [][]uint16{{1, 22, 25, 80, 443, 3306, 40000, 65535}, {1, 53, 67, 123, 5353, 40000}} {
		p.ports[i] = sorted(append(p.ports[i], common...))
	}
	p.portless = append(p.portless, 47, 50)
}

func sorted(ports []uint16) []uint16 {
	slices.Sort(ports)
	ports = slices.Compact(ports)
	return slices.DeleteFunc(ports, func(p uint16) bool { return p == 0 })
}

func (p *prober) gatherRule(f family, r *rule) {
	if r.from != nil {
		p.around[f] = append(p.around[f], r.from.value)
		for _, s := range some10(r.from.value) {
			p.sources[f] = append(p.sources[f], s.first, s.last)
			if before := s.first.Prev(); before.IsValid() {
				p.sources[f] = append(p.sources[f], before)
			}
			if next := s.last.Next(); next.IsValid() {
				p.sources[f] = append(p.sources[f], next)
			}
		}
	}
	if r.ports != nil {
		for _, span := range r.ports.value {
			for i := range p.ports {
				p.ports[i] = append(p.ports[i], span.first, span.last, span.first-1, span.last+1)
			}
		}
	}
	if r.protocol != nil && r.protocol.value > 0 {
		if n := uint8(r.protocol.value); policy.ProtocolIndex(policy.Protocol(n)) < 0 && n != icmpProtocol[v4] && n != icmpProtocol[v6] && !slices.Contains(extensionHeaders, int(n)) {
			p.portless = append(p.portless, policy.Protocol(n))
		}
	}
}

// some10 are ten spans at most.
func some10(of addresses) addresses {
	const most = 10
	if len(of) <= most {
		return of
	}
	var out addresses
	for i := range most {
		out = append(out, of[i*len(of)/most])
	}
	return out
}

// deviceOf is an interface that a class stands for.
func (p *prober) deviceOf(in iface) string {
	if in.isName() {
		return string(in)
	}
	prefix := string(in[:len(in)-1])
	if in == rest {
		prefix = "card"
	}
	for _, end := range []string{"0", "1", "7", "77", "x7"} {
		if name := prefix + end; !slices.Contains(p.classes, iface(name)) && len(name) <= 15 {
			return name
		}
	}
	return prefix + "zz"
}

// inside is a random address of a set to, or from, which packets go; the zero address if there is none.
func (p *prober) inside(of addresses) netip.Addr {
	for range 50 {
		if len(of) == 0 {
			break
		}
		s := of[p.random.IntN(len(of))]
		b, first, last := s.first.AsSlice(), s.first.AsSlice(), s.last.AsSlice()
		same := true
		for i := range b {
			switch {
			case same && first[i] == last[i]:
			case same:
				b[i] = first[i] + byte(p.random.IntN(int(last[i]-first[i])+1))
				same = false
			default:
				b[i] = byte(p.random.IntN(256))
			}
		}
		a, _ := netip.AddrFromSlice(b)
		if a.Less(s.first) || s.last.Less(a) {
			a = s.first
		}
		if p.travels(a) {
			return a
		}
	}
	return netip.Addr{}
}

// travels reports whether a host can have an address.
func (p *prober) travels(a netip.Addr) bool {
	f := familyOf(a)
	return a.IsValid() && !a.IsMulticast() && !a.IsUnspecified() && !a.IsLinkLocalUnicast() && len(addresses{{a, a}}.intersect(unreachable[f].union(broadcast))) == 0
}

func draw[T any](random *rand.Rand, of []T) T { return of[random.IntN(len(of))] }

// draw makes up one packet.
func (p *prober) draw() (Probe, bool) {
	f := v4
	if !p.told[v4] || p.told[v6] && p.random.IntN(2) == 0 {
		f = v6
	}
	if len(p.to[f]) == 0 || len(p.interfaces) == 0 {
		return Probe{}, false
	}
	one := Probe{Interface: draw(p.random, p.interfaces), Dst: draw(p.random, p.to[f])}
	if len(p.sources[f]) > 0 && p.random.IntN(2) == 0 {
		one.Src = draw(p.random, p.sources[f])
	} else {
		one.Src = p.inside(draw(p.random, p.around[f]))
	}
	if !one.Src.IsValid() || !p.travels(one.Src) || one.Src == one.Dst || familyOf(one.Src) != f {
		return one, false
	}
	switch n := p.random.IntN(100); {
	case n < 60:
		one.Protocol, one.Port = policy.TCP, draw(p.random, p.ports[0])
	case n < 88:
		one.Protocol, one.Port = policy.UDP, draw(p.random, p.ports[1])
	case n < 94:
		one.Protocol = policy.Protocol(icmpProtocol[f])
		one.ICMP = draw(p.random, icmpQueries[f][:2])
	default:
		one.Protocol = draw(p.random, p.portless)
	}
	if one.Port > 0 && p.random.IntN(10) == 0 {
		one.Port = uint16(1 + p.random.IntN(65535))
	}
	return one, true
}

// RulesText returns the rules of a family, 4 or 6, as iptables-restore reads them, and as they were written where that is
// known; "" if there are none.
func (r *Result) RulesText(family int) string {
	t, f := r.translation, familyOfNumber(family)
	if t == nil || !t.told[f] {
		return ""
	}
	if t.raw[f] != "" {
		return t.raw[f]
	}
	return t.rulesText(f, func(string, *rule) bool { return true }, func(c *chain) string {
		if c.policy == "ACCEPT" {
			return "ACCEPT"
		}
		return "DROP"
	})
}

// SetNames returns the sets of ipset that rules of a family name.
func (r *Result) SetNames(family int) (names []string) {
	t, f := r.translation, familyOfNumber(family)
	if t == nil {
		return nil
	}
	for _, c := range t.chains[f] {
		for _, r := range c.rules {
			names = append(names, r.sets...)
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// Devices returns the interfaces that the policy is about, as probes name them.
func (r *Result) Devices() []string {
	if r.translation == nil {
		return nil
	}
	p := &prober{translation: r.translation}
	var names []string
	for _, in := range r.translation.filtered {
		names = append(names, p.deviceOf(in))
	}
	return names
}
