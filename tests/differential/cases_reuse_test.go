// SPDX-License-Identifier: Apache-2.0

package differential

import (
	"time"

	"github.com/portcullis-firewall/portcullis/tests/internal/frame"
)

// again is a new connection of ours from the port of one that this side has forgotten, and that it is idle for longer
// than any state that closes lives.
func (f flow) again() []step {
	return []step{
		f.tcpOut(frame.SYN, 200_000, 0).as("our SYN again"),
		f.tcpIn(frame.SYN|frame.ACK, 90_000, 200_001).as("the SYN-ACK to it"),
		f.tcpOut(frame.ACK, 200_001, 90_001),
		f.tcpIn(dataFlags, 90_001, 200_001, frame.Text("data")),
		f.tcpOut(frame.ACK, 200_001, 90_005),
		f.tcpIn(dataFlags, 90_005, 200_001, frame.Text("late")).as("data after a silence").after(late),
	}
}

// reusedAfter is a connection of ours that comes to some state, and its port used anew there.
func reusedAfter(name string, before ...func(flow) step) testCase {
	return testCase{46, "our port again in " + name, &short, 0, opened(func(f flow) (steps []step) {
		for _, packet := range before {
			steps = append(steps, packet(f))
		}
		return append(steps, f.again()...)
	})}
}

func ourFIN(f flow) step    { return f.tcpOut(frame.FIN|frame.ACK, 1001, 5001) }
func theirFIN(f flow) step  { return f.tcpIn(frame.FIN|frame.ACK, 5001, 1001) }
func ackOfFIN(f flow) step  { return f.tcpIn(frame.ACK, 5001, 1002) }
func finAfter(f flow) step  { return f.tcpIn(frame.FIN|frame.ACK, 5001, 1002) }
func lastACK(f flow) step   { return f.tcpOut(frame.ACK, 1002, 5002) }
func finAnswer(f flow) step { return f.tcpOut(frame.FIN|frame.ACK, 1001, 5002) }
func theirRST(f flow) step  { return f.tcpIn(frame.RST, 5001, 0) }
func ourRST(f flow) step    { return f.tcpOut(frame.RST, 1001, 0) }

// Ports that are used anew, and connections that somebody interferes with.
var reuseCases = []testCase{
	reusedAfter("ESTABLISHED"),
	reusedAfter("FIN_WAIT", ourFIN),
	reusedAfter("CLOSE_WAIT", ourFIN, ackOfFIN),
	reusedAfter("ESTABLISHED after their FIN", theirFIN),
	reusedAfter("LAST_ACK", theirFIN, finAnswer),
	reusedAfter("TIME_WAIT", ourFIN, finAfter, lastACK),
	reusedAfter("CLOSE after their RST", theirRST),
	reusedAfter("CLOSE after our RST", ourRST),
	{46, "refused, then again before the timeout of the first SYN", &short, 0, one(func(f flow) []step {
		return []step{
			f.tcpOut(frame.SYN, 1000, 0),
			f.tcpIn(frame.RST|frame.ACK, 0, 1001),
			f.tcpOut(frame.SYN, 2000, 0).after(700 * time.Millisecond),
			f.tcpIn(frame.SYN|frame.ACK, 5000, 2001).after(700 * time.Millisecond),
		}
	})},
	{46, "simultaneous open, then a silence", &short, 0, one(func(f flow) []step {
		return []step{
			f.tcpOut(frame.SYN, 1000, 0), f.tcpIn(frame.SYN, 5000, 0),
			f.tcpOut(frame.SYN|frame.ACK, 1000, 5001), f.tcpIn(frame.SYN|frame.ACK, 5000, 1001),
			f.tcpIn(frame.ACK, 5001, 1001), f.tcpOut(frame.ACK, 1001, 5001),
			f.tcpIn(dataFlags, 5001, 1001, frame.Text("late")).as("data after a silence").after(late),
		}
	})},
	{29, "a forged SYN-ACK before the real one", nil, 0, one(func(f flow) []step {
		return []step{
			f.tcpOut(frame.SYN, 1000, 0),
			f.tcpIn(frame.SYN|frame.ACK, 7000, 900_000).as("forged"),
			f.tcpIn(frame.SYN|frame.ACK, 7000, 1002).as("forged, by one"),
			f.tcpIn(frame.SYN|frame.ACK, 7000, 4_000_000_000).as("forged, of long ago"),
			f.tcpIn(frame.SYN|frame.ACK, 5000, 1001).as("the real one"),
		}
	})},
	{29, "an old SYN-ACK that we answer, then a connection with a silence", &short, 0, one(func(f flow) []step {
		return []step{
			f.tcpOut(frame.SYN, 100_000, 0),
			f.tcpIn(frame.ACK, 7000, 99_000).as("of an old connection"),
			f.tcpOut(frame.RST, 99_000, 0),
			f.tcpOut(frame.SYN, 100_000, 0).as("our SYN again"),
			f.tcpIn(frame.SYN|frame.ACK, 5000, 100_001),
			f.tcpOut(frame.ACK, 100_001, 5001),
			f.tcpIn(dataFlags, 5001, 100_001, frame.Text("late")).as("data after a silence").after(late),
		}
	})},
	{46, "our data that nobody acknowledges", &unacked, 0, opened(func(f flow) []step {
		return []step{
			f.tcpOut(dataFlags, 1001, 5001, frame.Text("data")),
			f.tcpIn(frame.ACK, 5001, 1001).as("late").after(late),
		}
	})},
	{46, "our data that is acknowledged", &unacked, 0, opened(func(f flow) []step {
		return []step{
			f.tcpOut(dataFlags, 1001, 5001, frame.Text("data")),
			f.tcpIn(frame.ACK, 5001, 1005),
			f.tcpIn(frame.ACK, 5001, 1005).as("in time").after(late),
		}
	})},
	{46, "their data and RST while our ACK is delayed", &unacked, 0, opened(func(f flow) []step {
		return []step{
			f.tcpIn(dataFlags, 5001, 1001, frame.Text("data")),
			f.tcpIn(frame.RST, 5005, 0),
			f.tcpIn(frame.ACK, 5005, 1001).as("late").after(late),
		}
	})},
	{46, "their data that we do not acknowledge", &unacked, 0, opened(func(f flow) []step {
		return []step{
			f.tcpIn(dataFlags, 5001, 1001, frame.Text("data")),
			f.tcpIn(frame.ACK, 5005, 1001).as("late").after(late).but(unansweredData),
		}
	})},
	{38, "we go on after their RST", &short, 0, opened(func(f flow) []step {
		return []step{
			f.tcpIn(frame.RST, 5001, 0),
			f.tcpOut(frame.ACK, 1001, 5001),
			f.tcpIn(dataFlags, 5001, 1001, frame.Text("data")).after(late).but(spokeAgain),
		}
	})},
}
