// SPDX-License-Identifier: Apache-2.0

package differential

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"strings"
	"sync/atomic"
	"time"

	"github.com/portcullis-firewall/portcullis/tests/internal/frame"
	"github.com/portcullis-firewall/portcullis/tests/internal/lab"
)

// verdict is what became of a packet.
type verdict uint8

const (
	none      verdict = iota // it went out: nobody is asked
	drop                     // it was not seen behind the filter
	input                    // it reached this host
	forwarded                // it arrived on the other side
)

func (v verdict) String() string { return [...]string{"none", "drop", "input", "forward"}[v] }

// step is one packet of a sequence; in fragments it is several frames.
type step struct {
	name      string
	out       bool // from the server
	inside    bool // from the host behind it
	frames    [][]byte
	wait      time.Duration // before it is sent
	port      kind          // opens or closes the changing port before
	differs   *difference   // documented; nil for almost all
	mayDiffer bool          // or agree, as the rest of the policy decides
}

// as adds to the name.
func (s step) as(name string) step {
	s.name += ", " + name
	return s
}

// after waits before the packet is sent.
func (s step) after(wait time.Duration) step {
	s.wait = wait
	return s
}

// but marks a documented difference.
func (s step) but(d *difference) step {
	s.differs = d
	return s
}

// mayBut marks a documented difference that other rules may hide.
func (s step) mayBut(d *difference) step {
	s.mayDiffer = true
	return s.but(d)
}

// hosts are the ends of a sequence, in one IP family.
type hosts struct {
	six         bool
	us, second  netip.Addr
	peer, other netip.Addr
	inside      netip.Addr // behind us, where we route
	routed      bool       // we are the host inside
	masked      bool       // what it sends gets our address on its way
	first       int        // number of a batch's first peer
	shift       uint16     // of our ports and identifiers
}

var families = []hosts{
	{us: lab.ServerV4, second: secondV4, peer: lab.ClientV4, other: otherV4, inside: lab.InsideV4},
	{six: true, us: lab.ServerV6, second: secondV6, peer: lab.ClientV6, other: otherV6, inside: lab.InsideV6},
}

func (h hosts) String() string {
	text := "IPv4"
	if h.six {
		text = "IPv6"
	}
	if h.routed {
		text += ", routed"
	}
	if h.masked {
		text += ", masqueraded"
	}
	return text
}

func ip(src, dst netip.Addr) frame.Layer {
	if dst.Is6() {
		return frame.IPv6{Src: src, Dst: dst}
	}
	return frame.IPv4{Src: src, Dst: dst}
}

// ipOf is ip that names what follows, for headers that lie.
func ipOf(src, dst netip.Addr, protocol uint8) frame.Layer {
	if dst.Is6() {
		return frame.IPv6{Src: src, Dst: dst, NextHeader: frame.Exactly(uint16(protocol))}
	}
	return frame.IPv4{Src: src, Dst: dst, Protocol: protocol}
}

func ethernet(dst netip.Addr) frame.Ethernet {
	mac := serverMAC
	switch b := dst.AsSlice(); {
	case dst.Is4() && dst.IsMulticast():
		mac = frame.MAC{1, 0, 0x5e, b[1] & 0x7f, b[2], b[3]}
	case dst.IsMulticast():
		mac = frame.MAC{0x33, 0x33, b[12], b[13], b[14], b[15]}
	case dst.Is4() && b[3] == 255:
		mac = frame.Broadcast
	}
	return frame.Ethernet{Dst: mac, Src: clientMAC}
}

// packet is a step with an IP packet from one address to another.
func packet(src, dst netip.Addr, layers ...frame.Layer) step {
	all := append([]frame.Layer{ethernet(dst), ip(src, dst)}, layers...)
	return step{name: describe(src, dst, layers), frames: [][]byte{frame.Build(all...)}}
}

// whole is a step with a frame that was built before.
func whole(name string, frames ...[]byte) step { return step{name: name, frames: frames} }

func (h hosts) in(layers ...frame.Layer) step { return packet(h.peer, h.us, layers...) }

func (h hosts) out(layers ...frame.Layer) step { return h.from(packet(h.sender(), h.peer, layers...)) }

// sender is our address as we know it.
func (h hosts) sender() netip.Addr {
	if h.masked {
		return h.inside
	}
	return h.us
}

// from makes a step one of ours.
func (h hosts) from(s step) step {
	if h.routed || h.masked {
		return fromInside(s)
	}
	return sent(s)
}

// sent makes a step one of the server.
func sent(s step) step {
	s.out = true
	return s
}

// fromInside makes a step one of the host behind the server.
func fromInside(s step) step {
	s.inside = true
	return s
}

// raw is a packet from the peer with these bytes behind the IP header.
func (h hosts) raw(protocol uint8, b []byte) step {
	return whole(fmt.Sprintf("protocol %d, %d bytes", protocol, len(b)),
		frame.Build(ethernet(h.us), ipOf(h.peer, h.us, protocol), frame.Raw(b)))
}

func describe(src, dst netip.Addr, layers []frame.Layer) string {
	text := fmt.Sprintf("%s > %s", src, dst)
	for _, layer := range layers {
		switch l := layer.(type) {
		case frame.TCP:
			text += fmt.Sprintf(" TCP %d > %d %s seq %d ack %d", l.SrcPort, l.DstPort, flagNames(l.Flags), l.Seq, l.Ack)
		case frame.UDP:
			text += fmt.Sprintf(" UDP %d > %d", l.SrcPort, l.DstPort)
		case frame.SCTP:
			text += fmt.Sprintf(" SCTP %d > %d chunk %d", l.SrcPort, l.DstPort, l.Chunk)
		case frame.ICMPv4:
			text += fmt.Sprintf(" ICMP type %d code %d id %d", l.Type, l.Code, l.ID)
		case frame.ICMPv6:
			text += fmt.Sprintf(" ICMPv6 type %d code %d id %d", l.Type, l.Code, l.ID)
		case frame.Raw:
			text += fmt.Sprintf(" and %d bytes", len(l))
		case frame.Text:
			text += fmt.Sprintf(" and %d bytes", len(l))
		default:
			text += strings.TrimPrefix(fmt.Sprintf(" %T", l), "frame.")
		}
	}
	return text
}

