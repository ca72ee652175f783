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
	reasons, err := s.banReasons()
	if err != nil {
		return nil, err
	}
	found := make(map[netip.Prefix]Ban)
	s.knownBans = newPrefixMap[uint32](0)
	err = s.eachOf(prefixes, func(p netip.Prefix, wire *bpf.FirewallBan) {
		s.knownBans.set(p, wire.Reason)
		if wire.Until > clock.Jiffies {
			found[p] = reasons.ban(clock, p, wire)
		}
	})
	return found, err
}

// countedBans returns the packets of those of bans that there are already.
func (s *State) countedBans(bans []Ban) (*prefixMap[uint64], error) {
	prefixes := make([]netip.Prefix, len(bans))
	for i := range bans {
		prefixes[i] = bans[i].Prefix
	}
	counted := newPrefixMap[uint64](0)
	s.knownBans = newPrefixMap[uint32](0)
	err := s.eachOf(prefixes, func(p netip.Prefix, wire *bpf.FirewallBan) {
		s.knownBans.set(p, wire.Reason)
		if wire.Packets > 0 {
			counted.set(p, wire.Packets)
		}
	})
	return counted, err
}

// eachOf calls each for those of prefixes that are banned, or were until a while ago; for some, twice.
func (s *State) eachOf(prefixes []netip.Prefix, each func(netip.Prefix, *bpf.FirewallBan)) error {
	const few = 256 // that are looked for one by one in any case
	if len(prefixes) > few {
		err := s.eachOfMany(prefixes, each)
		if !errors.Is(err, errStopped) {
			return err
		}
	}
	for _, p := range prefixes {
		kind := banKindOf(p)
		m, err := s.Map(kind.name())
		if err != nil {
			return err
		}
		var wire bpf.FirewallBan
		switch err := kind.lookup(m, kind.key(p), p, &wire); {
		case errors.Is(err, ebpf.ErrKeyNotExist):
		case err != nil:
			return fmt.Errorf("look for the ban of %s: %w", p, err)
		default:
			each(p, &wire)
		}
	}
	return nil
}

// eachOfMany is eachOf by a walk over all that are banned. The error is errStopped where these are so many more that to
// look for each takes less.
func (s *State) eachOfMany(prefixes []netip.Prefix, each func(netip.Prefix, *bpf.FirewallBan)) error {
	const cheaper = 4               // times as fast is the walk
	var wanted *prefixMap[struct{}] // made when there is any ban
	left := cheaper * len(prefixes)
	for _, kind := range banKinds {
		if err := s.eachBan(kind, func(p netip.Prefix, wire *bpf.FirewallBan) bool {
			if wanted == nil {
				wanted = newPrefixMap[struct{}](len(prefixes))
				for _, p := range prefixes {
					wanted.set(p, struct{}{})
				}
			}
			if _, ok := wanted.get(p); ok {
				each(p, wire)
			}
			left--
			return left > 0
		}); err != nil {
			return err
		}
	}
	return nil
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
