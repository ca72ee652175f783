// SPDX-License-Identifier: Apache-2.0

package differential

import (
	"slices"

	"github.com/portcullis-firewall/portcullis/tests/internal/frame"
)

// tuple is what the packets of one flow have in common.
type tuple struct {
	kind          kind
	local, remote uint8
	second, other bool
	group         string
}

// conversation of m; that of an ICMP error is the one that it quotes.
func (m move) conversation() tuple {
	c := tuple{m.kind, m.local, m.remote, m.second, m.other, m.group}
	if m.kind == about {
		c.kind = m.quotes
	}
	if c.kind == message && m.isEcho() {
		c.kind = ping
	}
	switch c.kind {
	case pong:
		c.kind, c.local = ping, 0
	case ping:
		c.local = 0
	case keyed:
		c.kind = gre
	}
	if portless[c.kind] != 0 || c.kind == foreign || c.kind == message {
		c.local, c.remote = 0, 0
	}
	return c
}

const nodeInformation = 139 // the query of RFC 4620; its answer is the next type

// isEcho tells that an ICMP message of any type is a ping or its answer.
func (m move) isEcho() bool {
	return m.what == frame.Echo || m.what == frame.EchoReply || m.what == frame.Echo6 || m.what == frame.EchoReply6
}

// history is how far a conversation of a random sequence has come, as far as it matters for what the server's own stack
// can send next, and for what is documented to differ.
type history struct {
	open    bool // its local port
	touched bool // something went by while it was
	begun   bool // this host has said something
	coded   bool // some ICMP of it has a code

	// Of TCP.
	half     bool // we have sent a SYN, and no SYN-ACK came
	crossing bool // but a SYN
	aborted  bool // we have sent a RST
	reset    bool // the peer has, and our socket has taken it
	stray    bool // and something came after it
	ourFIN   bool
	peerFIN  bool
	last     bool // ours was the second
	acked    bool // and both are acknowledged

	// Of SCTP.
	associating bool // we have sent an INIT
	called      bool // and so has the peer
	associated  bool // or it has answered
	answered    bool // with an INIT ACK, and nobody has aborted since

	// What follows is documented to be decided otherwise.
	row        *difference // for good
	overlooked bool        // until a SYN-ACK comes: netfilter overlooks our new SYN after a stray packet
}

// historyOf follows a conversation through moves.
func historyOf(c tuple, moves []move) (h history) {
	h.open = c.kind == tcp && c.local == openPort80
	for _, m := range moves {
		if m.kind.isEvent() {
			h.happened(c, m.kind)
			continue
		}
		if m.kind == about || m.conversation() != c {
			continue
		}
		h.touched = h.touched || h.open
		h.coded = h.coded || m.code != 0
		switch {
		case m.out && m.dress.incomplete(): // the stack waits for the rest before anybody sees it
		case m.out:
			h.sent(m)
		case h.begun && m.dress.unseen():
			h.follow(unseen)
		case h.begun && m.dress.lie == lieHeader && m.dress.hopByHop():
			h.follow(noLength)
		default:
			h.received(m)
		}
	}
	return h
}

// follow keeps the first difference that the conversation meets.
func (h *history) follow(d *difference) {
	if h.row == nil {
		h.row = d
	}
}

func (h *history) happened(c tuple, event kind) {
	switch {
	case event == pause:
		h.associating = false
		if h.peerFIN && !h.ourFIN {
			h.follow(lateData)
		}
		if h.crossing {
			h.follow(untimed)
		}
		if h.half || h.aborted || h.ourFIN { // nothing of these is left
			*h = history{open: h.open, touched: h.touched, row: h.row}
		}
	case c.local != changingPort || c.kind != tcp && c.kind != udp:
	case event == opens:
		h.open = true
	default:
		h.open = false
		if h.touched {
			h.row = closedPort
		}
	}
}

func (h *history) sent(m move) {
	switch m.kind {
	case tcp:
		h.sentTCP(m.flags())
	case sctp:
		h.sentSCTP(m.what)
	default:
		h.begun = true
		if h.row == closedPort && !h.open {
			h.row = nil
		}
	}
}

// validFlags are those that netfilter takes (its tcp_valid_flags).
var validFlags = []uint8{
	frame.SYN, frame.SYN | frame.URG, frame.SYN | frame.ACK, frame.RST, frame.RST | frame.ACK, frame.FIN | frame.ACK,
	frame.FIN | frame.ACK | frame.URG, frame.ACK, frame.ACK | frame.URG,
}

// flags are those of a TCP packet that matter for its flow, or 0 when they make no sense.
func (m move) flags() uint8 {
	flags := (m.what | m.dress.bits) &^ (frame.PSH | frame.ECE | frame.CWR)
	if !slices.Contains(validFlags, flags) {
		return 0
	}
	return flags &^ frame.URG
}

func (h *history) sentTCP(flags uint8) {
	switch {
	case flags == 0:
	case flags == frame.SYN && h.half && !h.aborted: // once more
	case flags == frame.SYN && h.begun && !h.aborted && !h.acked: // overlooked
	case flags == frame.SYN:
		*h = history{open: h.open, touched: h.touched, begun: true, half: true, row: h.row, overlooked: h.overlooked || h.stray}
	case flags&frame.RST != 0:
		h.aborted = true
		if h.overlooked {
			h.follow(reused)
		}
	case flags == frame.FIN|frame.ACK && h.begun:
		h.last = h.last || h.peerFIN && !h.ourFIN
		h.ourFIN = true
	case flags == frame.ACK:
		h.begun = true
		h.acked = h.acked || h.ourFIN && h.peerFIN
	}
}

