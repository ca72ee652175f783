// SPDX-License-Identifier: Apache-2.0

package frame

// MAC is a link-layer address.
type MAC [6]byte

// Broadcast is every station on the link.
var Broadcast = MAC{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}

// EtherTypes of what a frame may carry.
const (
	TypeIPv4  = 0x0800
	TypeARP   = 0x0806
	TypeVLAN  = 0x8100
	TypeIPv6  = 0x86dd
	TypeMPLS  = 0x8847
	TypePPPoE = 0x8864
	TypeEAPOL = 0x888e
	TypeQinQ  = 0x88a8
	TypeLLDP  = 0x88cc
)

// Ethernet is the header of an Ethernet II frame; with Type a length it is one of IEEE 802.3.
type Ethernet struct {
	Dst, Src MAC
	Type     uint16 // 0: that of the next header
}

func (e Ethernet) wrap(inner []byte, next Layer, _ []Layer) []byte {
	b := append(append([]byte{}, e.Dst[:]...), e.Src[:]...)
	return append(append(b, be16(etherType(e.Type, next))...), inner...)
}

// VLAN is an IEEE 802.1Q tag, or with Service one of 802.1ad.
type VLAN struct {
	ID      uint16
	Service bool
	Type    uint16 // 0: that of the next header
}

func (v VLAN) wrap(inner []byte, next Layer, _ []Layer) []byte {
	return append(append(be16(v.ID), be16(etherType(v.Type, next))...), inner...)
}

func etherType(given uint16, next Layer) uint16 {
	if given != 0 {
		return given
	}
	switch next := next.(type) {
	case IPv4:
		return TypeIPv4
	case IPv6:
		return TypeIPv6
	case VLAN:
		if next.Service {
			return TypeQinQ
		}
		return TypeVLAN
	}
	return 0
}
