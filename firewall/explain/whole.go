// SPDX-License-Identifier: Apache-2.0

package explain

import (
	"encoding/binary"

	"golang.org/x/sys/unix"
)

// isWhole reports whether all that the datapath reads of a packet was recorded: its headers (bpf/parse.h), and those that an
// ICMP error quotes. Whether what follows was does not matter.
func (p *Recorded) isWhole() bool {
	h := headers{p.Bytes[:p.Captured], len(p.Bytes)}
	if h.length == p.Captured {
		return true
	}
	const ethernetHeader, tag, mostTags = 14, 4, 2
	offset, kind := 0, p.Type
	if p.Ethernet {
		if !h.has(0, ethernetHeader) {
			return false
		}
		if offset = ethernetHeader; h.length < offset {
			return true
		}
		kind = binary.BigEndian.Uint16(h.b[offset-2:])
	}
	for range mostTags {
		if kind != unix.ETH_P_8021Q && kind != unix.ETH_P_8021AD {
			break
		}
		if !h.has(offset, tag) {
			return false
		}
		if offset += tag; h.length < offset {
			return true
		}
		kind = binary.BigEndian.Uint16(h.b[offset-2:])
	}
	if !p.Ethernet && p.Type == 0 {
		if !h.has(offset, 1) {
			return false
		}
		if kind = unix.ETH_P_IP; h.b[offset]>>4 == 6 {
			kind = unix.ETH_P_IPV6
		}
	}
	switch kind {
	case unix.ETH_P_IP:
		return h.hasIPv4(offset, false)
	case unix.ETH_P_IPV6:
		return h.hasIPv6(offset, false)
	}
	return true
}

// headers is what was recorded of a packet, and how long that was.
type headers struct {
	b      []byte
	length int
}

// has reports whether so many bytes at an offset were recorded. Where the packet ends before, what there is of them has to be.
func (h headers) has(offset, n int) bool { return len(h.b) >= min(offset+n, h.length) }

// ends reports whether the packet ends before so many bytes at an offset.
func (h headers) ends(offset, n int) bool { return offset+n > h.length }

func (h headers) hasIPv4(offset int, quoted bool) bool {
	if !h.has(offset, headerIPv4) {
		return false
	}
	if h.ends(offset, headerIPv4) || binary.BigEndian.Uint16(h.b[offset+6:])&0x1fff != 0 {
		return true
	}
	return h.hasTransport(h.b[offset+9], offset+int(h.b[offset]&0xf)*4, false, quoted)
}

func (h headers) hasIPv6(offset int, quoted bool) bool {
	const extension, mostExtensions = 8, 10
	if !h.has(offset, headerIPv6) {
		return false
	}
	if h.ends(offset, headerIPv6) {
		return true
	}
	protocol := h.b[offset+6]
	offset += headerIPv6
	for range mostExtensions {
		switch protocol {
		case unix.IPPROTO_HOPOPTS, unix.IPPROTO_ROUTING, unix.IPPROTO_DSTOPTS, unix.IPPROTO_FRAGMENT:
		default:
			return h.hasTransport(protocol, offset, true, quoted)
		}
		if !h.has(offset, extension) {
			return false
		}
		if h.ends(offset, extension) {
			return true
		}
		next, length := h.b[offset], (int(h.b[offset+1])+1)*8
		if protocol == unix.IPPROTO_FRAGMENT {
			length = extension
			if binary.BigEndian.Uint16(h.b[offset+2:])>>3 != 0 {
				return true
			}
		}
		protocol, offset = next, offset+length
	}
	return true
}

func (h headers) hasTransport(protocol byte, offset int, six, quoted bool) bool {
	const tcp, udp, sctp, icmp = 20, 8, 16, 8
	switch protocol {
	case unix.IPPROTO_TCP:
		return h.has(offset, tcp)
	case unix.IPPROTO_UDP, unix.IPPROTO_UDPLITE:
		return h.has(offset, udp)
	case unix.IPPROTO_SCTP:
		return h.has(offset, sctp)
	case unix.IPPROTO_ICMP, unix.IPPROTO_ICMPV6:
		if six != (protocol == unix.IPPROTO_ICMPV6) {
			return true
		}
		if !h.has(offset, icmp) {
			return false
		}
		if h.ends(offset, icmp) || quoted || !isError(h.b[offset], six) {
			return true
		}
		if six {
			return h.hasIPv6(offset+icmp, true)
		}
		return h.hasIPv4(offset+icmp, true)
	}
	return true
}

// isError reports whether a type of ICMP is that of an error, which quotes a packet.
func isError(kind byte, six bool) bool {
	if six {
		return kind < 128
	}
	switch kind {
	case 3, 4, 5, 11, 12:
		return true
	}
	return false
}
