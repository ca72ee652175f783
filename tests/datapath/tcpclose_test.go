// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"testing"
	"time"

	"github.com/portcullis-firewall/portcullis/maps"
	"github.com/portcullis-firewall/portcullis/tests/internal/frame"
)

func TestWhatIsForgedEndsNothing(t *testing.T) {
	inBoth(t, func(w world) []arrival {
		day := waited(24 * time.Hour)
		their := func(s segment) step { return received(w.tcpIn(s)) }
		our := func(s segment) step { return sent(w.tcpOut(s)) }
		return []arrival{
			{name: "a day after a RST before the window", before: after(w.connected(), their(segment{flags: frame.RST, seq: 5000}), day),
				frame: w.tcpIn(theirData), want: established},
			{name: "a day after a RST behind the window", before: after(w.connected(), their(segment{flags: frame.RST, seq: 5001 + 1<<20}), day),
				frame: w.tcpIn(theirData), want: established},
			{name: "a day after a forged RST in the window, which the socket has answered",
				before: after(w.connected(), their(theirRST), our(ourACK), day), frame: w.tcpIn(theirData), want: established},
			{name: "five minutes after a RST in the window", before: after(w.connected(), their(theirRST), waited(299*time.Second)),
				frame: w.tcpIn(theirData), want: established},
			{name: "later after a RST in the window", before: after(w.connected(), their(theirRST), waited(301*time.Second)),
				frame: w.tcpIn(theirData), want: closedPort},
			{name: "later after a RST in the window and more of theirs",
				before: after(w.connected(), their(theirRST), waited(200*time.Second), their(theirData), waited(301*time.Second)),
				frame:  w.tcpIn(theirData), want: closedPort},
			{name: "a day after a forged ACK of our data, and a true one", frame: w.tcpIn(theirData), want: established,
				before: after(w.connected(), our(ourData), their(theirACK), their(segment{flags: frame.ACK, seq: 5001, ack: 1004}), day)},
			{name: "a day after a forged FIN", before: after(w.connected(), their(theirFIN), day),
				frame: w.tcpIn(theirData), want: established},
			{name: "a day after a forged SYN-ACK", before: after(w.connected(), their(theirSA), day),
				frame: w.tcpIn(theirData), want: established},
			{name: "a day after a forged SYN",
				before: after(w.connected(), refused(w.tcpIn(segment{flags: frame.SYN})), day), frame: w.tcpIn(theirData), want: established},
			{name: "a SYN-ACK after a forged RST against our SYN", before: after(w.asked(), their(theirRST)),
				frame: w.tcpIn(theirSA), want: established},
			{name: "a SYN-ACK after a forged RST of number 0 against our SYN", frame: w.tcpIn(theirSA), want: established,
				before: after(w.asked(), their(segment{flags: frame.RST | frame.ACK, ack: 1001}))},
			{name: "ten seconds after the exact RST",
				before: after(w.connected(), their(exactRST), waited(11*time.Second)), frame: w.tcpIn(theirACK), want: closedPort},
			{name: "right after the exact RST", before: after(w.connected(), their(exactRST)),
				frame: w.tcpIn(theirACK), want: established},
		}
	})
}

