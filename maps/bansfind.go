// SPDX-License-Identifier: Apache-2.0

package maps

import (
	"encoding/binary"
	"net/netip"

	"github.com/portcullis-firewall/portcullis/bpf"
	"github.com/portcullis-firewall/portcullis/policy/addrset"
)

// FindBans returns those of the bans in force that are of the very addresses and networks named, by these.
func (s *State) FindBans(clock Clock, prefixes []netip.Prefix) (map[netip.Prefix]Ban, error) {
	reasons, err := s.banReasons()
	if err != nil {
		return nil, err
	}
	found := make(map[netip.Prefix]Ban)
	err = s.eachOf(prefixes, func(p netip.Prefix, wire *bpf.FirewallBan) {
		if wire.Until > clock.Jiffies {
			found[p] = reasons.ban(clock, p, wire)
		}
	})
	return found, err
}

// Trusted returns the sources that the policy trusts.
func (r *Ruleset) Trusted() (out []addrset.Range, err error) {
	_, now, err := r.blocking()
	if err != nil || now.TrustSet == 0 {
		return nil, err
	}
	image, err := r.imageOfSet(now.TrustSet)
	if err != nil {
		return nil, err
	}
	image.eachRange(func(is4 bool, first, last address, _ uint32) {
		out = append(out, addrset.Range{First: first.netip(is4), Last: last.netip(is4)})
	})
	return out, nil
}

// netip is addressOf backwards.
func (a address) netip(is4 bool) netip.Addr {
	if is4 {
		var b [4]byte
		binary.BigEndian.PutUint32(b[:], uint32(a.high))
		return netip.AddrFrom4(b)
	}
	var b [16]byte
	binary.BigEndian.PutUint64(b[:8], a.high)
	binary.BigEndian.PutUint64(b[8:], a.low)
	return netip.AddrFrom16(b)
}
