// SPDX-License-Identifier: Apache-2.0

package differential

import (
	"maps"
	"math/rand/v2"
	"slices"

	"github.com/portcullis-firewall/portcullis/tests/internal/frame"
)

// draw makes random moves of an IP family.
type draw struct {
	*rand.Rand
	six   bool
	plain bool // without dress: of what is routed, a host further on sees to what is malformed
}

// oneOf takes a choice; one that is listed twice is taken twice as often.
func oneOf[T any](d draw, choices ...T) T { return choices[d.IntN(len(choices))] }

func (d draw) times(one, in int) bool { return d.IntN(in) < one }

var (
	themes = slices.Concat(slices.Repeat([]kind{tcp}, 16), []kind{
		udp, udp, udp, udpLite, sctp, sctp, sctp, ping, ping, pong, message, gre, keyed, esp, ipip, six, experimental, foreign,
	})
	plainThemes = slices.Concat(slices.Repeat([]kind{tcp}, 6), []kind{udp, udp, ping, pong})

	tcpFlags = []uint8{
		frame.SYN, frame.SYN, frame.SYN | frame.ACK, frame.SYN | frame.ACK, frame.ACK, frame.ACK, frame.ACK | frame.PSH,
		frame.FIN | frame.ACK, frame.FIN | frame.ACK, frame.RST, frame.RST | frame.ACK, frame.FIN, 0, frame.SYN | frame.FIN,
	}
	sctpChunks = []uint8{
		frame.ChunkData, frame.ChunkData, frame.ChunkInit, frame.ChunkInit, frame.ChunkInitAck, frame.ChunkInitAck,
		frame.ChunkCookieEcho, frame.ChunkCookieAck, frame.ChunkAbort, frame.ChunkShutdown, frame.ChunkShutdownAck,
		frame.ChunkShutdownComplete, frame.ChunkHeartbeat, frame.ChunkHeartbeatAck, frame.ChunkError,
	}
	errors4 = []uint8{frame.Unreachable, frame.Unreachable, frame.TimeExceeded, frame.ParameterProblem, frame.SourceQuench, frame.Redirect}
	errors6 = []uint8{frame.Unreachable6, frame.PacketTooBig6, frame.TimeExceeded6, frame.ParameterProblem6, 100, 127}
)

// sequence has so many packets, in equal parts between the events. It leaves out what this host's stack does not send.
func (d draw) sequence(packets int, events []kind) moves {
	var all moves
	theme := d.theme()
	for part := range len(events) + 1 {
		for range packets / (len(events) + 1) {
			m := d.move(theme, slices.Contains(events, opens))
			for !m.possible(all) {
				m = d.move(theme, slices.Contains(events, opens))
			}
			all = append(all, m)
		}
		if part < len(events) {
			all = append(all, move{kind: events[part]})
		}
	}
	return all
}

func (d draw) theme() kind {
	if d.plain {
		return oneOf(d, plainThemes...)
	}
	return oneOf(d, themes...)
}

func (d draw) move(theme kind, changes bool) move {
	m := move{kind: theme, out: d.times(1, 2)}
	switch n := d.IntN(12); {
	case n == 0:
		m.kind = d.theme()
	case n == 1:
		m.kind, m.quotes = about, theme
		if d.times(1, 6) {
			m.quotes = d.theme()
		}
	case theme == ping || theme == pong:
		m.kind = oneOf(d, ping, pong)
	}
	m.local = oneOf[uint8](d, 0, 0, 0, 0, 0, 0, 1, openPort80)
	if changes && d.times(2, 3) {
		m.local = changingPort
	}
	m.remote = oneOf[uint8](d, 0, 0, 0, 1)
	m.second, m.other = !d.plain && d.times(1, 12), d.times(1, 12)
	switch m.kind {
	case tcp:
		m.what = oneOf(d, tcpFlags...)
	case sctp:
		m.what = oneOf(d, sctpChunks...)
	case message:
		m.what, m.code = uint8(d.IntN(256)), oneOf[uint8](d, 0, 0, 1)
		if d.times(1, 2) {
			m.what %= 20
		}
	case about:
		d.mistake(&m)
	}
	if d.plain {
		if m.out {
			m.local %= openPort80 // which is this host's, not that of the one behind it
		}
		return m
	}
	if m.kind != about && d.times(1, 24) {
		m.group = oneOf(d, "broadcast", "multicast")
	}
	if d.times(1, 3) {
		d.clothe(&m)
	}
	return m
}

