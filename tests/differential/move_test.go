// SPDX-License-Identifier: Apache-2.0

package differential

import (
	"encoding/binary"
	"net/netip"

	"github.com/portcullis-firewall/portcullis/tests/internal/frame"
)

// kind is what a move of a random sequence is.
type kind string

const (
	tcp          kind = "TCP"
	udp          kind = "UDP"
	udpLite      kind = "UDP-Lite"
	sctp         kind = "SCTP"
	ping         kind = "echo request"
	pong         kind = "echo reply"
	message      kind = "ICMP"       // of any type
	about        kind = "ICMP error" // that quotes a packet of ours
	foreign      kind = "ICMP of the other family"
	gre          kind = "GRE"
	keyed        kind = "GRE with a key"
	esp          kind = "ESP"
	ipip         kind = "IPIP"
	six          kind = "6in4"
	experimental kind = "protocol 253"

	// No packets: they happen to all sequences of a batch at once.
	pause  kind = "pause"
	opens  kind = "the port opens"
	closes kind = "the port closes"
)

func (k kind) isEvent() bool { return k == pause || k == opens || k == closes }

// What the numbers of a move stand for. Each sequence of a batch has peers of its own.
var (
	localPorts  = [...]uint16{40000, 40001, 80, changingNumber}
	remotePorts = [...]uint16{443, 444}
)

const (
	openPort80   = 2 // in localPorts
	changingPort = 3
)

var portless = map[kind]uint8{
	gre: frame.ProtoGRE, keyed: frame.ProtoGRE, esp: frame.ProtoESP, ipip: frame.ProtoIPIP, six: frame.Proto6in4, experimental: 253,
}

// move is one packet of a random sequence, or an event, without the addresses.
type move struct {
	kind   kind
	out    bool
	what   uint8 // flags of TCP, chunk of SCTP, type of ICMP
	code   uint8 // of ICMP
	local  uint8 // index of the local port
	remote uint8 // of the remote port; ICMP's identifier
	second bool  // our second address
	other  bool  // another peer
	group  string

	// Of an ICMP error: the numbers above are those of the packet that it quotes.
	quotes    kind
	room      uint8 // bytes behind the quoted IP header; 0: all
	router    bool  // somebody in the way sends it
	elsewhere bool  // to another address than the one that is quoted
	reversed  bool  // it quotes a packet of the peer

	dress dressing
}

// numbered gives the sequence of that number peers of its own, so that a batch is played side by side.
func (h hosts) numbered(n int) hosts {
	if h.masked { // NAT gives a port the number that it had in another conversation
		h.shift = uint16(2 * n)
	}
	n += h.first
	if h.six {
		b := netip.MustParseAddr("2001:db8:2::").As16()
		binary.BigEndian.PutUint16(b[12:], uint16(n))
		b[15] = 1
		h.peer = netip.AddrFrom16(b)
		b[15] = 2
		h.other = netip.AddrFrom16(b)
		return h
	}
	h.peer = netip.AddrFrom4([4]byte{198, 18, byte(n >> 6), byte(n<<2 | 1)})
	h.other = netip.AddrFrom4([4]byte{198, 18, byte(n >> 6), byte(n<<2 | 2)})
	return h
}

func (h hosts) groupOf(name string) netip.Addr {
	if name == "broadcast" {
		return h.multicast("192.0.2.255", "ff02::1")
	}
	return h.multicast("224.0.0.1", "ff02::1")
}

// ends are our address and the peer's.
func (m move) ends(h hosts) (ours, theirs netip.Addr) {
	ours, theirs = h.us, h.peer
	if m.out {
		ours = h.sender()
	}
	if m.second {
		ours = h.second
	}
	if m.other {
		theirs = h.other
	}
	return ours, theirs
}

// way is from where to where the packet goes.
func (m move) way(h hosts) (src, dst netip.Addr) {
	ours, theirs := m.ends(h)
	switch {
	case m.out && m.group != "":
		return ours, h.groupOf(m.group)
	case m.out:
		return ours, theirs
	case m.group != "":
		return theirs, h.groupOf(m.group)
	}
	if m.elsewhere {
		ours, _ = move{second: !m.second}.ends(h)
	}
	if m.router {
		_, theirs = move{other: !m.other}.ends(h)
	}
	return theirs, ours
}