func flagNames(flags uint8) string {
	var names []string
	for i, name := range []string{"FIN", "SYN", "RST", "PSH", "ACK", "URG", "ECE", "CWR"} {
		if flags>>i&1 != 0 {
			names = append(names, name)
		}
	}
	if names == nil {
		return "no flags"
	}
	return strings.Join(names, "+")
}

// ICMP of the family of h.

func (h hosts) icmp(v4, v6, code uint8, id, seq uint16) frame.Layer {
	if h.six {
		return frame.ICMPv6{Type: v6, Code: code, ID: id, Seq: seq}
	}
	return frame.ICMPv4{Type: v4, Code: code, ID: id, Seq: seq}
}

func (h hosts) echo(id, seq uint16) frame.Layer {
	return h.icmp(frame.Echo, frame.Echo6, 0, id, seq)
}

func (h hosts) echoReply(id, seq uint16) frame.Layer {
	return h.icmp(frame.EchoReply, frame.EchoReply6, 0, id, seq)
}

// unreachable is the error of a router in the way about a packet that it quotes.
func (h hosts) unreachable() frame.Layer {
	return h.icmp(frame.Unreachable, frame.Unreachable6, 1, 0, 0)
}

// quote is an IP packet as it stands in an ICMP error, of which room bytes are left behind the IP header.
func quote(src, dst netip.Addr, room int, layers ...frame.Layer) frame.Raw {
	b := frame.Build(append([]frame.Layer{ip(src, dst)}, layers...)...)
	header := frame.IPv4Len
	if dst.Is6() {
		header = frame.IPv6Len
	}
	return frame.Raw(frame.Cut(b, min(header+room, len(b))))
}

// flow is a TCP or UDP conversation with the peer.
type flow struct {
	hosts
	local, remote uint16
}

func (f flow) tcpOut(flags uint8, seq, ack uint32, data ...frame.Layer) step {
	tcp := frame.TCP{SrcPort: f.local, DstPort: f.remote, Flags: flags, Seq: seq, Ack: ack}
	return f.out(append([]frame.Layer{tcp}, data...)...)
}

func (f flow) tcpIn(flags uint8, seq, ack uint32, data ...frame.Layer) step {
	tcp := frame.TCP{SrcPort: f.remote, DstPort: f.local, Flags: flags, Seq: seq, Ack: ack}
	return f.in(append([]frame.Layer{tcp}, data...)...)
}

func (f flow) udpOut() step {
	return f.out(frame.UDP{SrcPort: f.local, DstPort: f.remote}, frame.Text("query"))
}

func (f flow) udpIn() step {
	return f.in(frame.UDP{SrcPort: f.remote, DstPort: f.local}, frame.Text("answer"))
}

// handshake opens f from our side. What we send next has the sequence number 1001, the peer's 5001.
func (f flow) handshake() []step {
	return []step{
		f.tcpOut(frame.SYN, 1000, 0),
		f.tcpIn(frame.SYN|frame.ACK, 5000, 1001),
		f.tcpOut(frame.ACK, 1001, 5001),
	}
}

var fragmentID atomic.Uint32

// fragments cuts what is behind the IP header into pieces of size bytes, a multiple of 8.
func fragments(src, dst netip.Addr, protocol uint8, b []byte, size int) [][]byte {
	id := fragmentID.Add(1)
	var frames [][]byte
	for at := 0; at < len(b); at += size {
		piece := b[at:min(at+size, len(b))]
		frames = append(frames, fragment(src, dst, protocol, id, at, at+size < len(b), piece))
	}
	return frames
}

func fragment(src, dst netip.Addr, protocol uint8, id uint32, at int, more bool, piece []byte) []byte {
	if dst.Is4() {
		return frame.Build(ethernet(dst), frame.IPv4{
			Src: src, Dst: dst, Protocol: protocol, Offset: uint16(at / 8), MoreFragments: more,
		}, frame.Raw(piece))
	}
	return frame.Build(ethernet(dst), frame.IPv6{Src: src, Dst: dst}, frame.Fragment{
		NextHeader: frame.Exactly(uint16(protocol)), Offset: uint16(at / 8), MoreFragments: more, ID: id,
	}, frame.Raw(piece))
}

// transport is what Build puts behind the IP header.
func transport(src, dst netip.Addr, layers ...frame.Layer) []byte {
	b := frame.Build(append([]frame.Layer{ip(src, dst)}, layers...)...)
	if dst.Is6() {
		return b[frame.IPv6Len:]
	}
	return b[frame.IPv4Len:]
}

// with changes bytes of the only frame of a step from offset behind the Ethernet header on, and leaves the checksum of
// IPv4 right.
func with(s step, offset int, value ...byte) step {
	b := frame.With(s.frames[0], frame.EthernetLen+offset, value...)
	if header := b[frame.EthernetLen:]; header[0]>>4 == 4 && offset < frame.IPv4Len {
		header[10], header[11] = 0, 0
		var sum uint32
		for i := 0; i < int(header[0]&15)*4; i += 2 {
			sum += uint32(binary.BigEndian.Uint16(header[i:]))
		}
		binary.BigEndian.PutUint16(header[10:], ^uint16(sum>>16+sum&0xffff))
	}
	s.frames = [][]byte{b}
	return s
}
