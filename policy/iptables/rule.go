// SPDX-License-Identifier: Apache-2.0

package iptables

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/portcullis-firewall/portcullis/policy"
)

// place is where something was written. Line 0 is nowhere in particular.
type place struct {
	file string
	line int
	text string
}

// rule is one rule of a chain, as far as it is understood.
type rule struct {
	place
	home  family // of the command that made it
	chain string
	spec  string // by which -D finds it
	args  []string

	in, out  *test[string]
	protocol *test[int] // -1: all
	ports    *test[[]portRange]
	icmp     *test[icmpMessage]
	from, to *test[addresses]
	limit    *limit
	level    [cells]level

	unsure    []string     // what of it is not understood, or cannot be told
	own       int          // how many of these are about what it asks itself
	hides     bool         // some of what it asks, only the script knows
	dress     string       // what it asks of a packet that its sender may have so or otherwise
	near      policy.Limit // what -m recent comes near
	ofAll     policy.Limit // of -m limit, which is one for all sources
	isBlock   bool         // it is in the policy's block
	longSet   string       // a set of more networks than a rule of a policy can name
	target    string
	goesTo    bool              // -g, which does not come back
	asksLocal bool              // about the destination, which is this host or not
	stray     bool              // it has words that belong to no option, so iptables refuses it
	untracked bool              // it is for packets that rules of the raw table leave UNTRACKED, too
	names     map[uint16]string // of ports that were written as names
	maybe     bool              // nobody knows whether it is there
	several   bool              // it is one rule for each of its addresses
	suspect   bool              // iptables may refuse it

	// What an import has no use for, and a [Table] shows.
	destination *test[string]
	rejectWith  string
	sendsTo     string // ADDRESS:PORT, or :PORT of this host
	sets        []string
}

// test is one condition of a rule.
type test[T any] struct {
	value T
	not   bool
}

// level says how much of a cell a rule matches.
type level uint8

const (
	all level = iota
	some
	nothing
)

type portRange struct{ first, last uint16 }

// narrow bounds what the rule matches in each cell.
func (r *rule) narrow(levels func(c cell) level) {
	for c := range r.level {
		r.level[c] = max(r.level[c], levels(cell(c)))
	}
}

// exactly limits the rule to some cells, or to the others.
func (r *rule) exactly(not bool, among ...cell) {
	r.narrow(func(c cell) level {
		if slices.Contains(among, c) != not {
			return all
		}
		return nothing
	})
}

func (r *rule) doubt(format string, args ...any) {
	if why := fmt.Sprintf(format, args...); !slices.Contains(r.unsure, why) {
		r.unsure = append(r.unsure, why)
	}
}

// doubtItself is doubt about what the rule itself asks.
func (r *rule) doubtItself(format string, args ...any) {
	known := len(r.unsure) == r.own
	r.doubt(format, args...)
	if known {
		r.own = len(r.unsure)
	}
}

// certain reports whether the rule matches what it seems to, and nothing else.
func (r *rule) certain() bool { return r.understood() && r.limit == nil }

// understood reports whether the rule is certain but for its limit.
func (r *rule) understood() bool { return len(r.unsure) == 0 }

func (r *rule) doubts() string {
	why := r.unsure
	if r.limit != nil {
		why = append(slices.Clone(why), "-m hashlimit")
	}
	return strings.ReplaceAll(strings.Join(why, ", "), ",, ", ", ") // some end in a comma, for what follows
}

// matches is what the rule may match in a family, without regard to cells and
// interfaces.
func (r *rule) matches(f family) region { return product(r.keys(f), r.sources(f)) }

func (r *rule) sources(f family) addresses {
	switch {
	case r.from == nil || f != r.home && r.from.not:
		return everyone[f]
	case f != r.home:
		return nil
	case r.from.not:
		return everyone[f].subtract(r.from.value)
	}
	return r.from.value
}

