// SPDX-License-Identifier: Apache-2.0

package explain

import (
	"encoding/binary"
	"net/netip"
	"slices"

	"github.com/portcullis-firewall/portcullis/policy"
)

const (
	hops          = 64
	bigWindow     = 65535
	sctpInit      = 1
	headerIPv4    = 20
	headerIPv6    = 40
	dontFragment  = 0x4000
	liteCoverage  = 8 // UDP-Lite: the header
	icmpMessage   = 8
	otherPayload  = 8
	sctpInitChunk = 20
)

// packet returns what a request asks about, as an IP packet. Checksums are the stack's business, and left out.
func (r *Request) packet(w What, to netip.Addr) []byte {
	body := r.transport(w)
	if r.Source.Is4() {
		b := make([]byte, headerIPv4, headerIPv4+len(body))
		b[0] = 4<<4 | headerIPv4/4
		binary.BigEndian.PutUint16(b[2:], uint16(headerIPv4+len(body)))
		binary.BigEndian.PutUint16(b[6:], dontFragment)
		b[8], b[9] = hops, byte(w.Protocol)
		copy(b[12:], r.Source.AsSlice())
		copy(b[16:], to.AsSlice())
		return append(b, body...)
	}
	b := make([]byte, headerIPv6, headerIPv6+len(body))
	b[0] = 6 << 4
	binary.BigEndian.PutUint16(b[4:], uint16(len(body)))
	b[6], b[7] = byte(w.Protocol), hops
	copy(b[8:], r.Source.AsSlice())
	copy(b[24:], to.AsSlice())
	return append(b, body...)
}

// transport returns what stands behind the IP header.
func (r *Request) transport(w What) []byte {
	from := r.SourcePort
	if from == 0 {
		from = clientPort
	}
	ports := binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint16(nil, from), w.Port)
	switch w.Protocol {
	case policy.TCP:
		b := append(ports, make([]byte, 16)...)
		binary.BigEndian.PutUint32(b[4:], 1)
		flags := r.flags()
		if slices.Contains(tcpNames(flags), "ack") {
			binary.BigEndian.PutUint32(b[8:], 1)
		}
		b[12], b[13] = 5<<4, flags
		binary.BigEndian.PutUint16(b[14:], bigWindow)
		return b
	case policy.UDP, policy.UDPLite: // their third field is the length, or how much of it is checked: all of it
		b := append(ports, make([]byte, liteCoverage-len(ports))...)
		binary.BigEndian.PutUint16(b[4:], uint16(len(b)))
		return b
	case policy.SCTP:
		b := append(ports, make([]byte, 8+sctpInitChunk)...)
		b[12] = sctpInit
		binary.BigEndian.PutUint16(b[14:], sctpInitChunk)
		return b
	case protocolICMP, protocolICMPv6:
		b := make([]byte, icmpMessage)
		b[0] = w.Type
		return b
	}
	return make([]byte, otherPayload)
}

// flags returns the flags of a TCP segment.
func (r *Request) flags() (b uint8) {
	if r.Flags == nil {
		return flagBits([]string{"syn"})
	}
	return flagBits(r.Flags)
}

func flagBits(names []string) (b uint8) {
	for i, name := range tcpFlags {
		if slices.Contains(names, name) {
			b |= 1 << i
		}
	}
	return b
}

// tcpNames returns the names of the flags that are set.
func tcpNames(flags uint8) (names []string) {
	for i, name := range tcpFlags {
		if flags>>i&1 == 1 {
			names = append(names, name)
		}
	}
	return names
}
