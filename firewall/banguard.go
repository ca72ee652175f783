// SPDX-License-Identifier: Apache-2.0

package firewall

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/portcullis-firewall/portcullis/firewall/bans"
	"github.com/portcullis-firewall/portcullis/maps"
	"github.com/portcullis-firewall/portcullis/policy/addrset"
)

// askGuard refuses bans that hit who looks after this host, but for ssh sessions.
func (b *ban) askGuard() error {
	g := &bans.Guard{}
	trusted, err := b.filter.Trusted()
	if err != nil {
		return err
	}
	for _, r := range trusted {
		g.ProtectRange(r, "trusted by the policy")
	}
	all, err := b.fw.vitals()
	if err != nil {
		return err
	}
	for _, v := range all {
		g.Protect(v.addr, v.why)
	}
	if s, ok := b.fw.user.Recorded(); ok {
		g.Protect(s.Remote.Addr(), "the source of this ssh session")
	}
	b.refuse(g)
	return nil
}

// refuse takes note of what a guard refuses.
func (b *ban) refuse(g *bans.Guard) {
	for i, l := range b.lines {
		if err := g.Check(l.Prefix); err != nil && b.refused[i] == nil {
			b.refused[i] = err
		}
	}
}

const (
	fewBans     = 64              // that are in force before it is known whether they are refused
	provisional = 5 * time.Second // and for how long they are if this process ends at once
)

// askSessions refuses bans of who has logged in by ssh. To find out takes a look at every process, so a few bans are in force
// meanwhile, for some seconds: long enough to look, and too short to lock anybody out. Who is banned already stays so: should
// this process end at once, his ban must not end with the few seconds.
func (b *ban) askSessions() error {
	if len(b.wanted) == 0 {
		return nil
	}
	undo := func([]netip.Prefix) error { return nil }
	if len(b.wanted) <= fewBans {
		soon := time.Now().Add(provisional)
		now := b.notYetBanned()
		for i := range now {
			now[i].Until = soon
		}
		undo = b.takeBack
		if put, err := b.filter.PutCountedBans(now); err != nil && !errors.Is(err, maps.ErrBansFull) { // of that Ban tells
			return errors.Join(err, undo(prefixesOf(now[:put])))
		}
	}
	sessions, err := b.fw.kernel.SSHSessions(inLines(b.lines))
	if err != nil {
		return errors.Join(fmt.Errorf("find the ssh sessions of this host: %w", err), undo(prefixesOf(b.wanted)))
	}
	if len(sessions) == 0 {
		return nil
	}
	g := &bans.Guard{}
	for _, c := range sessions {
		g.Protect(c.Remote.Addr(), fmt.Sprintf("the source of an ssh session in use, to port %d", c.Local.Port()))
	}
	b.refuse(g)
	var back []netip.Prefix
	kept := b.wanted[:0]
	for i, one := range b.wanted {
		if b.refused[b.places[i]] != nil {
			back = append(back, one.Prefix)
		} else {
			kept = append(kept, one)
		}
	}
	b.wanted = kept
	return undo(back)
}

// notYetBanned returns those that are to be banned and are not.
func (b *ban) notYetBanned() (out []maps.Ban) {
	for _, one := range b.wanted {
		if _, ok := b.banned[one.Prefix]; !ok {
			out = append(out, one)
		}
	}
	return out
}

// takeBack ends provisional bans. Who was banned before has none.
func (b *ban) takeBack(prefixes []netip.Prefix) error {
	_, err := b.filter.RemoveBans(slices.DeleteFunc(prefixes, func(p netip.Prefix) bool {
		_, ok := b.banned[p]
		return ok
	}))
	return err
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
