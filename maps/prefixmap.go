// SPDX-License-Identifier: Apache-2.0

package maps

import "net/netip"

// prefixMap is a map by addresses and networks. There may be a million, mostly of single addresses of IPv4, which take an
// eighth of the memory and of the time of others.
type prefixMap[V any] struct {
	single map[uint32]V
	other  map[netip.Prefix]V
}

func newPrefixMap[V any](size int) *prefixMap[V] {
	return &prefixMap[V]{make(map[uint32]V, size), make(map[netip.Prefix]V)}
}

func (m *prefixMap[V]) get(p netip.Prefix) (v V, ok bool) {
	if banKindOf(p) == addresses4 {
		v, ok = m.single[word4(p.Addr())]
	} else {
		v, ok = m.other[p]
	}
	return v, ok
}

func (m *prefixMap[V]) set(p netip.Prefix, v V) {
	if banKindOf(p) == addresses4 {
		m.single[word4(p.Addr())] = v
	} else {
		m.other[p] = v
	}
}

func (m *prefixMap[V]) remove(p netip.Prefix) {
	if banKindOf(p) == addresses4 {
		delete(m.single, word4(p.Addr()))
	} else {
		delete(m.other, p)
	}
}
