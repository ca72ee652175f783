// SPDX-License-Identifier: Apache-2.0

package differential

import (
	"strings"

	"github.com/portcullis-firewall/portcullis/tests/internal/frame"
)

// opening is how a conversation begins.
type opening string

const (
	dialled   opening = "the server dials out"
	accepted  opening = "the peer comes in"
	asked     opening = "the server asks over UDP"
	pinged    opening = "the server pings"
	pingedRaw opening = "the server pings, from a raw socket"
)

// socketCase is what the peer of a conversation sends.
type socketCase struct {
	name    string
	opening opening
	before  func(c *conversation) step // before the peer's SYN-ACK
	steps   func(c *conversation) []step
	sees    seen  // the application, on either side
	ours    *seen // behind Portcullis, where that is documented to differ
	family  int   // 4 or 6: only there
}

// What the path to the peer takes, and what a router says that it takes.
const wide, narrow = 1500, 1400

// lives is what an application sees whose connection has come to no harm.
func lives(text string) seen { return seen{read: text + end, fate: "alive", mtu: wide} }

// broken changes the checksum of ICMP.
func broken(s step, six bool) step {
	at := frame.IPv4Len + 2
	if six {
		at = frame.IPv6Len + 2
	}
	return with(s, at, s.frames[0][frame.EthernetLen+at]^0xff).as("wrong checksum")
}

// tooBig is the error of a router whose next link takes less.
func (c *conversation) tooBig(about frame.Raw) step {
	if c.six {
		return packet(c.other, c.us, frame.ICMPv6{Type: frame.PacketTooBig6, Seq: narrow}, about)
	}
	return packet(c.other, c.us, frame.ICMPv4{Type: frame.Unreachable, Code: 4, Seq: narrow}, about)
}

// quoted is a segment from a port of the server to the peer, as it stands in an ICMP error.
func (c *conversation) quoted(local uint16, seq uint32) frame.Raw {
	return quote(c.us, c.peer, 20, frame.TCP{SrcPort: local, DstPort: c.remote, Flags: frame.ACK, Seq: seq, Ack: c.seq})
}

// portClosed is the answer of a peer without a socket to the server's query.
func (c *conversation) portClosed() step {
	code := uint8(3)
	if c.six {
		code = 4
	}
	about := quote(c.us, c.peer, 13, frame.UDP{SrcPort: c.local, DstPort: c.remote}, frame.Text("query"))
	return c.in(c.icmp(frame.Unreachable, frame.Unreachable6, code, 0, 0), about)
}

// inDialled is a difference that only a connection of the server shows: to its open port, both let in everything.
func (c *conversation) inDialled(d *difference) *difference {
	if c.local == 80 {
		return nil
	}
	return d
}

