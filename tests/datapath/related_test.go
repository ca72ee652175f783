// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"fmt"
	"testing"

	"github.com/portcullis-firewall/portcullis/tests/internal/frame"
	"github.com/portcullis-firewall/portcullis/tests/internal/testdp"
)

// error returns an ICMP error to us, sent by somebody on the way, that quotes layers.
func (w world) error(kind4, kind6 uint8, quoted ...frame.Layer) []byte {
	return w.from(w.stranger, append([]frame.Layer{w.icmp(kind4, kind6, 0, 0)}, quoted...)...)
}

// quoted returns the IP packet that layers make from src to dst, cut to the first n bytes behind the IP header.
func (w world) cutQuote(n int, layers ...frame.Layer) frame.Layer {
	whole := framed(w.ip(w.us, w.peer), layers)
	header := frame.IPv4Len
	if w.family == 6 {
		header = frame.IPv6Len
	}
	return frame.Raw(whole[frame.EthernetLen : frame.EthernetLen+header+n])
}

// Cases 50 and 51, in a host that drops what ICMP it can.
func TestErrorsAboutFlows(t *testing.T) {
	inBothUnder(t, testdp.Options{Policy: "icmp: drop"}, func(w world) []arrival {
		tcp := frame.TCP{SrcPort: 40000, DstPort: 443, Seq: 1000, Flags: frame.SYN}
		back := frame.TCP{SrcPort: 443, DstPort: 40000, Flags: frame.ACK}
		udp := frame.UDP{SrcPort: 40000, DstPort: 53}
		asked := w.asked()
		queried := []step{sent(w.out(udp))}
		pinged := []step{sent(w.out(w.echo(7, 1)))}
		ours, theirs := w.ip(w.us, w.peer), w.ip(w.peer, w.us)
		icmp := func(quoted ...frame.Layer) []byte { return w.error(frame.Unreachable, frame.Unreachable6, quoted...) }
		otherPort := tcp
		otherPort.DstPort = 444
		esp := framed(w.number(w.us, w.peer, frame.ProtoESP), []frame.Layer{frame.Raw(make([]byte, 16))})
		part := func(offset uint16, more bool, n int) frame.Layer {
			whole := w.transport(w.us, w.peer, udp, frame.Raw(make([]byte, 40)))
			return frame.Raw(w.fragmentOf(w.us, w.peer, frame.ProtoUDP, offset, more, whole[:n])[frame.EthernetLen:])
		}
		cases := []arrival{
			{name: "about our SYN", before: asked, frame: icmp(ours, tcp), want: related},
			{name: "about a connection", before: w.connected(), frame: icmp(ours, tcp), want: related},
			{name: "about our query", before: queried, frame: icmp(ours, udp), want: related},
			{name: "about our ping", before: pinged, frame: icmp(ours, w.echo(7, 5)), want: related},
			{name: "about our ESP", before: []step{sent(esp)},
				frame: icmp(frame.Raw(esp[frame.EthernetLen:])), want: related},
			{name: "from the peer itself", before: asked, frame: w.in(w.unreachable(), ours, tcp), want: related},
			{name: "about nothing of ours", frame: icmp(ours, tcp), want: icmpClosed.of(noFlow)},
			{name: "about another port", before: asked, frame: icmp(ours, otherPort), want: icmpClosed.of(noFlow)},
			{name: "about another protocol", before: asked,
				frame: icmp(ours, frame.UDP{SrcPort: 40000, DstPort: 443}), want: icmpClosed.of(noFlow)},
			{name: "about another address", before: asked, frame: icmp(w.ip(w.us, w.stranger), tcp), want: icmpClosed.of(noFlow)},
			{name: "about a packet of theirs", before: asked, frame: icmp(theirs, back), want: icmpClosed.of(noFlow)},
			{name: "about a packet that went the other way", before: asked, frame: icmp(ours, back), want: icmpClosed.of(noFlow)},
			{name: "that quotes somebody else's address", before: asked,
				frame: icmp(w.ip(w.stranger, w.peer), tcp), want: icmpClosed.of(noFlow)},
			{name: "to another address than the packet came from", before: asked, want: icmpClosed.of(noFlow),
				frame: framed(w.ip(w.stranger, w.friend), []frame.Layer{w.unreachable(), ours, tcp})},
			{name: "about our ping, of another identifier", before: pinged,
				frame: icmp(ours, w.echo(8, 5)), want: icmpClosed.of(noFlow)},
			{name: "about a reply of ours", before: after(pinged, sent(w.out(w.reply(7, 1)))),
				frame: icmp(ours, w.reply(7, 1)), want: icmpClosed.of(noFlow)},
			{name: "about a reply of ours, whose identifier is the type of a ping", want: icmpClosed.of(noFlow),
				before: []step{sent(w.out(w.echo(pingType(w), 1)))}, frame: icmp(ours, w.reply(pingType(w), 1))},
			{name: "about an error of ours", before: asked,
				frame: icmp(ours, w.unreachable(), theirs, back), want: icmpClosed.of(noFlow)},
			{name: "that quotes 8 bytes, the least there may be", before: asked,
				frame: icmp(w.cutQuote(8, tcp)), want: related},
			{name: "that quotes the ports alone", before: asked, frame: icmp(w.cutQuote(4, tcp)), want: related},
			{name: "that quotes half of the ports", before: asked, frame: icmp(w.cutQuote(3, tcp)), want: icmpClosed.of(noFlow)},
			{name: "that quotes the IP header alone", before: asked, frame: icmp(w.cutQuote(0, tcp)), want: icmpClosed.of(noFlow)},
			{name: "that quotes half of an IP header", before: asked, frame: icmp(w.cutQuote(-10, tcp)), want: icmpClosed.of(noFlow)},
			{name: "that quotes nothing", before: asked, frame: icmp(), want: icmpClosed.of(noFlow)},
			{name: "that quotes a first fragment", before: queried, frame: icmp(part(0, true, 16)), want: related},
			{name: "that quotes 8 bytes of a first TCP fragment", before: asked, want: related,
				frame: icmp(frame.Raw(w.fragmentOf(w.us, w.peer, frame.ProtoTCP, 0, true, w.transport(w.us, w.peer, tcp)[:8])[frame.EthernetLen:]))},
			{name: "that quotes a later fragment", before: queried, frame: icmp(part(2, false, 16)), want: icmpClosed.of(noFlow)},
			{name: "that quotes a later fragment of our ESP", before: []step{sent(esp)}, want: icmpClosed.of(noFlow),
				frame: icmp(frame.Raw(w.fragmentOf(w.us, w.peer, frame.ProtoESP, 2, false, make([]byte, 16))[frame.EthernetLen:]))},
			{name: "that quotes the other family", before: asked,
				frame: icmp(frame.Raw(otherFamily(w)[frame.EthernetLen:])), want: icmpClosed.of(noFlow)},
			{name: "whose quote lies in the padding behind the packet", before: asked, want: icmpClosed.of(noFlow),
				frame: append(w.from(w.stranger, w.unreachable()), w.out(tcp)[frame.EthernetLen:]...)},
			{name: "whose quoted ports lie in the padding behind the packet", before: asked, want: icmpClosed.of(noFlow),
				frame: append(icmp(w.cutQuote(0, tcp)), w.transport(w.us, w.peer, tcp)...)},
			{name: "about a SYN that we took back", before: after(asked, sent(w.tcpOut(ourRST))),
				frame: icmp(ours, tcp), want: icmpClosed.of(noFlow)},
		}
		kinds, others := []uint8{3, 4, 5, 11, 12}, []uint8{1, 2, 6, 7, 10, 19, 100, 200}
		if w.family == 6 { // RFC 4443, 2.1: below 128 are errors, known or not
			kinds, others = []uint8{0, 1, 2, 3, 4, 5, 6, 100, 127}, []uint8{128, 138, 144, 200}
		}
		for _, kind := range kinds {
			cases = append(cases, arrival{name: fmt.Sprintf("of type %d", kind), before: asked, frame: w.error(kind, kind, ours, tcp), want: related})
		}
		for _, kind := range others {
			answer := icmpClosed.of(noFlow)
			if kind == frame.Echo || kind == frame.Echo6 {
				answer.kind = 0
			}
			cases = append(cases, arrival{name: fmt.Sprintf("of type %d, which is no error", kind), before: asked,
				frame: w.error(kind, kind, ours, tcp), want: answer})
		}
		return cases
	})
}