func (r *rule) keys(f family) []keys {
	every := keys{0, lastKey}
	if r.protocol == nil || r.protocol.value < 0 {
		return []keys{every}
	}
	number := uint8(r.protocol.value)
	if f != r.home && number == icmpProtocol[r.home] {
		number = icmpProtocol[f]
	}
	of := keysOf(f, number)
	switch {
	case r.protocol.not:
		return complement(every, []keys{of})
	case r.ports != nil && of.last <= ported.last:
		var ks []keys
		for _, p := range r.ports.value {
			ks = append(ks, keys{of.first + key(p.first), of.first + key(p.last)})
		}
		if r.ports.not {
			return complement(of, ks)
		}
		return ks
	case r.icmp != nil && of.first == icmpKeys:
		ks := r.icmp.value.in(r.home, f)
		if r.icmp.not {
			return complement(of, ks)
		}
		return ks
	}
	return []keys{of}
}

func complement(of keys, ks []keys) (out []keys) {
	rest := product([]keys{of}, everyone[v4]).subtract(product(ks, everyone[v4]))
	for _, s := range rest {
		out = append(out, s.keys)
	}
	return out
}

// iface stands for the interfaces that no rule tells apart: one, those that
// begin with a text (eth+) but have no name of their own here, or the rest
// (+). The empty one is none, as the output interface of INPUT.
type iface string

const (
	rest     iface = "+"
	none     iface = ""
	loopback iface = "lo"
)

func (i iface) isName() bool { return !strings.HasSuffix(string(i), "+") && i != none }

// pattern is what stands for it in a policy.
func (i iface) pattern() string {
	if prefix, wild := strings.CutSuffix(string(i), "+"); wild {
		return prefix + "*"
	}
	return string(i)
}

// within reports whether a pattern stands for it, too.
func (i iface) within(of iface) bool {
	prefix, wild := strings.CutSuffix(string(of), "+")
	return i == of || wild && i != rest && strings.HasPrefix(string(i), prefix)
}

func (i iface) matches(t *test[string]) bool {
	if t == nil {
		return true
	}
	prefix, wild := strings.CutSuffix(t.value, "+")
	is := string(i) == t.value
	if wild {
		is = strings.HasPrefix(strings.TrimSuffix(string(i), "+"), prefix)
	}
	return is != t.not
}

// applies reports whether the rule is about a way through this host at all.
func (r *rule) applies(in, out iface) bool { return in.matches(r.in) && out.matches(r.out) }

// parseAddresses reads a list of addresses and networks, with masks of either
// kind. Names are left to those who can resolve them.
func parseAddresses(f family, text string) (addresses, error) {
	var spans []span
	for item := range strings.SplitSeq(text, ",") {
		address, mask, hasMask := strings.Cut(item, "/")
		a, err := netip.ParseAddr(address)
		if err != nil || a.Zone() != "" || a.Is4() != (f == v4) {
			return nil, fmt.Errorf("%q is no %s address", item, f)
		}
		if !hasMask {
			spans = append(spans, span{a, a})
			continue
		}
		p, err := netip.ParsePrefix(address + "/" + mask)
		if err != nil {
			p = netip.PrefixFrom(a, maskBits(mask))
		}
		if !p.IsValid() {
			return nil, fmt.Errorf("%q is no network", item)
		}
		spans = append(spans, spanOf(p))
	}
	return join(spans), nil
}

// maskBits reads a mask such as 255.255.255.0, or ffff:ffff::. It is -1 for
// what is none.
func maskBits(text string) int {
	m, err := netip.ParseAddr(text)
	if err != nil {
		return -1
	}
	for bits := range m.BitLen() + 1 {
		whole := everyone[familyOf(m)][0].last
		if netip.PrefixFrom(whole, bits).Masked().Addr() == m {
			return bits
		}
	}
	return -1
}

func parseSpan(f family, text string) (addresses, error) {
	first, last, isRange := strings.Cut(text, "-")
	if !isRange {
		last = first
	}
	a, err1 := netip.ParseAddr(first)
	b, err2 := netip.ParseAddr(last)
	if err1 != nil || err2 != nil || a.Is4() != (f == v4) || b.Is4() != a.Is4() || a.Zone()+b.Zone() != "" || b.Less(a) {
		return nil, fmt.Errorf("%q is no range of %s addresses", text, f)
	}
	return addresses{{a, b}}, nil
}
