// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"fmt"
	"testing"
	"time"

	"github.com/portcullis-firewall/portcullis/tests/internal/frame"
	"github.com/portcullis-firewall/portcullis/tests/internal/testdp"
)

// Every type there is, under each policy, without anything that it could answer.
// begins tells whether a message of a type may come unasked, as netfilter sees it: a query, neighbour discovery.
func (w world) begins(kind uint8) bool {
	if w.family == 4 {
		return kind == 8 || kind == 13 || kind == 15 || kind == 17
	}
	return kind == 128 || kind >= 130 && kind <= 136 || kind == 139 || kind == 143 || kind == 151 || kind == 152
}

func TestICMPPolicy(t *testing.T) {
	anyway := map[uint8]bool{} // what IPv6 needs
	for _, kind := range []uint8{frame.ListenerQuery, frame.ListenerReport, frame.ListenerDone, frame.ListenerReport2,
		frame.RouterSolicitation, frame.RouterAdvertisement, frame.NeighborSolicitation, frame.NeighborAdvertisement, frame.Redirect6} {
		anyway[kind] = true
	}
	for _, p := range []struct {
		policy string
		four   func(kind int) bool
		six    func(kind int) bool
	}{
		{"icmp: accept", func(int) bool { return true }, func(int) bool { return true }},
		{"icmp: drop", func(int) bool { return false }, func(int) bool { return false }},
		{"icmp: [echo-request, time-exceeded, ipv4/255, ipv6/64]",
			func(kind int) bool { return kind == 8 || kind == 11 || kind == 255 },
			func(kind int) bool { return kind == 128 || kind == 3 || kind == 64 }},
	} {
		t.Run(p.policy, func(t *testing.T) {
			d := load(t, testdp.Options{Policy: p.policy})
			for _, w := range worlds {
				for _, path := range testdp.Ingress {
					t.Run(fmt.Sprintf("%s/%s", w, path), func(t *testing.T) {
						r := &trial{Datapath: d, path: path}
						for kind := range 256 {
							accepted, answer := p.four, icmpClosed
							if w.family == 6 {
								accepted = p.six
							}
							if accepted(kind) {
								answer = icmpOpen
							}
							if w.family == 6 && anyway[uint8(kind)] {
								answer = discovery
							}
							if !w.begins(uint8(kind)) {
								answer.kind = noFlow
							}
							r.expect(t, w.in(w.icmp(uint8(kind), uint8(kind), 1, 1), frame.Raw(make([]byte, 20))), answer)
							if t.Failed() {
								t.Fatalf("type %d", kind)
							}
						}
					})
				}
			}
		})
	}
}

func TestPings(t *testing.T) {
	inBothUnder(t, testdp.Options{Policy: "icmp: drop"}, func(w world) []arrival {
		asked := []step{sent(w.out(w.echo(7, 1)))}
		group := addr("224.0.0.1")
		if w.family == 6 {
			group = addr("ff02::1")
		}
		return []arrival{
			{name: "the reply", before: asked, frame: w.in(w.reply(7, 1)), want: established},
			{name: "the reply to another sequence number", before: asked, frame: w.in(w.reply(7, 99)), want: established},
			{name: "a reply of another identifier", before: asked, frame: w.in(w.reply(8, 1)), want: icmpClosed.of(noFlow)},
			{name: "a reply from another address", before: asked,
				frame: w.from(w.stranger, w.reply(7, 1)), want: icmpClosed.of(noFlow)},
			{name: "a reply that nobody asked for", frame: w.in(w.reply(7, 1)), want: icmpClosed.of(noFlow)},
			{name: "a reply of identifier 0 that nobody asked for", frame: w.in(w.reply(0, 0)), want: icmpClosed.of(noFlow)},
			{name: "a reply that comes too late", before: after(asked, waited(31*time.Second)),
				frame: w.in(w.reply(7, 1)), want: icmpClosed.of(noFlow)},
			{name: "a ping of theirs with our identifier", before: asked, frame: w.in(w.echo(7, 1)), want: icmpClosed},
			{name: "a reply after their ping", before: []step{refused(w.in(w.echo(7, 1))), sent(w.out(w.reply(7, 1)))},
				frame: w.in(w.reply(7, 1)), want: icmpClosed.of(noFlow)},
			{name: "the reply of one host to a ping of all", frame: w.in(w.reply(7, 1)), want: icmpClosed.of(noFlow),
				before: []step{sent(framed(w.ip(w.us, group), []frame.Layer{w.echo(7, 1)}))}},
			{name: "a truncated message",
				frame: framed(w.number(w.peer, w.us, w.icmpProtocol()), []frame.Layer{frame.Raw{8, 0, 0, 0}}), want: icmpClosed.of(badHeader)},
			{name: "an empty message", frame: framed(w.number(w.peer, w.us, w.icmpProtocol()), nil), want: icmpClosed.of(badHeader)},
		}
	})
}