// tcpSocketCases are played in connections of either direction.
var tcpSocketCases = []socketCase{
	{name: "data", steps: func(c *conversation) []step {
		return []step{c.next("first "), c.next("second ")}
	}, sees: lives("first second ")},
	{name: "data far ahead of the window", steps: func(c *conversation) []step {
		return []step{c.away(5_000_000, dataFlags, "far ahead").but(c.inDialled(window))}
	}, sees: lives("")},
	{name: "data far behind the window", steps: func(c *conversation) []step {
		return []step{c.away(-5_000_000, dataFlags, "far behind")}
	}, sees: lives("")},
	{name: "an acknowledgement of what was not sent", steps: func(c *conversation) []step {
		return []step{c.tcpIn(dataFlags, c.seq, c.ack+900_000, frame.Text("not so ")).as("ack of the future").but(c.inDialled(window))}
	}, sees: lives("")},
	{name: "an acknowledgement of long ago", steps: func(c *conversation) []step {
		return []step{c.tcpIn(dataFlags, c.seq, c.ack-900_000, frame.Text("not so ")).as("ack of long ago")}
	}, sees: lives("")},
	{name: "data that is sent again, with other bytes", steps: func(c *conversation) []step {
		return []step{c.next("first "), c.away(-6, dataFlags, "forged")}
	}, sees: lives("first ")},
	{name: "data that overlaps what came before", steps: func(c *conversation) []step {
		return []step{c.next("first "), c.away(-3, dataFlags, "XXXsecond "), c.next("SECOND ")}
	}, sees: lives("first second ")},
	{name: "data that overlaps what comes after", steps: func(c *conversation) []step {
		return []step{c.away(3, dataFlags, "DEFGHI"), c.away(6, dataFlags, "678"), c.next("abcdefghi")}
	}, sees: lives("abcdefghi")},
	{name: "overlapping data out of order", steps: func(c *conversation) []step {
		return []step{c.away(4, dataFlags, "EFGH"), c.away(2, dataFlags, "cdef"), c.next("ab"), c.next("CDEFGH")}
	}, sees: lives("abcdefGH")},
	{name: "data that begins in the window and ends behind it", steps: func(c *conversation) []step {
		return []step{c.away(64_000, dataFlags, strings.Repeat("!", 1400))}
	}, sees: lives("")},
	{name: "data with a wrong checksum", steps: func(c *conversation) []step {
		bad := frame.TCP{SrcPort: c.remote, DstPort: c.local, Flags: dataFlags, Seq: c.seq, Ack: c.ack, Checksum: frame.Exactly(1)}
		return []step{c.in(bad, frame.Text("broken ")).as("wrong checksum").but(c.inDialled(checksum)), c.next("whole ")}
	}, sees: lives("whole ")},
	{name: "RST and FIN with a wrong checksum", steps: func(c *conversation) (steps []step) {
		for _, flags := range []uint8{frame.RST, frame.RST | frame.ACK, frame.FIN | frame.ACK} {
			bad := frame.TCP{SrcPort: c.remote, DstPort: c.local, Flags: flags, Seq: c.seq, Ack: c.ack, Checksum: frame.Exactly(1)}
			steps = append(steps, c.in(bad).as("wrong checksum").but(c.inDialled(checksum)))
		}
		return steps
	}, sees: lives("")},
	{name: "RST behind the window", steps: func(c *conversation) []step {
		return []step{c.next("data "), c.away(-2000, frame.RST, "").but(c.inDialled(reset)),
			c.away(-2000, frame.RST|frame.ACK, "").but(c.inDialled(reset))}
	}, sees: lives("data ")},
	{name: "RST far ahead of the window", steps: func(c *conversation) []step {
		return []step{c.away(5_000_000, frame.RST, "").but(c.inDialled(reset)),
			c.away(5_000_000, frame.RST|frame.ACK, "").but(c.inDialled(reset))}
	}, sees: lives("")},
	{name: "RST in the window, but not what is expected", steps: func(c *conversation) []step {
		return []step{c.away(100, frame.RST, "")}
	}, sees: lives("")},
	{name: "RST at the expected sequence number", steps: func(c *conversation) []step {
		return []step{c.next("data "), c.away(0, frame.RST, "")}
	}, sees: seen{read: "data ", fate: "connection reset by peer"}},
	{name: "SYN", steps: func(c *conversation) []step {
		return []step{c.away(0, frame.SYN, ""), c.away(90_000, frame.SYN, "")}
	}, sees: lives("")},
	{name: "FIN", steps: func(c *conversation) []step {
		return []step{c.next("data "), c.away(0, frame.FIN|frame.ACK, "")}
	}, sees: seen{read: "data ", fate: "EOF"}},
	{name: "a path that takes less", steps: func(c *conversation) []step {
		return []step{c.tooBig(c.quoted(c.local, c.ack))}
	}, sees: seen{read: end, fate: "alive", mtu: narrow}},
	{name: "a path that takes less, says a wrong checksum", steps: func(c *conversation) []step {
		return []step{broken(c.tooBig(c.quoted(c.local, c.ack)), c.six).but(checksum)}
	}, sees: lives("")},
	{name: "a path that takes less, about what was never sent", steps: func(c *conversation) []step {
		return []step{c.tooBig(c.quoted(c.local, c.ack+900_000))}
	}, sees: lives("")},
	{name: "a path that takes less, about no connection of the open port", steps: func(c *conversation) []step {
		c.remote++
		about := c.quoted(80, c.ack)
		c.remote--
		return []step{c.tooBig(about).but(openPort)}
	}, sees: lives("")},
}

// dialSocketCases are about the peer's first answer.
var dialSocketCases = []socketCase{
	{name: "a RST that acknowledges something else, and then the answer", before: func(c *conversation) step {
		return c.tcpIn(frame.RST|frame.ACK, 0, c.ack+1000)
	}, sees: lives("")},
}

var udpSocketCases = []socketCase{
	{name: "answers", steps: func(c *conversation) []step {
		return []step{c.next("answer ")}
	}, sees: lives("answer ")},
	{name: "an answer with a wrong checksum", steps: func(c *conversation) []step {
		bad := frame.UDP{SrcPort: c.remote, DstPort: c.local, Checksum: frame.Exactly(1)}
		return []step{c.in(bad, frame.Text("broken")).but(checksum)}
	}, sees: lives("")},
	{name: "a closed port", steps: func(c *conversation) []step {
		return []step{c.portClosed()}
	}, sees: seen{fate: "connection refused"}},
	{name: "a closed port, says a wrong checksum", steps: func(c *conversation) []step {
		return []step{broken(c.portClosed(), c.six).but(checksum)}
	}, sees: lives("")},
	{name: "a path that takes less, about no answer of the open port", steps: func(c *conversation) []step {
		about := quote(c.us, c.peer, 8, frame.UDP{SrcPort: 53, DstPort: c.remote + 1}, frame.Text("answer"))
		return []step{c.tooBig(about).but(openPort)}
	}, sees: lives(""), ours: &seen{read: end, fate: "alive", mtu: narrow}},
}

// brokenReply is an echo reply whose checksum is wrong.
func brokenReply(c *conversation) []step {
	return []step{broken(c.datagram("broken "), c.six).but(checksum)}
}

var pingSocketCases = []socketCase{
	{name: "a reply", steps: func(c *conversation) []step {
		return []step{c.next("reply ")}
	}, sees: lives("reply ")},
	{name: "a reply with a wrong checksum", steps: brokenReply, sees: lives("")},
}

// An IPv4 raw socket is not spared what has a wrong checksum.
var rawSocketCases = []socketCase{
	{name: "a reply with a wrong checksum", steps: brokenReply, sees: lives(""),
		ours: &seen{read: "broken " + end, fate: "alive", mtu: wide}, family: 4},
	{name: "a reply with a wrong checksum", steps: brokenReply, sees: lives(""), family: 6},
}