func (h *history) sentSCTP(chunk uint8) {
	switch {
	case chunk == frame.ChunkInit:
		h.begun, h.associating, h.called, h.associated, h.answered = true, true, false, false, false
	case chunk == frame.ChunkAbort || chunk == frame.ChunkShutdownComplete:
		h.associating, h.answered = false, false
	case !h.associating:
		h.begun = true
		h.follow(pickup)
	}
}

func (h *history) received(m move) {
	if m.kind == sctp && h.begun {
		h.called = h.called || h.associating && m.what == frame.ChunkInit
		h.associated = h.associated || h.called || h.associating && m.what == frame.ChunkInitAck
		h.answered = h.associating && m.what == frame.ChunkInitAck || h.answered && m.what != frame.ChunkAbort
		switch {
		case m.dress.seq != 0:
			h.follow(wrongTag)
		case !h.answered:
			h.follow(halfSCTP)
		}
	}
	flags := m.flags()
	switch {
	case m.kind != tcp, !h.begun, flags == 0, m.dress.lie != "" || m.dress.cut == firstMissing: // let in by nobody
		return
	case flags&frame.RST != 0:
		h.reset = h.reset || m.dress.seq == 0
		h.follow(reset)
	case flags == frame.SYN|frame.ACK:
		h.half, h.overlooked = false, false
	case flags == frame.SYN && (h.ourFIN || h.peerFIN): // or a FIN sent twice
		h.follow(timeWait)
	case flags&frame.FIN != 0:
		h.peerFIN = h.peerFIN || !h.half
	case flags == frame.SYN:
		h.crossing = h.crossing || h.half
	}
	h.acked = h.acked || h.last && flags&(frame.SYN|frame.FIN) == 0
	h.stray = h.stray || h.aborted
}

// possible tells whether the server, whose stack is in order, may send m after moves. What it cannot send comes in any
// order from the peer all the same, but for what is malformed in a way that only the stack looks at: in a conversation
// that is a documented difference.
func (m move) possible(moves []move) bool {
	h := historyOf(m.conversation(), moves)
	switch {
	case m.kind.isEvent():
		return true
	case !m.out && h.half && m.kind == tcp && m.flags() == frame.SYN|frame.ACK && m.dress.ack != 0:
		return false // in these worlds netfilter does not look at what it acknowledges
	case !m.out:
		seen := m.dress.lie == lieChecksum || m.dress.lie == lieShorter && m.kind != tcp && m.kind != udp
		return !seen || !h.begun
	case slices.Contains(unfit, m.dress.ip) || slices.Contains(malformedOptions, m.dress.options):
		return false
	case m.kind == tcp:
		return m.group == "" && h.maySendTCP(m.flags())
	case m.kind == sctp:
		return m.group == "" && h.maySendSCTP(m.what)
	}
	return true
}

func (h *history) maySendTCP(flags uint8) bool {
	switch {
	case h.reset:
		return flags == frame.SYN
	case h.aborted:
		return flags == frame.SYN || flags&frame.RST != 0
	case flags == frame.SYN:
		return !h.ourFIN && !h.peerFIN || h.acked
	case !h.half:
		return true
	case h.crossing:
		return flags&frame.FIN == 0
	}
	return flags&frame.RST != 0 || flags == 0
}

func (h *history) maySendSCTP(chunk uint8) bool {
	switch chunk {
	case frame.ChunkInitAck:
		return h.called
	case frame.ChunkInit:
		return true
	case frame.ChunkData, frame.ChunkHeartbeat:
		return h.associated || !h.associating
	}
	return h.associated && h.associating
}

func allPossible(moves []move) bool {
	for i, m := range moves {
		if !m.possible(moves[:i]) {
			return false
		}
	}
	return true
}

// differs is the documented difference that the last packet of a sequence may meet, or nil.
func differs(h hosts, moves []move) *difference {
	last := len(moves) - 1
	m := moves[last]
	if m.out {
		return nil
	}
	past := historyOf(m.conversation(), moves[:last])
	past.open = past.open && !h.routed
	return m.differs(h, past).onTheWay(h, moves[:last])
}

// differs is the same for this host itself, of a packet after what came before in its conversation.
func (m move) differs(h hosts, past history) *difference {
	switch {
	case h.six && m.kind == message && (m.what >= 130 && m.what <= 137 || m.what == 143):
		return neighbours
	case h.six && m.dress.lie == lieHeader && m.dress.hopByHop():
		return noLength
	case h.six && m.dress.lie == lieShorter && m.dress.headers() > 12:
		return cutHeader
	case h.six && m.kind == message && m.what == nodeInformation+1:
		return nodeAnswer
	case past.open && m.kind == about:
		return openPort
	case past.open:
		return nil
	case past.row != nil:
		return past.row
	case (m.kind == message || m.kind == pong) && past.begun && (past.coded || m.code != 0):
		return otherCode
	case past.overlooked && (m.kind == about || m.flags() != frame.SYN|frame.ACK):
		return reused
	case m.kind == udpLite && past.begun:
		return checksum // netfilter counts UDP's protocol number into it, and more
	case m.kind == sctp && past.begun && m.dress.seq != 0:
		return wrongTag
	}
	return nil
}
