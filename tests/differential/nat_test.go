// SPDX-License-Identifier: Apache-2.0

package differential

import (
	"slices"
	"strings"
	"testing"

	"github.com/portcullis-firewall/portcullis/tests/internal/frame"
)

// What Docker sets up: hosts inside go out under our address, and ports of ours are published for one of them.
const docker = `
	table ip nat {
		chain pre {
			type nat hook prerouting priority dstnat;
			fib daddr type local tcp dport { 8080, 8081 } dnat to 198.51.100.2:80
			fib daddr type local udp dport { 5353, 5354 } dnat to 198.51.100.2:53
		}
		chain post {
			type nat hook postrouting priority srcnat;
			ip saddr 198.51.100.0/24 oifname "eth0" masquerade
		}
	}
	table ip6 nat {
		chain pre {
			type nat hook prerouting priority dstnat;
			fib daddr type local tcp dport { 8080, 8081 } dnat to [2001:db8:1::2]:80
			fib daddr type local udp dport { 5353, 5354 } dnat to [2001:db8:1::2]:53
		}
		chain post {
			type nat hook postrouting priority srcnat;
			ip6 saddr 2001:db8:1::/64 oifname "eth0" masquerade
		}
	}
`

// withNAT is a world in which two of the published ports are open.
func withNAT(w world, through ...string) world {
	w.name += ", with NAT"
	w.nft = docker
	// So that IPv6 takes the first address to go out under.
	w.before = "addr change 2001:db8::10/64 dev eth0 preferred_lft 0"
	w.rules = append(slices.Clone(noICMP.rules), "-p tcp --dport 8080 -j ACCEPT", "-p udp --dport 5353 -j ACCEPT")
	w.through = append(slices.Clone(w.through), through...)
	w.policy += "icmp: drop\nopen: [80/tcp, 8080/tcp, 5353/udp]\n"
	return w
}

var (
	natDrop = withNAT(world{name: "forward: drop", forwarding: true, policy: "forward: drop\n"})
	// Docker lets in what it has published.
	natEstablished = withNAT(world{name: "forward: established", forwarding: true, policy: "forward: established\n",
		through: outward}, "-i eth0 -m conntrack --ctstate DNAT -j ACCEPT")
	natLiberal = withNAT(world{name: "random sequences", forwarding: true, policy: "forward: established\n",
		through: outward, sysctls: liberal.sysctls, flows: liberal.flows, random: true})
	natAccept = withNAT(world{name: "forward: accept", forwarding: true, policy: "forward: accept\n", forward: "ACCEPT"})
)

// behindNAT is this host where another one, behind it, sends what goes out.
func (h hosts) behindNAT() hosts {
	h.masked = true
	return h
}

// masqueraded is a case of the server in which the host inside sends what goes out.
func (c testCase) masqueraded(w *world) testCase {
	played := c.steps
	c.steps = func(h hosts) []step {
		steps := played(h.behindNAT())
		for i, s := range steps {
			steps[i].differs = s.differs.masqueraded(w)
			if w == &natEstablished && strings.HasSuffix(s.name, "for the peer") {
				steps[i].differs = aboutAnswer
			}
			if strings.Contains(s.name, "UDPLite") { // whose checksum netfilter takes for wrong: it got no other address
				steps[i].differs = nil
			}
		}
		return steps
	}
	return c
}

// masqueraded is a difference where the flow is of a host inside. What conntrack takes for invalid gets no address of
// that host, and comes to this one.
func (d *difference) masqueraded(w *world) *difference {
	flows := []*difference{window, checksum, reset, lateData, timeWait, reused, behindAH}
	switch {
	case w == &natDrop && slices.Contains(flows, d): // there are none
		return nil
	case d == timeWait: // conntrack has not seen the SYN that was dropped
		return &difference{row: d.row, netfilter: drop, ours: forwarded}
	}
	return d
}

