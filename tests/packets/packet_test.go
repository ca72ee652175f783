// SPDX-License-Identifier: Apache-2.0

package packets

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"

	"github.com/portcullis-firewall/portcullis/policy"
	"github.com/portcullis-firewall/portcullis/policy/addrset"
	"github.com/portcullis-firewall/portcullis/tests/internal/frame"
)

// packet is one that belongs to no flow.
type packet struct {
	policy.Packet
	goesOn bool // TCP that begins nothing
}

func (p packet) String() string {
	text := fmt.Sprintf("%s to %s on %s, %s", p.Source, p.Destination, p.Interface, policy.PortRange{Protocol: p.Protocol, First: p.Port, Last: p.Port})
	if p.goesOn {
		text += ", ACK"
	}
	return text
}

// borders are where the rules of policies begin and end to count: packets from there tell most.
type borders struct {
	ports    []policy.PortRange // of one port each
	src, dst [2][]netip.Addr    // of IPv4, of IPv6
}

func bordersOf(policies ...*policy.Policy) *borders {
	b := new(borders)
	seen := make(map[policy.PortRange]bool)
	addPort := func(protocol policy.Protocol, port int) {
		p := policy.PortRange{Protocol: protocol, First: uint16(port), Last: uint16(port)}
		if 0 <= port && port <= 0xffff && !seen[p] {
			seen[p] = true
			b.ports = append(b.ports, p)
		}
	}
	for _, protocol := range policy.Protocols {
		addPort(protocol, 0)
		addPort(protocol, 79)
	}
	for _, protocol := range []int{0, 1, 2, 4, 41, 47, 50, 51, 58, 59, 112, 200, 253, 255} {
		addPort(policy.Protocol(protocol), 0)
	}
	for _, p := range policies {
		for _, r := range p.Open {
			for _, ports := range r.Ports {
				if len(r.Ports) > 100 { // all
					break
				}
				if policy.ProtocolIndex(ports.Protocol) < 0 {
					addPort(ports.Protocol, 0)
					continue
				}
				for i := -1; i <= 1; i++ {
					addPort(ports.Protocol, int(ports.First)+i)
					addPort(ports.Protocol, int(ports.Last)+i)
				}
			}
			addBorders(&b.src, r.From)
			addBorders(&b.src, r.Except)
			addBorders(&b.dst, r.To)
		}
	}
	for _, base := range bases {
		addBorders(&b.src, []netip.Prefix{netip.PrefixFrom(base, base.BitLen())})
		addBorders(&b.dst, []netip.Prefix{netip.PrefixFrom(base, base.BitLen())})
	}
	return b
}

func addBorders(to *[2][]netip.Addr, prefixes []netip.Prefix) {
	for _, p := range prefixes {
		r := addrset.RangeOf(p)
		for _, a := range []netip.Addr{r.First.Prev(), r.First, r.Last, r.Last.Next()} {
			if a.IsValid() {
				family := family(a)
				to[family] = append(to[family], a)
			}
		}
	}
}

func family(a netip.Addr) int {
	if a.Is4() {
		return 0
	}
	return 1
}

// draw makes a random packet that comes in on an interface.
func (b *borders) draw(d draw, iface string) packet {
	port := oneOf(d, b.ports...)
	if policy.ProtocolIndex(port.Protocol) >= 0 && d.times(1, 8) {
		port.First = uint16(d.Uint32())
	}
	six := d.IntN(2)
	if six == 1 && isExtension(uint8(port.Protocol)) { // to IPv6 it is a header
		six = 0
	}
	p := packet{Packet: policy.Packet{Interface: iface, Protocol: port.Protocol, Port: port.First}}
	p.Source, p.Destination = oneOf(d, b.src[six]...), oneOf(d, b.dst[six]...)
	if d.times(1, 10) {
		p.Source = randomAddr(d.Rand, six)
	}
	if d.times(1, 10) {
		p.Destination = randomAddr(d.Rand, six)
	}
	p.goesOn = p.Protocol == policy.TCP && d.times(1, 10)
	return p
}

func randomAddr(r *rand.Rand, family int) netip.Addr {
	bytes := make([]byte, []int{4, 16}[family])
	for i := range bytes {
		bytes[i] = byte(r.Uint32())
	}
	a, _ := netip.AddrFromSlice(bytes)
	return a
}

func isExtension(protocol uint8) bool {
	return slices.Contains([]uint8{frame.ProtoHopByHop, frame.ProtoRouting, frame.ProtoFragment, frame.ProtoDestOptions}, protocol)
}

// frame returns the packet as it comes in.
func (p packet) frame() []byte {
	var ip, inner frame.Layer = frame.IPv4{Src: p.Source, Dst: p.Destination, Protocol: uint8(p.Protocol)}, frame.Text("12345678")
	if p.Source.Is6() {
		ip = frame.IPv6{Src: p.Source, Dst: p.Destination, NextHeader: frame.Exactly(uint16(p.Protocol))}
	}
	const from = 40000
	switch p.Protocol {
	case policy.TCP:
		flags := uint8(frame.SYN)
		if p.goesOn {
			flags = frame.ACK
		}
		inner = frame.TCP{SrcPort: from, DstPort: p.Port, Flags: flags}
	case policy.UDP:
		inner = frame.UDP{SrcPort: from, DstPort: p.Port}
	case policy.UDPLite:
		inner = frame.UDPLite{SrcPort: from, DstPort: p.Port}
	case policy.SCTP:
		inner = frame.SCTP{SrcPort: from, DstPort: p.Port, Chunk: frame.ChunkInit}
	case frame.ProtoICMP:
		inner = frame.ICMPv4{Type: frame.Echo, ID: 7}
	case frame.ProtoICMPv6:
		inner = frame.ICMPv6{Type: frame.Echo6, ID: 7}
	}
	b := frame.Build(frame.Ethernet{}, ip, inner)
	if p.Protocol == 0 { // which to Build stands for what follows
		b[frame.EthernetLen+9] = 0
	}
	return b
}
