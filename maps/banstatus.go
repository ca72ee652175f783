// SPDX-License-Identifier: Apache-2.0

package maps

import (
	"errors"
	"net/netip"

	"github.com/portcullis-firewall/portcullis/bpf"
)

// manyToCount is how many bans are looked at to count those in force. Of more, the counts of the reasons tell.
const manyToCount = 16384

// CountBansByReason is BanReasons without counts of bans that have ended, and reports whether these are left out: where there
// are very many bans, those count that have ended since they were last forgotten.
func (s *State) CountBansByReason(clock Clock) (list []BanReason, exact bool, err error) {
	list, err = s.BanReasons()
	if err != nil {
		return nil, false, err
	}
	total := 0
	for _, r := range list {
		total += r.Bans
	}
	if total > manyToCount {
		return list, false, nil
	}
	live, seen := make(map[string]int), 0
	reasons, err := s.banReasons()
	if err != nil {
		return nil, false, err
	}
	for _, kind := range banKinds {
		err := s.eachBan(kind, func(_ netip.Prefix, wire *bpf.FirewallBan) bool {
			if wire.Until > clock.Jiffies {
				live[reasons.text(wire.Reason)]++
			}
			seen++
			return seen <= 2*manyToCount // the counts are wrong, as after a crash
		})
		if errors.Is(err, errStopped) {
			return list, false, nil
		}
		if err != nil {
			return nil, false, err
		}
	}
	for i := range list {
		list[i].Bans = live[list[i].Text]
	}
	return list, true, nil
}
