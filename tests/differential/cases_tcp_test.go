// SPDX-License-Identifier: Apache-2.0

package differential

import (
	"slices"

	"github.com/portcullis-firewall/portcullis/tests/internal/frame"
)

// each plays a sequence for each of some flags, every one in a flow of its own.
func each(sequence func(f flow, flags uint8) []step, flags ...uint8) func(hosts) []step {
	return func(h hosts) (steps []step) {
		for i, value := range flags {
			steps = append(steps, sequence(flow{h, 40000 + uint16(i), 443}, value)...)
		}
		return steps
	}
}

// one plays a sequence in a flow.
func one(sequence func(flow) []step) func(hosts) []step {
	return func(h hosts) []step { return sequence(flow{h, 40000, 443}) }
}

func afterSYN(f flow, flags uint8) []step {
	return []step{f.tcpOut(frame.SYN, 1000, 0), f.tcpIn(flags, 5000, 1001)}
}

// opened is a sequence after a handshake from our side.
func opened(sequence func(flow) []step) func(hosts) []step {
	return one(func(f flow) []step { return append(f.handshake(), sequence(f)...) })
}

const dataFlags = frame.ACK | frame.PSH

var clientCases = []testCase{
	{29, "SYN-ACK to our SYN", nil, 0, each(afterSYN, frame.SYN|frame.ACK, frame.SYN|frame.ACK|frame.ECE)},
	{29, "SYN-ACK that acknowledges something else", nil, 0, one(func(f flow) []step {
		return []step{f.tcpOut(frame.SYN, 1000, 0), f.tcpIn(frame.SYN|frame.ACK, 5000, 77)}
	})},
	{30, "RST to our SYN", nil, 0, each(afterSYN, frame.RST, frame.RST|frame.ACK)},
	{30, "after a RST to our SYN", nil, 0, one(func(f flow) []step {
		return []step{
			f.tcpOut(frame.SYN, 1000, 0),
			f.tcpIn(frame.RST|frame.ACK, 0, 1001),
			f.tcpIn(frame.RST|frame.ACK, 0, 1001).as("again").but(reset),
			f.tcpOut(frame.SYN, 1000, 0),
			f.tcpIn(frame.SYN|frame.ACK, 5000, 1001),
		}
	})},
	{30, "two RSTs to data of ours, in a connection that nobody has seen begin", nil, 0, one(func(f flow) []step {
		return []step{
			f.tcpOut(dataFlags, 1000, 5000, frame.Text("banner")),
			f.tcpIn(frame.RST|frame.ACK, 5000, 1000),
			f.tcpIn(frame.RST, 5000, 0).as("again").but(reset),
		}
	})},
	{31, "SYN or ACK to our SYN", nil, 0, each(afterSYN, frame.SYN, frame.ACK, frame.ACK|frame.PSH)},
	{32, "FIN, or strange flags, to our SYN", nil, 0, each(afterSYN, slices.DeleteFunc(slices.Clone(strange),
		func(flags uint8) bool { return flags&^frame.ACK == frame.RST })...)},
	{33, "SYN-ACK from another port or address", nil, 0, one(func(f flow) []step {
		wrong := f
		wrong.remote = 444
		return []step{
			f.tcpOut(frame.SYN, 1000, 0),
			wrong.tcpIn(frame.SYN|frame.ACK, 5000, 1001),
			packet(f.other, f.us, frame.TCP{SrcPort: 443, DstPort: 40000, Flags: frame.SYN | frame.ACK, Ack: 1001}),
			packet(f.peer, f.second, frame.TCP{SrcPort: 443, DstPort: 40000, Flags: frame.SYN | frame.ACK, Ack: 1001}),
			f.tcpIn(frame.SYN|frame.ACK, 5000, 1001).as("the right one"),
		}
	})},
	{34, "wrong checksum in a flow", nil, 0, opened(func(f flow) []step {
		wrong := frame.TCP{SrcPort: 443, DstPort: 40000, Flags: dataFlags, Seq: 5001, Ack: 1001, Checksum: frame.Exactly(1)}
		return []step{
			f.in(wrong, frame.Text("broken")).but(checksum),
			f.tcpIn(dataFlags, 5001, 1001, frame.Text("whole")),
		}
	})},
	{35, "our SYN and our RST", nil, 0, one(func(f flow) []step {
		return []step{
			f.tcpOut(frame.SYN, 1000, 0),
			f.tcpOut(frame.RST, 1001, 0),
			f.tcpIn(frame.SYN|frame.ACK, 5000, 1001),
		}
	})},
	{35, "our SYN and our RST, in a connection that has been open before", nil, 0, opened(func(f flow) []step {
		return []step{
			f.tcpOut(frame.RST, 1001, 0),
			f.tcpOut(frame.SYN, 2000, 0),
			f.tcpOut(frame.RST, 2001, 0),
			f.tcpIn(frame.SYN|frame.ACK, 5000, 2001),
			f.tcpIn(frame.RST|frame.ACK, 5001, 2001),
		}
	})},
	{35, "our RST to an ACK of an old connection, and our SYN again", nil, 0, one(func(f flow) []step {
		return []step{
			f.tcpOut(frame.SYN, 1000, 0),
			f.tcpIn(frame.ACK, 7000, 500),
			f.tcpOut(frame.RST, 500, 0),
			f.tcpIn(frame.ACK, 7000, 500).as("again"),
			f.tcpOut(frame.SYN, 1000, 0),
			f.tcpIn(frame.SYN|frame.ACK, 5000, 1001),
		}
	})},
	{36, "data, and what is out of the window", nil, 0, opened(func(f flow) []step {
		return []step{
			f.tcpIn(dataFlags, 5001, 1001, frame.Text("data")),
			f.tcpOut(dataFlags, 1001, 5005, frame.Text("answer")),
			f.tcpIn(dataFlags, 5_005_005, 1007, frame.Text("far ahead")).but(window),
			f.tcpIn(frame.ACK, 5005, 900_000).as("acknowledges what was not sent").but(window),
			f.tcpIn(dataFlags, 5005, 1007, frame.Text("goes on")),
		}
	})},
	{37, "old sequence numbers", nil, 0, opened(func(f flow) []step {
		return []step{
			f.tcpIn(dataFlags, 5001, 1001, frame.Text("data")),
			f.tcpIn(dataFlags, 5001, 1001, frame.Text("data")).as("again"),
			f.tcpIn(frame.ACK, 4000, 1001).as("old sequence number"),
			f.tcpIn(frame.ACK, 5005, 900).as("old acknowledgement"),
		}
	})},
	{38, "RST out of the window", nil, 0, opened(func(f flow) []step {
		return []step{
			f.tcpIn(frame.RST, 3000, 0).but(reset),
			f.tcpIn(dataFlags, 5001, 1001, frame.Text("goes on")),
		}
	})},
	{38, "RST at the expected sequence number", nil, 0, opened(func(f flow) []step {
		return []step{f.tcpIn(frame.RST, 5001, 0), f.tcpIn(frame.RST, 5001, 0).as("again")}
	})},
	{39, "SYN and SYN-ACK in an open connection", nil, 0, opened(func(f flow) []step {
		return []step{
			f.tcpIn(frame.SYN, 90000, 0),
			f.tcpIn(frame.SYN|frame.ACK, 5000, 1001).as("again"),
			f.tcpIn(dataFlags, 5001, 1001, frame.Text("goes on")),
		}
	})},
	{39, "strange flags in an open connection", nil, 0, opened(func(f flow) (steps []step) {
		for _, flags := range []uint8{0, frame.FIN, frame.FIN | frame.PSH | frame.URG, frame.SYN | frame.FIN, frame.SYN | frame.RST, 0xff} {
			steps = append(steps, f.tcpIn(flags, 5001, 1001))
		}
		return append(steps, f.tcpIn(dataFlags, 5001, 1001, frame.Text("goes on")))
	})},
	{13, "wrong data offsets in an open connection", nil, 0, opened(func(f flow) []step {
		data := frame.TCP{SrcPort: f.remote, DstPort: f.local, Flags: dataFlags, Seq: 5001, Ack: 1001}
		short, long := data, data
		short.DataOffset, long.DataOffset = frame.Exactly(4), frame.Exactly(15)
		return []step{
			f.in(short, frame.Text("data")).as("offset 4"),
			f.in(long, frame.Text("data")).as("offset 15"),
			f.tcpIn(dataFlags, 5001, 1001, frame.Text("goes on")),
		}
	})},
	{40, "SYN in TIME_WAIT", nil, 0, opened(func(f flow) []step {
		return []step{
			f.tcpOut(frame.FIN|frame.ACK, 1001, 5001),
			f.tcpIn(frame.ACK, 5001, 1002),
			f.tcpIn(frame.FIN|frame.ACK, 5001, 1002),
			f.tcpOut(frame.ACK, 1002, 5002),
			f.tcpIn(frame.FIN|frame.ACK, 5001, 1002).as("again"),
			f.tcpIn(frame.SYN, 90000, 0),
		}
	})},
	{40, "a packet after the peer's SYN in TIME_WAIT", nil, 0, opened(func(f flow) []step {
		return []step{
			f.tcpOut(frame.FIN|frame.ACK, 1001, 5001),
			f.tcpIn(frame.FIN|frame.ACK, 5001, 1002),
			f.tcpOut(frame.ACK, 1002, 5002),
			f.tcpIn(frame.SYN, 90000, 0),
			f.tcpIn(frame.FIN|frame.ACK, 5001, 1002).as("again").but(timeWait),
		}
	})},
	{40, "our port again after TIME_WAIT, and after our RST", nil, 0, func(h hosts) []step {
		f, g := flow{h, 40000, 443}, flow{h, 40001, 443}
		steps := append(f.handshake(), f.tcpOut(frame.FIN|frame.ACK, 1001, 5001), f.tcpIn(frame.FIN|frame.ACK, 5001, 1002),
			f.tcpOut(frame.ACK, 1002, 5002))
		steps = append(steps, f.handshake()...)
		steps = append(steps, g.handshake()...)
		steps = append(steps, g.tcpOut(frame.RST, 1001, 0))
		return append(steps, g.handshake()...)
	}},
	{40, "our port again after our RST and a packet late", nil, 0, opened(func(f flow) []step {
		return []step{
			f.tcpOut(frame.RST, 1001, 0),
			f.tcpIn(frame.ACK, 5001, 1001),
			f.tcpOut(frame.SYN, 200_000, 0),
			f.tcpIn(frame.SYN, 90000, 0),
			f.tcpIn(frame.SYN|frame.ACK, 90000, 200_001),
			f.tcpOut(frame.ACK, 200_001, 90001),
			f.tcpIn(dataFlags, 90001, 200_001, frame.Text("data")),
		}
	})},
	{40, "the peer closes first", nil, 0, opened(func(f flow) []step {
		return []step{
			f.tcpIn(frame.FIN|frame.ACK, 5001, 1001),
			f.tcpOut(frame.ACK, 1001, 5002),
			f.tcpOut(frame.FIN|frame.ACK, 1001, 5002),
			f.tcpIn(frame.ACK, 5002, 1002),
			f.tcpIn(frame.SYN, 90000, 0),
		}
	})},
	{40, "both close at once", nil, 0, opened(func(f flow) []step {
		return []step{
			f.tcpOut(frame.FIN|frame.ACK, 1001, 5001),
			f.tcpIn(frame.FIN|frame.ACK, 5001, 1001),
			f.tcpOut(frame.ACK, 1002, 5002),
			f.tcpIn(frame.ACK, 5002, 1002),
		}
	})},
	{41, "in mid-stream, the peer first", nil, 0, one(func(f flow) []step {
		return []step{
			f.tcpIn(dataFlags, 5001, 1001, frame.Text("data")),
			f.tcpOut(frame.ACK, 1001, 5005),
			f.tcpIn(dataFlags, 5005, 1001, frame.Text("data")),
		}
	})},
	{41, "in mid-stream, we first", nil, 0, each(func(f flow, flags uint8) []step {
		return []step{
			f.tcpOut(flags, 1001, 5001),
			f.tcpIn(frame.ACK, 5001, 1001),
			f.tcpIn(dataFlags, 5001, 1001, frame.Text("data")),
		}
	}, frame.ACK, frame.ACK|frame.PSH, frame.FIN|frame.ACK, frame.RST, frame.RST|frame.ACK, frame.SYN|frame.ACK, 0, frame.FIN,
		frame.SYN|frame.FIN)},
	{41, "in mid-stream, we first, and the peer closes", nil, 0, each(func(f flow, flags uint8) []step {
		return []step{f.tcpOut(frame.ACK, 1001, 5001), f.tcpIn(flags, 5001, 1001)}
	}, frame.FIN|frame.ACK, frame.RST|frame.ACK, frame.SYN|frame.ACK, frame.SYN)},
}

