// SPDX-License-Identifier: Apache-2.0

package maps

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"github.com/cilium/ebpf"

	"github.com/portcullis-firewall/portcullis/bpf"
	"github.com/portcullis-firewall/portcullis/policy/addrset"
)

// FindBans returns those of the bans in force that are of the very addresses and networks named, by these.
func (s *State) FindBans(clock Clock, prefixes []netip.Prefix) (map[netip.Prefix]Ban, error) {
	const few = 256 // for which a look at each is less than one at all that there are
	reasons, err := s.banReasons()
	if err != nil {
		return nil, err
	}
	found := make(map[netip.Prefix]Ban)
	if len(prefixes) <= few {
		for _, p := range prefixes {
			kind := banKindOf(p)
			m, err := s.Map(kind.name())
			if err != nil {
				return nil, err
			}
			var wire bpf.FirewallBan
			switch err := kind.lookup(m, kind.key(p), p, &wire); {
			case errors.Is(err, ebpf.ErrKeyNotExist):
			case err != nil:
				return nil, fmt.Errorf("look for the ban of %s: %w", p, err)
			case wire.Until > clock.Jiffies:
				found[p] = reasons.ban(clock, p, &wire)
			}
		}
		return found, nil
	}
	var wanted map[netip.Prefix]bool // made where there is any ban
	for _, kind := range banKinds {
		if err := s.eachBan(kind, func(p netip.Prefix, wire *bpf.FirewallBan) bool {
			if wanted == nil {
				wanted = make(map[netip.Prefix]bool, len(prefixes))
				for _, p := range prefixes {
					wanted[p] = true
				}
			}
			if wanted[p] && wire.Until > clock.Jiffies {
				found[p] = reasons.ban(clock, p, wire)
			}
			return true
		}); err != nil {
			return nil, err
		}
	}
	return found, nil
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
