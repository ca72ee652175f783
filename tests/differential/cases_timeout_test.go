// SPDX-License-Identifier: Apache-2.0

package differential

import (
	"time"

	"github.com/portcullis-firewall/portcullis/tests/internal/frame"
)

// Of a timeout of a second, what is left after this is nothing on either side, however the clocks tick.
const late = 1500 * time.Millisecond

// All the flows grow old at once, so that there is but one wait.
var timeoutCases = []testCase{
	{46, "answers after the timeout", &short, 0, func(h hosts) (steps []step) {
		f := func(port uint16) flow { return flow{h, port, 443} }
		closed := f(41000)
		steps = append(steps,
			f(40000).udpOut(), f(40001).udpOut(), f(40001).udpIn(),
			f(40002).tcpOut(frame.SYN, 1000, 0),
			h.out(h.echo(7, 1)), h.in(h.echoReply(7, 1)),
			sent(whole("protocol 253", frame.Build(ethernet(h.peer), ipOf(h.us, h.peer, 253), frame.Text("out")))))
		steps = append(steps, closed.handshake()...)
		steps = append(steps, closed.tcpOut(frame.RST|frame.ACK, 1001, 5001))
		open := f(42000)
		steps = append(steps, open.handshake()...)
		return append(steps,
			f(40000).udpIn().after(late).as("late"), f(40001).udpIn().as("late"),
			f(40002).tcpIn(frame.SYN|frame.ACK, 5000, 1001).as("late"),
			h.in(h.echoReply(7, 1)).as("late"),
			whole("protocol 253, late", frame.Build(ethernet(h.us), ipOf(h.peer, h.us, 253), frame.Text("in"))),
			closed.tcpIn(frame.ACK, 5001, 1001).as("late"),
			open.tcpIn(dataFlags, 5001, 1001, frame.Text("data")).as("in time"),
		)
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
