// SPDX-License-Identifier: Apache-2.0

package differential

import (
	"net/netip"

	"github.com/portcullis-firewall/portcullis/tests/internal/frame"
)

// multicast is an address of the family.
func (h hosts) multicast(v4, v6 string) netip.Addr {
	if h.six {
		return netip.MustParseAddr(v6)
	}
	return netip.MustParseAddr(v4)
}

var udpCases = []testCase{
	{45, "UDP unasked, as an answer, from others", nil, 0, one(func(f flow) []step {
		wrong := f
		wrong.remote++
		return []step{
			f.udpIn(),
			f.udpOut(),
			wrong.udpIn(),
			packet(f.other, f.us, frame.UDP{SrcPort: f.remote, DstPort: f.local}),
			packet(f.peer, f.second, frame.UDP{SrcPort: f.remote, DstPort: f.local}),
			f.udpIn(),
			f.udpIn(),
		}
	})},
	{45, "UDP-Lite and SCTP", nil, 0, func(h hosts) []step {
		return []step{
			h.in(frame.UDPLite{SrcPort: 443, DstPort: 40000}, frame.Text("answer")),
			h.out(frame.UDPLite{SrcPort: 40000, DstPort: 443}, frame.Text("query")),
			// Netfilter takes this checksum for a wrong one: it counts UDP's protocol number into it.
			h.in(frame.UDPLite{SrcPort: 443, DstPort: 40000}, frame.Text("answer")).but(checksum),
			whole("UDP-Lite with UDP's checksum", frame.Build(ethernet(h.us), ipOf(h.peer, h.us, frame.ProtoUDPLite),
				frame.UDP{SrcPort: 443, DstPort: 40000, Length: frame.Exactly(0)}, frame.Text("answer"))),
			h.in(frame.UDPLite{SrcPort: 443, DstPort: 40001}, frame.Text("answer")),
			h.in(frame.SCTP{SrcPort: 443, DstPort: 40000, Chunk: frame.ChunkInit}, frame.Raw(make([]byte, 16))),
		}
	}},
	{46, "UDP without a checksum", nil, 0, one(func(f flow) []step {
		return []step{
			f.udpOut(),
			f.in(frame.UDP{SrcPort: f.remote, DstPort: f.local, Checksum: frame.Exactly(0)}, frame.Text("answer")),
		}
	})},
	{46, "UDP with a wrong checksum", nil, 0, one(func(f flow) []step {
		return []step{
			f.udpOut(),
			f.in(frame.UDP{SrcPort: f.remote, DstPort: f.local, Checksum: frame.Exactly(1)}, frame.Text("answer")).but(checksum),
			f.udpIn(),
		}
	})},
	{46, "UDP with a wrong length", nil, 0, one(func(f flow) (steps []step) {
		steps = append(steps, f.udpOut())
		for _, length := range []uint16{0, 4, 7, 200} {
			steps = append(steps, f.in(frame.UDP{SrcPort: f.remote, DstPort: f.local, Length: frame.Exactly(length)},
				frame.Text("answer")))
		}
		return append(steps, f.udpIn())
	})},
	{47, "mDNS, answered by unicast", nil, 0, func(h hosts) []step {
		group := h.multicast("224.0.0.251", "ff02::fb")
		return []step{
			sent(packet(h.us, group, frame.UDP{SrcPort: 5353, DstPort: 5353}, frame.Text("who"))),
			h.in(frame.UDP{SrcPort: 5353, DstPort: 5353}, frame.Text("me")),
		}
	}},
	{47, "NBNS, answered by unicast", nil, 4, func(h hosts) []step {
		return []step{
			sent(packet(h.us, netip.MustParseAddr("192.0.2.255"), frame.UDP{SrcPort: 137, DstPort: 137}, frame.Text("who"))),
			h.in(frame.UDP{SrcPort: 137, DstPort: 137}, frame.Text("me")),
		}
	}},
	{48, "DHCP offer", nil, 4, func(h hosts) []step {
		offer := frame.UDP{SrcPort: 67, DstPort: 68}
		return []step{
			h.in(offer, frame.Text("offer")).but(dhcpAnswer),
			packet(h.peer, netip.MustParseAddr("255.255.255.255"), offer, frame.Text("offer")).but(dhcpAnswer),
			h.in(frame.UDP{SrcPort: 68, DstPort: 67}).as("discover"),
			h.in(frame.UDP{SrcPort: 67, DstPort: 69}),
		}
	}},
	{48, "DHCPv6 answer", nil, 6, func(h hosts) []step {
		answer := frame.UDP{SrcPort: 547, DstPort: 546}
		return []step{
			packet(h.peer, linkLocal, answer, frame.Text("advertise")).but(dhcp6Answer),
			packet(netip.MustParseAddr("fe80::2"), linkLocal, answer, frame.Text("advertise")).but(dhcp6Answer),
			packet(h.peer, linkLocal, frame.UDP{SrcPort: 547, DstPort: 547}),
			packet(h.peer, linkLocal, frame.UDP{SrcPort: 53, DstPort: 546}),
			h.in(answer, frame.Text("advertise")).as("to another address of ours"),
		}
	}},
}

