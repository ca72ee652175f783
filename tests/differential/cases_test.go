// SPDX-License-Identifier: Apache-2.0

package differential

import (
	"slices"

	"github.com/portcullis-firewall/portcullis/tests/internal/frame"
)

// testCase is a sequence of packets. What is let in of them, netfilter says.
type testCase struct {
	number int // of the list of cases that the design of the filter goes by
	name   string
	in     *world // nil: the script
	family int    // 4 or 6: only there
	steps  func(hosts) []step
}

var cases = slices.Concat(unsolicitedCases, addressCases, clientCases, serverCases, udpCases, sctpCases, icmpCases, relatedCases,
	otherCases, fragmentCases, linkCases, extensionCases, timeoutCases, reuseCases, foundCases)

// notApplicable are cases of the list that no sequence here can stand for.
var notApplicable = map[int]string{
	42: "there is no setting against the pickup of connections in mid-stream",
	44: "connections live on through their sockets: tests/host closes ports under real ones",
	60: "about XDP alone: tests/datapath and tests/host",
}

// toPort sends one TCP packet for each of some flags, every one from a port of its own.
func toPort(port uint16, flags ...uint8) func(hosts) []step {
	return func(h hosts) (steps []step) {
		for i, f := range flags {
			steps = append(steps, h.in(frame.TCP{SrcPort: 30000 + uint16(i), DstPort: port, Flags: f, Seq: 7, Ack: 9}))
		}
		return steps
	}
}

var strange = []uint8{
	frame.FIN, frame.RST, frame.RST | frame.ACK, frame.FIN | frame.ACK, 0, frame.FIN | frame.PSH | frame.URG,
	frame.SYN | frame.FIN, frame.SYN | frame.RST, 0xff, frame.URG, frame.PSH, frame.ECE,
}

