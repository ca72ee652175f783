// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"net/netip"
	"testing"

	"github.com/portcullis-firewall/portcullis/tests/internal/frame"
	"github.com/portcullis-firewall/portcullis/tests/internal/testdp"
)

// world is the hosts of a case, in one IP family.
type world struct {
	family   int
	us       netip.Addr
	peer     netip.Addr // whom we talk to
	friend   netip.Addr // whom restricted rules let in
	stranger netip.Addr
}

var worlds = []world{
	{4, addr("192.0.2.1"), addr("192.0.2.2"), addr("203.0.113.7"), addr("198.51.100.9")},
	{6, addr("2001:db8::1"), addr("2001:db8::2"), addr("2001:db8:ff::7"), addr("2001:db8:bad::9")},
}

func addr(text string) netip.Addr { return netip.MustParseAddr(text) }

// server is the policy of most tests: something open in each protocol, something restricted, and pings.
const server = `
open:
  - 80/tcp
  - 2000-2010/tcp
  - 22/tcp from 203.0.113.0/24, 2001:db8:ff::/48
  - 53/udp
  - 60000-61000/udp
  - 161/udp from 203.0.113.7, 2001:db8:ff::7
  - 5000/sctp
  - 5000/udplite
icmp: [echo-request]
`

// inBoth runs cases in both families, under the policy of most tests or the one given.
func inBoth(t *testing.T, cases func(world) []arrival) {
	t.Helper()
	inBothUnder(t, testdp.Options{Policy: server}, cases)
}

func inBothUnder(t *testing.T, o testdp.Options, cases func(world) []arrival) {
	t.Helper()
	for _, w := range worlds {
		t.Run(w.String(), func(t *testing.T) { arrive(t, load(t, o), cases(w)) })
	}
}

func (w world) String() string {
	if w.family == 4 {
		return "IPv4"
	}
	return "IPv6"
}

// ip is the IP header of a packet.
func (w world) ip(src, dst netip.Addr) frame.Layer {
	if w.family == 4 {
		return frame.IPv4{Src: src, Dst: dst}
	}
	return frame.IPv6{Src: src, Dst: dst}
}

// number is the IP header of a packet that says its protocol itself.
func (w world) number(src, dst netip.Addr, protocol uint8) frame.Layer {
	if w.family == 4 {
		return frame.IPv4{Src: src, Dst: dst, Protocol: protocol}
	}
	return frame.IPv6{Src: src, Dst: dst, NextHeader: frame.Exactly(uint16(protocol))}
}

func framed(ip frame.Layer, layers []frame.Layer) []byte {
	return frame.Build(append([]frame.Layer{frame.Ethernet{}, ip}, layers...)...)
}

// in is a frame from the peer to us, out one from us to the peer, and from one from somebody to us.
func (w world) in(layers ...frame.Layer) []byte  { return framed(w.ip(w.peer, w.us), layers) }
func (w world) out(layers ...frame.Layer) []byte { return framed(w.ip(w.us, w.peer), layers) }
func (w world) from(src netip.Addr, layers ...frame.Layer) []byte {
	return framed(w.ip(src, w.us), layers)
}

// echo, reply and unreachable are ICMP messages that both families have.
func (w world) echo(id, seq uint16) frame.Layer {
	return w.icmp(frame.Echo, frame.Echo6, id, seq)
}

func (w world) reply(id, seq uint16) frame.Layer {
	return w.icmp(frame.EchoReply, frame.EchoReply6, id, seq)
}

func (w world) unreachable() frame.Layer {
	return w.icmp(frame.Unreachable, frame.Unreachable6, 0, 0)
}

func (w world) icmp(type4, type6 uint8, id, seq uint16) frame.Layer {
	if w.family == 4 {
		return frame.ICMPv4{Type: type4, ID: id, Seq: seq}
	}
	return frame.ICMPv6{Type: type6, ID: id, Seq: seq}
}

// fragmentOf returns a fragment of a packet of a protocol: `offset` counts 8 bytes.
func (w world) fragmentOf(src, dst netip.Addr, protocol uint8, offset uint16, more bool, part []byte) []byte {
	if w.family == 4 {
		return frame.Build(frame.Ethernet{},
			frame.IPv4{Src: src, Dst: dst, Protocol: protocol, Offset: offset, MoreFragments: more, ID: 7}, frame.Raw(part))
	}
	return frame.Build(frame.Ethernet{}, frame.IPv6{Src: src, Dst: dst},
		frame.Fragment{NextHeader: frame.Exactly(uint16(protocol)), Offset: offset, MoreFragments: more, ID: 7}, frame.Raw(part))
}

// transport returns what follows the IP header when these layers go from src to dst.
func (w world) transport(src, dst netip.Addr, layers ...frame.Layer) []byte {
	return frame.Read(framed(w.ip(src, dst), layers)).Payload
}
