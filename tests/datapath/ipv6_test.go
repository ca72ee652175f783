// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"fmt"
	"testing"

	"github.com/portcullis-firewall/portcullis/tests/internal/frame"
	"github.com/portcullis-firewall/portcullis/tests/internal/testdp"
)

func TestIPv6Headers(t *testing.T) {
	w := worlds[1]
	ip := frame.IPv6{Src: w.peer, Dst: w.us}
	build := func(change func(*frame.IPv6), port uint16) []byte {
		changed := ip
		change(&changed)
		return frame.Build(frame.Ethernet{}, changed, syn(port))
	}
	length := func(n uint16) func(*frame.IPv6) {
		return func(ip *frame.IPv6) { ip.PayloadLength = frame.Exactly(n) }
	}
	version := func(n uint16) func(*frame.IPv6) {
		return func(ip *frame.IPv6) { ip.Version = frame.Exactly(n) }
	}
	whole := frame.Build(frame.Ethernet{}, ip, syn(80))
	open := rule("80/tcp")
	arrive(t, load(t, testdp.Options{Policy: server}), []arrival{
		{name: "a traffic class and a flow label", frame: frame.With(whole, 14, 0x6f, 0xff, 0xff, 0xff), want: open},
		{name: "version 4", frame: build(version(4), 80), want: badIPv6},
		{name: "a payload length of one byte more than there is", frame: build(length(21), 80), want: badIPv6},
		{name: "a payload length of 65535", frame: build(length(65535), 80), want: badIPv6},
		{name: "a payload length of 0", frame: build(length(0), 80), want: badTransport},
		{name: "a payload length that ends inside the ports", frame: build(length(3), 80), want: badTransport},
		{name: "a payload length that ends behind the ports, closed port", frame: build(length(4), 23), want: invalid.of(badHeader)},
		{name: "padding behind the packet", frame: frame.Padded(whole, 6), want: open},
		{name: "cut off inside the header", frame: frame.Cut(whole, 53), want: badIPv6},
		{name: "cut off where the header begins", frame: frame.Cut(whole, 14), want: badIPv6},
		{name: "cut off behind the header", frame: frame.Cut(whole, 54), want: badIPv6},
		{name: "behind a tag, cut off inside the header", want: badIPv6,
			frame: frame.Cut(frame.Build(frame.Ethernet{}, frame.VLAN{}, ip, syn(80)), 57)},
		{name: "behind a tag, cut off where the header begins", want: badIPv6,
			frame: frame.Cut(frame.Build(frame.Ethernet{}, frame.VLAN{}, ip, syn(80)), 18)},
		{name: "IPv4 under IPv6's EtherType", want: badIPv6, frame: frame.Build(frame.Ethernet{Type: frame.TypeIPv6},
			frame.IPv4{Src: worlds[0].peer, Dst: worlds[0].us}, syn(80), frame.Raw(make([]byte, 20)))},
	})
}

func TestIPv6ExtensionHeaders(t *testing.T) {
	w := worlds[1]
	build := func(port uint16, extensions ...frame.Layer) []byte {
		return w.in(append(extensions, syn(port))...)
	}
	hop := frame.Extension{Kind: frame.ProtoHopByHop}
	route := frame.Extension{Kind: frame.ProtoRouting, Words: 2}
	options := frame.Extension{Kind: frame.ProtoDestOptions}
	atomic := frame.Fragment{ID: 9}
	open := rule("80/tcp")
	cases := []arrival{
		{name: "hop-by-hop options", frame: build(80, hop), want: open},
		{name: "hop-by-hop options, closed port", frame: build(23, hop), want: closedPort},
		{name: "destination options", frame: build(80, options), want: open},
		{name: "a routing header", frame: build(80, route), want: open},
		{name: "an atomic fragment", frame: build(80, atomic), want: open},
		{name: "an atomic fragment, closed port", frame: build(23, atomic), want: closedPort},
		{name: "all of them in the order of the RFC", frame: build(80, hop, options, route, atomic, options), want: open},
		{name: "all of them in another order", frame: build(23, options, atomic, route, hop), want: closedPort},
		{name: "the longest there can be",
			frame: build(80, frame.Extension{Kind: frame.ProtoDestOptions, Words: 170}), want: open},
		{name: "one that is longer than the packet", want: badExtension,
			frame: build(80, frame.Extension{Kind: frame.ProtoDestOptions, Length: frame.Exactly(3)})},
		{name: "one that reaches to the last byte", want: badTransport,
			frame: w.in(frame.Extension{Kind: frame.ProtoDestOptions, Length: frame.Exactly(2),
				NextHeader: frame.Exactly(frame.ProtoTCP)}, frame.Raw(make([]byte, 16)))},
		{name: "one that the payload length cuts off", want: badExtension, frame: frame.Build(frame.Ethernet{},
			frame.IPv6{Src: w.peer, Dst: w.us, PayloadLength: frame.Exactly(7)}, hop, syn(80))},
		{name: "a second one that the payload length cuts off", want: badExtension, frame: frame.Build(frame.Ethernet{},
			frame.IPv6{Src: w.peer, Dst: w.us, PayloadLength: frame.Exactly(12)}, hop, options, syn(80))},
		{name: "one that is announced and not there", want: badExtension,
			frame: framed(w.number(w.peer, w.us, frame.ProtoHopByHop), nil)},
		{name: "the authentication header, whose inside netfilter does not match",
			frame: w.in(frame.Auth{}, syn(80)), want: protocol},
		{name: "the authentication header behind others", frame: w.in(hop, frame.Auth{}, syn(80)), want: protocol},
		{name: "no next header", frame: framed(w.number(w.peer, w.us, frame.ProtoNoNext), nil), want: protocol},
		{name: "no next header, and yet something behind it", frame: w.in(frame.Text("ignored")), want: protocol},
		{name: "no next header behind options", want: protocol,
			frame: w.in(frame.Extension{Kind: frame.ProtoDestOptions, NextHeader: frame.Exactly(frame.ProtoNoNext)})},
		{name: "IPv4's ICMP", frame: w.in(frame.ICMPv4{Type: frame.Echo}), want: protocol},
		{name: "a ping behind options", frame: w.in(options, frame.ICMPv6{Type: frame.Echo6, ID: 1}), want: icmpOpen},
		{name: "a neighbour solicitation behind options", want: discovery,
			frame: w.in(hop, frame.ICMPv6{Type: frame.NeighborSolicitation}, frame.Raw(make([]byte, 16)))},
	}
	for n := 0; n <= frame.MaxExtensions+2; n++ {
		var extensions []frame.Layer
		for range n {
			extensions = append(extensions, options)
		}
		to80, to23 := open, closedPort
		if n > frame.MaxExtensions {
			to80, to23 = badExtension, badExtension
		}
		cases = append(cases,
			arrival{name: fmt.Sprintf("%d headers before an open port", n), frame: build(80, extensions...), want: to80},
			arrival{name: fmt.Sprintf("%d headers before a closed port", n), frame: build(23, extensions...), want: to23})
	}
	arrive(t, load(t, testdp.Options{Policy: server}), cases)
}
