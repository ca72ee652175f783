// SPDX-License-Identifier: Apache-2.0

package maps

import (
	"crypto/rand"
	"errors"
	"fmt"
	"math/bits"
	"sync/atomic"
	"unsafe"

	"github.com/cilium/ebpf"

	"github.com/portcullis-firewall/portcullis/bpf"
	"github.com/portcullis-firewall/portcullis/policy"
)

const blockingMap = ".data.blocking" // a section: the datapath has it in a variable

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

// BeforeWrite, if it is set, is called before each write by which block lists and rules change in place. Tests kill their
// process there.
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
