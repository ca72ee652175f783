// SPDX-License-Identifier: Apache-2.0

package differential

import (
	"testing"

	"github.com/portcullis-firewall/portcullis/tests/internal/frame"
)

const invalidRule = "-m state --state INVALID -j "

// Where invalid packets are let in and new ones are not, and the other way round, one sees which are which.
var (
	acceptInvalid = world{
		name:   "invalid: accept",
		rules:  append([]string{invalidRule + "ACCEPT"}, noICMP.rules...),
		policy: noICMP.policy + "invalid: accept\n",
		flows:  65536,
	}
	dropInvalid = world{
		name:   "invalid: drop",
		rules:  append([]string{invalidRule + "DROP"}, script.rules...),
		policy: script.policy + "invalid: drop\n",
		flows:  65536,
	}
)

// tcpStates are the ways to the states of a TCP flow, and to none at all.
var tcpStates = []struct {
	name string
	way  func(flow) []step
}{
	{"no flow", func(flow) []step { return nil }},
	{"SYN sent", func(f flow) []step { return []step{f.tcpOut(frame.SYN, 1000, 0)} }},
	{"SYN received", func(f flow) []step { return f.handshake()[:2] }},
	{"established", func(f flow) []step { return f.handshake() }},
	{"our FIN", func(f flow) []step { return append(f.handshake(), f.tcpOut(frame.FIN|frame.ACK, 1001, 5001)) }},
	{"our FIN, acknowledged", func(f flow) []step {
		return append(f.handshake(), f.tcpOut(frame.FIN|frame.ACK, 1001, 5001), f.tcpIn(frame.ACK, 5001, 1002))
	}},
	{"their FIN", func(f flow) []step { return append(f.handshake(), f.tcpIn(frame.FIN|frame.ACK, 5001, 1001)) }},
	{"their FIN and ours", func(f flow) []step {
		return append(f.handshake(), f.tcpIn(frame.FIN|frame.ACK, 5001, 1001), f.tcpOut(frame.FIN|frame.ACK, 1001, 5002))
	}},
	{"closed", func(f flow) []step {
		return append(f.handshake(), f.tcpIn(frame.FIN|frame.ACK, 5001, 1001), f.tcpOut(frame.FIN|frame.ACK, 1001, 5002),
			f.tcpIn(frame.ACK, 5002, 1002))
	}},
	{"our RST", func(f flow) []step { return append(f.handshake(), f.tcpOut(frame.RST|frame.ACK, 1001, 5001)) }},
	{"picked up in mid-stream", func(f flow) []step { return []step{f.tcpOut(frame.ACK, 1001, 5001)} }},
}

// everyFlag is all combinations of the flags that conntrack looks at, in each state of a flow.
func everyFlag(h hosts) (steps []step) {
	port := uint16(10000)
	for _, state := range tcpStates {
		for flags := range uint8(64) {
			port++
			f := flow{h, port, 443}
			steps = append(steps, state.way(f)...)
			steps = append(steps, f.tcpIn(flags, 5001, 1001).as(state.name))
		}
	}
	return steps
}

// everyICMPType is all types of ICMP messages that nothing of ours has asked for. On Linux 6.1 two of them are invalid,
// which under "invalid: accept" lets them in.
func everyICMPType(invalid *difference) func(h hosts) []step {
	return func(h hosts) (steps []step) {
		for kind := range 256 {
			s := h.in(h.icmp(uint8(kind), uint8(kind), 0, 99, 1), frame.Raw(make([]byte, 20)))
			if h.six && (kind >= frame.ListenerQuery && kind < frame.Redirect6 || kind == frame.ListenerReport2) {
				s = s.mayBut(neighbours)
			}
			if h.six && (kind == 151 || kind == 152) {
				s = s.mayBut(invalid)
			}
			steps = append(steps, s)
		}
		return steps
	}
}

// everyLength is UDP that says to be shorter or longer than it is, before and after we have asked.
func everyLength(h hosts) (steps []step) {
	f := flow{h, 40000, 443}
	for range 2 {
		for _, length := range []uint16{0, 1, 7, 8, 12, 13, 14, 15, 200, 65535} {
			steps = append(steps, h.in(frame.UDP{SrcPort: f.remote, DstPort: f.local, Length: frame.Exactly(length)}, frame.Text("short")))
		}
		steps = append(steps, f.udpOut())
	}
	return steps
}

// strays belong to no connection, which nobody knows of an open port that keeps no state. The impossible ones do not
// belong to any.
func strays(h hosts) []step {
	steps := toPort(80, frame.SYN|frame.ACK, frame.RST, frame.RST|frame.ACK, frame.FIN|frame.ACK)(h)
	for i := range steps {
		steps[i] = steps[i].mayBut(strayToOpen)
	}
	return append(steps, toPort(80, frame.SYN, frame.ACK, frame.FIN, 0, frame.SYN|frame.FIN, 0xff)(h)...)
}

func TestInvalidIsWhatNetfilterCallsSo(t *testing.T) {
	every := func(findRouters *difference) []testCase {
		return []testCase{
			{7, "every combination of flags in every state", nil, 0, everyFlag},
			{46, "every length of UDP", nil, 0, everyLength},
			{8, "strays to an open port", nil, 0, strays},
			{50, "every type of ICMP", nil, 0, everyICMPType(findRouters)},
		}
	}
	t.Run(acceptInvalid.name, func(t *testing.T) { acceptInvalid.mustAgree(t, "invalid", every(foundRouters)) })
	t.Run(dropInvalid.name, func(t *testing.T) { dropInvalid.mustAgree(t, "invalid", every(findRouters)) })
}
