// SPDX-License-Identifier: Apache-2.0

package maps

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"math/bits"
	"net/netip"
	"slices"
	"sync/atomic"
	"time"
	"unsafe"

	"github.com/cilium/ebpf"

	"github.com/portcullis-firewall/portcullis/bpf"
	"github.com/portcullis-firewall/portcullis/policy"
)

const blockingMap = ".data.blocking" // a section: the datapath has it in a variable

// BlockListInForce is a block list that the datapath goes by.
type BlockListInForce struct {
	Name      string
	Digest    [32]byte
	Since     time.Time // when these networks were first in force, in whole seconds
	Networks4 int
	Networks6 int
	Packets   uint64 // that were dropped by it

	number uint32 // under which it counts
}

// Resize sets the map sizes in spec for twice the room that the lists take, after those of the package's function of that
// name. The lists of former, which may be nil, keep the numbers under which they count.
func (b *Blocking) Resize(spec *ebpf.CollectionSpec, former *Ruleset) error {
	lines, buckets := 0, 0
	for _, image := range []*rangeImage{b.block, b.trust} {
		if image != nil {
			lines += len(image.lines)
			buckets += len(image.buckets)
		}
	}
	spec.Maps[bpf.FirewallMapRangeLines].MaxEntries += uint32(2 * lines)
	spec.Maps[bpf.FirewallMapRangeBuckets].MaxEntries += uint32(2 * buckets)
	half, numbers := uint32(0), 2*len(b.lists)
	if former != nil {
		half = former.byName[bpf.FirewallMapBlockLists].MaxEntries() / 2
		known, err := former.orderedLists()
		if err != nil {
			return err
		}
		numbers += len(known)
	}
	half = max(half, 1<<bits.Len(uint(numbers)))
	lists := spec.Maps[bpf.FirewallMapBlockLists]
	lists.MaxEntries = max(lists.MaxEntries, 2*min(half, maxBlockLists))
	return nil
}

// BeforeWrite, if it is set, is called before each write by which block lists change. Tests kill their process there.
var BeforeWrite func()

func beforeWrite() {
	if BeforeWrite != nil {
		BeforeWrite()
	}
}

// PutBlocking replaces what is blocked and trusted, in one step: no packet meets a part of the one and a part of the other.
// Lists of the same name go on counting. If something has no room, the error is ErrNoRoom and nothing has changed.
// What the gate has for the old lists stays until TidyGate.
func (s *Set) PutBlocking(b *Blocking) error {
	former, err := s.Ruleset.listsInForce()
	if err != nil {
		return err
	}
	numbered, err := s.numberLists(b.lists, former)
	if err != nil {
		return err
	}
	values := make([]uint32, len(numbered)+1)
	for i, l := range numbered {
		values[i+1] = l.number
	}
	images := [2]*rangeImage{b.block.withValues(values), b.trust}
	plan, err := s.planBlocking(images)
	if errors.Is(err, ErrNoRoom) {
		if err := s.forgetDropped(); err != nil {
			return err
		}
		plan, err = s.planBlocking(images)
	}
	if err != nil {
		return err
	}
	if b.block != nil {
		gate, err := s.gate()
		if err != nil {
			return err
		}
		beforeWrite()
		b.block.eachRange(func(is4 bool, first, last address, _ uint32) {
			gateRange(gate, is4, first, last, setShared)
		})
		beforeWrite()
		if err := s.changeAsks(bpf.FirewallAskASK_LISTS, 0); err != nil {
			return err
		}
	}
	word, now, err := s.blocking()
	if err != nil {
		return err
	}
	next := bpf.FirewallBlocking{Half: 1 - now.Half&1, Changes: now.Changes + 1}
	var placed []placed
	for i, p := range plan {
		if p == nil {
			continue
		}
		placed = append(placed, *p)
		if i == 0 {
			next.BlockSet = p.number
		} else {
			next.TrustSet = p.number
		}
	}
	// Until the word names them, no packet reads what is written from here on.
	if err := s.writeSets(placed); err != nil {
		return err
	}
	for _, l := range numbered {
		if _, ok := former[l.Name]; !ok {
			beforeWrite()
			if err := s.resetSourceCounter(l.number); err != nil {
				return err
			}
		}
	}
	if err := s.writeLists(numbered, next.Half); err != nil {
		return err
	}
	beforeWrite()
	atomic.StoreUint64(word, *(*uint64)(unsafe.Pointer(&next)))
	sets, err := s.rangeSets()
	if err != nil {
		return err
	}
	for _, number := range []uint16{now.BlockSet, now.TrustSet} {
		if number != 0 {
			beforeWrite()
			setState(&sets[number], bpf.FirewallRangeSetStateSET_DROPPED)
		}
	}
	return nil
}

