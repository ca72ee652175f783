// SPDX-License-Identifier: Apache-2.0

package importcheck

import (
	"encoding/binary"

	"golang.org/x/sys/unix"

	"github.com/portcullis-firewall/portcullis/policy"
	"github.com/portcullis-firewall/portcullis/policy/iptables"
)

// The same addresses on both sides, so that the same frames fit.
var (
	hostMAC = [6]byte{2, 0, 0, 0, 0, 1}
	peerMAC = [6]byte{2, 0, 0, 0, 0, 2}
)

const (
	lenEthernet = 14
	lenIPv4     = 20
	lenIPv6     = 40

	firstPort = 20000 // of those that are sent from
	ports     = 40000
)

// frameOf returns a probe as a frame. The marker, of 16 bits, stands where nobody looks: in the identification of IPv4,
// or the flow label of IPv6. Each frame comes from a port of its own, so that it belongs to nothing.
func frameOf(p iptables.Probe, marker uint16) []byte {
	six := p.Src.Is6()
	body := transport(p, marker)
	b := append(append([]byte{}, hostMAC[:]...), peerMAC[:]...)
	if six {
		b = binary.BigEndian.AppendUint16(b, unix.ETH_P_IPV6)
		b = binary.BigEndian.AppendUint32(b, 6<<28|uint32(marker))
		b = binary.BigEndian.AppendUint16(b, uint16(len(body)))
		b = append(b, byte(p.Protocol), 64)
	} else {
		b = binary.BigEndian.AppendUint16(b, unix.ETH_P_IP)
		b = append(b, 0x45, 0)
		b = binary.BigEndian.AppendUint16(b, uint16(lenIPv4+len(body)))
		b = binary.BigEndian.AppendUint16(b, marker)
		b = append(b, 0, 0, 64, byte(p.Protocol), 0, 0)
	}
	b = append(append(b, p.Src.AsSlice()...), p.Dst.AsSlice()...)
	if !six {
		binary.BigEndian.PutUint16(b[lenEthernet+10:], checksum(b[lenEthernet:lenEthernet+lenIPv4], 0))
	}
	pseudo := append(append([]byte{}, p.Src.AsSlice()...), p.Dst.AsSlice()...)
	sum := uint32(p.Protocol) + uint32(len(body))
	switch {
	case p.Protocol == policy.TCP:
		binary.BigEndian.PutUint16(body[16:], checksum(append(pseudo, body...), sum))
	case p.Protocol == policy.UDP:
		binary.BigEndian.PutUint16(body[6:], checksum(append(pseudo, body...), sum))
	case p.Protocol == unix.IPPROTO_ICMP:
		binary.BigEndian.PutUint16(body[2:], checksum(body, 0))
	case p.Protocol == unix.IPPROTO_ICMPV6:
		binary.BigEndian.PutUint16(body[2:], checksum(append(pseudo, body...), sum))
	}
	return append(b, body...)
}

func transport(p iptables.Probe, marker uint16) []byte {
	from := firstPort + marker%ports
	switch p.Protocol {
	case policy.TCP:
		b := binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint16(nil, from), p.Port)
		b = append(b, 0, 0, 3, 7, 0, 0, 0, 0, 5<<4, 2, 0xff, 0xff, 0, 0, 0, 0) // a SYN
		return b
	case policy.UDP:
		b := binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint16(nil, from), p.Port)
		return append(b, 0, 16, 0, 0, 'p', 'r', 'o', 'b', 'e', 0, 0, 0)
	case unix.IPPROTO_ICMP, unix.IPPROTO_ICMPV6:
		b := append([]byte{p.ICMP, 0, 0, 0}, byte(from>>8), byte(from), 0, 1)
		return append(b, make([]byte, 12)...) // a timestamp request has as much
	}
	return make([]byte, 16)
}

// checksum is that of the Internet (RFC 1071).
func checksum(b []byte, sum uint32) uint16 {
	for i := 0; i+1 < len(b); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(b[i:]))
	}
	if len(b)%2 == 1 {
		sum += uint32(b[len(b)-1]) << 8
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}

// markerOf returns the marker of a packet.
func markerOf(packet []byte) (uint16, bool) {
	switch {
	case len(packet) >= lenIPv4 && packet[0]>>4 == 4:
		return binary.BigEndian.Uint16(packet[4:]), true
	case len(packet) >= lenIPv6 && packet[0]>>4 == 6:
		return binary.BigEndian.Uint16(packet[2:]), true
	}
	return 0, false
}

// barrier is an ARP reply of no consequence, which no filter touches: behind it, all that was sent before is decided.
func barrier(number uint32) []byte {
	b := append(append([]byte{}, hostMAC[:]...), peerMAC[:]...)
	b = binary.BigEndian.AppendUint16(b, unix.ETH_P_ARP)
	b = append(b, 0, 1, 8, 0, 6, 4, 0, 2)
	b = append(append(b, peerMAC[:]...), 10, 9, 8, 7)
	b = append(b, hostMAC[:]...)
	return binary.BigEndian.AppendUint32(b, number)
}

// barrierOf returns the number of a barrier, from its Ethernet header on.
func barrierOf(b []byte) (number uint32, ok bool) {
	if len(b) < lenEthernet+28 || [4]byte(b[lenEthernet+14:]) != [4]byte{10, 9, 8, 7} {
		return 0, false
	}
	return binary.BigEndian.Uint32(b[lenEthernet+24:]), true
}
