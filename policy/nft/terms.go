// SPDX-License-Identifier: Apache-2.0

package nft

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/portcullis-firewall/portcullis/policy/addrset"
	"github.com/portcullis-firewall/portcullis/policy/iptables"
)

// terms are what packets have to be for a rule: all of these at once.
type terms struct {
	families  [2]bool
	in, out   names
	protocols protocolSet
	ports     []portRange // of destination; nil is any
	portName  string      // as the one port was written, if by name
	icmp      [2][]int    // types and codes, type<<8|code, by family; nil is any
	from, to  [2][]addrset.Range
	options   []string // of iptables, for what has no field here
	doubts    []string
	limit     *bounded
	never     bool // no packet is so
	asksPorts bool // whatever the protocol is
	frames    bool // it was asked whom the frame is for

	redirected bool // by DNAT of this host
	nextHeader bool // it was asked for the first header of IPv6
}

// bounded is a limit for each source, and the set in which it is counted.
type bounded struct {
	limit
	set  string
	wide bool // an IPv6 source is a /64
}

// names are those of interfaces: one of some, and none of others.
type names struct {
	among  []string // nil is any
	except []string
}

type portRange struct{ first, last int }

// protocolSet holds protocols by number.
type protocolSet [256]bool

func allProtocols() (p protocolSet) {
	for i := range p {
		p[i] = true
	}
	return p
}

func (p protocolSet) count() (n int) {
	for _, in := range p {
		if in {
			n++
		}
	}
	return n
}

func (p protocolSet) numbers(in bool) (list []int) {
	for n, has := range p {
		if has == in {
			list = append(list, n)
		}
	}
	return list
}

// newTerms are those of any packet of some families.
func newTerms(families [2]bool) *terms {
	t := &terms{families: families, protocols: allProtocols()}
	for _, f := range iptables.Families {
		t.from[f] = addrset.OfFamily(addrset.Everything, f == iptables.IPv4)
		t.to[f] = t.from[f]
	}
	return t
}

func (t *terms) clone() *terms {
	c := *t
	c.options, c.doubts = slices.Clone(t.options), slices.Clone(t.doubts)
	return &c
}

func (t *terms) doubt(format string, args ...any) {
	if text := fmt.Sprintf(format, args...); !slices.Contains(t.doubts, text) {
		t.doubts = append(t.doubts, text)
	}
}

// only limits the terms to one family.
func (t *terms) only(f iptables.Family) {
	t.families[1-f] = false
	t.never = t.never || !t.families[f]
}

// among limits the protocols.
func (t *terms) among(set protocolSet) {
	for n := range t.protocols {
		t.protocols[n] = t.protocols[n] && set[n]
	}
	t.never = t.never || t.protocols.count() == 0
}

func protocolsOf(numbers ...int) (p protocolSet) {
	for _, n := range numbers {
		p[n] = true
	}
	return p
}

// restrict limits addresses of a family to some, or to others than these.
func (t *terms) restrict(of *[2][]addrset.Range, f iptables.Family, to []addrset.Range, not bool) {
	if not {
		of[f] = addrset.Subtract(of[f], to)
	} else {
		of[f] = addrset.Intersect(of[f], to)
	}
	t.never = t.never || len(of[f]) == 0
}

// restrictPorts limits the destination ports.
func (t *terms) restrictPorts(to []portRange, not bool) {
	if not {
		to = otherPorts(to)
	}
	if t.ports != nil {
		to = bothPorts(t.ports, to)
	}
	t.ports = to
	t.never = t.never || len(to) == 0
}

// otherPorts are those between and around sorted ranges.
func otherPorts(list []portRange) []portRange {
	out := []portRange{}
	next := 0
	for _, r := range joinPorts(list) {
		if next < r.first {
			out = append(out, portRange{next, r.first - 1})
		}
		next = r.last + 1
	}
	if next <= 65535 {
		out = append(out, portRange{next, 65535})
	}
	return out
}

func bothPorts(a, b []portRange) []portRange {
	out := []portRange{}
	for _, p := range a {
		for _, q := range b {
			if r := (portRange{max(p.first, q.first), min(p.last, q.last)}); r.first <= r.last {
				out = append(out, r)
			}
		}
	}
	return out
}

// joinPorts sorts ranges and makes one of those that overlap or touch.
func joinPorts(list []portRange) (out []portRange) {
	list = slices.Clone(list)
	slices.SortFunc(list, func(a, b portRange) int { return a.first - b.first })
	for _, r := range list {
		if n := len(out); n > 0 && r.first <= out[n-1].last+1 {
			out[n-1].last = max(out[n-1].last, r.last)
			continue
		}
		out = append(out, r)
	}
	return out
}

// restrictNames limits interfaces to some, or to others than these.
func (n *names) restrict(to []string, not bool) (possible bool) {
	switch {
	case not:
		n.except = append(slices.Clone(n.except), to...)
	case n.among == nil:
		n.among = to
	default:
		var both []string
		for _, a := range n.among {
			for _, b := range to {
				switch {
				case within(a, b):
					both = append(both, a)
				case within(b, a):
					both = append(both, b)
				}
			}
		}
		n.among = both
	}
	return n.among == nil || len(n.among) > 0
}

