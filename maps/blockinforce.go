// SPDX-License-Identifier: Apache-2.0

package maps

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/portcullis-firewall/portcullis/bpf"
)

// BlockLists returns the block lists in force, in the order of the policy.
func (s *Set) BlockLists() ([]BlockListInForce, error) {
	lists, err := s.orderedLists()
	if err != nil || len(lists) == 0 {
		return nil, err
	}
	counted, err := s.sourceCounters()
	if err != nil {
		return nil, err
	}
	for i := range lists {
		lists[i].Packets = counted[lists[i].number]
	}
	return lists, nil
}

// BlockedBy returns the name of the block list that blocks an address, and reports whether one does and whether the
// address is trusted: then it is let in all the same.
func (r *Ruleset) BlockedBy(addr netip.Addr) (list string, blocked, trusted bool, err error) {
	_, now, err := r.blocking()
	if err != nil {
		return "", false, false, err
	}
	for i, number := range []uint16{now.BlockSet, now.TrustSet} {
		if number == 0 {
			continue
		}
		image, err := r.imageOfSet(number)
		if err != nil {
			return "", false, false, err
		}
		value := image.value(addr)
		if i == 1 {
			trusted = value != 0
			continue
		}
		if value == 0 {
			continue
		}
		places, err := r.listPlaces(now.Half)
		if err != nil || int(value) >= len(places) {
			return "", false, false, errors.Join(err, fmt.Errorf("%s is blocked by list number %d, which is not in force", addr, value))
		}
		name, _, _ := bytes.Cut(places[value].Name[:], []byte{0})
		list, blocked = string(name), true
	}
	return list, blocked, trusted, nil
}

// Blocking returns what is blocked and trusted, to be put in another ruleset.
func (r *Ruleset) Blocking() (*Blocking, error) {
	_, now, err := r.blocking()
	if err != nil {
		return nil, err
	}
	b := &Blocking{}
	if b.lists, err = r.orderedLists(); err != nil {
		return nil, err
	}
	if now.TrustSet != 0 {
		if b.trust, err = r.imageOfSet(now.TrustSet); err != nil {
			return nil, err
		}
		b.trust = b.trust.withValues([]uint32{0, 1})
	}
	if now.BlockSet == 0 {
		return b, nil
	}
	if b.block, err = r.imageOfSet(now.BlockSet); err != nil {
		return nil, err
	}
	values := make([]uint32, maxBlockLists)
	for i, l := range b.lists {
		values[l.number] = uint32(i + 1)
	}
	b.block = b.block.withValues(values)
	return b, nil
}

// SameLists reports whether the lists are those of a ruleset.
func (b *Blocking) SameLists(r *Ruleset) (bool, error) {
	lists, err := r.orderedLists()
	return err == nil && slices.EqualFunc(b.lists, lists, func(x, y BlockListInForce) bool {
		return x.Name == y.Name && x.Digest == y.Digest && x.Networks4 == y.Networks4 && x.Networks6 == y.Networks6
	}), err
}

// KeepLists makes the lists of another ruleset known to this one, which runs nowhere yet: what is put here later keeps
// their numbers.
func (r *Ruleset) KeepLists(former *Ruleset) error {
	lists, err := former.orderedLists()
	if err != nil {
		return err
	}
	_, now, err := r.blocking()
	if err != nil {
		return err
	}
	places := int(r.byName[bpf.FirewallMapBlockLists].MaxEntries() / 2)
	for _, l := range lists {
		if int(l.number) >= places {
			return fmt.Errorf("%w for the numbers of the block lists in force", ErrNoRoom)
		}
	}
	return r.writeLists(lists, now.Half)
}

// eachBlocked calls each for the ranges of addresses that are on a list.
func (r *Ruleset) eachBlocked(each func(is4 bool, first, last address, value uint32)) error {
	_, now, err := r.blocking()
	if err != nil || now.BlockSet == 0 {
		return err
	}
	image, err := r.imageOfSet(now.BlockSet)
	if err == nil {
		image.eachRange(each)
	}
	return err
}

// imageOfSet returns the image of a set in force. It shares its lines and buckets with the datapath.
func (r *Ruleset) imageOfSet(number uint16) (*rangeImage, error) {
	sets, err := r.rangeSets()
	if err != nil {
		return nil, err
	}
	memory, err := r.memory(bpf.FirewallMapRangeLines)
	if err != nil {
		return nil, err
	}
	lines := view[[rangeLineSize]byte](memory)
	if memory, err = r.memory(bpf.FirewallMapRangeBuckets); err != nil {
		return nil, err
	}
	buckets := view[rangeBucket](memory)
	if int(number) >= len(sets) {
		return nil, fmt.Errorf("there is no set %d of sources", number)
	}
	s := &sets[number]
	if int(s.FirstLine)+int(s.Lines) > len(lines) || int(s.FirstBucket)+int(s.Buckets) > len(buckets) {
		return nil, fmt.Errorf("set %d of sources is not where it is said to be", number)
	}
	return &rangeImage{
		v4: ownIndex(s.V4, s), v6: ownIndex(s.V6, s),
		singles: singles{firstLine: s.FirstSingle - s.FirstLine, shift: s.SinglesShift},
		lines:   lines[s.FirstLine : s.FirstLine+s.Lines],
		buckets: buckets[s.FirstBucket : s.FirstBucket+s.Buckets],
	}, nil
}

// ownIndex is wireIndex backwards.
func ownIndex(i bpf.FirewallRangeIndex, s *bpf.FirewallRangeSet) rangeIndex {
	return rangeIndex{
		base: i.Base, shift: i.Shift, lastBucket: i.LastBucket,
		firstBucket: i.FirstBucket - s.FirstBucket, firstLine: i.FirstLine - s.FirstLine, lastLine: i.LastLine,
	}
}
