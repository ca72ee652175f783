// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"net/netip"
	"testing"

	"github.com/portcullis-firewall/portcullis/tests/internal/frame"
	"github.com/portcullis-firewall/portcullis/tests/internal/testdp"
)

// at is a frame from the peer to an address of this host.
func (w world) at(us netip.Addr, layers ...frame.Layer) []byte {
	return framed(w.ip(w.peer, us), layers)
}

// of is a packet from somebody in a protocol that has no ports, and sentOf one to him.
func (w world) of(protocol uint8, src netip.Addr) []byte {
	return framed(w.number(src, w.us, protocol), []frame.Layer{frame.Text("payload")})
}

func (w world) sentOf(protocol uint8, dst netip.Addr) []byte {
	return framed(w.number(w.us, dst, protocol), []frame.Layer{frame.Text("payload")})
}

func TestRulesOfInterfaces(t *testing.T) {
	const policy = `
open:
  - 80/tcp
  - 22/tcp on eth1
  - 5432/tcp on eth1,wg* from 203.0.113.0/24,2001:db8:ff::/48
  - 53/udp on wg*
icmp: {default: accept, eth1: drop}
`
	const database = "5432/tcp on eth1,wg* from 203.0.113.0/24,2001:db8:ff::/48"
	for iface, want := range map[string]struct{ web, ssh, database, stranger, dns, ping want }{
		"eth0": {rule("80/tcp"), closedPort, closedPort, closedPort, closedPort, icmpOpen},
		"eth1": {rule("80/tcp"), rule("22/tcp on eth1"), rule(database), wrongSource, closedPort, icmpClosed},
		"wg7":  {rule("80/tcp"), closedPort, rule(database), wrongSource, rule("53/udp on wg*"), icmpOpen},
	} {
		t.Run(iface, func(t *testing.T) {
			inBothUnder(t, testdp.Options{Policy: policy, Interface: iface}, func(w world) []arrival {
				return []arrival{
					{name: "a rule of all interfaces", frame: w.in(syn(80)), want: want.web},
					{name: "a rule of one interface", frame: w.in(syn(22)), want: want.ssh},
					{name: "a rule of several, from its source", frame: w.from(w.friend, syn(5432)), want: want.database},
					{name: "a rule of several, from another source", frame: w.in(syn(5432)), want: want.stranger},
					{name: "a rule of a pattern", frame: w.in(udp(53)), want: want.dns},
					{name: "a ping", frame: w.in(w.echo(7, 1)), want: want.ping},
				}
			})
		})
	}
}

func TestExceptions(t *testing.T) {
	const policy = `
open:
  - 22/tcp from 203.0.113.0/24,2001:db8:ff::/48 except 203.0.113.8/29,2001:db8:ff:8::/64
  - 22/tcp from 203.0.113.9,2001:db8:ff:8::9
  - 80/tcp except 203.0.113.0/24,2001:db8:ff::/48
`
	inBothUnder(t, testdp.Options{Policy: policy}, func(w world) []arrival {
		ssh, own := "22/tcp from 203.0.113.0/24,2001:db8:ff::/48 except 203.0.113.8/29,2001:db8:ff:8::/64", "22/tcp from 203.0.113.9,2001:db8:ff:8::9"
		web := "80/tcp except 203.0.113.0/24,2001:db8:ff::/48"
		excepted, named := addr("203.0.113.10"), addr("203.0.113.9")
		if w.family == 6 {
			excepted, named = addr("2001:db8:ff:8::10"), addr("2001:db8:ff:8::9")
		}
		return []arrival{
			{name: "a source", frame: w.from(w.friend, syn(22)), want: rule(ssh)},
			{name: "one that is excepted", frame: w.from(excepted, syn(22)), want: wrongSource},
			{name: "one that is excepted, and that another rule lets in", frame: w.from(named, syn(22)), want: rule(own)},
			{name: "anybody else", frame: w.from(w.stranger, syn(22)), want: wrongSource},
			{name: "anybody where some are excepted", frame: w.from(w.stranger, syn(80)), want: rule(web)},
			{name: "those that are", frame: w.from(w.friend, syn(80)), want: wrongSource},
			{name: "our answer to anybody begins no flow", before: []step{received(w.from(w.stranger, syn(80))),
				sent(framed(w.ip(w.us, w.stranger), []frame.Layer{frame.TCP{SrcPort: 80, DstPort: 9, Flags: frame.SYN | frame.ACK}}))},
				frame: w.from(w.stranger, syn(23)), want: closedPort},
		}
	})
}

