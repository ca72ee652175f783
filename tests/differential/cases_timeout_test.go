// SPDX-License-Identifier: Apache-2.0

package differential

import (
	"fmt"
	"net/netip"
	"time"

	"github.com/portcullis-firewall/portcullis/tests/internal/frame"
)

// Of a timeout of a second, what is left after this is nothing on either side, however the clocks tick.
const late = 1500 * time.Millisecond

// tooLate comes behind late: a flow of three seconds has ended by then, but not one that was renewed.
const tooLate = 2200 * time.Millisecond

// All the flows grow old at once, so that there is but one wait.
var timeoutCases = []testCase{
	{46, "answers after the timeout", &short, 0, func(h hosts) (steps []step) {
		f := func(port uint16) flow { return flow{h, port, 443} }
		closed := f(41000)
		steps = append(steps,
			f(40000).udpOut(), f(40001).udpOut(), f(40001).udpIn(),
			f(40002).tcpOut(frame.SYN, 1000, 0),
			h.out(h.echo(7, 1)), h.in(h.echoReply(7, 1)),
			sent(whole("protocol 253", frame.Build(ethernet(h.peer), ipOf(h.us, h.peer, 253), frame.Text("out")))),
			h.gre(h.us, h.peer), h.gre(h.peer, h.us), h.gre(h.us, h.other), h.gre(h.other, h.us), h.gre(h.other, h.us).as("again"))
		steps = append(steps, closed.handshake()...)
		steps = append(steps, closed.tcpOut(frame.RST|frame.ACK, 1001, 5001))
		open := f(42000)
		steps = append(steps, open.handshake()...)
		return append(steps,
			f(40000).udpIn().after(late).as("late"), f(40001).udpIn().as("late"),
			f(40002).tcpIn(frame.SYN|frame.ACK, 5000, 1001).as("late"),
			h.in(h.echoReply(7, 1)).as("late"),
			whole("protocol 253, late", frame.Build(ethernet(h.us), ipOf(h.peer, h.us, 253), frame.Text("in"))),
			h.gre(h.peer, h.us).as("late"), h.gre(h.other, h.us).as("in time"),
			closed.tcpIn(frame.ACK, 5001, 1001).as("late"),
			open.tcpIn(dataFlags, 5001, 1001, frame.Text("data")).as("in time"),
		)
	}},
	{46, "TCP after the timeout of each state", &short, 0, func(h hosts) (steps []step) {
		f := func(n uint16) flow { return flow{h, 43000 + n, 443} }
		begin := func(n uint16, more ...func(flow) step) {
			steps = append(steps, f(n).handshake()...)
			for _, packet := range more {
				steps = append(steps, packet(f(n)))
			}
		}
		ourFIN := func(f flow) step { return f.tcpOut(frame.FIN|frame.ACK, 1001, 5001) }
		theirFIN := func(f flow) step { return f.tcpIn(frame.FIN|frame.ACK, 5001, 1001) }
		ourACK := func(f flow) step { return f.tcpOut(frame.ACK, 1002, 5002) }
		theirACK := func(f flow) step { return f.tcpIn(frame.ACK, 5001, 1002) }
		data := func(f flow) step { return f.tcpIn(dataFlags, 5001, 1001, frame.Text("data")) }

		steps = append(steps, f(0).tcpOut(frame.SYN, 1000, 0), f(0).tcpIn(frame.SYN|frame.ACK, 5000, 1001))
		begin(1, ourFIN)
		begin(2, ourFIN, theirACK)
		begin(3, ourFIN, theirFIN, ourACK)
		begin(4, theirFIN, ourACK, ourFIN)
		begin(5, func(f flow) step { return f.tcpIn(frame.RST, 5001, 0) })
		begin(6)
		begin(7)
		begin(8)
		steps = append(steps, f(9).tcpOut(frame.ACK, 1001, 5001), f(10).tcpOut(frame.ACK, 1001, 5001), theirACK(f(10)))
		return append(steps,
			f(0).tcpIn(frame.SYN|frame.ACK, 5000, 1001).as("SYN_RECV").after(late),
			theirACK(f(1)).as("FIN_WAIT"), theirFIN(f(2)).as("CLOSE_WAIT"), theirFIN(f(3)).as("TIME_WAIT"),
			theirACK(f(4)).as("LAST_ACK"), data(f(5)).as("CLOSE"),
			data(f(6)).as("in time"), f(7).tcpOut(dataFlags, 1001, 5001, frame.Text("data")).as("in time"),
			theirACK(f(9)).as("picked up, in time"), theirACK(f(10)).as("picked up and answered, in time"),
			data(f(6)).as("renewed by the peer").after(tooLate), data(f(7)).as("renewed by us"), data(f(8)).as("not renewed"))
	}},
	{46, "a packet after the peer's FIN, before ours", &short, 0, opened(func(f flow) []step {
		return []step{
			f.tcpIn(frame.FIN|frame.ACK, 5001, 1001),
			f.tcpIn(frame.ACK, 5002, 1001).after(late).but(lateData),
		}
	})},
	{46, "a packet after the peer's RST whose checksum is wrong", &short, 0, opened(func(f flow) []step {
		wrong := frame.TCP{SrcPort: f.remote, DstPort: f.local, Flags: frame.RST, Seq: 5001, Checksum: frame.Exactly(1)}
		return []step{
			f.in(wrong).as("wrong checksum").but(checksum),
			f.tcpIn(dataFlags, 5001, 1001, frame.Text("data")).after(late).but(brokenReset),
		}
	})},
}

func (h hosts) gre(src, dst netip.Addr) step {
	s := whole(fmt.Sprintf("GRE %s > %s", src, dst),
		frame.Build(ethernet(dst), ipOf(src, dst, frame.ProtoGRE), frame.Raw{0, 0, 8, 0, 0, 0, 0, 1}))
	s.out = src == h.us
	return s
}