func pingType(w world) uint16 {
	if w.family == 4 {
		return frame.Echo
	}
	return frame.Echo6
}

func otherFamily(w world) []byte {
	other := worlds[0]
	if w.family == 4 {
		other = worlds[1]
	}
	return other.tcpOut(ourSYN)
}

// Case 52: open ports keep no flows, and path MTU discovery must work for them.
func TestErrorsAboutOpenPorts(t *testing.T) {
	inBothUnder(t, testdp.Options{Policy: server + "invalid: log"}, func(w world) []arrival {
		answer := func(src, dst uint16) frame.TCP {
			return frame.TCP{SrcPort: src, DstPort: dst, Flags: frame.ACK}
		}
		ours := w.ip(w.us, w.peer)
		tooBig := func(quoted ...frame.Layer) []byte { return w.error(frame.Unreachable, frame.PacketTooBig6, quoted...) }
		return []arrival{
			{name: "about an answer from an open port", frame: tooBig(ours, answer(80, 50000)), want: related},
			{name: "about an answer from a closed port", frame: tooBig(ours, answer(81, 50000)), want: icmpClosed.of(noFlow)},
			{name: "about a packet to somebody's open port", frame: tooBig(ours, answer(50000, 80)), want: icmpClosed.of(noFlow)},
			{name: "about an answer in UDP", frame: tooBig(ours, frame.UDP{SrcPort: 53, DstPort: 9}), want: related},
			{name: "about an answer to a source that may",
				frame: tooBig(w.ip(w.us, w.friend), answer(22, 50000)), want: related},
			{name: "about an answer to a source that may not", frame: tooBig(ours, answer(22, 50000)), want: icmpClosed.of(noFlow)},
			{name: "about a packet that is not ours",
				frame: tooBig(w.ip(w.stranger, w.peer), answer(80, 50000)), want: icmpClosed.of(noFlow)},
			{name: "that quotes the ports alone", frame: tooBig(w.cutQuote(4, answer(80, 50000))), want: related},
		}
	})
}