func (m move) step(h hosts) step {
	switch m.kind {
	case pause:
		return step{name: string(pause), out: true, wait: pauseTime}
	case opens, closes:
		return step{name: string(m.kind), out: true, port: m.kind}
	}
	src, dst := m.way(h)
	protocol, layers := m.layers(h)
	s := whole(describe(src, dst, layers), m.dress.frames(m.kind, src, dst, protocol, transport(src, dst, layers...))...)
	if m.out {
		return h.from(s)
	}
	return s
}

// layers are those behind the IP header.
func (m move) layers(h hosts) (protocol uint8, layers []frame.Layer) {
	data := frame.Raw(make([]byte, m.dress.data))
	if protocol, ok := portless[m.kind]; ok {
		body := frame.Raw{0, 0, 8, 0, 0, 0, 0, 1}
		if m.kind == keyed {
			body[0] = 0x20
		}
		return protocol, []frame.Layer{body, data}
	}
	protocol = frame.ProtoICMP
	if h.six {
		protocol = frame.ProtoICMPv6
	}
	switch m.kind {
	case foreign:
		// Nobody looks behind the header.
		return frame.ProtoICMP + frame.ProtoICMPv6 - protocol, []frame.Layer{h.echo(uint16(m.remote), 1), data}
	case message:
		return protocol, []frame.Layer{h.icmp(m.what, m.what, m.code, uint16(m.remote), 1), data}
	case about:
		return protocol, []frame.Layer{h.icmp(m.what, m.what, m.code, 0, 0), m.quote(h)}
	}
	layer := m.transport(h)
	switch m.kind {
	case tcp:
		protocol = frame.ProtoTCP
	case udp:
		protocol = frame.ProtoUDP
	case udpLite:
		protocol = frame.ProtoUDPLite
	case sctp:
		return frame.ProtoSCTP, []frame.Layer{layer, initiation(m), data}
	}
	return protocol, []frame.Layer{layer, data}
}

// The verification tags that the two ends of an SCTP association choose.
const (
	ourTag   = 0x11111111
	theirTag = 0x22222222
)

// transport is the header of what belongs to a conversation by its ports, or by its identifier.
func (m move) transport(h hosts) frame.Layer {
	src, dst := localPorts[m.local], remotePorts[m.remote]
	if m.local < openPort80 {
		src += h.shift
	}
	seq, ack, tag := uint32(1000), uint32(5000), uint32(theirTag)
	if !m.out {
		src, dst, seq, ack, tag = dst, src, ack, seq, ourTag
	}
	switch m.kind {
	case tcp:
		return frame.TCP{
			SrcPort: src, DstPort: dst, Flags: m.what | m.dress.bits, Seq: seq + m.dress.seq, Ack: ack + m.dress.ack,
			Options: tcpOptions[m.dress.options],
		}
	case udp:
		return frame.UDP{SrcPort: src, DstPort: dst}
	case udpLite:
		// Netfilter counts UDP's protocol number into the checksum, which then differs by as much.
		return frame.UDP{SrcPort: src, DstPort: dst, Length: frame.Exactly(0)}
	case sctp:
		if m.what == frame.ChunkInit {
			tag = 0
		}
		return frame.SCTP{SrcPort: src, DstPort: dst, Chunk: m.what, Tag: tag + m.dress.seq}
	case pong:
		return h.echoReply(uint16(m.remote)+h.shift, 1)
	}
	return h.echo(uint16(m.remote)+h.shift, 1)
}

// initiation is the body of the chunks that begin an association: the sender's tag and some numbers.
func initiation(m move) frame.Raw {
	if m.what != frame.ChunkInit && m.what != frame.ChunkInitAck {
		return nil
	}
	tag := uint32(theirTag)
	if m.out {
		tag = ourTag
	}
	return append(binary.BigEndian.AppendUint32(nil, tag), 0, 1, 0, 0, 0, 1, 0, 1, 0, 0, 0, 1)
}

// quote is the packet that an ICMP error is about.
func (m move) quote(h hosts) frame.Raw {
	q := m
	q.kind, q.what, q.out, q.dress = m.quotes, frame.ACK, true, dressing{data: m.dress.data}
	if q.kind == message {
		q.what = 200
	}
	ours, theirs := m.ends(h)
	if m.reversed {
		ours, theirs, q.out = theirs, ours, false
	}
	protocol, layers := q.layers(h)
	b := frame.Build(append([]frame.Layer{ipOf(ours, theirs, protocol)}, layers...)...)
	header := len(frame.Build(ipOf(ours, theirs, protocol)))
	if room := header + int(m.room); m.room > 0 && room < len(b) {
		b = b[:room]
	}
	return b
}
