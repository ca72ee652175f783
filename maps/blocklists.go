// SPDX-License-Identifier: Apache-2.0

package maps

import (
	"bytes"
	"fmt"
	"sync/atomic"
	"time"
	"unsafe"

	"github.com/portcullis-firewall/portcullis/bpf"
)

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
