// SPDX-License-Identifier: Apache-2.0

package iptables

import (
	"net/netip"
	"slices"
)

// family is 0 for IPv4 and 1 for IPv6.
type family int

const (
	v4 family = iota
	v6
)

var families = []family{v4, v6}

func (f family) other() family { return 1 - f }

func (f family) String() string { return [...]string{"IPv4", "IPv6"}[f] }

func familyOf(a netip.Addr) family {
	if a.Is4() {
		return v4
	}
	return v6
}

// span is the addresses from first to last of one family.
type span struct{ first, last netip.Addr }

// addresses is a set of addresses of one family: spans in order that neither
// overlap nor touch.
type addresses []span

func spanOf(p netip.Prefix) span {
	p = p.Masked()
	last := p.Addr().AsSlice()
	for bit := p.Bits(); bit < len(last)*8; bit++ {
		last[bit/8] |= 0x80 >> (bit % 8)
	}
	end, _ := netip.AddrFromSlice(last)
	return span{p.Addr(), end}
}

func prefixes(texts ...string) addresses {
	var spans []span
	for _, text := range texts {
		spans = append(spans, spanOf(netip.MustParsePrefix(text)))
	}
	return join(spans)
}

var (
	everyone = [...]addresses{prefixes("0.0.0.0/0"), prefixes("::/0")}

	// martians never reach INPUT from outside, as the kernel drops them:
	// ip_route_input_slow and ip6_rcv_core of Linux 6.12.
	martians = [...]addresses{
		prefixes("127.0.0.0/8", "224.0.0.0/4", "255.255.255.255/32"),
		prefixes("::1/128", "ff00::/8"),
	}
)

// join makes a set of spans in any order.
func join(spans []span) addresses {
	spans = slices.Clone(spans)
	slices.SortFunc(spans, func(a, b span) int { return a.first.Compare(b.first) })
	var out addresses
	for _, s := range spans {
		if n := len(out); n > 0 && (!out[n-1].last.Less(s.first) || out[n-1].last.Next() == s.first) {
			if out[n-1].last.Less(s.last) {
				out[n-1].last = s.last
			}
			continue
		}
		out = append(out, s)
	}
	return out
}

func (a addresses) union(b addresses) addresses {
	switch {
	case len(a) == 0:
		return b
	case len(b) == 0:
		return a
	}
	return join(slices.Concat(a, b))
}

func (a addresses) intersect(b addresses) addresses {
	var out addresses
	for i, j := 0, 0; i < len(a) && j < len(b); {
		s := span{later(a[i].first, b[j].first), earlier(a[i].last, b[j].last)}
		if !s.last.Less(s.first) {
			out = append(out, s)
		}
		if a[i].last.Less(b[j].last) {
			i++
		} else {
			j++
		}
	}
	return out
}

func (a addresses) subtract(b addresses) addresses {
	var out addresses
	j := 0
	for _, s := range a {
		for j < len(b) && b[j].last.Less(s.first) {
			j++
		}
		rest := true
		for k := j; rest && k < len(b) && !s.last.Less(b[k].first); k++ {
			if s.first.Less(b[k].first) {
				out = append(out, span{s.first, b[k].first.Prev()})
			}
			if rest = b[k].last.Less(s.last); rest {
				s.first = b[k].last.Next()
			}
		}
		if rest {
			out = append(out, s)
		}
	}
	return out
}

func (a addresses) contains(b addresses) bool { return len(b.subtract(a)) == 0 }

// prefixes returns the fewest networks that make up the set.
func (a addresses) prefixes() []netip.Prefix {
	var out []netip.Prefix
	for _, s := range a {
		for at := s.first; ; {
			bits := at.BitLen()
			for bits > 0 {
				wider := spanOf(netip.PrefixFrom(at, bits-1))
				if wider.first != at || s.last.Less(wider.last) {
					break
				}
				bits--
			}
			p := netip.PrefixFrom(at, bits)
			out = append(out, p)
			last := spanOf(p).last
			if !last.Less(s.last) {
				break
			}
			at = last.Next()
		}
	}
	return out
}

func earlier(a, b netip.Addr) netip.Addr {
	if a.Less(b) {
		return a
	}
	return b
}

func later(a, b netip.Addr) netip.Addr {
	if a.Less(b) {
		return b
	}
	return a
}
