// SPDX-License-Identifier: Apache-2.0

package differential

import (
	"flag"
	"slices"
	"testing"
	"time"

	"github.com/portcullis-firewall/portcullis/tests/internal/frame"
)

var everyState = flag.Bool("long", false, "take every state through every event, which takes minutes")

// In this world what closes lives for three seconds, and what is open for nine, so that a case has time to begin many
// flows before it lets all of them grow old at once.
var aged = world{
	name:  "long enough timeouts",
	rules: noICMP.rules,
	sysctls: map[string]string{
		"tcp_timeout_syn_sent": "3", "tcp_timeout_syn_recv": "3", "tcp_timeout_established": "9",
		"tcp_timeout_fin_wait": "3", "tcp_timeout_time_wait": "3", "tcp_timeout_close": "3",
		"tcp_timeout_close_wait": "3", "tcp_timeout_last_ack": "3", "tcp_timeout_unacknowledged": "9",
	},
	policy: noICMP.policy + "timeouts: {tcp-syn-sent: 3s, tcp-syn-recv: 3s, tcp-established: 9s, tcp-fin-wait: 3s, " +
		"tcp-time-wait: 3s, tcp-close: 3s, tcp-close-wait: 3s, tcp-last-ack: 3s, tcp-loose: 9s, tcp-unacknowledged: 9s}\n",
}

const old = 4500 * time.Millisecond

// tcpState is a state of netfilter's, and how a connection of ours comes there.
type tcpState struct {
	name   string
	before []func(flow) step
}

var (
	handshake = []func(flow) step{ourSYNIn, theirSYNACK, ourACKIn}
	inState   = func(more ...func(flow) step) []func(flow) step { return slices.Concat(handshake, more) }
	tcpTable  = []tcpState{
		{"SYN_SENT", handshake[:1]},
		{"SYN_RECV", handshake[:2]},
		{"ESTABLISHED", inState()},
		{"picked up", []func(flow) step{ourACKIn}},
		{"FIN_WAIT", inState(ourFIN)},
		{"FIN_WAIT, by theirs", inState(theirFIN)},
		{"CLOSE_WAIT", inState(ourFIN, ackOfFIN)},
		{"CLOSE_WAIT, by theirs", inState(theirFIN, ackOfTheirs)},
		{"LAST_ACK", inState(theirFIN, finAnswer)},
		{"TIME_WAIT", inState(ourFIN, finAfter, lastACK)},
		{"TIME_WAIT, by theirs", inState(theirFIN, finAnswer, theirLast)},
		{"CLOSE", inState(ourRST)},
		{"CLOSE, by theirs", inState(theirRST)},
	}
)

func ourSYNIn(f flow) step    { return f.tcpOut(frame.SYN, 1000, 0) }
func theirSYNACK(f flow) step { return f.tcpIn(frame.SYN|frame.ACK, 5000, 1001) }
func ourACKIn(f flow) step    { return f.tcpOut(frame.ACK, 1001, 5001) }
func ackOfTheirs(f flow) step { return f.tcpOut(frame.ACK, 1001, 5002) }
func theirLast(f flow) step   { return f.tcpIn(frame.ACK, 5002, 1002) }

// tcpEvent is a segment that meets a state.
type tcpEvent struct {
	name   string
	packet func(flow) step
}

var tcpEvents = []tcpEvent{
	{"nothing", nil},
	{"our SYN", func(f flow) step { return f.tcpOut(frame.SYN, 200_000, 0) }},
	{"our FIN", func(f flow) step { return f.tcpOut(frame.FIN|frame.ACK, 1001, 5001) }},
	{"our ACK", func(f flow) step { return f.tcpOut(frame.ACK, 1001, 5001) }},
	{"our RST", func(f flow) step { return f.tcpOut(frame.RST, 1001, 0) }},
	{"their SYN", func(f flow) step { return f.tcpIn(frame.SYN, 90_000, 0) }},
	{"their SYN-ACK", func(f flow) step { return f.tcpIn(frame.SYN|frame.ACK, 5000, 1001) }},
	{"their FIN", func(f flow) step { return f.tcpIn(frame.FIN|frame.ACK, 5001, 1001) }},
	{"their ACK", func(f flow) step { return f.tcpIn(frame.ACK, 5001, 1001) }},
	{"their RST", func(f flow) step { return f.tcpIn(frame.RST, 5001, 0) }},
}

// meets takes a state through every event, each in a flow of its own, and lets them all grow old.
func (s tcpState) meets() testCase {
	return testCase{46, s.name + " through every event", &aged, 0, func(h hosts) (steps []step) {
		for n, e := range tcpEvents {
			f := flow{h, 45000 + uint16(n), 443}
			for _, packet := range s.before {
				steps = append(steps, packet(f))
			}
			if e.packet != nil {
				steps = append(steps, e.packet(f).as(e.name))
			}
		}
		for n, e := range tcpEvents {
			f := flow{h, 45000 + uint16(n), 443}
			late := f.tcpIn(frame.ACK, 5001, 1001).as("long after " + e.name)
			late.differs = s.late(e)
			if n == 0 {
				late = late.after(old)
			}
			steps = append(steps, late)
		}
		return steps
	}}
}

// late is the documented difference after a silence.
func (s tcpState) late(e tcpEvent) *difference {
	weClose := e.name == "our FIN" || e.name == "our RST"
	switch s.name {
	case "ESTABLISHED", "picked up":
		if e.name == "their FIN" {
			return lateData
		}
	case "FIN_WAIT, by theirs":
		if !weClose && e.name != "their RST" {
			return lateData
		}
	case "CLOSE_WAIT, by theirs": // where the RST is not at the number that we wait for
		if !weClose {
			return lateData
		}
	case "CLOSE", "CLOSE, by theirs":
		if e.name == "our ACK" {
			return spokeAgain
		}
	}
	return nil
}

// Every state of TCP, every segment that may meet it there, and what is left after a silence. Three of them in an ordinary
// run.
func TestEveryStateMeetsEveryEvent(t *testing.T) {
	var chosen []testCase
	for i, s := range tcpTable {
		if *everyState || i%5 == 4 {
			chosen = append(chosen, s.meets())
		}
	}
	aged.mustAgree(t, "states", chosen)
}