func pings(h hosts) []step {
	return []step{
		h.in(h.echoReply(7, 1)),
		h.out(h.echo(7, 1)),
		h.in(h.echoReply(7, 1)),
		h.in(h.echoReply(7, 2)).as("another sequence number"),
		h.in(h.echoReply(8, 1)),
		packet(h.other, h.us, h.echoReply(7, 1)),
		h.in(h.echo(7, 1)).as("the peer asks"),
	}
}

// allTypes sends a message of every type, of which some answer nothing and some quote nothing.
func allTypes(h hosts) (steps []step) {
	for kind := range 256 {
		s := h.in(h.icmp(uint8(kind), uint8(kind), 0, 9, 1))
		if h.six && (kind >= 130 && kind <= 137 || kind == 143) {
			continue // case 58
		}
		steps = append(steps, s)
	}
	return steps
}

var icmpCases = []testCase{
	{49, "ping, where ICMP is let in", nil, 0, pings},
	{49, "ping, where it is not", &noICMP, 0, pings},
	{49, "queries of other kinds", &noICMP, 4, func(h hosts) (steps []step) {
		for i, kind := range []uint8{frame.Timestamp, frame.InformationRequest, frame.MaskRequest} {
			steps = append(steps, h.out(frame.ICMPv4{Type: kind, ID: uint16(i)}),
				h.in(frame.ICMPv4{Type: kind + 1, ID: uint16(i)}), h.in(frame.ICMPv4{Type: frame.EchoReply, ID: uint16(i)}))
		}
		return steps
	}},
	{49, "ICMP of every type, where it is let in", nil, 0, allTypes},
	{49, "ICMP of every type, where it is not", &noICMP, 0, allTypes},
	{49, "ICMP cut off", nil, 0, func(h hosts) (steps []step) {
		whole := transport(h.peer, h.us, h.echo(1, 1))
		protocol := uint8(frame.ProtoICMP)
		if h.six {
			protocol = frame.ProtoICMPv6
		}
		for _, n := range []int{8, 7, 4, 1, 0} {
			steps = append(steps, h.raw(protocol, whole[:n]))
		}
		return steps
	}},
	{49, "wrong ICMP checksum", &noICMP, 0, func(h hosts) []step {
		reply := h.in(h.echoReply(7, 1))
		at := frame.IPv4Len
		if h.six {
			at = frame.IPv6Len
		}
		return []step{h.out(h.echo(7, 1)), with(reply, at+2, 1, 2).but(checksum), reply}
	}},
	{49, "ICMP of the other family", &noICMP, 0, func(h hosts) []step {
		wrong := uint8(frame.ProtoICMPv6)
		if h.six {
			wrong = frame.ProtoICMP
		}
		return []step{h.raw(wrong, transport(h.peer, h.us, h.echo(1, 1)))}
	}},
	{59, "ping to everybody", nil, 0, everybody},
	{59, "ping to everybody, where ICMP is not let in", &noICMP, 0, everybody},
}

func everybody(h hosts) []step {
	return []step{
		sent(packet(h.us, h.multicast("224.0.0.1", "ff02::1"), h.echo(7, 1))),
		h.in(h.echoReply(7, 1)),
	}
}