// Connections that came in.
var serverCases = []testCase{
	{43, "a connection to the open port", nil, 0, func(h hosts) []step {
		f := flow{h, 80, 40000}
		return []step{
			f.tcpIn(frame.SYN, 5000, 0),
			f.tcpOut(frame.SYN|frame.ACK, 1000, 5001),
			f.tcpIn(frame.ACK, 5001, 1001),
			f.tcpIn(dataFlags, 5001, 1001, frame.Text("question")),
			f.tcpOut(dataFlags, 1001, 5009, frame.Text("answer")),
			f.tcpIn(frame.ACK, 5009, 1007),
			f.tcpIn(frame.FIN|frame.ACK, 5009, 1007),
			f.tcpOut(frame.FIN|frame.ACK, 1007, 5010),
			f.tcpIn(frame.ACK, 5010, 1008),
			f.tcpIn(frame.RST, 5010, 0),
			f.tcpIn(frame.SYN, 90000, 0).as("once more"),
		}
	}},
	{43, "a closed port that answers all the same", nil, 0, func(h hosts) []step {
		f := flow{h, 22, 40000}
		return []step{
			f.tcpIn(frame.SYN, 5000, 0),
			f.tcpOut(frame.SYN|frame.ACK, 1000, 5001),
			f.tcpIn(frame.ACK, 5001, 1001),
		}
	}},
}
