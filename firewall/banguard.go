// SPDX-License-Identifier: Apache-2.0

package firewall

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/portcullis-firewall/portcullis/firewall/bans"
	"github.com/portcullis-firewall/portcullis/policy/addrset"
)

// banGuard returns the guard for bans of some sources. What costs a look at every process is asked only where one of them
// has a connection.
func (fw *Firewall) banGuard(f Filter, lines []bans.Line) (*bans.Guard, error) {
	g := &bans.Guard{}
	trusted, err := f.Trusted()
	if err != nil {
		return nil, err
	}
	for _, r := range trusted {
		g.ProtectRange(r, "trusted by the policy")
	}
	all, err := fw.vitals(inLines(lines))
	if err != nil {
		return nil, err
	}
	for _, v := range all {
		g.Protect(v.addr, v.why)
	}
	return g, nil
}

// inLines returns a function that reports whether an address is in one of the lines.
func inLines(lines []bans.Line) func(netip.Addr) bool {
	if len(lines) == 1 {
		return lines[0].Prefix.Contains
	}
	prefixes := make([]netip.Prefix, len(lines))
	for i, l := range lines {
		prefixes[i] = l.Prefix
	}
	ranges := addrset.Of(prefixes)
	return func(addr netip.Addr) bool { return holdsAddress(ranges, addr) }
}

// holdsAddress reports whether an address is in sorted ranges.
func holdsAddress(ranges []addrset.Range, addr netip.Addr) bool {
	i, found := slices.BinarySearchFunc(ranges, addr, func(r addrset.Range, a netip.Addr) int { return r.First.Compare(a) })
	return found || i > 0 && addr.Compare(ranges[i-1].Last) <= 0
}

// trustedAmong warns of bans that have no effect.
func trustedAmong(f Filter, prefixes []netip.Prefix) (warnings []string) {
	trusted, err := f.Trusted()
	if err != nil || len(trusted) == 0 {
		return warning(err)
	}
	g := &bans.Guard{}
	for _, r := range trusted {
		g.ProtectRange(r, "trusted")
	}
	n := 0
	for _, p := range prefixes {
		if !g.Holds(p) {
			continue
		}
		if n++; n <= 3 {
			warnings = append(warnings, fmt.Sprintf("who the policy trusts is let in all the same, and %s is trusted or holds such an address", bans.Text(p)))
		}
	}
	if n > 3 {
		warnings = append(warnings, fmt.Sprintf("so it is with %d more", n-3))
	}
	return warnings
}
