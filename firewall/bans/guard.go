// SPDX-License-Identifier: Apache-2.0

package bans

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/portcullis-firewall/portcullis/policy/addrset"
)

// Guard knows the addresses that a ban is not to hit: those by which this host is looked after, and works.
type Guard struct {
	protected []protected  // sorted by their first address
	farthest  []netip.Addr // of protected, the last address of each and of those before it
	sorted    bool
}

type protected struct {
	addrset.Range
	why string
}

// Protect adds an address, and what it is: "the default gateway".
func (g *Guard) Protect(addr netip.Addr, why string) {
	g.ProtectRange(addrset.Range{First: addr, Last: addr}, why)
}

// ProtectRange adds a range of addresses.
func (g *Guard) ProtectRange(r addrset.Range, why string) {
	g.protected = append(g.protected, protected{r, why})
	g.sorted = false
}

// Check refuses an address or a network that is, or holds, one that is protected, and a network that is too large to be
// meant.
func (g *Guard) Check(p netip.Prefix) error {
	if shortest := shortestPrefix(p.Addr()); p.Bits() < shortest {
		return fmt.Errorf("%s is shorter than /%d: use --force if it is meant", Text(p), shortest)
	}
	if what := neverSource(p.Addr()); what != "" {
		return fmt.Errorf("%s %s: use --force if it is meant", Text(p), what)
	}
	if hit, ok := g.Hit(p); ok {
		return fmt.Errorf("%s %s: use --force if it is meant", Text(p), hit)
	}
	return nil
}

// neverSource tells why no packet from outside can come from an address, or a network that is not too large to be meant; ""
// where one can.
func neverSource(addr netip.Addr) string {
	switch {
	case addr.IsLoopback():
		return "is loopback"
	case addr.IsUnspecified(), addr.Is4() && addr.As4()[0] == 0:
		return "is no address of a host"
	case addr.IsMulticast():
		return "is multicast"
	case addr == netip.AddrFrom4([4]byte{255, 255, 255, 255}):
		return "is the broadcast address"
	}
	return ""
}

// Hit returns which protected address an address or a network is or holds, in words, and reports whether there is one.
func (g *Guard) Hit(p netip.Prefix) (text string, ok bool) {
	hit, ok := g.find(rangeOf(p))
	switch {
	case !ok:
		return "", false
	case p.IsSingleIP():
		return "is " + hit.why, true
	case hit.First == hit.Last:
		return fmt.Sprintf("holds %s, %s", hit.First, hit.why), true
	}
	return fmt.Sprintf("holds %s-%s, %s", hit.First, hit.Last, hit.why), true
}

// Holds reports whether an address or a network is, or holds, one that is protected.
func (g *Guard) Holds(p netip.Prefix) bool {
	_, ok := g.find(rangeOf(p))
	return ok
}

// rangeOf is addrset.RangeOf, which computes nothing for a single address: most are, and there may be a million.
func rangeOf(p netip.Prefix) addrset.Range {
	if p.IsSingleIP() {
		return addrset.Range{First: p.Addr(), Last: p.Addr()}
	}
	return addrset.RangeOf(p)
}

// shortestPrefix is that of the largest network that is banned without further ado.
func shortestPrefix(addr netip.Addr) int {
	if addr.Is4() {
		return 8
	}
	return 16
}

// find returns one that is protected of a range.
func (g *Guard) find(r addrset.Range) (hit protected, ok bool) {
	if !g.sorted {
		slices.SortStableFunc(g.protected, func(a, b protected) int { return a.First.Compare(b.First) })
		g.farthest = make([]netip.Addr, len(g.protected))
		for i, p := range g.protected {
			g.farthest[i] = p.Last
			if i > 0 && p.Last.Less(g.farthest[i-1]) {
				g.farthest[i] = g.farthest[i-1]
			}
		}
		g.sorted = true
	}
	// Those before the end of the range may reach into it.
	end, _ := slices.BinarySearchFunc(g.protected, r.Last, func(p protected, last netip.Addr) int {
		if p.First.Compare(last) <= 0 {
			return -1
		}
		return 1
	})
	for i := end - 1; i >= 0 && g.farthest[i].Compare(r.First) >= 0; i-- {
		if g.protected[i].Last.Compare(r.First) >= 0 {
			return g.protected[i], true
		}
	}
	return hit, false
}