func TestDestinations(t *testing.T) {
	const policy = `
open:
  - 22/tcp to 192.0.2.1,2001:db8::1
  - 443/tcp from 203.0.113.0/24,2001:db8:ff::/48 to 192.0.2.8,2001:db8::8
  - 443/tcp from 203.0.113.7,2001:db8:ff::7 to 192.0.2.9,2001:db8::9
  - 5353/udp to 224.0.0.251,ff02::fb
icmp: drop
`
	o := testdp.Options{Policy: policy}
	inBothUnder(t, o, func(w world) []arrival {
		second, third, group := addr("192.0.2.8"), addr("192.0.2.9"), addr("224.0.0.251")
		if w.family == 6 {
			second, third, group = addr("2001:db8::8"), addr("2001:db8::9"), addr("ff02::fb")
		}
		to := func(src, dst netip.Addr, layers ...frame.Layer) []byte { return framed(w.ip(src, dst), layers) }
		const ssh, mdns = "22/tcp to 192.0.2.1,2001:db8::1", "5353/udp to 224.0.0.251,ff02::fb"
		const all = "443/tcp from 203.0.113.0/24,2001:db8:ff::/48 to 192.0.2.8,2001:db8::8"
		const one = "443/tcp from 203.0.113.7,2001:db8:ff::7 to 192.0.2.9,2001:db8::9"
		return []arrival{
			{name: "the address", frame: w.in(syn(22)), want: rule(ssh)},
			{name: "another of ours", frame: w.at(second, syn(22)), want: wrongSource},
			{name: "a source, at the address for it", frame: to(w.friend.Next(), second, syn(443)), want: rule(all)},
			{name: "a source, at another address", frame: to(w.friend.Next(), third, syn(443)), want: wrongSource},
			{name: "a source of two rules, at the address of the one", frame: to(w.friend, second, syn(443)), want: rule(all)},
			{name: "a source of two rules, at that of the other", frame: to(w.friend, third, syn(443)), want: rule(one)},
			{name: "another source", frame: to(w.stranger, second, syn(443)), want: wrongSource},
			{name: "a group", frame: w.at(group, udp(5353)), want: rule(mdns)},
			{name: "this host, where a group is open", frame: w.in(udp(5353)), want: wrongSource},
			{name: "an answer to what left from the port, at another address", want: established,
				before: []step{sent(framed(w.ip(second, w.peer), []frame.Layer{frame.TCP{SrcPort: 22, DstPort: 9, Flags: frame.SYN}}))},
				frame:  w.at(second, frame.TCP{SrcPort: 9, DstPort: 22, Ack: 1, Flags: frame.SYN | frame.ACK})},
			{name: "an error about our answer", want: related,
				frame: w.in(w.unreachable(), w.ip(w.us, w.peer), frame.TCP{SrcPort: 22, DstPort: 9, Flags: frame.ACK})},
			{name: "an error about an answer from another address", want: noError,
				frame: framed(w.ip(w.peer, second), []frame.Layer{w.unreachable(), w.ip(second, w.peer), frame.TCP{SrcPort: 22, DstPort: 9, Flags: frame.ACK}})},
		}
	})
	// What comes in anyway begins no flow, and the rest does.
	for _, w := range worlds {
		d := load(t, o)
		r := &trial{Datapath: d, path: testdp.XDP}
		answer := frame.TCP{SrcPort: 22, DstPort: 9, Flags: frame.ACK}
		sent(w.out(answer))(t, r)
		if n := len(d.Flows(t)); n != 0 {
			t.Errorf("%s: an answer from the address of a rule began %d flows", w, n)
		}
		sent(framed(w.ip(w.us.Next(), w.peer), []frame.Layer{answer}))(t, r)
		if n := len(d.Flows(t)); n != 1 {
			t.Errorf("%s: a packet from another address began %d flows", w, n)
		}
	}
}

