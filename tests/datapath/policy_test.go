// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"testing"
	"time"

	"github.com/portcullis-firewall/portcullis/tests/internal/frame"
	"github.com/portcullis-firewall/portcullis/tests/internal/testdp"
)

// What netfilter calls INVALID, by the three policies. Malformed packets are dropped by all.
func TestInvalidPolicies(t *testing.T) {
	for _, p := range []struct {
		policy                   string
		toOpen, toClosed, strays want
	}{
		{"invalid: log", rule("80/tcp"), invalid, invalid},
		{"invalid: drop", invalid, invalid, invalid},
		{"invalid: accept", invalidOpen, invalidOpen, invalidOpen},
	} {
		t.Run(p.policy, func(t *testing.T) {
			inBothUnder(t, testdp.Options{Policy: "open: [80/tcp, 53/udp]\nicmp: drop\n" + p.policy}, func(w world) []arrival {
				xmas := func(port uint16) []byte {
					return w.in(frame.TCP{SrcPort: 5, DstPort: port, Flags: frame.FIN | frame.URG | frame.PSH})
				}
				offset := func(port uint16) []byte {
					return w.in(frame.TCP{SrcPort: 5, DstPort: port, Flags: frame.SYN, DataOffset: frame.Exactly(4)})
				}
				length := func(port uint16) []byte {
					return w.in(frame.UDP{SrcPort: 5, DstPort: port, Length: frame.Exactly(7)})
				}
				udpOpen := p.toOpen
				if udpOpen.rule != "" {
					udpOpen = rule("53/udp")
				}
				// The table is not asked about a SYN that can meet none of ours, unless that would let it in.
				oldSYN := closedPort
				if p.strays.passes {
					oldSYN = p.strays.of(wrongState)
				}
				return []arrival{
					{name: "a SYN within a flow", before: w.connected(), frame: w.tcpIn(segment{flags: frame.SYN, seq: 1}), want: p.strays.of(wrongState)},
					{name: "a SYN within an old flow", before: after(w.connected(), waited(10*time.Minute)),
						frame: w.tcpIn(segment{flags: frame.SYN, seq: 1}), want: oldSYN},
					{name: "impossible flags to an open port", frame: xmas(80), want: p.toOpen.of(impossible)},
					{name: "impossible flags to a closed port", frame: xmas(23), want: p.toClosed.of(impossible)},
					{name: "a data offset of 4 to an open port", frame: offset(80), want: p.toOpen.of(badHeader)},
					{name: "a data offset of 4 to a closed port", frame: offset(23), want: p.toClosed.of(badHeader)},
					{name: "a UDP length of 7 to an open port", frame: length(53), want: udpOpen.of(wrongLength)},
					{name: "a UDP length of 7 to a closed port", frame: length(54), want: p.toClosed.of(wrongLength)},
					{name: "a stray SYN-ACK", frame: w.tcpIn(theirSA), want: p.strays.of(wrongState)},
					{name: "a stray RST", frame: w.tcpIn(theirRST), want: p.strays.of(wrongState)},
					{name: "a stray FIN", frame: w.tcpIn(theirFIN), want: p.strays.of(wrongState)},
					{name: "a stray RST to an open port",
						frame: w.in(frame.TCP{DstPort: 80, Flags: frame.RST}), want: rule("80/tcp")},
					{name: "a stray ACK, which is new", frame: w.tcpIn(theirACK), want: closedPort},
					{name: "a SYN to an open port", frame: w.in(syn(80)), want: rule("80/tcp")},
					{name: "a SYN to a closed port", frame: w.in(syn(23)), want: closedPort},
					{name: "an answer", before: w.asked(), frame: w.tcpIn(theirSA), want: established},
					{name: "a FIN for our SYN", before: w.asked(), frame: w.tcpIn(theirFIN), want: p.strays.of(wrongState)},
					{name: "something malformed",
						frame: frame.With(w.in(syn(80)), frame.EthernetLen, 0), want: map[int]want{4: badIPv4, 6: badIPv6}[w.family]},
				}
			})
		})
	}
}

