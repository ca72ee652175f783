// SPDX-License-Identifier: Apache-2.0

package firewalltest

import (
	"iter"
	"net/netip"
	"slices"
	"time"

	"github.com/portcullis-firewall/portcullis/host"
	"github.com/portcullis-firewall/portcullis/maps"
	"github.com/portcullis-firewall/portcullis/policy"
	"github.com/portcullis-firewall/portcullis/policy/addrset"
)

func (f *Kernel) Resolvers() []netip.Addr { return f.ResolverList }

func (f *Kernel) Gateways() (gateways, sameMAC []netip.Addr, err error) {
	if f.GatewayErr != nil {
		return nil, nil, f.GatewayErr
	}
	return f.GatewayList, f.SameMACList, nil
}

func (f *Kernel) Trusted() ([]addrset.Range, error) {
	trusted := slices.Clone(f.Trusts)
	if f.Running != nil {
		_, trust, _ := maps.BlockListsOf(f.Running)
		trusted = append(trusted, trust...)
	}
	return addrset.Of(trusted), nil
}
func (f *Kernel) Cut(func(netip.Addr) bool) (int, error) { return f.Live, nil }
func (f *Kernel) BanReasons() ([]maps.BanReason, error)  { return nil, nil }

// CountBansByReason implements firewall.Filter.
func (f *Kernel) CountBansByReason() (list []maps.BanReason, exact bool, err error) {
	for _, b := range f.BanList {
		i := slices.IndexFunc(list, func(r maps.BanReason) bool { return r.Text == b.Reason })
		if i < 0 {
			i = len(list)
			list = append(list, maps.BanReason{Text: b.Reason})
		}
		list[i].Bans++
		list[i].Packets += b.Packets
		if b.Since.After(list[i].Last) {
			list[i].Last = b.Since
		}
	}
	return list, true, nil
}

func (f *Kernel) SSHSessions(among func(netip.Addr) bool) ([]host.Connection, error) {
	return slices.DeleteFunc(slices.Clone(f.SSHList), func(c host.Connection) bool { return !among(c.Remote.Addr()) }), nil
}

// BlockedBy implements firewall.Filter.
func (f *Kernel) BlockedBy(addr netip.Addr) (list string, blocked, trusted bool, err error) {
	holds := func(p netip.Prefix) bool { return p.Contains(addr) }
	lists, trust, _ := maps.BlockListsOf(f.Running)
	for _, l := range lists {
		if !blocked && slices.ContainsFunc(l.Prefixes, holds) {
			list, blocked = l.Name, true
		}
	}
	return list, blocked, slices.ContainsFunc(slices.Concat(f.Trusts, trust), holds), nil
}

// BlockLists implements firewall.Filter.
func (f *Kernel) BlockLists() (out []maps.BlockListInForce, err error) {
	lists, _, _ := maps.BlockListsOf(f.Running)
	for _, l := range lists {
		out = append(out, maps.BlockListInForce{Name: l.Name, Digest: l.Digest, Networks4: len(l.Prefixes)})
	}
	return out, nil
}

// recorded returns a policy as one in force is known: of lists that it blocks or trusts there is a digest.
func recorded(p *policy.Policy) *policy.Policy {
	p = p.Clone()
	if len(p.Block)+len(p.Trust) == 0 {
		return p
	}
	r, err := policy.ParseComplete("in force", p.CompleteYAML())
	if err != nil {
		panic(err)
	}
	p.Lists, p.Block, p.Trust = r.Lists, r.Block, r.Trust
	return p
}

// PutCountedBans implements firewall.Filter.
func (f *Kernel) PutCountedBans(bans []maps.Ban) (put int, err error) {
	if f.Fail != nil {
		return 0, f.Fail
	}
	for _, b := range bans {
		if f.NoReasons {
			b.Reason = maps.OtherReasons
		}
		i := slices.IndexFunc(f.BanList, func(have maps.Ban) bool { return have.Prefix == b.Prefix })
		switch {
		case i >= 0:
			f.BanList[i] = b
		case f.Full > 0 && len(f.BanList) >= f.Full:
			return put, maps.ErrBansFull
		default:
			f.BanList = append(f.BanList, b)
		}
		put++
	}
	return put, nil
}

// RemoveBans implements firewall.Filter.
func (f *Kernel) RemoveBans(prefixes []netip.Prefix) (missing []netip.Prefix, err error) {
	if f.Fail != nil {
		return nil, f.Fail
	}
	for _, p := range prefixes {
		n := len(f.BanList)
		f.BanList = slices.DeleteFunc(f.BanList, func(b maps.Ban) bool { return b.Prefix == p })
		if len(f.BanList) == n {
			missing = append(missing, p)
		}
	}
	return missing, nil
}

// RemoveAllBans implements firewall.Filter.
func (f *Kernel) RemoveAllBans() (int, error) {
	if f.Fail != nil {
		return 0, f.Fail
	}
	n := len(f.BanList)
	f.BanList = nil
	return n, nil
}

// FindBans implements firewall.Filter.
func (f *Kernel) FindBans(prefixes []netip.Prefix) (map[netip.Prefix]maps.Ban, error) {
	found := make(map[netip.Prefix]maps.Ban)
	for _, b := range f.BanList {
		if slices.Contains(prefixes, b.Prefix) {
			found[b.Prefix] = b
		}
	}
	return found, nil
}

// Bans implements firewall.Filter.
func (f *Kernel) Bans() iter.Seq2[maps.Ban, error] {
	return func(yield func(maps.Ban, error) bool) {
		for _, b := range slices.Clone(f.BanList) {
			if !yield(b, nil) {
				return
			}
		}
	}
}

// BansOf implements firewall.Filter.
func (f *Kernel) BansOf(addr netip.Addr) (out []maps.Ban, err error) {
	for _, b := range f.BanList {
		if b.Prefix.Contains(addr) {
			out = append(out, b)
		}
	}
	return out, nil
}

// ForgetEndedBans implements firewall.Filter.
func (f *Kernel) ForgetEndedBans() (int, error) {
	n := len(f.BanList)
	f.BanList = slices.DeleteFunc(f.BanList, func(b maps.Ban) bool { return !b.Until.IsZero() && b.Until.Before(time.Now()) })
	return n - len(f.BanList), nil
}

// EachBlocked implements firewall.Filter.
func (f *Kernel) EachBlocked(visit func(list string, network netip.Prefix)) error {
	lists, _, _ := maps.BlockListsOf(f.Running)
	for _, l := range lists {
		for _, p := range l.Prefixes {
			visit(l.Name, p)
		}
	}
	return f.PolicyErr
}