var unsolicitedCases = []testCase{
	{1, "SYN to a closed port", nil, 0, toPort(22, frame.SYN)},
	{2, "SYN to an open port", nil, 0, toPort(80, frame.SYN)},
	{3, "SYN with ECN", nil, 0, toPort(80, frame.SYN|frame.ECE, frame.SYN|frame.ECE|frame.CWR, frame.SYN|frame.URG)},
	{4, "ACK to a closed port", nil, 0, toPort(22, frame.ACK, frame.ACK|frame.PSH, frame.ACK|frame.URG)},
	{5, "ACK to an open port", nil, 0, toPort(80, frame.ACK, frame.ACK|frame.PSH)},
	{6, "SYN-ACK to a closed port", nil, 0, toPort(22, frame.SYN|frame.ACK, frame.SYN|frame.ACK|frame.PSH)},
	{7, "strange flags to a closed port", nil, 0, toPort(22, strange...)},
	{8, "strange flags to an open port", nil, 0, toPort(80, strange...)},
	{9, "SYN from port 80", nil, 0, func(h hosts) []step {
		return []step{h.in(frame.TCP{SrcPort: 80, DstPort: 22, Flags: frame.SYN})}
	}},
	{10, "SYN with data", nil, 0, func(h hosts) []step {
		return []step{h.in(frame.TCP{SrcPort: 30000, DstPort: 80, Flags: frame.SYN}, frame.Text("early"))}
	}},
	{11, "source port 0", nil, 0, func(h hosts) []step {
		return []step{
			h.in(frame.TCP{DstPort: 80, Flags: frame.SYN}),
			h.in(frame.TCP{SrcPort: 30000, Flags: frame.SYN}),
		}
	}},
	{12, "wrong TCP checksum", nil, 0, func(h hosts) []step {
		return []step{
			h.in(frame.TCP{SrcPort: 30000, DstPort: 80, Flags: frame.SYN, Checksum: frame.Exactly(1)}),
			h.in(frame.TCP{SrcPort: 30001, DstPort: 22, Flags: frame.SYN, Checksum: frame.Exactly(1)}),
		}
	}},
	{13, "data offset of 4 words, and beyond the packet", nil, 0, func(h hosts) (steps []step) {
		for i, port := range []uint16{80, 22} {
			at := 30000 + uint16(i)*2
			steps = append(steps,
				h.in(frame.TCP{SrcPort: at, DstPort: port, Flags: frame.SYN, DataOffset: frame.Exactly(4)}).as("offset 4"),
				h.in(frame.TCP{SrcPort: at + 1, DstPort: port, Flags: frame.SYN, DataOffset: frame.Exactly(10)}).as("offset 10"))
		}
		return steps
	}},
	{14, "TCP header cut off", nil, 0, func(h hosts) (steps []step) {
		for i, port := range []uint16{80, 22} {
			whole := transport(h.peer, h.us, frame.TCP{SrcPort: 30000 + uint16(i), DstPort: port, Flags: frame.SYN})
			for _, n := range []int{12, 19, 8, 4, 3, 0} {
				steps = append(steps, h.raw(frame.ProtoTCP, whole[:n]))
			}
		}
		return steps
	}},
	{15, "IPv4 headers that lie", nil, 4, func(h hosts) []step {
		good := h.in(frame.TCP{SrcPort: 30000, DstPort: 80, Flags: frame.SYN}).frames[0]
		lie := func(name string, ip frame.IPv4) step {
			ip.Src, ip.Dst = h.peer, h.us
			return whole(name, frame.Build(ethernet(h.us), ip, frame.TCP{SrcPort: 30000, DstPort: 80, Flags: frame.SYN}))
		}
		return []step{
			whole("wrong header checksum", frame.With(good, frame.EthernetLen+10, ^good[frame.EthernetLen+10])),
			lie("header of 4 words", frame.IPv4{HeaderLength: frame.Exactly(4)}),
			lie("header beyond the packet", frame.IPv4{HeaderLength: frame.Exactly(15)}),
			lie("longer than the frame", frame.IPv4{TotalLength: frame.Exactly(1000)}),
			lie("shorter than its header", frame.IPv4{TotalLength: frame.Exactly(12)}),
			lie("version 6", frame.IPv4{Version: frame.Exactly(6)}),
			whole("19 bytes", frame.Cut(good, frame.EthernetLen+19)),
		}
	}},
	{15, "IPv6 headers that lie", nil, 6, func(h hosts) []step {
		lie := func(name string, ip frame.IPv6) step {
			ip.Src, ip.Dst = h.peer, h.us
			return whole(name, frame.Build(ethernet(h.us), ip, frame.TCP{SrcPort: 30000, DstPort: 80, Flags: frame.SYN}))
		}
		return []step{
			lie("longer than the frame", frame.IPv6{PayloadLength: frame.Exactly(1000)}),
			lie("version 4", frame.IPv6{Version: frame.Exactly(4)}),
			lie("nothing behind the header", frame.IPv6{PayloadLength: frame.Exactly(0)}),
			lie("half a TCP header", frame.IPv6{PayloadLength: frame.Exactly(10)}),
		}
	}},
	{16, "IPv4 options", nil, 4, func(h hosts) (steps []step) {
		options := func(name string, port uint16, options ...byte) step {
			return whole(name, frame.Build(ethernet(h.us), frame.IPv4{Src: h.peer, Dst: h.us, Options: options},
				frame.TCP{SrcPort: 30000, DstPort: port, Flags: frame.SYN}))
		}
		for _, port := range []uint16{80, 22} {
			steps = append(steps,
				options("record route", port, 7, 7, 4, 0, 0, 0, 0, 0),
				options("no operation", port, 1, 1, 1, 0),
				options("loose source route", port, 131, 7, 4, 192, 0, 2, 1, 0),
				options("nonsense", port, 200, 1, 0, 0))
		}
		return steps
	}},
	{17, "the evil bit", nil, 4, func(h hosts) []step {
		return []step{
			with(h.in(frame.TCP{SrcPort: 30000, DstPort: 80, Flags: frame.SYN}), 6, 0x80),
			with(h.in(frame.TCP{SrcPort: 30000, DstPort: 22, Flags: frame.SYN}), 6, 0x80),
		}
	}},
	{18, "padding behind the packet", nil, 0, func(h hosts) []step {
		open := h.in(frame.TCP{SrcPort: 30000, DstPort: 80, Flags: frame.SYN})
		closed := h.in(frame.TCP{SrcPort: 30000, DstPort: 22, Flags: frame.SYN})
		return []step{
			whole(open.name, frame.Padded(open.frames[0], 30)),
			whole(closed.name, frame.Padded(closed.frames[0], 30)),
		}
	}},
}
