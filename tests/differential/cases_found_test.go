// SPDX-License-Identifier: Apache-2.0

package differential

import (
	"github.com/portcullis-firewall/portcullis/tests/internal/frame"
)

// but marks the last packet of a sequence with a documented difference.
func (all moves) but(d *difference) func(hosts) []step {
	return func(h hosts) []step {
		steps := all.steps(h)
		steps[len(steps)-1] = steps[len(steps)-1].but(d)
		return steps
	}
}

// mayBut marks it with one that not every kernel's netfilter makes.
func (all moves) mayBut(d *difference) func(hosts) []step {
	return func(h hosts) []step {
		steps := all.steps(h)
		steps[len(steps)-1] = steps[len(steps)-1].mayBut(d)
		return steps
	}
}

// foundCases are what random sequences have found, as they were printed: the bugs, and the documented differences.
var foundCases = []testCase{
	{0, "the first fragment of a SYN-ACK, and a FIN", nil, 0, moves{
		{kind: tcp, out: true, what: frame.SYN},
		{kind: tcp, what: frame.SYN | frame.ACK, dress: dressing{data: 100, cut: firstOnly}},
		{kind: tcp, what: frame.FIN | frame.ACK},
	}.but(unseen)},
	{0, "a SYN-ACK with an option for which it is discarded, and a FIN", nil, 6, moves{
		{kind: tcp, out: true, what: frame.SYN},
		{kind: tcp, what: frame.SYN | frame.ACK, dress: dressing{ip: toDiscard}},
		{kind: tcp, what: frame.FIN | frame.ACK},
	}.but(unseen)},
	{0, "an SCTP association", nil, 0, moves{
		{kind: sctp, what: frame.ChunkInit},
		{kind: sctp, out: true, what: frame.ChunkInit},
		{kind: sctp, what: frame.ChunkInitAck},
		{kind: sctp, out: true, what: frame.ChunkCookieEcho},
		{kind: sctp, what: frame.ChunkCookieAck},
		{kind: sctp, what: frame.ChunkData, remote: 1},
		{kind: about, what: 3, quotes: sctp},
		{kind: sctp, what: frame.ChunkData},
	}.steps},
	{0, "an SCTP association with a wrong tag", nil, 0, moves{
		{kind: sctp, out: true, what: frame.ChunkInit},
		{kind: sctp, what: frame.ChunkInitAck, dress: dressing{seq: 1}},
	}.but(wrongTag)},
	{0, "SCTP without an association", nil, 0, moves{
		{kind: sctp, out: true, what: frame.ChunkData},
		{kind: sctp, what: frame.ChunkData},
	}.but(pickup)},
	{0, "SCTP in fragments of 8 bytes", nil, 0, func(h hosts) []step {
		init := move{kind: sctp, out: true, what: frame.ChunkInit}
		answer := move{kind: sctp, what: frame.ChunkInitAck}
		_, layers := answer.layers(h)
		b := transport(h.peer, h.us, layers...)
		return []step{
			init.step(h),
			whole("16 bytes each", fragments(h.peer, h.us, frame.ProtoSCTP, b, 16)...),
			whole("8 bytes each", fragments(h.peer, h.us, frame.ProtoSCTP, b, 8)...).but(splitQuote),
		}
	}},
	{0, "an ICMP error in fragments", &noICMP, 0, one(func(f flow) []step {
		protocol := uint8(frame.ProtoICMP)
		if f.six {
			protocol = frame.ProtoICMPv6
		}
		b := transport(f.peer, f.us, f.unreachable(), quote(f.us, f.peer, 100, frame.UDP{SrcPort: f.local, DstPort: f.remote}))
		return []step{
			f.udpOut(),
			whole("whole", fragments(f.peer, f.us, protocol, b, len(b)&^7)...),
			whole("16 bytes each", fragments(f.peer, f.us, protocol, b, 16)...).but(splitQuote),
		}
	})},
	{0, "lengths that lie, in fragments", nil, 0, one(func(f flow) []step {
		udp := f.answerIn(100)
		udp[4], udp[5] = 0, 7
		return []step{
			f.udpOut(),
			whole("UDP length 7", fragments(f.peer, f.us, frame.ProtoUDP, udp, 48)...).but(splitLie),
		}
	})},
	{0, "PPTP's GRE", nil, 0, func(h hosts) []step {
		call := func(id uint8) frame.Raw { return frame.Raw{0x20, 1, 0x88, 0x0b, 0, 0, 0, id} }
		in := func(id uint8) step { return h.raw(frame.ProtoGRE, call(id)) }
		return []step{
			in(1),
			sent(whole("GRE, call 1", frame.Build(ethernet(h.peer), ipOf(h.us, h.peer, frame.ProtoGRE), call(1)))),
			in(2).but(otherCall),
		}
	}},
	{0, "an echo reply with a code", &noICMP, 0, func(h hosts) []step {
		return []step{
			h.out(h.echo(7, 1)),
			h.in(h.icmp(frame.EchoReply, frame.EchoReply6, 1, 7, 1)).but(otherCode),
			h.in(h.echoReply(7, 1)),
		}
	}},
	{0, "ICMPv6 node information", &noICMP, 6, moves{
		{kind: message, out: true, what: nodeInformation},
		{kind: message, what: nodeInformation + 1},
	}.but(nodeAnswer)},
	{0, "an SCTP INIT sent again does not renew", &hasty, 0, moves{
		{kind: sctp, out: true, what: frame.ChunkInit}, {kind: pause},
		{kind: sctp, out: true, what: frame.ChunkInit}, {kind: pause},
		{kind: sctp, what: frame.ChunkInitAck},
	}.steps},
	{0, "an SCTP INIT that meets ours", &hasty, 0, moves{
		{kind: sctp, out: true, what: frame.ChunkInit}, {kind: pause},
		{kind: sctp, what: frame.ChunkInit}, {kind: pause},
		{kind: sctp, what: frame.ChunkData},
	}.but(halfSCTP)},
	{0, "GRE is a stream at the packet after its first answer", &hasty, 0, moves{
		{kind: gre, out: true}, {kind: gre},
		{kind: gre, out: true, other: true}, {kind: gre, other: true}, {kind: gre, other: true},
		{kind: pause}, {kind: gre}, {kind: gre, other: true},
	}.steps},
	{0, "UDP-Lite is a stream at the packet after its first answer", &hasty, 0, moves{
		{kind: udpLite, out: true}, {kind: udpLite}, {kind: udpLite},
		{kind: pause}, {kind: pause}, {kind: udpLite},
	}.steps},
	{0, "IPv6 payload length 0 before a hop-by-hop header", nil, 6, moves{
		{kind: tcp, what: frame.SYN, local: openPort80, dress: dressing{ip: "hop-by-hop", lie: lieHeader}},
	}.but(noLength)},
	{0, "IPv6 extension header that is longer than the packet", nil, 6, moves{
		{kind: pong, dress: dressing{ip: "routing", lie: lieShorter}},
	}.mayBut(cutHeader)},
	{0, "an answer after the port is closed", nil, 0, moves{
		{kind: opens},
		{kind: udp, local: changingPort},
		{kind: udp, out: true, local: changingPort},
		{kind: udp, local: changingPort},
		{kind: closes},
		{kind: udp, local: changingPort},
	}.but(closedPort)},
	{0, "answers to what we began while a port was closed", nil, 0, moves{
		{kind: udp, local: changingPort},
		{kind: udp, out: true, local: changingPort},
		{kind: tcp, out: true, what: frame.SYN, local: changingPort},
		{kind: opens},
		{kind: udp, local: changingPort, other: true},
		{kind: tcp, what: frame.SYN, local: changingPort, other: true},
		{kind: closes},
		{kind: udp, local: changingPort},
		{kind: udp, local: changingPort, remote: 1},
		{kind: tcp, what: frame.SYN | frame.ACK, local: changingPort},
		{kind: tcp, what: frame.SYN, local: changingPort, remote: 1},
	}.steps},
}
