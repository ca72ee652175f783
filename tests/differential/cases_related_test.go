// SPDX-License-Identifier: Apache-2.0

package differential

import (
	"fmt"
	"net/netip"

	"github.com/portcullis-firewall/portcullis/tests/internal/frame"
)

// related are errors about the query of f, and some that are not.
func related(f flow) []step {
	udp := frame.UDP{SrcPort: f.local, DstPort: f.remote}
	answer := frame.UDP{SrcPort: f.remote, DstPort: f.local}
	wrong := frame.UDP{SrcPort: f.local, DstPort: f.remote + 1}
	query := frame.Text("query")
	about := quote(f.us, f.peer, 100, udp, query)
	return []step{
		f.in(f.unreachable(), about).as("before the query"),
		f.udpOut(),
		f.in(f.unreachable(), about),
		packet(f.other, f.us, f.unreachable(), about).as("from a router"),
		packet(f.peer, f.second, f.unreachable(), about).as("to another address of ours"),
		f.in(f.unreachable(), quote(f.us, f.peer, 100, wrong, query)).as("another port"),
		f.in(f.unreachable(), quote(f.us, f.other, 100, udp, query)).as("another peer"),
		f.in(f.unreachable(), quote(f.second, f.peer, 100, udp, query)).as("another source"),
		f.in(f.unreachable(), quote(f.peer, f.us, 100, answer, query)).as("reversed"),
		packet(f.other, f.peer, f.unreachable(), quote(f.peer, f.us, 100, answer)).as("for the peer"),
		f.in(f.unreachable(), quote(f.us, f.peer, 8, udp, query)).as("8 bytes quoted"),
		f.in(f.unreachable()).as("nothing quoted"),
	}
}

// kinds are errors of every kind about one query.
func kinds(h hosts) []step {
	f := flow{h, 40000, 443}
	about := quote(h.us, h.peer, 100, frame.UDP{SrcPort: f.local, DstPort: f.remote}, frame.Text("query"))
	steps := []step{f.udpOut()}
	for _, kind := range []uint8{0, 1, 2, 3, 4, 5, 6, 10, 11, 12, 30, 100, 127, 137} {
		if h.six && kind == 137 {
			continue
		}
		steps = append(steps, h.in(h.icmp(kind, kind, 0, 0, 0), about))
	}
	return steps
}

