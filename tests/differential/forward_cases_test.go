// SPDX-License-Identifier: Apache-2.0

package differential

import (
	"slices"

	"github.com/portcullis-firewall/portcullis/tests/internal/frame"
)

// forwardCases are sequences in which the router itself and the hosts on both its sides have a part.
func forwardCases(w *world) []testCase {
	return []testCase{
		{name: "to the router from inside, which is not on eth0", steps: func(h hosts) (steps []step) {
			for _, s := range h.syns(h.inside, h.us) {
				steps = append(steps, fromInside(s).but(notNamed))
			}
			return steps
		}},
		{name: "from one host inside to another, which is not on eth0", steps: func(h hosts) (steps []step) {
			for _, s := range h.syns(h.inside, h.behind().second) {
				s = fromInside(s)
				if w == &forwardDrop {
					s = s.but(&difference{row: notNamed.row, netfilter: drop, ours: forwarded})
				}
				steps = append(steps, s)
			}
			return steps
		}},
		{name: "from one host outside to another", steps: func(h hosts) []step {
			f := flow{h, 80, 40000}
			f.us = h.other
			return append(h.syns(h.peer, h.other),
				packet(h.other, h.peer, frame.TCP{SrcPort: 80, DstPort: 30000, Flags: frame.SYN | frame.ACK}),
				packet(h.other, h.peer, frame.TCP{SrcPort: 80, DstPort: 30000, Flags: frame.ACK}),
				packet(h.peer, h.other, frame.TCP{SrcPort: 30000, DstPort: 80, Flags: frame.ACK}))
		}},
		{name: "the router's flow is not that of a host inside, nor the other way round", steps: func(h hosts) []step {
			router, host := flow{h, 40000, 443}, flow{h.behind(), 40000, 443}
			next := flow{h.behind(), 40001, 443}
			return []step{
				router.udpOut(), host.udpIn(), router.udpIn(),
				next.udpOut(), flow{h, 40001, 443}.udpIn(), next.udpIn(),
				h.out(h.echo(7, 1)), host.in(h.echoReply(7, 1)), h.in(h.echoReply(7, 1)),
				host.out(h.echo(8, 1)), host.in(h.echoReply(8, 1)),
			}
		}},
		{name: "ports that are open on the router, in use inside", steps: func(h hosts) []step {
			f := flow{h.behind(), 80, 40000}
			return []step{
				f.tcpIn(frame.SYN, 5000, 0),
				f.tcpOut(frame.SYN|frame.ACK, 1000, 5001),
				f.tcpIn(frame.ACK, 5001, 1001),
				f.tcpOut(frame.ACK, 1001, 5001).as("in mid-stream"),
				f.tcpIn(dataFlags, 5001, 1001, frame.Text("data")),
				f.in(f.unreachable(), quote(f.us, f.peer, 20,
					frame.TCP{SrcPort: 80, DstPort: 40000, Flags: frame.ACK, Seq: 1001, Ack: 5001})),
				f.in(f.unreachable(), quote(f.us, f.peer, 20,
					frame.TCP{SrcPort: 80, DstPort: 40001, Flags: frame.ACK, Seq: 1001, Ack: 5001})).as("about no connection"),
			}
		}},
		{name: "what a host inside sends that begins nothing", steps: func(h hosts) (steps []step) {
			for i, flags := range append(slices.Clone(strange), frame.SYN|frame.ACK) {
				f := flow{h.behind(), 40000 + uint16(i), 443}
				steps = append(steps, f.tcpOut(flags, 1000, 5000),
					f.tcpIn(frame.ACK, 5000, 1001), f.tcpIn(frame.SYN|frame.ACK, 5000, 1001))
			}
			return steps
		}},
		{name: "a wrong checksum from inside", steps: func(h hosts) []step {
			f := flow{h.behind(), 40000, 443}
			return []step{
				f.out(frame.UDP{SrcPort: f.local, DstPort: f.remote, Checksum: frame.Exactly(1)}, frame.Text("query")),
				f.udpIn().but(checksum.through(w)),
			}
		}},
		{name: "errors from inside", steps: func(h hosts) []step {
			f := flow{h.behind(), 40000, 443}
			answer := quote(f.peer, f.us, 100, frame.UDP{SrcPort: f.remote, DstPort: f.local}, frame.Text("answer"))
			return []step{
				f.out(f.unreachable(), answer).as("before anything"),
				f.in(f.echo(9, 1)),
				f.udpOut(), f.udpIn(),
				f.out(f.unreachable(), answer),
				fromInside(packet(f.second, f.peer, f.unreachable(), answer)).as("from a router"),
				fromInside(packet(f.us, f.other, f.unreachable(), answer)).as("to somebody else"),
				f.in(f.unreachable(), quote(f.us, f.peer, 8, f.unreachable())).as("an error about an error"),
			}
		}},
		{name: "fragments from inside, and the answer in fragments", steps: func(h hosts) []step {
			f := flow{h.behind(), 40000, 443}
			query := transport(f.us, f.peer, frame.UDP{SrcPort: f.local, DstPort: f.remote}, frame.Raw(make([]byte, 100)))
			cut := fragments(f.us, f.peer, frame.ProtoUDP, query, 48)
			late := fragments(f.us, f.peer, frame.ProtoUDP, query, 48)
			slices.Reverse(late)
			return []step{
				fromInside(whole("without the first", fragments(f.us, f.peer, frame.ProtoUDP, query, 48)[1:]...)),
				whole("unasked", fragments(f.peer, f.us, frame.ProtoUDP, f.answerIn(100), 40)...),
				fromInside(whole("in order", cut...)),
				whole("the answer", fragments(f.peer, f.us, frame.ProtoUDP, f.answerIn(100), 40)...),
				fromInside(whole("in reverse", late...)),
			}
		}},
		{name: "at the end of its hops", steps: func(h hosts) []step {
			f := flow{h.behind(), 40000, 443}
			hops := 8
			if h.six {
				hops = 7
			}
			return []step{
				with(f.udpOut(), hops, 1),
				f.udpOut(),
				with(f.udpIn(), hops, 1),
				with(f.udpIn(), hops, 2),
			}
		}},
	}
}
