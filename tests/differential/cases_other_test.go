// SPDX-License-Identifier: Apache-2.0

package differential

import (
	"fmt"
	"slices"

	"github.com/portcullis-firewall/portcullis/tests/internal/frame"
)

var otherCases = []testCase{
	{53, "authentication header", nil, 0, func(h hosts) []step {
		inner := frame.Text("protocol 253")
		auth := frame.Auth{NextHeader: frame.Exactly(253)}
		return []step{
			h.in(auth, inner),
			h.out(auth, inner),
			h.in(auth, inner).as("after ours"),
			packet(h.other, h.us, auth, inner).as("of another peer"),
		}
	}},
	{53, "TCP behind an authentication header", nil, 0, func(h hosts) []step {
		var d *difference
		if h.six { // whose conntrack looks behind the header
			d = behindAH
		}
		syn := frame.TCP{SrcPort: 40000, DstPort: 443, Flags: frame.SYN, Seq: 1000}
		answer := frame.TCP{SrcPort: 443, DstPort: 40000, Flags: frame.SYN | frame.ACK, Seq: 5000, Ack: 1001}
		unasked := frame.TCP{SrcPort: 30000, DstPort: 22, Flags: frame.SYN}
		open := frame.TCP{SrcPort: 30000, DstPort: 80, Flags: frame.SYN}
		return []step{
			h.in(frame.Auth{}, unasked),
			h.out(frame.Auth{}, syn),
			h.in(frame.Auth{}, answer),
			h.in(frame.Auth{}, unasked).but(d),
			h.in(frame.Auth{}, open).but(d),
		}
	}},
	{53, "protocols without ports", nil, 0, func(h hosts) (steps []step) {
		body := frame.Raw{0, 0, 8, 0, 0, 0, 0, 1, 1, 2, 3, 4, 5, 6, 7, 8}
		for _, protocol := range []uint8{frame.ProtoGRE, frame.ProtoESP, frame.ProtoIPIP, frame.Proto6in4,
			frame.ProtoVRRP, frame.ProtoOSPF, 253} {
			from := func(layers ...frame.Layer) step {
				return whole(fmt.Sprintf("protocol %d", protocol), frame.Build(append(layers, body)...))
			}
			steps = append(steps,
				from(ethernet(h.us), ipOf(h.peer, h.us, protocol)),
				sent(from(ethernet(h.peer), ipOf(h.us, h.peer, protocol))),
				from(ethernet(h.us), ipOf(h.peer, h.us, protocol)).as("after ours"),
				from(ethernet(h.us), ipOf(h.other, h.us, protocol)).as("of another peer"))
		}
		return steps
	}},
}

func (h hosts) answerIn(data int) []byte {
	return transport(h.peer, h.us, frame.UDP{SrcPort: 443, DstPort: 40000}, frame.Raw(make([]byte, data)))
}

func (h hosts) synIn(port uint16, data int) []byte {
	return transport(h.peer, h.us, frame.TCP{SrcPort: 30000, DstPort: port, Flags: frame.SYN}, frame.Raw(make([]byte, data)))
}

var fragmentCases = []testCase{
	{54, "fragments of an answer", nil, 0, one(func(f flow) []step {
		cut := func() [][]byte { return fragments(f.peer, f.us, frame.ProtoUDP, f.answerIn(100), 40) }
		reversed := cut()
		slices.Reverse(reversed)
		id := fragmentID.Add(1)
		answer := f.answerIn(100)
		overlapping := [][]byte{
			fragment(f.peer, f.us, frame.ProtoUDP, id, 0, true, answer[:48]),
			fragment(f.peer, f.us, frame.ProtoUDP, id, 40, false, answer[40:]),
		}
		return []step{
			whole("unasked", cut()...),
			f.udpOut(),
			whole("in order", cut()...),
			whole("in reverse", reversed...),
			whole("without the first", cut()[1:]...),
			whole("without the last", cut()[:2]...),
			whole("overlapping", overlapping...),
		}
	})},
	{54, "fragments of a ping", nil, 0, func(h hosts) []step {
		protocol := uint8(frame.ProtoICMP)
		if h.six {
			protocol = frame.ProtoICMPv6
		}
		return []step{whole("ping", fragments(h.peer, h.us, protocol,
			transport(h.peer, h.us, h.echo(1, 1), frame.Raw(make([]byte, 100))), 48)...)}
	}},
	{55, "SYN in fragments", nil, 0, func(h hosts) []step {
		return []step{
			whole("port 80, 8 bytes each", fragments(h.peer, h.us, frame.ProtoTCP, h.synIn(80, 0), 8)...).but(splitHeader),
			whole("port 80, 16 bytes each", fragments(h.peer, h.us, frame.ProtoTCP, h.synIn(80, 40), 16)...).but(splitHeader),
			whole("port 80, 24 bytes each", fragments(h.peer, h.us, frame.ProtoTCP, h.synIn(80, 40), 24)...),
			whole("port 22, 8 bytes each", fragments(h.peer, h.us, frame.ProtoTCP, h.synIn(22, 0), 8)...),
			whole("port 22, 24 bytes each", fragments(h.peer, h.us, frame.ProtoTCP, h.synIn(22, 40), 24)...),
		}
	}},
}

