// SPDX-License-Identifier: Apache-2.0

package frame

import (
	"encoding/binary"
	"net/netip"
)

// Protocol numbers, as IANA assigns them.
const (
	ProtoHopByHop    = 0
	ProtoICMP        = 1
	ProtoIGMP        = 2
	ProtoIPIP        = 4
	ProtoTCP         = 6
	ProtoUDP         = 17
	Proto6in4        = 41
	ProtoRouting     = 43
	ProtoFragment    = 44
	ProtoGRE         = 47
	ProtoESP         = 50
	ProtoAH          = 51
	ProtoICMPv6      = 58
	ProtoNoNext      = 59
	ProtoDestOptions = 60
	ProtoOSPF        = 89
	ProtoVRRP        = 112
	ProtoSCTP        = 132
	ProtoUDPLite     = 136
)

// Lengths of headers without options.
const (
	EthernetLen = 14
	VLANLen     = 4
	IPv4Len     = 20
	IPv6Len     = 40
	TCPLen      = 20
	UDPLen      = 8
	ICMPLen     = 8
)

// IPv4 is the header of RFC 791.
type IPv4 struct {
	Src, Dst      netip.Addr
	Protocol      uint8 // 0: that of the next header
	TTL           uint8 // 0: 64
	TOS           uint8
	ID            uint16
	DontFragment  bool
	MoreFragments bool
	Offset        uint16 // of the fragment, in 8 bytes
	Options       []byte // whole words
	TotalLength   *uint16
	HeaderLength  *uint16 // the IHL field: in words
	Version       *uint16
}

func (ip IPv4) wrap(inner []byte, next Layer, _ []Layer) []byte {
	header := IPv4Len + len(ip.Options)
	b := make([]byte, header)
	b[0] = byte(or(ip.Version, 4)<<4 | or(ip.HeaderLength, header/4)&0xf)
	b[1] = ip.TOS
	binary.BigEndian.PutUint16(b[2:], or(ip.TotalLength, header+len(inner)))
	binary.BigEndian.PutUint16(b[4:], ip.ID)
	fragment := ip.Offset
	if ip.DontFragment {
		fragment |= 0x4000
	}
	if ip.MoreFragments {
		fragment |= 0x2000
	}
	binary.BigEndian.PutUint16(b[6:], fragment)
	b[8] = orDefault(ip.TTL, 64)
	b[9] = protocol(ip.Protocol, next)
	src, dst := ip.Src.As4(), ip.Dst.As4()
	copy(b[12:], src[:])
	copy(b[16:], dst[:])
	copy(b[20:], ip.Options)
	binary.BigEndian.PutUint16(b[10:], sum(b))
	return append(b, inner...)
}

// IPv6 is the header of RFC 8200.
type IPv6 struct {
	Src, Dst      netip.Addr
	NextHeader    *uint16 // nil: that of the next layer
	HopLimit      uint8   // 0: 64
	TrafficClass  uint8
	PayloadLength *uint16
	Version       *uint16
}

func (ip IPv6) wrap(inner []byte, next Layer, _ []Layer) []byte {
	b := make([]byte, IPv6Len)
	binary.BigEndian.PutUint32(b, uint32(or(ip.Version, 6))<<28|uint32(ip.TrafficClass)<<20)
	binary.BigEndian.PutUint16(b[4:], or(ip.PayloadLength, len(inner)))
	b[6] = byte(or(ip.NextHeader, int(protocol(0, next))))
	b[7] = orDefault(ip.HopLimit, 64)
	src, dst := ip.Src.As16(), ip.Dst.As16()
	copy(b[8:], src[:])
	copy(b[24:], dst[:])
	return append(b, inner...)
}

// Extension is an IPv6 extension header that carries options: hop-by-hop, routing or destination options.
type Extension struct {
	Kind       uint8 // its own protocol number
	NextHeader *uint16
	Words      int // of 8 bytes, beyond the first
	Length     *uint16
}

func (e Extension) wrap(inner []byte, next Layer, _ []Layer) []byte {
	b := make([]byte, 8+8*e.Words)
	b[0] = byte(or(e.NextHeader, int(protocol(0, next))))
	b[1] = byte(or(e.Length, e.Words))
	if e.Kind == ProtoRouting {
		b[2] = 4 // segment routing, with no segments left
	} else {
		// Padding options: PadN holds at most 255 bytes, so fill with Pad1 (zero) what is more.
		b[2], b[3] = 1, byte(min(len(b)-4, 255))
	}
	return append(b, inner...)
}

// Fragment is the IPv6 fragment header.
type Fragment struct {
	NextHeader    *uint16
	Offset        uint16 // in 8 bytes
	MoreFragments bool
	ID            uint32
}

func (f Fragment) wrap(inner []byte, next Layer, _ []Layer) []byte {
	b := make([]byte, 8)
	b[0] = byte(or(f.NextHeader, int(protocol(0, next))))
	binary.BigEndian.PutUint16(b[2:], f.Offset<<3)
	if f.MoreFragments {
		b[3] |= 1
	}
	binary.BigEndian.PutUint32(b[4:], f.ID)
	return append(b, inner...)
}

// Auth is the IPsec authentication header of RFC 4302, with a check value of 12 bytes.
type Auth struct{ NextHeader *uint16 }

func (a Auth) wrap(inner []byte, next Layer, _ []Layer) []byte {
	b := make([]byte, 24)
	b[0] = byte(or(a.NextHeader, int(protocol(0, next))))
	b[1] = 4 // words, less two
	return append(b, inner...)
}

// protocol returns the number of the next header, as the one before it names it.
func protocol(given uint8, next Layer) uint8 {
	if given != 0 {
		return given
	}
	switch next := next.(type) {
	case Extension:
		return next.Kind
	case Fragment:
		return ProtoFragment
	case Auth:
		return ProtoAH
	case TCP:
		return ProtoTCP
	case UDP:
		return ProtoUDP
	case UDPLite:
		return ProtoUDPLite
	case SCTP:
		return ProtoSCTP
	case ICMPv4:
		return ProtoICMP
	case ICMPv6:
		return ProtoICMPv6
	case IPv4:
		return ProtoIPIP
	case IPv6:
		return Proto6in4
	}
	return ProtoNoNext
}

func orDefault(given, otherwise uint8) uint8 {
	if given != 0 {
		return given
	}
	return otherwise
}

// pseudo is the header that transport checksums cover: the addresses around, the length and the protocol.
func pseudo(outer []Layer, proto uint8, length int) []byte {
	for i := len(outer) - 1; i >= 0; i-- {
		switch ip := outer[i].(type) {
		case IPv4:
			b := append(ip.Src.AsSlice(), ip.Dst.AsSlice()...)
			return append(b, 0, proto, byte(length>>8), byte(length))
		case IPv6:
			b := append(ip.Src.AsSlice(), ip.Dst.AsSlice()...)
			b = binary.BigEndian.AppendUint32(b, uint32(length))
			return append(b, 0, 0, 0, proto)
		}
	}
	return nil
}