func TestInputAccept(t *testing.T) {
	const policy = "input: accept\nicmp: drop\nopen: [80/tcp, '22/tcp from 203.0.113.0/24, 2001:db8:ff::/48']\n"
	inBothUnder(t, testdp.Options{Policy: policy}, func(w world) []arrival {
		server := func(flags uint8) []byte { return w.in(frame.TCP{SrcPort: 50000, DstPort: 8080, Flags: flags}) }
		return []arrival{
			{name: "a SYN to an open port counts under its rule", frame: w.in(syn(80)), want: rule("80/tcp")},
			{name: "a SYN to another port", frame: w.in(syn(23)), want: inputOpen},
			{name: "a SYN to a port that is restricted to others", frame: w.in(syn(22)), want: inputOpen},
			{name: "UDP", frame: w.in(udp(9)), want: inputOpen},
			{name: "data", frame: server(frame.ACK | frame.PSH), want: inputOpen},
			{name: "the FIN of a client that has only connected", want: inputOpen, frame: server(frame.FIN | frame.ACK),
				before: []step{received(server(frame.SYN)), sent(w.out(frame.TCP{SrcPort: 8080, DstPort: 50000, Flags: frame.SYN | frame.ACK})), received(server(frame.ACK))}},
			{name: "the RST of a client that has only connected", want: inputOpen, frame: server(frame.RST),
				before: []step{received(server(frame.SYN)), sent(w.out(frame.TCP{SrcPort: 8080, DstPort: 50000, Flags: frame.SYN | frame.ACK})), received(server(frame.ACK))}},
			{name: "impossible flags, which are logged only",
				frame: server(frame.FIN | frame.URG | frame.PSH), want: inputOpen.of(impossible)},
			{name: "ESP", frame: framed(w.number(w.peer, w.us, frame.ProtoESP), nil), want: inputOpen},
			{name: "a ping", frame: w.in(w.echo(7, 1)), want: inputOpen},
			{name: "an answer", before: w.asked(), frame: w.tcpIn(theirSA), want: established},
			{name: "something malformed",
				frame: frame.With(w.in(syn(80)), frame.EthernetLen, 0), want: map[int]want{4: badIPv4, 6: badIPv6}[w.family]},
		}
	})
}

func TestInputAcceptWithInvalidDrop(t *testing.T) {
	inBothUnder(t, testdp.Options{Policy: "input: accept\ninvalid: drop\n"}, func(w world) []arrival {
		in := func(flags uint8) []byte { return w.in(frame.TCP{SrcPort: 50000, DstPort: 8080, Flags: flags}) }
		return []arrival{
			{name: "a SYN", frame: in(frame.SYN), want: inputOpen},
			{name: "a FIN", frame: in(frame.FIN | frame.ACK), want: inputOpen},
			{name: "impossible flags", frame: in(frame.FIN | frame.URG | frame.PSH), want: invalid.of(impossible)},
			{name: "a UDP length of 7",
				frame: w.in(frame.UDP{SrcPort: 5, DstPort: 9, Length: frame.Exactly(7)}), want: invalid.of(wrongLength)},
		}
	})
}

// A device without link headers, such as tun or wireguard, begins its frames with the IP header.
func TestDevicesWithoutEthernet(t *testing.T) {
	d := load(t, testdp.Options{Policy: server, L3: true})
	for _, w := range worlds {
		// The test run of TC takes the first bytes for an Ethernet header; the multicast bit makes them one for this host.
		ip := func() frame.Layer {
			if w.family == 4 {
				return frame.IPv4{Src: w.peer, Dst: w.us}
			}
			return frame.IPv6{Src: w.peer, Dst: w.us, TrafficClass: 0x10}
		}
		in := func(layers ...frame.Layer) []byte {
			return frame.Build(append([]frame.Layer{ip()}, layers...)...)
		}
		bad := badIPv4
		if w.family == 6 {
			bad = badIPv6
		}
		t.Run(w.String(), func(t *testing.T) {
			arrive(t, d, []arrival{
				{name: "a SYN to an open port", frame: in(syn(80)), want: rule("80/tcp")},
				{name: "a SYN to a closed port", frame: in(syn(23)), want: closedPort},
				{name: "a ping", frame: in(w.echo(7, 1)), want: icmpOpen},
				{name: "an answer", before: []step{sent(w.tcpOut(ourSYN)[frame.EthernetLen:])}, want: established,
					frame: in(frame.TCP{SrcPort: 443, DstPort: 40000, Flags: frame.SYN | frame.ACK})},
				{name: "an error about an answer", want: related,
					frame: in(w.unreachable(), w.ip(w.us, w.peer), frame.TCP{SrcPort: 80, DstPort: 5, Flags: frame.ACK})},
				{name: "an Ethernet header where none should be",
					frame: frame.Padded(frame.With(in(syn(80)), 0, 0x15), 20), want: badIPv4},
				{name: "cut off inside the header", frame: frame.Cut(in(syn(80)), 19), want: bad},
			})
		})
	}
}