var linkCases = []testCase{
	{56, "VLAN tags", nil, 0, func(h hosts) (steps []step) {
		tagged := func(name string, port uint16, tags ...frame.Layer) {
			layers := append([]frame.Layer{ethernet(h.us)}, tags...)
			layers = append(layers, ip(h.peer, h.us), frame.TCP{SrcPort: 30000, DstPort: port, Flags: frame.SYN})
			steps = append(steps, whole(fmt.Sprintf("%s, port %d", name, port), frame.Build(layers...)))
		}
		for _, port := range []uint16{80, 22} {
			tagged("tag 0", port, frame.VLAN{})
			tagged("service tag 0", port, frame.VLAN{Service: true})
			tagged("service tag 0 and tag 0", port, frame.VLAN{Service: true}, frame.VLAN{})
			tagged("tag 10", port, frame.VLAN{ID: 10})
			tagged("tag 0 and tag 10", port, frame.VLAN{}, frame.VLAN{ID: 10})
			tagged("three tags", port, frame.VLAN{ID: 1}, frame.VLAN{ID: 2}, frame.VLAN{ID: 3})
		}
		return steps
	}},
	{56, "IP in PPPoE and MPLS", nil, 0, func(h hosts) []step {
		syn := h.in(frame.TCP{SrcPort: 30000, DstPort: 80, Flags: frame.SYN}).frames[0]
		in := func(kind uint16, head ...byte) []byte {
			return frame.Build(frame.Ethernet{Dst: serverMAC, Src: clientMAC, Type: kind}, frame.Raw(head),
				frame.Raw(syn[frame.EthernetLen:]))
		}
		return []step{
			whole("PPPoE", in(frame.TypePPPoE, 0x11, 0, 0, 1, 0, 42, 0, 0x21)),
			whole("MPLS", in(frame.TypeMPLS, 0, 1, 1, 64)),
		}
	}},
}

var extensionCases = []testCase{
	{57, "a query of ours behind an extension header", nil, 6, func(h hosts) (steps []step) {
		for i, header := range []frame.Layer{frame.Extension{Kind: frame.ProtoDestOptions}, frame.Extension{Kind: frame.ProtoHopByHop}} {
			f := flow{h, 40000 + uint16(i), 443}
			steps = append(steps, f.out(header, frame.UDP{SrcPort: f.local, DstPort: f.remote}, frame.Text("query")), f.udpIn())
		}
		return steps
	}},
	{57, "IPv6 extension headers", nil, 6, func(h hosts) (steps []step) {
		many := func(n int) (headers []frame.Layer) {
			for range n {
				headers = append(headers, frame.Extension{Kind: frame.ProtoDestOptions})
			}
			return headers
		}
		hop := frame.Extension{Kind: frame.ProtoHopByHop}
		for _, port := range []uint16{80, 22} {
			for _, c := range []struct {
				name    string
				headers []frame.Layer
			}{
				{"hop-by-hop", []frame.Layer{hop}},
				{"long hop-by-hop", []frame.Layer{frame.Extension{Kind: frame.ProtoHopByHop, Words: 20}}},
				{"destination options", many(1)},
				{"routing", []frame.Layer{frame.Extension{Kind: frame.ProtoRouting, Words: 2}}},
				{"hop-by-hop, options, routing, options", []frame.Layer{hop, many(1)[0],
					frame.Extension{Kind: frame.ProtoRouting, Words: 2}, many(1)[0]}},
				{"atomic fragment", []frame.Layer{frame.Fragment{ID: fragmentID.Add(1)}}},
				{"hop-by-hop and atomic fragment", []frame.Layer{hop, frame.Fragment{ID: fragmentID.Add(1)}}},
				{"9 headers", many(9)},
				{"10 headers", many(10)},
				{"authentication", []frame.Layer{frame.Auth{}}},
			} {
				steps = append(steps, h.in(append(c.headers,
					frame.TCP{SrcPort: 30000, DstPort: port, Flags: frame.SYN})...).as(c.name))
			}
		}
		return append(steps,
			h.in(append(many(11), frame.TCP{SrcPort: 30000, DstPort: 80, Flags: frame.SYN})...).as("11 headers").but(manyHeaders),
			h.in(append(many(11), frame.TCP{SrcPort: 30000, DstPort: 22, Flags: frame.SYN})...).as("11 headers"))
	}},
	{57, "IPv6 extension headers that lie", nil, 6, func(h hosts) []step {
		syn := frame.TCP{SrcPort: 30000, DstPort: 80, Flags: frame.SYN}
		return []step{
			h.in(frame.Extension{Kind: frame.ProtoDestOptions, Length: frame.Exactly(200)}, syn).as("longer than the packet"),
			h.raw(frame.ProtoDestOptions, []byte{frame.ProtoTCP, 0, 1}),
			h.raw(frame.ProtoHopByHop, []byte{frame.ProtoTCP}),
			h.raw(frame.ProtoFragment, []byte{frame.ProtoTCP, 0, 0, 0}),
			h.raw(frame.ProtoNoNext, nil),
			h.raw(frame.ProtoNoNext, make([]byte, 20)),
			h.in(frame.Extension{Kind: frame.ProtoDestOptions, NextHeader: frame.Exactly(frame.ProtoNoNext)}, syn).as("no next header"),
		}
	}},
}