// The quoted packet has headers of its own to walk through.
func TestQuotedHeaders(t *testing.T) {
	options := frame.Extension{Kind: frame.ProtoDestOptions}
	inBothUnder(t, testdp.Options{Policy: "icmp: drop"}, func(w world) []arrival {
		tcp := frame.TCP{SrcPort: 40000, DstPort: 443, Seq: 1000, Flags: frame.SYN}
		if w.family == 4 {
			quoted := frame.IPv4{Src: w.us, Dst: w.peer, Options: make([]byte, 40)}
			lie := frame.IPv4{Src: w.us, Dst: w.peer, HeaderLength: frame.Exactly(4)}
			long := frame.IPv4{Src: w.us, Dst: w.peer, TotalLength: frame.Exactly(1500)}
			return []arrival{
				{name: "options", before: w.asked(), frame: w.error(3, 0, quoted, tcp), want: related},
				{name: "the length of the whole packet", before: w.asked(), frame: w.error(3, 0, long, tcp), want: related},
				{name: "a header of 4 words", before: w.asked(), frame: w.error(3, 0, lie, tcp), want: icmpClosed.of(noFlow)},
				{name: "options around the error", before: w.asked(), want: related, frame: frame.Build(frame.Ethernet{},
					frame.IPv4{Src: w.stranger, Dst: w.us, Options: make([]byte, 40)}, frame.ICMPv4{Type: 3}, w.ip(w.us, w.peer), tcp)},
			}
		}
		long := frame.IPv6{Src: w.us, Dst: w.peer, PayloadLength: frame.Exactly(1460)}
		return []arrival{
			{name: "extension headers", before: w.asked(),
				frame: w.error(0, 1, w.ip(w.us, w.peer), options, frame.Fragment{}, tcp), want: related},
			{name: "the length of the whole packet", before: w.asked(), frame: w.error(0, 2, long, tcp), want: related},
			{name: "too many extension headers", before: w.asked(), want: icmpClosed.of(noFlow),
				frame: w.error(0, 1, append(append([]frame.Layer{w.ip(w.us, w.peer)},
					options, options, options, options, options, options, options, options, options, options, options), tcp)...)},
			{name: "extension headers around the error", before: w.asked(), want: related,
				frame: w.from(w.stranger, options, options, w.unreachable(), w.ip(w.us, w.peer), options, tcp)},
		}
	})
}