var relatedCases = []testCase{
	{50, "ICMP errors, right and wrong", &noICMP, 0, one(related)},
	{50, "ICMP errors, where ICMP is let in", nil, 0, one(related)},
	{50, "ICMP errors about TCP", &noICMP, 0, one(func(f flow) []step {
		about := quote(f.us, f.peer, 20, frame.TCP{SrcPort: f.local, DstPort: f.remote, Flags: frame.SYN, Seq: 1000})
		return []step{
			f.tcpOut(frame.SYN, 1000, 0),
			packet(f.other, f.us, f.unreachable(), about),
			f.tcpIn(frame.SYN|frame.ACK, 5000, 1001),
			packet(f.other, f.us, f.unreachable(), about).as("answered"),
		}
	})},
	{50, "ICMP errors about a ping", &noICMP, 0, func(h hosts) []step {
		return []step{
			h.out(h.echo(7, 1)),
			h.in(h.unreachable(), quote(h.us, h.peer, 8, h.echo(7, 1))),
			h.in(h.unreachable(), quote(h.us, h.peer, 8, h.echo(8, 1))),
			h.in(h.unreachable(), quote(h.us, h.peer, 8, h.echoReply(7, 1))).as("about a reply"),
			h.in(h.unreachable(), quote(h.us, h.peer, 8, h.unreachable())).as("about an error"),
		}
	}},
	{50, "ICMP errors about an answer of ours to a ping", &noICMP, 0, func(h hosts) []step {
		return []step{
			h.in(h.echo(7, 1)),
			h.out(h.echoReply(7, 1)),
			h.in(h.unreachable(), quote(h.us, h.peer, 8, h.echoReply(7, 1))),
		}
	}},
	{51, "ICMP errors that quote little", &noICMP, 0, one(func(f flow) (steps []step) {
		steps = append(steps, f.udpOut())
		for _, room := range []int{8, 5, 4, 3, 0} {
			steps = append(steps, f.in(f.unreachable(),
				quote(f.us, f.peer, room, frame.UDP{SrcPort: f.local, DstPort: f.remote}, frame.Text("query"))))
		}
		f.local++
		steps = append(steps, f.tcpOut(frame.SYN, 1000, 0))
		for _, room := range []int{20, 19, 12, 8, 4, 3, 0} {
			steps = append(steps, f.in(f.unreachable(),
				quote(f.us, f.peer, room, frame.TCP{SrcPort: f.local, DstPort: f.remote, Flags: frame.SYN, Seq: 1000})))
		}
		return append(steps, f.out(f.echo(7, 1)),
			f.in(f.unreachable(), quote(f.us, f.peer, 7, f.echo(7, 1))),
			f.in(f.unreachable(), quote(f.us, f.peer, 6, f.echo(7, 1))))
	})},
	{51, "ICMP errors about queries of other kinds", &noICMP, 4, func(h hosts) (steps []step) {
		for i, kind := range []uint8{frame.Timestamp, frame.InformationRequest, frame.MaskRequest} {
			query, answer := frame.ICMPv4{Type: kind, ID: uint16(i)}, frame.ICMPv4{Type: kind + 1, ID: uint16(i)}
			steps = append(steps, h.out(query), h.in(h.unreachable(), quote(h.us, h.peer, 8, query)),
				h.in(h.unreachable(), quote(h.us, h.peer, 8, answer)).as("about an answer"))
		}
		return steps
	}},
	{51, "ICMP errors that quote extension headers", &noICMP, 6, one(func(f flow) []step {
		udp, query := frame.UDP{SrcPort: f.local, DstPort: f.remote}, frame.Text("query")
		steps := []step{f.udpOut()}
		for _, header := range []frame.Layer{
			frame.Extension{Kind: frame.ProtoHopByHop}, frame.Extension{Kind: frame.ProtoDestOptions},
			frame.Extension{Kind: frame.ProtoRouting}, frame.Fragment{ID: 1}, frame.Fragment{ID: 1, MoreFragments: true},
			frame.Fragment{ID: 1, Offset: 3},
		} {
			steps = append(steps, f.in(f.unreachable(), quote(f.us, f.peer, 100, header, udp, query)).as(fmt.Sprintf("%T", header)))
		}
		return append(steps, f.in(f.unreachable(),
			quote(f.us, f.peer, 100, frame.Extension{Kind: frame.ProtoDestOptions}, frame.UDP{SrcPort: 1, DstPort: 2})))
	})},
	{51, "ICMP errors that quote fragments", &noICMP, 4, one(func(f flow) []step {
		quoted := func(offset uint16, more bool) frame.Raw {
			return frame.Raw(frame.Build(frame.IPv4{Src: f.us, Dst: f.peer, Protocol: frame.ProtoUDP, Offset: offset,
				MoreFragments: more}, frame.Raw(transport(f.us, f.peer, frame.UDP{SrcPort: f.local, DstPort: f.remote}))))
		}
		return []step{
			f.udpOut(),
			f.in(f.unreachable(), quoted(0, true)).as("the first"),
			f.in(f.unreachable(), quoted(3, true)).as("a later one"),
		}
	})},
	{52, "fragmentation needed, in a connection to the open port", &noICMP, 0, func(h hosts) []step {
		f := flow{h, 80, 40000}
		tooBig := h.icmp(frame.Unreachable, frame.PacketTooBig6, 4, 0, 1400)
		if h.six {
			tooBig = frame.ICMPv6{Type: frame.PacketTooBig6, Seq: 1400}
		}
		about := quote(h.us, h.peer, 20, frame.TCP{SrcPort: 80, DstPort: 40000, Flags: frame.SYN | frame.ACK, Seq: 1000})
		return []step{
			packet(h.other, h.us, tooBig, about).as("without a connection").but(openPort),
			f.tcpIn(frame.SYN, 5000, 0),
			f.tcpOut(frame.SYN|frame.ACK, 1000, 5001),
			packet(h.other, h.us, tooBig, about),
		}
	}},
	{58, "neighbour discovery and MLD, where ICMP is let in", nil, 6, discovery(nil)},
	{58, "neighbour discovery and MLD, where it is not", &noICMP, 6, discovery(neighbours)},
	{59, "ICMP errors of every kind", &noICMP, 0, kinds},
	{59, "ICMP errors of every kind, where ICMP is let in", nil, 0, kinds},
}

// discovery is what IPv6 cannot do without.
func discovery(d *difference) func(hosts) []step {
	return func(h hosts) []step {
		link, all := netip.MustParseAddr("fe80::2"), netip.MustParseAddr("ff02::1")
		solicited := netip.MustParseAddr("ff02::1:ff00:1")
		message := func(src, dst netip.Addr, hops uint8, kind uint8, body []byte) step {
			return whole(describe(src, dst, []frame.Layer{frame.ICMPv6{Type: kind}}), frame.Build(ethernet(dst),
				frame.IPv6{Src: src, Dst: dst, HopLimit: hops}, frame.ICMPv6{Type: kind}, frame.Raw(body))).but(d)
		}
		us, none := h.us.AsSlice(), netip.IPv6Unspecified()
		peer := h.peer.AsSlice()
		return []step{
			message(link, solicited, 255, frame.NeighborSolicitation, us),
			message(h.peer, h.us, 255, frame.NeighborSolicitation, us),
			message(h.peer, h.us, 64, frame.NeighborSolicitation, us).as("hop limit 64"),
			message(none, solicited, 255, frame.NeighborSolicitation, us).as("duplicate address detection"),
			message(link, h.us, 255, frame.NeighborAdvertisement, peer),
			message(link, all, 255, frame.NeighborAdvertisement, peer),
			message(link, all, 255, frame.RouterAdvertisement, make([]byte, 8)),
			message(link, netip.MustParseAddr("ff02::1"), 255, frame.RouterSolicitation, nil),
			message(link, all, 1, frame.ListenerQuery, make([]byte, 16)),
			message(link, all, 1, frame.ListenerReport, make([]byte, 16)),
			message(link, all, 1, frame.ListenerDone, make([]byte, 16)),
			message(link, all, 1, frame.ListenerReport2, make([]byte, 0)),
		}
	}
}
