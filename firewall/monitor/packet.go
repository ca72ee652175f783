// SPDX-License-Identifier: Apache-2.0

// Package monitor shows packets as they come: to people, to programs, in files that Wireshark opens, and in the journal.
package monitor

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"strings"

	"golang.org/x/sys/unix"
)

// Packet is what the headers of a frame say. What could not be read is left out.
type Packet struct {
	Protocol             string // "tcp", "protocol 99"
	Source, Destination  netip.Addr
	SourcePort, DestPort uint16
	HasPorts             bool
	Flags                []string // of TCP; nil: there are none to be read
	Type, Code           uint8
	HasType              bool // of ICMP
}

// Read reads the headers of a frame, and reports whether there is an IP packet in it. The bytes are a stranger's. A library
// that knows every protocol would start with every command, for 0.2 ms.
func Read(frame []byte, ethernet bool) (out Packet, ok bool) {
	b := frame
	if ethernet {
		b = behindEthernet(b)
	}
	p, ok := readIP(b)
	if !ok {
		return out, false
	}
	out = Packet{Protocol: protocolName(p.protocol), Source: p.src, Destination: p.dst}
	switch t := p.transport; {
	case p.protocol == unix.IPPROTO_ICMP && p.src.Is4() && len(t) >= 2, p.protocol == unix.IPPROTO_ICMPV6 && p.src.Is6() && len(t) >= 2:
		out.HasType, out.Type, out.Code = true, t[0], t[1]
	case hasPorts[p.protocol] && len(t) >= 4:
		out.HasPorts, out.SourcePort, out.DestPort = true, binary.BigEndian.Uint16(t), binary.BigEndian.Uint16(t[2:])
		if p.protocol == unix.IPPROTO_TCP && len(t) > 13 {
			out.Flags = tcpFlags(t[13])
		}
	}
	return out, true
}

// Describe says in a line what a frame is.
func Describe(frame []byte, ethernet bool) string {
	p, ok := Read(frame, ethernet)
	if !ok {
		return fmt.Sprintf("unreadable (%x)", frame[:min(len(frame), 16)])
	}
	src, dst, more := p.Source.String(), p.Destination.String(), ""
	switch {
	case p.HasType:
		more = fmt.Sprintf(" type %d code %d", p.Type, p.Code)
	case p.HasPorts:
		src = netip.AddrPortFrom(p.Source, p.SourcePort).String()
		dst = netip.AddrPortFrom(p.Destination, p.DestPort).String()
		switch {
		case len(p.Flags) > 0:
			more = " " + strings.Join(p.Flags, ",")
		case p.Flags != nil:
			more = " no flags"
		}
	}
	return fmt.Sprintf("%s %s > %s%s", p.Protocol, src, dst, more)
}

// behindEthernet returns what follows the Ethernet header and its tags.
func behindEthernet(b []byte) []byte {
	const addresses, kind, tag = 12, 2, 4
	for b = from(b, addresses); len(b) >= kind; b = b[min(tag, len(b)):] {
		switch binary.BigEndian.Uint16(b) {
		case unix.ETH_P_8021Q, unix.ETH_P_8021AD:
		default:
			return b[kind:]
		}
	}
	return nil
}

// from returns what is behind n bytes, if anything.
func from(b []byte, n int) []byte { return b[min(n, len(b)):] }

// ipPacket is an IP packet whose transport header is the first bytes of transport; a later fragment has none.
type ipPacket struct {
	src, dst  netip.Addr
	protocol  uint8
	transport []byte
}

// readIP reads a packet and leaves what pads the frame behind it. Merged packets say no length.
func readIP(b []byte) (p ipPacket, ok bool) {
	const header4, header6 = 20, 40
	switch {
	case len(b) >= header4 && b[0]>>4 == 4:
		p.src, p.dst = netip.AddrFrom4([4]byte(b[12:16])), netip.AddrFrom4([4]byte(b[16:20]))
		p.protocol = b[9]
		if total := int(binary.BigEndian.Uint16(b[2:])); total >= header4 {
			b = b[:min(total, len(b))]
		}
		if offset := binary.BigEndian.Uint16(b[6:]) & 0x1fff; offset == 0 {
			p.transport = from(b, int(b[0]&0xf)*4)
		}
		return p, true
	case len(b) >= header6 && b[0]>>4 == 6:
		p.src, p.dst = netip.AddrFrom16([16]byte(b[8:24])), netip.AddrFrom16([16]byte(b[24:40]))
		if payload := int(binary.BigEndian.Uint16(b[4:])); payload > 0 {
			b = b[:min(header6+payload, len(b))]
		}
		p.protocol, p.transport = behindExtensions(b[6], b[header6:])
		return p, true
	}
	return p, false
}

// behindExtensions follows IPv6 extension headers (RFC 8200, 4) to the transport header.
func behindExtensions(protocol uint8, b []byte) (uint8, []byte) {
	const shortest = 8
	for len(b) >= shortest {
		next, length := b[0], (int(b[1])+1)*8
		switch protocol {
		case unix.IPPROTO_HOPOPTS, unix.IPPROTO_ROUTING, unix.IPPROTO_DSTOPTS:
		case unix.IPPROTO_FRAGMENT:
			length = 8
			if offset := binary.BigEndian.Uint16(b[2:]) >> 3; offset != 0 {
				return next, nil
			}
		default:
			return protocol, b
		}
		protocol, b = next, from(b, length)
	}
	return protocol, b
}

var hasPorts = map[uint8]bool{unix.IPPROTO_TCP: true, unix.IPPROTO_UDP: true, unix.IPPROTO_UDPLITE: true, unix.IPPROTO_SCTP: true}

// protocolName returns the name in IANA's list of what one may meet, or the number.
func protocolName(protocol uint8) string {
	name, ok := map[uint8]string{
		unix.IPPROTO_ICMP: "icmp", unix.IPPROTO_IGMP: "igmp", unix.IPPROTO_IPIP: "ipip", unix.IPPROTO_TCP: "tcp",
		unix.IPPROTO_UDP: "udp", unix.IPPROTO_IPV6: "ipv6", unix.IPPROTO_GRE: "gre", unix.IPPROTO_ESP: "esp",
		unix.IPPROTO_AH: "ah", unix.IPPROTO_ICMPV6: "icmpv6", unix.IPPROTO_NONE: "no next header", 89: "ospf", 112: "vrrp",
		unix.IPPROTO_SCTP: "sctp", unix.IPPROTO_UDPLITE: "udplite",
	}[protocol]
	if !ok {
		return fmt.Sprintf("protocol %d", protocol)
	}
	return name
}

// tcpFlags lists what is set, from the low bit on; it is never nil.
func tcpFlags(flags uint8) []string {
	set := []string{}
	for i, name := range [...]string{"fin", "syn", "rst", "psh", "ack", "urg", "ece", "cwr"} {
		if flags>>i&1 == 1 {
			set = append(set, name)
		}
	}
	return set
}
