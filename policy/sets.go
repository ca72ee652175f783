// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
)

// span is a restricted range of ports: indexes into Compiled.Ports, and the
// place of its rule in the list.
type span struct{ first, end, order int }

type setBuilder struct {
	c     *Compiled
	rules []NumberedRule
	next  uint16
	taken [65536]bool // set numbers to keep
	done  [65536]bool // set numbers that are in c.Sources
	// byRules knows the combinations seen. Two of them can come to the same
	// sources, where one has a rule whose prefixes others before it own; so a
	// set is known by its owners: the rules that own a prefix decide all of it.
	// Most sets have one owner, and need no map.
	byRules  map[string]uint16
	byOwner  [65536]uint16
	byOwners map[string]uint16
	// Buffers of set, which is called for every combination.
	key    []byte
	owners []uint16
	owned  []ownedPrefix
}

type ownedPrefix struct {
	prefix netip.Prefix
	order  int
}

// sweep goes over the ports once, from one border of a range to the next, with
// the rules that apply in between.
func (b *setBuilder) sweep(spans []span) error {
	type border struct {
		at, order int
		enter     bool
	}
	borders := make([]border, 0, 2*len(spans))
	for _, s := range spans {
		borders = append(borders, border{s.first, s.order, true}, border{s.end, s.order, false})
	}
	slices.SortFunc(borders, func(x, y border) int {
		if x.at != y.at {
			return x.at - y.at
		}
		return x.order - y.order
	})
	var active, gone []int // by order; a rule may be there twice
	for i := 0; i < len(borders); {
		at := borders[i].at
		gone = gone[:0]
		for ; i < len(borders) && borders[i].at == at; i++ {
			if borders[i].enter {
				active = append(active, borders[i].order)
			} else {
				gone = append(gone, borders[i].order)
			}
		}
		slices.Sort(active)
		active = subtractSorted(active, gone)
		if len(active) == 0 {
			continue
		}
		set, err := b.set(active)
		if err != nil {
			return err
		}
		for p := at; p < borders[i].at; p++ {
			b.c.Ports[p].Set = set
		}
	}
	return nil
}

// subtractSorted removes each element of gone once from list; both are sorted.
func subtractSorted(list, gone []int) []int {
	if len(gone) == 0 {
		return list
	}
	out := list[:0]
	for _, v := range list {
		if len(gone) > 0 && gone[0] == v {
			gone = gone[1:]
			continue
		}
		out = append(out, v)
	}
	return out
}

// set returns the number of the set of the rules at the given places.
func (b *setBuilder) set(active []int) (uint16, error) {
	b.key = b.key[:0]
	for i, order := range active {
		if i == 0 || active[i-1] != order {
			b.key = binary.BigEndian.AppendUint16(b.key, b.rules[order].ID)
		}
	}
	alone := len(b.key) == 2
	if set, ok := b.byRules[string(b.key)]; ok && !alone {
		return set, nil
	}
	if set := b.byOwner[b.rules[active[0]].ID]; alone && b.done[set] {
		return set, nil
	}
	sources := b.own(active)
	if len(b.c.Sources)+len(sources) > maxSources {
		return 0, fmt.Errorf("%w: their sources come to more than %d entries, let fewer rules overlap", ErrTooManySets, maxSources)
	}
	b.owners = b.owners[:0]
	for _, s := range sources {
		b.owners = append(b.owners, b.rules[s.order].ID)
	}
	b.owners = sortedIDs(b.owners)
	set := b.known(b.owners)
	if set == 0 {
		var err error
		if set, err = b.free(); err != nil {
			return 0, err
		}
		b.remember(b.owners, set)
	}
	if !alone {
		b.byRules[string(b.key)] = set
	}
	if b.done[set] {
		return set, nil
	}
	b.done[set] = true
	for _, s := range sources {
		b.c.Sources = append(b.c.Sources, SourcePrefix{set, s.prefix, b.rules[s.order].ID})
	}
	return set, nil
}

// own returns every prefix of the rules at the given places once, with the
// first of them that names it, by prefix.
func (b *setBuilder) own(active []int) []ownedPrefix {
	all := b.owned[:0]
	for _, order := range active {
		for _, p := range b.rules[order].Rule.From {
			all = append(all, ownedPrefix{p.Masked(), order})
		}
	}
	slices.SortFunc(all, func(x, y ownedPrefix) int {
		if c := comparePrefix(x.prefix, y.prefix); c != 0 {
			return c
		}
		return cmp.Compare(x.order, y.order)
	})
	b.owned = slices.CompactFunc(all, func(x, y ownedPrefix) bool { return x.prefix == y.prefix })
	return b.owned
}

// free returns the lowest number that is neither kept nor given.
func (b *setBuilder) free() (uint16, error) {
	for b.next < 65535 {
		b.next++
		if !b.taken[b.next] {
			return b.next, nil
		}
	}
	return 0, fmt.Errorf("%w: more than 65535, let fewer rules overlap", ErrTooManySets)
}

// known returns the number of the set of these owners, or 0.
func (b *setBuilder) known(owners []uint16) uint16 {
	if len(owners) == 1 {
		return b.byOwner[owners[0]]
	}
	return b.byOwners[idKey(owners)]
}

func (b *setBuilder) remember(owners []uint16, set uint16) {
	if len(owners) == 1 {
		b.byOwner[owners[0]] = set
		return
	}
	b.byOwners[idKey(owners)] = set
}

func sortedIDs(ids []uint16) []uint16 {
	slices.Sort(ids)
	return slices.Compact(ids)
}

func idKey(ids []uint16) string {
	key := make([]byte, 0, 2*len(ids))
	for _, id := range ids {
		key = binary.BigEndian.AppendUint16(key, id)
	}
	return string(key)
}
