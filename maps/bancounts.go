// SPDX-License-Identifier: Apache-2.0

package maps

import (
	"net/netip"
	"sync/atomic"

	"github.com/portcullis-firewall/portcullis/bpf"
)

// How many bans there are for each reason is kept beside its text, as to count a million takes a quarter of a second. Who
// changes bans holds the lock for changes, and knows what it replaces: see knownBans. Should it be killed in between, the
// next walk over all bans puts the counts right.

// knownBans are bans that were looked for, by the numbers of their reasons; those that were not found have none.
type knownBans = prefixMap[uint32]

// count notes that a ban is in the tables now, in the place of another one of the same source, if that is known. Of few it is
// known from then on: they may be put again.
func (r *banReasons) count(known *knownBans, few bool, p netip.Prefix, number uint32, since uint64) {
	was, ok := known.get(p)
	if ok && was != number {
		r.add(was, -1)
	}
	if !ok || was != number {
		r.add(number, 1)
	}
	if ok || few {
		known.set(p, number)
	}
	if last := &r.places[number].Last; *last < since {
		atomic.StoreUint64(last, since)
	}
}

// add changes the count of a reason, which does not go below none.
func (r *banReasons) add(number uint32, n int) {
	if int(number) >= len(r.places) {
		return
	}
	count := &r.places[number].Bans
	if now := int(*count) + n; now >= 0 {
		atomic.StoreUint32(count, uint32(now))
	}
}

// total returns how many bans there are, and those that have ended and are not forgotten yet.
func (r *banReasons) total() (n int) {
	for i := range r.places {
		n += int(r.places[i].Bans)
	}
	return n
}

// setCounts sets the counts of all reasons.
func (r *banReasons) setCounts(counts []uint32) {
	for i := range r.places {
		atomic.StoreUint32(&r.places[i].Bans, counts[i])
	}
}

// banCounts counts bans by their reasons.
type banCounts []uint32

func (c banCounts) add(wire *bpf.FirewallBan) {
	if int(wire.Reason) < len(c) {
		c[wire.Reason]++
	}
}