// noError is what becomes of an error about nothing of ours.
var noError = icmpClosed.of(noFlow)

func TestProtocols(t *testing.T) {
	const policy = `
open:
  - gre
  - esp from 203.0.113.0/24,2001:db8:ff::/48
  - proto/253 to 192.0.2.1,2001:db8::1
icmp: drop
`
	o := testdp.Options{Policy: policy}
	inBothUnder(t, o, func(w world) []arrival {
		const esp = "esp from 203.0.113.0/24,2001:db8:ff::/48"
		return []arrival{
			{name: "one that is open", frame: w.of(frame.ProtoGRE, w.stranger), want: rule("gre")},
			{name: "one that is open to some", frame: w.of(frame.ProtoESP, w.friend), want: rule(esp)},
			{name: "the same from others", frame: w.of(frame.ProtoESP, w.stranger), want: wrongSource},
			{name: "one that is open at an address", frame: w.of(253, w.stranger), want: rule("proto/253 to 192.0.2.1,2001:db8::1")},
			{name: "one that is not", frame: w.of(254, w.friend), want: protocol},
			{name: "an answer of one that is open to others", before: []step{sent(w.sentOf(frame.ProtoESP, w.stranger))},
				frame: w.of(frame.ProtoESP, w.stranger), want: established},
			{name: "an error about one that is open", want: related,
				frame: w.in(w.unreachable(), w.number(w.us, w.peer, frame.ProtoGRE), frame.Text("payload"))},
			{name: "an error about one that is open to others", want: noError,
				frame: w.in(w.unreachable(), w.number(w.us, w.peer, frame.ProtoESP), frame.Text("payload"))},
		}
	})
	for _, w := range worlds {
		d := load(t, o)
		r := &trial{Datapath: d, path: testdp.XDP}
		sent(w.sentOf(frame.ProtoGRE, w.stranger))(t, r)
		sent(w.sentOf(frame.ProtoESP, w.friend))(t, r)
		if n := len(d.Flows(t)); n != 0 {
			t.Errorf("%s: what comes in anyway began %d flows", w, n)
		}
	}
}

func TestAll(t *testing.T) {
	const policy = `
open:
  - all from 203.0.113.0/24,2001:db8:ff::/48
  - 80/tcp
icmp: drop
`
	inBothUnder(t, testdp.Options{Policy: policy}, func(w world) []arrival {
		all := rule("all from 203.0.113.0/24,2001:db8:ff::/48")
		sctp := frame.SCTP{SrcPort: 5, DstPort: 9, Chunk: 1}
		return []arrival{
			{name: "TCP", frame: w.from(w.friend, syn(9)), want: all},
			{name: "TCP port 0", frame: w.from(w.friend, syn(0)), want: all},
			{name: "UDP", frame: w.from(w.friend, udp(65535)), want: all},
			{name: "SCTP", frame: w.from(w.friend, sctp), want: all},
			{name: "ESP", frame: w.of(frame.ProtoESP, w.friend), want: all},
			{name: "protocol 0xff", frame: w.of(255, w.friend), want: all},
			{name: "a ping, which the policy of ICMP refuses", frame: w.from(w.friend, w.echo(7, 1)), want: all},
			{name: "the other family's ICMP", frame: w.of(map[int]uint8{4: frame.ProtoICMPv6, 6: frame.ProtoICMP}[w.family], w.friend), want: all},
			{name: "a port that is open anyway", frame: w.from(w.friend, syn(80)), want: rule("80/tcp")},
			{name: "an answer to nothing, which is told of", frame: w.from(w.friend, w.reply(7, 1)), want: all.of(noFlow)},
			{name: "TCP from others", frame: w.in(syn(9)), want: wrongSource},
			{name: "ESP from others", frame: w.of(frame.ProtoESP, w.stranger), want: wrongSource},
			{name: "a ping from others", frame: w.in(w.echo(7, 1)), want: icmpClosed},
			{name: "an answer to our ping of one of them",
				before: []step{sent(framed(w.ip(w.us, w.friend), []frame.Layer{w.echo(7, 1)}))},
				frame:  w.from(w.friend, w.reply(7, 1)), want: established},
		}
	})
}