// within reports whether all interfaces of one name, or pattern, are of another.
func within(name, of string) bool {
	prefix, wild := strings.CutSuffix(of, "+")
	return name == of || wild && strings.HasPrefix(strings.TrimSuffix(name, "+"), prefix)
}

// restrictICMP limits the types of a family to some.
func (t *terms) restrictICMP(f iptables.Family, to []int) {
	if t.icmp[f] != nil {
		to = slices.DeleteFunc(slices.Clone(to), func(m int) bool { return !slices.Contains(t.icmp[f], m) })
	}
	t.icmp[f] = to
	t.never = t.never || len(to) == 0
}

// maxRules bounds what one rule is taken apart into.
const maxRules = 512

// spelled is one rule of iptables, without a target.
type spelled struct {
	options  []string
	excluded [][]string // for what it is not, each as options
}

// spell says the terms of one family in options of iptables; several rules
// stand for any of them.
func (t *terms) spell(f iptables.Family) (out []spelled) {
	if t.never || !t.families[f] {
		return nil
	}
	base := spelled{options: slices.Clone(t.options)}
	for _, side := range []struct {
		option string
		set    []addrset.Range
	}{{"-s", t.from[f]}, {"-d", t.to[f]}} {
		base.options = append(base.options, addressOptions(side.option, f, side.set)...)
	}
	if max(1, len(t.in.among))*max(1, len(t.out.among))*max(1, len(t.icmp[f])) > maxRules {
		return []spelled{{options: []string{"-m", "too-many-conditions"}}} // which is in doubt
	}
	list := t.in.spell("-i", []spelled{base})
	list = t.out.spell("-o", list)
	return t.spellProtocols(f, list)
}

// with is a rule with more options.
func (s spelled) with(options ...string) spelled {
	return spelled{slices.Concat(s.options, options), s.excluded}
}

func (s spelled) without(options ...string) spelled {
	return spelled{s.options, append(slices.Clone(s.excluded), options)}
}

func (n names) spell(option string, list []spelled) (out []spelled) {
	for _, s := range list {
		if n.among == nil && len(n.except) == 1 {
			out = append(out, s.with("!", option, n.except[0]))
			continue
		}
		for _, e := range n.except {
			if n.among == nil || slices.ContainsFunc(n.among, func(a string) bool { return within(e, a) || within(a, e) }) {
				s = s.without(option, e)
			}
		}
		if n.among == nil {
			out = append(out, s)
		}
		for _, a := range n.among {
			out = append(out, s.with(option, a))
		}
	}
	return out
}

// ported are the protocols that have ports.
var ported = []int{6, 17, 132, 136}

var icmpProtocol = [...]int{1, 58}

func (t *terms) spellProtocols(f iptables.Family, list []spelled) (out []spelled) {
	numbers := t.protocols.numbers(true)
	if others := t.protocols.numbers(false); len(others) == 0 {
		return list
	} else if len(others) < 32 {
		for _, s := range list {
			if len(others) == 1 {
				out = append(out, s.with("!", "-p", strconv.Itoa(others[0])))
				continue
			}
			for _, n := range others {
				s = s.without("-p", strconv.Itoa(n))
			}
			out = append(out, s)
		}
		return out
	}
	for _, n := range numbers {
		// No host sends ICMP of the other family.
		if n == icmpProtocol[1-f] {
			continue
		}
		of := []string{"-p", strconv.Itoa(n)}
		if t.ports != nil {
			of = append(of, "-m", "multiport", "--dport", t.portsText())
		}
		for _, s := range list {
			if n != icmpProtocol[f] || t.icmp[f] == nil {
				out = append(out, s.with(of...))
				continue
			}
			for _, m := range t.icmp[f] {
				kind := strconv.Itoa(m >> 8 & 0xff)
				if kind == "255" {
					continue // which stands for any type to iptables, and which nobody sends
				}
				if m&anyCode == 0 {
					kind += "/" + strconv.Itoa(m&0xff)
				}
				out = append(out, s.with("-p", strconv.Itoa(n), "--icmp-type", kind))
			}
		}
	}
	return out
}

func (t *terms) portsText() string {
	if t.portName != "" {
		return t.portName
	}
	texts := make([]string, len(t.ports))
	for i, p := range t.ports {
		if texts[i] = strconv.Itoa(p.first); p.first != p.last {
			texts[i] += ":" + strconv.Itoa(p.last)
		}
	}
	return strings.Join(texts, ",")
}

// addressOptions says a set of addresses by those in it or, where that is much
// shorter, by those that are not.
func addressOptions(option string, f iptables.Family, set []addrset.Range) []string {
	every := addrset.OfFamily(addrset.Everything, f == iptables.IPv4)
	others := addrset.Subtract(every, set)
	if len(others) == 0 {
		return nil
	}
	in, out := addrset.Prefixes(set), addrset.Prefixes(others)
	if 4*len(out) < len(in) {
		return []string{"!", option, commas(out)}
	}
	return []string{option, commas(in)}
}

func commas(list []netip.Prefix) string {
	texts := make([]string, len(list))
	for i, p := range list {
		texts[i] = p.String()
	}
	return strings.Join(texts, ",")
}
