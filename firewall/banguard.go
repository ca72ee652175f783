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

const (
	fewBans     = 64              // that are in force before it is known whether they are refused
	provisional = 5 * time.Second // and for how long they are if this process ends at once
)

// guarded takes out of what is wanted whatever hits who looks after this host. A few bans are in force meanwhile, for some
// seconds: long enough to look, and too short to lock anybody out. Who is banned already stays so: should this process end
// at once, his ban must not end with the few seconds.
func (b *ban) guarded() error {
	if len(b.wanted)+len(b.kept) == 0 {
		return nil
	}
	undo := func([]netip.Prefix) error { return nil }
	if len(b.lines) <= fewBans {
		b.refuse(&bans.Guard{}) // what is too large to be meant is not in force for a moment either
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
	g, err := b.guard()
	if err != nil {
		return errors.Join(err, undo(prefixesOf(b.wanted)))
	}
	b.refuse(g)
	if len(b.refused) == 0 {
		return nil
	}
	var back []netip.Prefix
	kept, places := b.wanted[:0], b.places[:0]
	for i, one := range b.wanted {
		if b.refused[int(b.places[i])] != nil {
			back = append(back, one.Prefix)
		} else {
			kept, places = append(kept, one), append(places, b.places[i])
		}
	}
	b.wanted, b.places = kept, places
	return undo(back)
}

// guard finds out who is not to be banned.
func (b *ban) guard() (*bans.Guard, error) {
	g := &bans.Guard{}
	trusted, err := b.filter.Trusted()
	if err != nil {
		return nil, err
	}
	for _, r := range trusted {
		g.ProtectRange(r, "trusted by the policy")
	}
	all, err := b.fw.vitals()
	if err != nil {
		return nil, err
	}
	for _, v := range all {
		g.Protect(v.addr, v.why)
	}
	if s, ok := b.fw.user.Recorded(); ok {
		g.Protect(s.Remote.Addr(), "the source of this ssh session")
	}
	sessions, err := b.fw.kernel.SSHSessions(b.index.Holds)
	if err != nil {
		return nil, fmt.Errorf("find the ssh sessions of this host: %w", err)
	}
	for _, c := range sessions {
		g.Protect(c.Remote.Addr(), fmt.Sprintf("the source of an ssh session in use, to port %d", c.Local.Port()))
	}
	return g, nil
}

// refuse takes note of what a guard refuses.
func (b *ban) refuse(g *bans.Guard) {
	for i := range b.lines {
		if err := g.Check(b.lines[i].Prefix); err != nil && b.refused[i] == nil {
			b.refused[i] = err
		}
	}
}

// notYetBanned returns those that are to be banned and are not.
func (b *ban) notYetBanned() (out []maps.Ban) {
	for i, one := range b.wanted {
		if _, ok := b.banned[one.Prefix]; !ok && b.refused[int(b.places[i])] == nil {
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

// vitalGuard protects what this host lives on from bans that come into force where nobody can be asked.
// With an error, it protects what was found.
func (fw *Firewall) vitalGuard() (*bans.Guard, error) {
	g := &bans.Guard{}
	all, err := fw.vitalsAmong(func(netip.Addr) bool { return true })
	for _, v := range all {
		g.Protect(v.addr, v.why)
	}
	return g, err
}

// bannedVitals returns the bans in force that hit what this host lives on, the trusted apart, with one address that each hits.
func (fw *Firewall) bannedVitals(f Filter) (hit map[netip.Prefix]vital, err error) {
	trusted, err := f.Trusted()
	if err != nil {
		return nil, err
	}
	hit = make(map[netip.Prefix]vital)
	of := func(addr netip.Addr) []maps.Ban {
		if addrset.Holds(trusted, addr) {
			return nil
		}
		list, failed := f.BansOf(addr)
		err = errors.Join(err, failed)
		return list
	}
	all, failed := fw.vitalsAmong(func(addr netip.Addr) bool { return len(of(addr)) > 0 })
	for _, v := range all {
		for _, b := range of(v.addr) {
			if _, known := hit[b.Prefix]; !known {
				hit[b.Prefix] = v
			}
		}
	}
	return hit, errors.Join(err, failed)
}

// dropForced leaves out bans that somebody has insisted on.
func (fw *Firewall) dropForced(hit map[netip.Prefix]vital) error {
	_, err := fw.Journal().Load(time.Now(), func(b maps.Ban) error {
		if b.Forced {
			delete(hit, b.Prefix)
		}
		return nil
	})
	return err
}
