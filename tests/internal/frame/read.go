// SPDX-License-Identifier: Apache-2.0

package frame

import (
	"encoding/binary"
	"net/netip"
)

// Fault says why an IP packet, or the way to it, cannot be read.
type Fault string

// The faults.
const (
	BadVLAN      Fault = "bad vlan"      // cut off in a tag, or a third one
	BadIPv4      Fault = "bad ipv4"      // a header that is cut off or contradicts itself or the frame
	BadIPv6      Fault = "bad ipv6"      //
	BadExtension Fault = "bad extension" // IPv6 extension headers that do not end, or more than MaxExtensions
	BadTransport Fault = "bad transport" // no room for ports
	TinyFragment Fault = "tiny fragment" // RFC 1858, RFC 3128
)

// What the filter reads at most.
const (
	MaxTags       = 2
	MaxExtensions = 10
)

// Packet is what Read found.
type Packet struct {
	IP       bool  // neither this nor a fault: no IP packet at all
	Fault    Fault // "" for a packet that can be read
	Src, Dst netip.Addr
	Protocol uint8 // behind the extension headers
	First    bool  // the first of several fragments
	Later    bool  // another one: it has no transport header
	HasPorts bool
	SrcPort  uint16
	DstPort  uint16
	Payload  []byte // from the transport header to the end of the IP packet
}

// Read parses an Ethernet frame.
func Read(b []byte) Packet {
	if len(b) < EthernetLen {
		return Packet{}
	}
	kind := binary.BigEndian.Uint16(b[12:])
	rest := b[EthernetLen:]
	for tags := 0; kind == TypeVLAN || kind == TypeQinQ; tags++ {
		if tags == MaxTags || len(rest) < VLANLen {
			return Packet{Fault: BadVLAN}
		}
		kind = binary.BigEndian.Uint16(rest[2:])
		rest = rest[VLANLen:]
	}
	switch kind {
	case TypeIPv4:
		return readIPv4(rest)
	case TypeIPv6:
		return readIPv6(rest)
	}
	return Packet{}
}

// ReadIP parses a frame of a device without link headers.
func ReadIP(b []byte) Packet {
	if len(b) > 0 && b[0]>>4 == 6 {
		return readIPv6(b)
	}
	return readIPv4(b)
}

func fault(f Fault) Packet { return Packet{IP: true, Fault: f} }

// readIPv4 follows RFC 791, 3.1.
func readIPv4(b []byte) Packet {
	if len(b) < IPv4Len {
		return fault(BadIPv4)
	}
	version, header := b[0]>>4, int(b[0]&0x0f)*4
	total := int(binary.BigEndian.Uint16(b[2:]))
	switch {
	case version != 4, header < IPv4Len, total < header, total > len(b):
		return fault(BadIPv4)
	}
	flags := binary.BigEndian.Uint16(b[6:])
	offset, more := flags&0x1fff, flags&0x2000 != 0
	p := Packet{
		IP:       true,
		Src:      netip.AddrFrom4([4]byte(b[12:16])),
		Dst:      netip.AddrFrom4([4]byte(b[16:20])),
		Protocol: b[9],
		First:    offset == 0 && more,
		Later:    offset > 0,
		Payload:  b[header:total],
	}
	if offset == 1 && p.Protocol == ProtoTCP {
		return fault(TinyFragment) // it would write over the TCP flags
	}
	return p.readPorts()
}

// readIPv6 follows RFC 8200, 3 and 4.
func readIPv6(b []byte) Packet {
	if len(b) < IPv6Len {
		return fault(BadIPv6)
	}
	length := int(binary.BigEndian.Uint16(b[4:]))
	if b[0]>>4 != 6 || length > len(b)-IPv6Len {
		return fault(BadIPv6)
	}
	p := Packet{
		IP:       true,
		Src:      netip.AddrFrom16([16]byte(b[8:24])),
		Dst:      netip.AddrFrom16([16]byte(b[24:40])),
		Protocol: b[6],
		Payload:  b[IPv6Len : IPv6Len+length],
	}
	for n := 0; ; n++ {
		switch p.Protocol {
		case ProtoHopByHop, ProtoRouting, ProtoDestOptions, ProtoFragment:
		default:
			return p.readPorts()
		}
		if n == MaxExtensions || len(p.Payload) < 8 {
			return fault(BadExtension)
		}
		size := 8
		if p.Protocol == ProtoFragment {
			flags := binary.BigEndian.Uint16(p.Payload[2:])
			offset := flags >> 3
			if offset == 1 && p.Payload[0] == ProtoTCP {
				return fault(TinyFragment)
			}
			p.Later = offset > 0
			p.First = p.First || offset == 0 && flags&1 != 0
		} else {
			size += int(p.Payload[1]) * 8
		}
		if size > len(p.Payload) {
			return fault(BadExtension)
		}
		p.Protocol, p.Payload = p.Payload[0], p.Payload[size:]
		if p.Later {
			p.First = false
			return p
		}
	}
}

func (p Packet) readPorts() Packet {
	switch p.Protocol {
	case ProtoTCP, ProtoUDP, ProtoUDPLite, ProtoSCTP:
	default:
		return p
	}
	switch {
	case p.Later:
		return p
	case p.Protocol == ProtoTCP && p.First && len(p.Payload) < TCPLen:
		return fault(TinyFragment)
	case len(p.Payload) < 4:
		return fault(BadTransport)
	}
	p.HasPorts = true
	p.SrcPort = binary.BigEndian.Uint16(p.Payload)
	p.DstPort = binary.BigEndian.Uint16(p.Payload[2:])
	return p
}
