// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"testing"

	"github.com/portcullis-firewall/portcullis/tests/internal/frame"
	"github.com/portcullis-firewall/portcullis/tests/internal/testdp"
)

func TestFragments(t *testing.T) {
	inBoth(t, func(w world) []arrival {
		part := func(protocol uint8, offset uint16, more bool, b []byte) []byte {
			return w.fragmentOf(w.peer, w.us, protocol, offset, more, b)
		}
		tcp := func(port uint16) []byte { return w.transport(w.peer, w.us, syn(port), frame.Raw(make([]byte, 44))) }
		data := func(port uint16) []byte { return w.transport(w.peer, w.us, udp(port), frame.Raw(make([]byte, 56))) }
		answer := w.transport(w.peer, w.us, frame.UDP{SrcPort: 53, DstPort: 40000}, frame.Raw(make([]byte, 56)))
		asked := []step{sent(w.out(frame.UDP{SrcPort: 40000, DstPort: 53}))}
		return []arrival{
			{name: "the first one to an open port",
				frame: part(frame.ProtoTCP, 0, true, tcp(80)[:24]), want: rule("80/tcp")},
			{name: "the first one to a closed port", frame: part(frame.ProtoTCP, 0, true, tcp(23)[:24]), want: closedPort},
			{name: "a later one, which is useless alone",
				frame: part(frame.ProtoTCP, 3, true, tcp(23)[24:48]), want: fragment},
			{name: "the last one", frame: part(frame.ProtoTCP, 6, false, tcp(23)[48:]), want: fragment},
			{name: "a later one that looks like the open port",
				frame: part(frame.ProtoTCP, 3, false, tcp(80)), want: fragment},
			{name: "the first one of UDP, whose length is the whole packet's",
				frame: part(frame.ProtoUDP, 0, true, data(53)[:16]), want: rule("53/udp")},
			{name: "the first one of UDP to a closed port",
				frame: part(frame.ProtoUDP, 0, true, data(54)[:16]), want: closedPort},
			{name: "the first one of UDP, with the ports alone",
				frame: part(frame.ProtoUDP, 0, true, data(53)[:8]), want: rule("53/udp")},
			{name: "a later one of UDP at offset 1", frame: part(frame.ProtoUDP, 1, true, data(54)[8:16]), want: fragment},
			{name: "a later one of a protocol without ports",
				frame: part(frame.ProtoESP, 9, false, make([]byte, 16)), want: fragment},
			{name: "the first one of a protocol without ports",
				frame: part(frame.ProtoESP, 0, true, make([]byte, 16)), want: protocol},
			{name: "the first one of an empty TCP packet", frame: part(frame.ProtoTCP, 0, true, nil), want: tinyFragment},
			{name: "a TCP header in fragments of 8 bytes",
				frame: part(frame.ProtoTCP, 0, true, tcp(80)[:8]), want: tinyFragment},
			{name: "a TCP header in fragments of 16 bytes",
				frame: part(frame.ProtoTCP, 0, true, tcp(80)[:16]), want: tinyFragment},
			{name: "a TCP fragment at offset 1, over the flags",
				frame: part(frame.ProtoTCP, 1, false, tcp(80)[8:]), want: tinyFragment},
			{name: "a TCP fragment at offset 2, behind the flags",
				frame: part(frame.ProtoTCP, 2, false, tcp(80)[16:]), want: fragment},
			{name: "the highest offset there is", frame: part(frame.ProtoUDP, 0x1fff, false, data(54)[:8]), want: fragment},

			{name: "the first one of a flow's, which cuts the TCP options", before: w.connected(),
				frame: part(frame.ProtoTCP, 0, true, w.transport(w.peer, w.us,
					frame.TCP{SrcPort: 443, DstPort: 40000, Flags: frame.ACK, DataOffset: frame.Exactly(8)}, frame.Raw(make([]byte, 44)))[:24]),
				want: established},
			{name: "the first one of an answer", before: asked,
				frame: part(frame.ProtoUDP, 0, true, answer[:16]), want: established},
			{name: "the rest of an answer", before: after(asked, received(part(frame.ProtoUDP, 0, true, answer[:16]))),
				frame: part(frame.ProtoUDP, 2, false, answer[16:]), want: fragment},
			{name: "the rest of an answer before its beginning", before: after(asked, received(part(frame.ProtoUDP, 2, false, answer[16:]))),
				frame: part(frame.ProtoUDP, 0, true, answer[:16]), want: established},
			{name: "the first one of a big ping", frame: w.fragmentOf(w.peer, w.us, w.icmpProtocol(), 0, true,
				w.transport(w.peer, w.us, w.echo(1, 1), frame.Raw(make([]byte, 40)))), want: icmpOpen},
			{name: "the first one of the reply to our big ping",
				before: []step{sent(w.fragmentOf(w.us, w.peer, w.icmpProtocol(), 0, true, w.transport(w.us, w.peer, w.echo(5, 1), frame.Raw(make([]byte, 40)))))},
				frame:  w.fragmentOf(w.peer, w.us, w.icmpProtocol(), 0, true, w.transport(w.peer, w.us, w.reply(5, 1), frame.Raw(make([]byte, 40)))),
				want:   established},
		}
	})
}

// Only IPv6 can hide what it fragments behind other headers.
func TestFragmentsBehindExtensionHeaders(t *testing.T) {
	w := worlds[1]
	options := frame.Extension{Kind: frame.ProtoDestOptions}
	first, atomic := frame.Fragment{MoreFragments: true}, frame.Fragment{}
	later := frame.Fragment{Offset: 5, NextHeader: frame.Exactly(frame.ProtoTCP)}
	arrive(t, load(t, testdp.Options{Policy: server}), []arrival{
		{name: "the first one with options behind it, open port",
			frame: w.in(options, first, options, syn(80)), want: rule("80/tcp")},
		{name: "the first one with options behind it, closed port",
			frame: w.in(options, first, options, syn(23)), want: closedPort},
		{name: "a later one behind options", frame: w.in(options, later, syn(23)), want: fragment},
		{name: "the first one that ends in the options (RFC 7112)", want: badExtension,
			frame: w.in(first, frame.Extension{Kind: frame.ProtoDestOptions, Length: frame.Exactly(9)}, syn(80))},
		{name: "a first one inside an atomic one", frame: w.in(atomic, first, syn(23)), want: closedPort},
		{name: "a tiny one inside an atomic one",
			frame: w.in(atomic, frame.Fragment{Offset: 1, NextHeader: frame.Exactly(frame.ProtoTCP)}, syn(80)), want: tinyFragment},
		{name: "an atomic one in a first one, with half a TCP header", want: tinyFragment,
			frame: w.in(first, frame.Fragment{NextHeader: frame.Exactly(frame.ProtoTCP)}, frame.Raw(make([]byte, 16)))},
		{name: "a fragment header that is cut off", frame: framed(w.number(w.peer, w.us, frame.ProtoFragment),
			[]frame.Layer{frame.Raw(make([]byte, 7))}), want: badExtension},
	})
}

func (w world) icmpProtocol() uint8 {
	if w.family == 4 {
		return frame.ProtoICMP
	}
	return frame.ProtoICMPv6
}
