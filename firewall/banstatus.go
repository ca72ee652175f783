// SPDX-License-Identifier: Apache-2.0

package firewall

import (
	"cmp"
	"slices"
	"time"

	"github.com/portcullis-firewall/portcullis/loader"
	"github.com/portcullis-firewall/portcullis/maps"
)

// BansStatus says how many bans are in force, and what for.
type BansStatus struct {
	Count   int               `json:"count"`   // addresses and networks
	Exact   bool              `json:"exact"`   // none of them has ended since those that have were last taken out
	Packets uint64            `json:"packets"` // that were dropped by bans, those that have ended among them
	Reasons []BanReasonStatus `json:"reasons"` // the most recent ones first
	More    int               `json:"more_reasons"`
}

// BanReasonStatus is a reason for which there are bans, or were.
type BanReasonStatus struct {
	Reason  string     `json:"reason"`
	Count   int        `json:"count"`
	Packets uint64     `json:"packets"`
	Last    *time.Time `json:"last,omitempty"` // when somebody was banned for it
}

// mostReasons is how many reasons a status has.
const mostReasons = 10

func bansStatus(f Filter, counters []loader.CounterStatus) (s BansStatus, err error) {
	s.Reasons = []BanReasonStatus{}
	var all []maps.BanReason
	if all, s.Exact, err = f.CountBansByReason(); err != nil {
		return s, err
	}
	for _, c := range counters {
		if c.Reason == maps.Banned.String() { // dropped, or while the filter only watched, not
			s.Packets += c.Packets
		}
	}
	slices.SortStableFunc(all, func(a, b maps.BanReason) int {
		return cmp.Or(b.Last.Compare(a.Last), cmp.Compare(a.Text, b.Text))
	})
	for _, r := range all {
		s.Count += r.Bans
		if len(s.Reasons) == mostReasons {
			s.More++
			continue
		}
		one := BanReasonStatus{Reason: r.Text, Count: r.Bans, Packets: r.Packets}
		if !r.Last.IsZero() {
			last := r.Last.UTC()
			one.Last = &last
		}
		s.Reasons = append(s.Reasons, one)
	}
	return s, nil
}