// natCases are about published ports.
func natCases(w *world) []testCase {
	var opened, ended, closed *difference
	if w == &natDrop {
		opened = &difference{row: published.row, netfilter: drop, ours: forwarded}
		ended = &difference{row: published.row, netfilter: input, ours: forwarded} // to netfilter there is no connection
	} else {
		closed = published
	}
	return []testCase{
		{name: "a published port that is open", steps: func(h hosts) []step {
			f := flow{h, 8080, 40000}
			inside := func(flags uint8, seq, ack uint32, data ...frame.Layer) step {
				tcp := frame.TCP{SrcPort: 80, DstPort: f.remote, Flags: flags, Seq: seq, Ack: ack}
				return fromInside(packet(h.inside, h.peer, append([]frame.Layer{tcp}, data...)...))
			}
			about := quote(h.us, h.peer, 20, frame.TCP{SrcPort: 8080, DstPort: 40000, Flags: frame.ACK, Seq: 1001, Ack: 5001})
			return []step{
				f.tcpIn(frame.SYN, 5000, 0).but(opened),
				inside(frame.SYN|frame.ACK, 1000, 5001).but(opened),
				f.tcpIn(frame.ACK, 5001, 1001).but(opened),
				f.tcpIn(dataFlags, 5001, 1001, frame.Text("question")).but(opened),
				inside(dataFlags, 1001, 5009, frame.Text("answer")).but(opened),
				packet(h.other, h.us, h.unreachable(), about).but(opened),
				f.tcpIn(frame.FIN|frame.ACK, 5009, 1007).but(ended),
				inside(frame.FIN|frame.ACK, 1007, 5010).but(opened),
				f.tcpIn(frame.ACK, 5010, 1008).but(opened),
				inside(frame.RST, 1008, 0).but(opened),
			}
		}},
		{name: "a published port that is open, over UDP", steps: func(h hosts) []step {
			answer := fromInside(packet(h.inside, h.peer, frame.UDP{SrcPort: 53, DstPort: 40000}, frame.Text("answer"))).but(opened)
			return []step{
				flow{h, 5353, 40000}.udpIn().but(opened), answer,
				flow{h, 5353, 40000}.udpIn().but(opened), answer,
			}
		}},
		{name: "published ports that are not open", steps: func(h hosts) []step {
			return []step{
				flow{h, 8081, 40000}.tcpIn(frame.SYN, 5000, 0).but(closed),
				flow{h, 5354, 40000}.udpIn().but(closed),
				packet(h.peer, h.second, frame.TCP{SrcPort: 40000, DstPort: 8081, Flags: frame.SYN}).but(closed),
			}
		}},
		{name: "past the published ports", steps: func(h hosts) []step {
			return []step{
				packet(h.peer, h.inside, frame.TCP{SrcPort: 40000, DstPort: 80, Flags: frame.SYN}),
				packet(h.peer, h.inside, frame.UDP{SrcPort: 40000, DstPort: 53}),
				flow{h, 8080, 40001}.tcpIn(frame.FIN, 5000, 0).as("tracked by nobody"),
				flow{h, 8082, 40001}.tcpIn(frame.SYN, 5000, 0).as("not published"),
			}
		}},
		{name: "this host's own flows beside those inside", steps: func(h hosts) []step {
			f, g := flow{h, 40000, 443}, flow{h, 40001, 443}
			g.masked = true
			return []step{f.udpOut(), f.udpIn(), g.udpIn(), g.udpOut(), g.udpIn(), f.udpIn(), f.out(f.echo(7, 1)), g.out(g.echo(8, 1)),
				f.in(f.echoReply(7, 1)), f.in(f.echoReply(8, 1)), f.in(f.echoReply(9, 1))}
		}},
	}
}

func TestNAT(t *testing.T) {
	for _, w := range []*world{&natDrop, &natEstablished, &natAccept} {
		var chosen []testCase
		for _, c := range cases {
			if c.isRouted() {
				chosen = append(chosen, c.masqueraded(w))
			}
		}
		t.Run(w.name, func(t *testing.T) { w.mustAgree(t, "NAT", append(chosen, natCases(w)...)) })
	}
}
