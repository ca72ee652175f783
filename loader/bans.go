// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"net/netip"

	"github.com/portcullis-firewall/portcullis/host"
	"github.com/portcullis-firewall/portcullis/loader/seed"
	"github.com/portcullis-firewall/portcullis/maps"
	"github.com/portcullis-firewall/portcullis/policy/addrset"
)

// FindBans returns those of the bans in force that are of the very addresses and networks named, by these.
func (f *Filter) FindBans(prefixes []netip.Prefix) (map[netip.Prefix]maps.Ban, error) {
	clock, err := f.clock()
	if err != nil {
		return nil, err
	}
	return f.set.FindBans(clock, prefixes)
}

// PutCountedBans is PutBans for who has asked what is banned already: each goes on with the packets that it says.
func (f *Filter) PutCountedBans(bans []maps.Ban) (put int, err error) {
	return f.putBans(f.set.PutCountedBans, bans)
}

// Cut ends the connections with some addresses: their flows are marked so that nothing revives them but a new connection,
// and their sockets are closed where the kernel can. It returns how many there were.
func (f *Filter) Cut(concerned func(netip.Addr) bool) (int, error) {
	unlock, err := f.change()
	if err != nil {
		return 0, err
	}
	defer unlock()
	isLocal, err := host.LocalAddresses()
	if err != nil {
		return 0, err
	}
	return f.kill(func(_ *seed.Connections, flow *maps.Flow) bool {
		if concerned(flow.Remote.Addr()) {
			return true
		}
		local := flow.Local.Addr() // of what is routed, the other end: a flow may be of either
		return concerned(local) && !isLocal(local)
	})
}

// Trusted returns the sources that the policy trusts.
func (f *Filter) Trusted() ([]addrset.Range, error) { return f.set.Trusted() }

// CountBansByReason returns the reasons for which there are bans or were, with how many bans are in force for each, when
// somebody was last banned for it and what was dropped. Where there are very many, exact is false: those that have ended are
// among them until they are forgotten.
func (f *Filter) CountBansByReason() (list []maps.BanReason, exact bool, err error) {
	clock, err := f.clock()
	if err != nil {
		return nil, false, err
	}
	return f.set.CountBansByReason(clock)
}