// Case 40.
func TestAConnectionThatEndedMayBeginAnew(t *testing.T) {
	inBoth(t, func(w world) []arrival {
		their := func(s segment) step { return received(w.tcpIn(s)) }
		our := func(s segment) step { return sent(w.tcpOut(s)) }
		timeWait := after(w.connected(), our(ourFIN), their(theirFIN))
		lastACK := after(w.connected(), their(theirFIN), our(ourFIN))
		reset := after(w.connected(), our(ourRST))
		theirSYN := w.tcpIn(segment{flags: frame.SYN, seq: 90000})
		return []arrival{
			{name: "their SYN in TIME_WAIT", before: timeWait, frame: theirSYN, want: closedPort},
			{name: "the last FIN again in TIME_WAIT", before: timeWait, frame: w.tcpIn(theirFIN), want: established},
			{name: "their SYN after our RST", before: reset, frame: theirSYN, want: invalid.of(wrongState)},
			{name: "a SYN-ACK for our new SYN in TIME_WAIT", before: after(timeWait, our(ourSYN)),
				frame: w.tcpIn(theirSA), want: established},
			{name: "a SYN-ACK for our new SYN in LAST_ACK", before: after(lastACK, our(ourSYN)),
				frame: w.tcpIn(theirSA), want: established},
			{name: "a SYN-ACK for our new SYN after our RST", before: after(reset, our(ourSYN)),
				frame: w.tcpIn(theirSA), want: established},
			{name: "a FIN-ACK for our new SYN after our RST", before: after(reset, our(ourSYN)),
				frame: w.tcpIn(theirFIN), want: invalid.of(wrongState)},
			{name: "data in the new connection, an hour later", frame: w.tcpIn(theirData), want: established,
				before: after(reset, our(ourSYN), their(theirSA), our(ourACK), waited(time.Hour))},
			{name: "a SYN-ACK for our new SYN when the old flow is dead", frame: w.tcpIn(theirSA), want: established,
				before: after(reset, waited(time.Minute), our(ourSYN))},
			{name: "a SYN-ACK for a flow that is dead", before: after(w.asked(), waited(2*time.Minute)),
				frame: w.tcpIn(theirSA), want: invalid.of(wrongState)},
		}
	})
}

// kill cuts every flow, as the administrator may.
func kill(t testing.TB, r *trial) {
	t.Helper()
	for _, flow := range r.Flows(t) {
		flow.State = maps.FlowKilled
		r.Enter(t, &flow, true)
	}
}

func TestKilledFlows(t *testing.T) {
	inBoth(t, func(w world) []arrival {
		query := sent(w.out(frame.UDP{SrcPort: 40000, DstPort: 53}))
		answer := w.in(frame.UDP{SrcPort: 53, DstPort: 40000})
		ping, reply := sent(w.out(w.echo(7, 1))), w.in(w.reply(7, 1))
		cut := after(w.connected(), kill)
		return []arrival{
			{name: "an answer to a new query, when the one that was cut is dead", frame: answer, want: established,
				before: []step{query, received(answer), kill, waited(time.Hour), query}},
			{name: "data of theirs", before: cut, frame: w.tcpIn(theirData), want: closedPort},
			{name: "a FIN of theirs", before: cut, frame: w.tcpIn(theirFIN), want: invalid.of(wrongState)},
			{name: "data of theirs after more of ours", before: after(cut, sent(w.tcpOut(ourData))),
				frame: w.tcpIn(theirData), want: closedPort},
			{name: "data of theirs after our FIN", before: after(cut, sent(w.tcpOut(ourFIN))),
				frame: w.tcpIn(theirData), want: closedPort},
			{name: "an ICMP error about it", before: cut, frame: w.in(w.unreachable(), w.ip(w.us, w.peer),
				frame.TCP{SrcPort: 40000, DstPort: 443, Flags: frame.ACK}), want: icmpClosed.of(noFlow)},
			{name: "a SYN-ACK after a new SYN of ours", before: after(cut, sent(w.tcpOut(ourSYN))),
				frame: w.tcpIn(theirSA), want: established},
			{name: "a SYN-ACK when our SYN was cut", before: after(w.asked(), kill),
				frame: w.tcpIn(theirSA), want: invalid.of(wrongState)},
			{name: "UDP", before: []step{query, received(answer), kill}, frame: answer, want: closedPort},
			{name: "UDP after another query", before: []step{query, received(answer), kill, query},
				frame: answer, want: closedPort},
			{name: "UDP that was not answered, after another query", before: []step{query, kill, query},
				frame: answer, want: closedPort},
			{name: "a ping", before: []step{ping, kill}, frame: reply, want: icmpClosed.of(noFlow)},
		}
	})
}