// planBlocking finds numbers and places for sets beside those that are there. It writes nothing.
func (r *Ruleset) planBlocking(images [2]*rangeImage) (plan [2]*placed, err error) {
	sets, err := r.rangeSets()
	if err != nil {
		return plan, err
	}
	wanted := make(map[uint16]*rangeImage)
	contents := make(map[uint16]policy.SetContents)
	var numbers [2]uint16
	number := uint16(1)
	for i, image := range images {
		if image == nil {
			continue
		}
		for int(number) < len(sets) && stateOf(&sets[number]) != bpf.FirewallRangeSetStateSET_FREE {
			number++
		}
		if int(number) >= len(sets) {
			return plan, fmt.Errorf("%w: there are %d sets of sources", ErrNoRoom, len(sets))
		}
		// No rule is to find that this is the set that it wants.
		var unique policy.SetContents
		if _, err := rand.Read(unique[:]); err != nil {
			return plan, err
		}
		wanted[number], contents[number], numbers[i] = image, unique, number
		number++
	}
	found, err := r.planSets(wanted, contents)
	for i := range found {
		for j, number := range numbers {
			if found[i].number == number {
				plan[j] = &found[i]
			}
		}
	}
	return plan, err
}

// blocking returns the word that names the sets of a policy, and what it says now.
func (r *Ruleset) blocking() (word *uint64, now bpf.FirewallBlocking, err error) {
	memory, err := r.memory(blockingMap)
	if err != nil {
		return nil, now, err
	}
	word = &view[uint64](memory)[0]
	raw := atomic.LoadUint64(word)
	return word, *(*bpf.FirewallBlocking)(unsafe.Pointer(&raw)), nil
}

// isBlocking reports whether a set is one that the policy blocks or trusts, and not one of its rules.
func (r *Ruleset) isBlocking(number uint16) (bool, error) {
	_, now, err := r.blocking()
	return number != 0 && (number == now.BlockSet || number == now.TrustSet), err
}

// numberLists gives lists the numbers of those in force that have their names, or free ones.
func (r *Ruleset) numberLists(lists []BlockListInForce, former map[string]BlockListInForce) ([]BlockListInForce, error) {
	half := r.byName[bpf.FirewallMapBlockLists].MaxEntries() / 2
	taken := make(map[uint32]bool)
	for _, l := range former {
		taken[l.number] = true
	}
	out := make([]BlockListInForce, len(lists))
	next := uint32(1)
	for i, l := range lists {
		l.Since = time.Now()
		if f, ok := former[l.Name]; ok {
			l.number = f.number
			if f.Digest == l.Digest {
				l.Since = f.Since
			}
		} else {
			for taken[next] {
				next++
			}
			l.number = next
			taken[next] = true
		}
		if l.number >= half {
			return nil, fmt.Errorf("%w: %d block lists beside those in force", ErrNoRoom, len(lists))
		}
		out[i] = l
	}
	return out, nil
}

// writeLists writes what commands are told of the lists to a half of block_lists.
func (r *Ruleset) writeLists(lists []BlockListInForce, half uint16) error {
	places, err := r.listPlaces(half)
	if err != nil {
		return err
	}
	beforeWrite()
	clear(places)
	for i, l := range lists {
		beforeWrite()
		p := &places[l.number]
		*p = bpf.FirewallBlockList{
			Digest: l.Digest, Since: uint64(l.Since.Unix()),
			Networks4: uint32(l.Networks4), Networks6: uint32(l.Networks6), Order: uint32(i + 1),
		}
		copy(p.Name[:], l.Name)
	}
	return nil
}

func (r *Ruleset) listPlaces(half uint16) ([]bpf.FirewallBlockList, error) {
	memory, err := r.memory(bpf.FirewallMapBlockLists)
	if err != nil {
		return nil, err
	}
	places := view[bpf.FirewallBlockList](memory)
	n := len(places) / 2
	return places[int(half&1)*n : (int(half&1)+1)*n], nil
}

// listsInForce returns the lists by their names.
func (r *Ruleset) listsInForce() (map[string]BlockListInForce, error) {
	lists, err := r.orderedLists()
	out := make(map[string]BlockListInForce, len(lists))
	for _, l := range lists {
		out[l.Name] = l
	}
	return out, err
}

// orderedLists returns the lists in the order of the policy.
func (r *Ruleset) orderedLists() ([]BlockListInForce, error) {
	for {
		word, now, err := r.blocking()
		if err != nil {
			return nil, err
		}
		before := atomic.LoadUint64(word)
		places, err := r.listPlaces(now.Half)
		if err != nil {
			return nil, err
		}
		out, count := make([]BlockListInForce, len(places)), 0
		for number := range places {
			p := places[number]
			if p.Order == 0 || int(p.Order) > len(out) {
				continue
			}
			name, _, _ := bytes.Cut(p.Name[:], []byte{0})
			out[p.Order-1] = BlockListInForce{
				Name: string(name), Digest: p.Digest, Since: time.Unix(int64(p.Since), 0),
				Networks4: int(p.Networks4), Networks6: int(p.Networks6), number: uint32(number),
			}
			count = max(count, int(p.Order))
		}
		if atomic.LoadUint64(word) == before && *(*uint64)(unsafe.Pointer(&now)) == before {
			return out[:count], nil
		}
	}
}

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