// Case 27.
func TestPingsToManyHosts(t *testing.T) {
	inBoth(t, func(w world) []arrival {
		group, everybody := addr("224.0.0.1"), addr("255.255.255.255")
		if w.family == 6 {
			group, everybody = addr("ff02::1"), addr("ff05::1")
		}
		return []arrival{
			{name: "to all hosts of the link",
				frame: framed(w.ip(w.peer, group), []frame.Layer{w.echo(1, 1)}), want: icmpOpen},
			{name: "to everybody", frame: framed(w.ip(w.peer, everybody), []frame.Layer{w.echo(1, 1)}), want: icmpOpen},
		}
	})
}

func TestOtherICMPQueries(t *testing.T) {
	w := worlds[0]
	var cases []arrival
	for _, q := range []struct {
		name         string
		query, reply uint8
	}{
		{"timestamp", frame.Timestamp, frame.TimestampReply},
		{"information", frame.InformationRequest, frame.InformationReply},
		{"address mask", frame.MaskRequest, frame.MaskReply},
	} {
		ask := []step{sent(w.out(frame.ICMPv4{Type: q.query, ID: 7}))}
		cases = append(cases,
			arrival{name: q.name + " answered", before: ask,
				frame: w.in(frame.ICMPv4{Type: q.reply, ID: 7}), want: established},
			arrival{name: q.name + " answered as something else", before: ask,
				frame: w.in(frame.ICMPv4{Type: frame.EchoReply, ID: 7}), want: icmpClosed.of(noFlow)},
			arrival{name: q.name + " not asked for", frame: w.in(frame.ICMPv4{Type: q.reply, ID: 7}), want: icmpClosed.of(noFlow)})
	}
	arrive(t, load(t, testdp.Options{Policy: "icmp: drop"}), cases)
}

// Case 58.
func TestIPv6WorksWhateverThePolicySays(t *testing.T) {
	w := worlds[1]
	unspecified := addr("::")
	target := frame.Raw(make([]byte, 16))
	solicited := addr("ff02::1:ff00:1")
	arrive(t, load(t, testdp.Options{Policy: "icmp: drop"}), []arrival{
		{name: "a neighbour solicitation", want: discovery,
			frame: frame.Build(frame.Ethernet{Dst: frame.MAC{0x33, 0x33, 0xff, 0, 0, 1}}, frame.IPv6{Src: w.peer, Dst: solicited, HopLimit: 255},
				frame.ICMPv6{Type: frame.NeighborSolicitation}, target)},
		{name: "a neighbour solicitation from afar, which the stack drops",
			frame: w.in(frame.ICMPv6{Type: frame.NeighborSolicitation}, target), want: discovery},
		{name: "duplicate address detection", want: discovery,
			frame: framed(frame.IPv6{Src: unspecified, Dst: solicited, HopLimit: 255}, []frame.Layer{frame.ICMPv6{Type: frame.NeighborSolicitation}, target})},
		{name: "a neighbour advertisement",
			frame: w.in(frame.ICMPv6{Type: frame.NeighborAdvertisement}, target), want: discovery},
		{name: "a router advertisement",
			frame: w.in(frame.ICMPv6{Type: frame.RouterAdvertisement}, target), want: discovery},
		{name: "a multicast listener query behind hop-by-hop options", want: discovery,
			frame: w.in(frame.Extension{Kind: frame.ProtoHopByHop}, frame.ICMPv6{Type: frame.ListenerQuery}, target)},
		{name: "their numbers in IPv4",
			frame: worlds[0].in(frame.ICMPv4{Type: frame.NeighborSolicitation}, target), want: icmpClosed.of(noFlow)},
		{name: "ICMPv6 over IPv4", want: protocol,
			frame: worlds[0].in(frame.ICMPv6{Type: frame.NeighborSolicitation}, target)},
	})
}
