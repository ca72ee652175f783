// SPDX-License-Identifier: Apache-2.0

package packets

import (
	"slices"
	"time"

	"github.com/portcullis-firewall/portcullis/policy"
	"github.com/portcullis-firewall/portcullis/policy/packets"
)

// admitted is what a change says of a packet with one of the policies.
type admitted struct {
	ok    bool
	limit policy.Limit
}

// admissionsOf returns what changes say of a packet, with the old policy and the new one. Nil: none is about it.
func admissionsOf(changes []packets.Change, p packet) *[2]admitted {
	for _, c := range changes {
		if !slices.ContainsFunc(c.Ports, func(r policy.PortRange) bool {
			return r.Protocol == p.Protocol && r.First <= p.Port && p.Port <= r.Last
		}) {
			continue
		}
		var out [2]admitted
		for side, a := range []packets.Admission{c.Old, c.New} {
			out[side].limit, out[side].ok = a.Allows(p.Source, p.Destination)
		}
		return &out
	}
	return nil
}

// passes returns how many of so many packets pass at once.
func (a admitted) passes(p packet, times int) int {
	switch {
	case !a.ok:
		return 0
	case a.limit.Count == 0 || p.goesOn:
		return times
	}
	return min(times, int(a.limit.Burst))
}

// passesAfter returns how many pass some time after as many that have used up the burst.
func (a admitted) passesAfter(pause time.Duration, times int) int {
	if !a.ok || a.limit.Count == 0 {
		return a.passes(packet{}, times)
	}
	return min(times, int(a.limit.Burst), int(pause/interval(a.limit)))
}

func interval(l policy.Limit) time.Duration { return l.Per / time.Duration(l.Count) }

// intervalsFor returns those of the limits that a packet may meet.
func intervalsFor(policies [2]*policy.Policy, p packet) (out []time.Duration) {
	for _, of := range policies {
		for _, r := range of.Open {
			if r.Limit.Count > 0 && r.Covers(p.Protocol, p.Port) {
				out = append(out, interval(r.Limit))
			}
		}
	}
	return out
}

// isClear reports whether it does not matter that a pause takes a little longer than it says.
func isClear(pause time.Duration, intervals []time.Duration) bool {
	const little = 3 * time.Second
	return !slices.ContainsFunc(intervals, func(i time.Duration) bool {
		return pause%i < little || i-pause%i < little
	})
}
