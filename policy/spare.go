// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"net/netip"
	"slices"

	"github.com/portcullis-firewall/portcullis/policy/addrset"
)

// The shortest networks that are blocked without further ado.
const (
	ShortestBlock4 = 8
	ShortestBlock6 = 16
)

// IsWide reports whether a network is too large to be blocked without further ado.
func IsWide(p netip.Prefix) bool {
	if p.Addr().Is4() {
		return p.Bits() < ShortestBlock4
	}
	return p.Bits() < ShortestBlock6
}

// Wide returns those of the networks that are too large to be blocked without further ado.
func (n *Networks) Wide() (wide []netip.Prefix) {
	for _, p := range n.Prefixes {
		if IsWide(p) {
			wide = append(wide, p)
		}
	}
	return wide
}

// Holding returns those of the networks that hold an address, the largest first.
func (n *Networks) Holding(addr netip.Addr) (holding []netip.Prefix) {
	for bits := range addr.BitLen() + 1 {
		p := netip.PrefixFrom(addr, bits).Masked()
		if _, ok := slices.BinarySearchFunc(n.Prefixes, p, comparePrefix); ok {
			holding = append(holding, p)
		}
	}
	return holding
}

// Sparing returns the networks without some addresses, and without some of the networks themselves. It counts as what the
// list holds all the same.
func (n *Networks) Sparing(addrs []netip.Addr, networks []netip.Prefix) *Networks {
	gone := make(map[netip.Prefix]bool)
	for _, p := range networks {
		gone[p] = true
	}
	out := &Networks{Count: n.Count, Digest: n.Digest, Spared: slices.Clone(networks)}
	var spared, cut []netip.Prefix
	for _, addr := range addrs {
		holding := slices.DeleteFunc(n.Holding(addr), func(p netip.Prefix) bool { return gone[p] && !slices.Contains(cut, p) })
		if len(holding) == 0 {
			continue
		}
		spared = append(spared, netip.PrefixFrom(addr, addr.BitLen()))
		for _, p := range holding {
			if !gone[p] {
				gone[p] = true
				cut = append(cut, p)
			}
		}
	}
	if len(gone) == 0 {
		return n
	}
	out.Spared = append(out.Spared, spared...)
	slices.SortFunc(out.Spared, comparePrefix)
	out.Prefixes = make([]netip.Prefix, 0, len(n.Prefixes))
	for _, p := range n.Prefixes {
		if !gone[p] {
			out.Prefixes = append(out.Prefixes, p)
		}
	}
	rest := addrset.Prefixes(addrset.Subtract(addrset.Of(cut), addrset.Of(spared)))
	if len(rest) > 0 {
		out.Prefixes = append(out.Prefixes, rest...)
		slices.SortFunc(out.Prefixes, comparePrefix)
		out.Prefixes = slices.Compact(out.Prefixes)
	}
	return out
}
