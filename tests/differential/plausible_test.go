// SPDX-License-Identifier: Apache-2.0

package differential

import "github.com/portcullis-firewall/portcullis/tests/internal/frame"

// history is how far a TCP flow of a random sequence has come, as far as it matters for what the server's own stack can
// send next, and for what is documented to differ.
type history struct {
	begun    bool // there is a flow
	half     bool // we have sent a SYN, and no SYN-ACK came
	crossing bool // but a SYN
	aborted  bool // we have sent a RST
	stray    bool // and something came after it
	ourFIN   bool
	peerFIN  bool
	last     bool // ours was the second
	acked    bool // and both are acknowledged

	// What follows is documented to be decided otherwise.
	unlike     bool // for good
	overlooked bool // until a SYN-ACK comes: netfilter overlooks our new SYN after a stray packet
}

// historyOf follows the flow of m through moves; an ICMP error is about the flow that it quotes.
func historyOf(m move, moves []move) (h history) {
	for _, o := range moves {
		switch {
		case o.kind != tcp || o.local != m.local || o.remote != m.remote:
		case o.out:
			h.sent(o.flags)
		default:
			h.received(o.flags)
		}
	}
	return h
}

func (h *history) sent(flags uint8) {
	switch {
	case flags == frame.SYN && h.half && !h.aborted: // once more
	case flags == frame.SYN:
		*h = history{begun: true, half: true, unlike: h.unlike, overlooked: h.overlooked || h.stray}
	case flags&frame.RST != 0:
		h.aborted, h.unlike = true, h.unlike || h.overlooked
	case flags == frame.FIN|frame.ACK:
		h.last = h.last || h.peerFIN && !h.ourFIN
		h.ourFIN = true
	case flags&frame.SYN == 0 && flags&frame.ACK != 0:
		h.begun = true
		h.acked = h.acked || h.ourFIN && h.peerFIN
	}
}

func (h *history) received(flags uint8) {
	switch {
	case !h.begun, flags == 0 || flags == frame.FIN || flags == frame.SYN|frame.FIN: // let in by nobody
		return
	case flags&frame.RST != 0: // the row of the peer's RST
		h.unlike = true
	case flags == frame.SYN|frame.ACK:
		h.half, h.overlooked = false, false
	case flags == frame.SYN && (h.ourFIN || h.peerFIN): // the row of the SYN in TIME_WAIT, where a FIN sent twice leads too
		h.unlike = true
	case flags&frame.FIN != 0:
		h.peerFIN = h.peerFIN || !h.half
	case flags == frame.SYN:
		h.crossing = h.crossing || h.half
	}
	h.acked = h.acked || h.last && flags&(frame.SYN|frame.FIN) == 0
	h.stray = h.stray || h.aborted
}

// possible tells whether the server, whose TCP is in order, may send m after moves. What it cannot send comes in any
// order from the peer all the same.
func (m move) possible(moves []move) bool {
	if !m.out || m.kind != tcp {
		return true
	}
	h := historyOf(m, moves)
	switch {
	case h.aborted:
		return m.flags == frame.SYN || m.flags&frame.RST != 0
	case m.flags == frame.SYN:
		return !h.ourFIN && !h.peerFIN || h.acked
	case !h.half:
		return true
	case m.flags == frame.SYN|frame.ACK:
		return h.crossing
	}
	return m.flags&frame.FIN == 0
}

func allPossible(moves []move) bool {
	for i, m := range moves {
		if !m.possible(moves[:i]) {
			return false
		}
	}
	return true
}

// unlike tells whether the last packet of a sequence comes after one after which the two are documented to part.
func unlike(moves []move) bool {
	last := len(moves) - 1
	h := historyOf(moves[last], moves[:last])
	meets := moves[last].kind == tcp && moves[last].flags != frame.SYN|frame.ACK
	return h.unlike || h.overlooked && meets
}