// mistake makes m an ICMP error, often a wrong one.
func (d draw) mistake(m *move) {
	m.out = d.times(1, 8)
	m.what, m.code = oneOf(d, errors4...), oneOf[uint8](d, 0, 1, 4)
	if d.six {
		m.what = oneOf(d, errors6...)
	}
	m.room = oneOf[uint8](d, 0, 0, 0, 8, 8, 8, 20, 4, 3, 1)
	m.router, m.elsewhere, m.reversed = d.times(1, 2), d.times(1, 16), d.times(1, 16)
}

// clothe dresses m for the way that it goes. What a raw socket cannot send, only the peer sends.
func (d draw) clothe(m *move) {
	wear := &m.dress
	defer func() {
		if wear.ip != "" || wear.options != "" || wear.padding > 0 || m.kind == sctp || m.kind == about {
			wear.data = min(wear.data, 1200) // there is more than that in 1500 bytes
		}
	}()
	if d.times(1, 2) {
		wear.data = oneOf(d, uint16(d.IntN(16)), uint16(d.IntN(200)), uint16(d.IntN(1401)))
	}
	if d.times(1, 4) {
		wear.tos, wear.ttl = uint8(d.IntN(256)), uint8(1+d.IntN(255))
	}
	if d.times(1, 4) {
		wear.ip = oneOf(d, slices.Sorted(maps.Keys(ipOptions))...)
		if d.six {
			wear.ip = oneOf(d, slices.Sorted(maps.Keys(ipExtensions))...)
		}
	}
	if d.times(1, 4) {
		wear.cut, wear.pieces = oneOf(d, inOrder, inOrder, inOrder, reversed, reversed, doubled, firstOnly, lastMissing, firstMissing),
			uint8(2+d.IntN(3))
		wear.data = max(wear.data, 100)
		if wear.ip == "atomic fragment" {
			wear.ip = ""
		}
	}
	if m.kind == tcp {
		if d.times(1, 4) {
			wear.bits = oneOf[uint8](d, frame.URG, frame.PSH, frame.ECE, frame.CWR, frame.ECE|frame.CWR, frame.PSH|frame.URG)
		}
		if d.times(1, 3) {
			wear.options = oneOf(d, slices.Sorted(maps.Keys(tcpOptions))...)
		}
	}
	if m.out {
		return
	}
	if m.kind == tcp && d.times(1, 4) {
		wear.seq, wear.ack = oneOf(d, 0, d.Uint32(), uint32(d.IntN(100000))), oneOf(d, 0, d.Uint32(), uint32(d.IntN(100000)))
	}
	if m.kind == sctp && d.times(1, 8) {
		wear.seq = d.Uint32()
	}
	if d.times(1, 5) {
		wear.tags = oneOf(d, slices.Sorted(maps.Keys(vlanTags))...)
	}
	if d.times(1, 5) {
		wear.padding = uint8(d.IntN(50))
	}
	if wear.cut == "" && d.times(1, 5) {
		wear.lie = oneOf(d, d.lies(m.kind)...)
	}
}

func (d draw) lies(k kind) []string {
	all := []string{lieVersion, lieHeader, lieLonger, lieShorter}
	switch k {
	case tcp:
		all = append(all, lieOffset4, lieOffset15, lieChecksum, lieChecksum)
	case udp:
		all = append(all, lieUDP7, lieUDPLong, lieChecksum, noChecksum, noChecksum)
	case udpLite, sctp, ping, pong, message, about:
		all = append(all, lieChecksum)
	}
	return all
}
