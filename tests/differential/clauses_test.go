// SPDX-License-Identifier: Apache-2.0

package differential

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/portcullis-firewall/portcullis/tests/internal/frame"
)

// Rules with the clauses of a rule: for some interfaces, sources, destinations and protocols.
var clauses = world{
	name:  "clauses",
	rules: []string{established, "-p tcp --dport 80 -j ACCEPT", "-p gre -j ACCEPT", "-p 253 -j ACCEPT"},
	own4: []string{
		"-p tcp --dport 5003 -s 192.0.2.3 -j DROP", "-p tcp --dport 5003 -s 192.0.2.0/29 -j ACCEPT",
		"-p tcp --dport 5004 ! -s 192.0.2.2 -j ACCEPT",
		"-p tcp --dport 5005 -d 192.0.2.10 -j ACCEPT", "-p udp --dport 5353 -d 224.0.0.1 -j ACCEPT",
		"-p tcp --dport 5006 -s 192.0.2.2 -d 192.0.2.10 -j ACCEPT", "-p tcp --dport 5006 -s 192.0.2.3 -j ACCEPT",
		"-p esp -s 192.0.2.2 -j ACCEPT", "-p vrrp -d 224.0.0.1 -j ACCEPT", "-s 192.0.2.4 -j ACCEPT",
	},
	own6: []string{
		"-p tcp --dport 5003 -s 2001:db8::3 -j DROP", "-p tcp --dport 5003 -s 2001:db8::/125 -j ACCEPT",
		"-p tcp --dport 5004 ! -s 2001:db8::2 -j ACCEPT",
		"-p tcp --dport 5005 -d 2001:db8::10 -j ACCEPT", "-p udp --dport 5353 -d ff02::1 -j ACCEPT",
		"-p tcp --dport 5006 -s 2001:db8::2 -d 2001:db8::10 -j ACCEPT", "-p tcp --dport 5006 -s 2001:db8::3 -j ACCEPT",
		"-p esp -s 2001:db8::2 -j ACCEPT", "-p vrrp -d ff02::1 -j ACCEPT", "-s 2001:db8::4 -j ACCEPT",
	},
	anywhere: []string{
		"-i eth0 -p tcp --dport 5000 -j ACCEPT", "-i eth1 -p tcp --dport 5001 -j ACCEPT", "-i eth+ -p tcp --dport 5002 -j ACCEPT",
	},
	policy: `
open:
  - 80/tcp
  - gre
  - proto/253
  - 5000/tcp on eth0
  - 5001/tcp on eth1
  - 5002/tcp on eth*
  - 5003/tcp from 192.0.2.0/29,2001:db8::/125 except 192.0.2.3,2001:db8::3
  - 5004/tcp except 192.0.2.2,2001:db8::2
  - 5005/tcp to 192.0.2.10,2001:db8::10
  - 5353/udp to 224.0.0.1,ff02::1
  - 5006/tcp from 192.0.2.2,2001:db8::2 to 192.0.2.10,2001:db8::10
  - 5006/tcp from 192.0.2.3,2001:db8::3
  - esp from 192.0.2.2,2001:db8::2
  - vrrp to 224.0.0.1,ff02::1
  - all from 192.0.2.4,2001:db8::4
icmp: drop
`,
}

// trusted may send anything, and group is one that every host is in.
func (h hosts) trusted() netip.Addr {
	if h.six {
		return netip.MustParseAddr("2001:db8::4")
	}
	return netip.MustParseAddr("192.0.2.4")
}

func (h hosts) group() netip.Addr {
	if h.six {
		return netip.MustParseAddr("ff02::1")
	}
	return netip.MustParseAddr("224.0.0.1")
}

// syn is a SYN from a port that nothing else uses.
func syn(src, dst netip.Addr, port uint16, number int) step {
	return packet(src, dst, frame.TCP{SrcPort: 30000 + uint16(number), DstPort: port, Flags: frame.SYN}).as(fmt.Sprint(number))
}

var clauseCases = []testCase{
	{61, "interfaces", nil, 0, func(h hosts) (steps []step) {
		for i, port := range []uint16{80, 5000, 5001, 5002, 5007} {
			steps = append(steps, syn(h.peer, h.us, port, i))
		}
		return steps
	}},
	{62, "exceptions, and destinations", nil, 0, func(h hosts) (steps []step) {
		for _, src := range []netip.Addr{h.peer, h.other, h.trusted()} {
			for _, dst := range []netip.Addr{h.us, h.second} {
				for i, port := range []uint16{5003, 5004, 5005, 5006, 22} {
					steps = append(steps, syn(src, dst, port, i))
				}
			}
			steps = append(steps,
				packet(src, h.group(), frame.UDP{SrcPort: 30000, DstPort: 5353}),
				packet(src, h.us, frame.UDP{SrcPort: 30000, DstPort: 5353}))
		}
		return steps
	}},
	{63, "protocols", nil, 0, func(h hosts) (steps []step) {
		body := frame.Raw{0, 0, 8, 0, 0, 0, 0, 1, 1, 2, 3, 4, 5, 6, 7, 8}
		for _, protocol := range []uint8{frame.ProtoGRE, frame.ProtoESP, frame.ProtoIPIP, frame.ProtoVRRP, 253, 254} {
			for _, src := range []netip.Addr{h.peer, h.other, h.trusted()} {
				for _, dst := range []netip.Addr{h.us, h.group()} {
					steps = append(steps, whole(fmt.Sprintf("protocol %d, %s > %s", protocol, src, dst),
						frame.Build(ethernet(dst), ipOf(src, dst, protocol), body)))
				}
			}
			steps = append(steps,
				sent(whole(fmt.Sprintf("protocol %d", protocol), frame.Build(ethernet(h.other), ipOf(h.us, h.other, protocol), body))),
				whole(fmt.Sprintf("protocol %d, after ours", protocol), frame.Build(ethernet(h.us), ipOf(h.other, h.us, protocol), body)))
		}
		return steps
	}},
	{64, "everything from one host", nil, 0, func(h hosts) (steps []step) {
		for _, src := range []netip.Addr{h.trusted(), h.peer} {
			steps = append(steps, syn(src, h.us, 22, 1),
				packet(src, h.us, frame.TCP{SrcPort: 30002, DstPort: 9, Flags: frame.ACK}),
				packet(src, h.us, frame.UDP{SrcPort: 30003, DstPort: 9}),
				packet(src, h.us, frame.SCTP{SrcPort: 30004, DstPort: 9, Chunk: frame.ChunkInit}),
				packet(src, h.us, h.echo(7, 1)))
		}
		return steps
	}},
	{65, "errors about what is open to some", nil, 0, func(h hosts) (steps []step) {
		// Of a connection that netfilter has tracked.
		answer := frame.TCP{SrcPort: 5005, DstPort: 30000, Flags: frame.SYN | frame.ACK, Ack: 1}
		return []step{
			syn(h.peer, h.second, 5005, 0),
			sent(packet(h.second, h.peer, answer)),
			packet(h.peer, h.second, h.unreachable(), ip(h.second, h.peer), answer),
			packet(h.peer, h.us, h.unreachable(), ip(h.us, h.peer), answer).as("from another address"),
		}
	}},
}

func TestClauses(t *testing.T) { clauses.mustAgree(t, "clauses", clauseCases) }

// limit is a rule with a limit, as netfilter has it. For IPv6 a network of 64 bits is one source.
func limit(match string, port int, rate string, burst int, family string) string {
	mask := map[string]string{"4": "32", "6": "64"}[family]
	return fmt.Sprintf("%s --dport %d -m state --state NEW -m hashlimit --hashlimit-upto %s --hashlimit-burst %d "+
		"--hashlimit-mode srcip --hashlimit-srcmask %s --hashlimit-name p%d-%d -j ACCEPT", match, port, rate, burst, mask, port, burst)
}

func limits(family string) []string {
	return []string{
		limit("-p tcp", 5010, "6/minute", 3, family),
		limit("-p udp", 5012, "20/hour", 4, family),
		limit("-p tcp", 5013, "20/hour", 5, family),
		limit("-p tcp", 5014, "10/minute", 2, family), limit("-p tcp", 5014, "5/minute", 1, family),
		limit("-p udp", 5016, "6/minute", 1, family),
		limit("-p tcp", 5017, "6/minute", 1, family),
	}
}

var limited = world{
	name:  "limits",
	rules: []string{established},
	// Whom a rule without a limit lets in is not counted by the others.
	own4: append([]string{"-p tcp --dport 5013 -s 192.0.2.3 -j ACCEPT"}, limits("4")...),
	own6: append([]string{"-p tcp --dport 5013 -s 2001:db8::3 -j ACCEPT"}, limits("6")...),
	policy: `
open:
  - 5010/tcp limit 6/minute burst 3
  - 5012/udp limit 20/hour burst 4
  - 5013/tcp limit 20/hour burst 5
  - 5013/tcp from 192.0.2.3,2001:db8::3
  - 5014/tcp limit 10/minute burst 2
  - 5014/tcp limit 5/minute burst 1
  - 5016/udp limit 6/minute burst 1
  - 5017/tcp limit 6/minute burst 1
icmp: drop
`,
}

var limitCases = []testCase{
	{66, "a burst, and another source", nil, 0, func(h hosts) (steps []step) {
		far := netip.MustParseAddr("198.51.100.1")
		if h.six {
			far = netip.MustParseAddr("2001:db8:7::1")
		}
		for i := range 6 {
			steps = append(steps, syn(h.peer, h.us, 5010, i))
		}
		for i := range 5 {
			steps = append(steps, syn(h.other, h.us, 5010, i))
		}
		for i := range 5 {
			steps = append(steps, syn(far, h.us, 5010, i))
		}
		return steps
	}},
	{68, "datagrams", nil, 0, func(h hosts) (steps []step) {
		for i := range 6 {
			steps = append(steps, h.in(frame.UDP{SrcPort: 30000 + uint16(i), DstPort: 5012}))
		}
		return steps
	}},
	{69, "no limit for some", nil, 0, func(h hosts) (steps []step) {
		for i := range 8 {
			steps = append(steps, syn(h.other, h.us, 5013, i), syn(h.peer, h.us, 5013, i))
		}
		return steps
	}},
	{70, "two limits", nil, 0, func(h hosts) []step {
		return []step{
			syn(h.peer, h.us, 5014, 0), syn(h.peer, h.us, 5014, 1),
			syn(h.peer, h.us, 5014, 2).but(secondLimit), syn(h.peer, h.us, 5014, 3),
		}
	}},
	{71, "what belongs to a connection", nil, 0, func(h hosts) []step {
		question := frame.UDP{SrcPort: 30000, DstPort: 5016}
		return []step{
			h.in(question), h.in(question).as("again"),
			h.out(frame.UDP{SrcPort: 5016, DstPort: 30000}),
			h.in(question).as("after the answer").but(limitedUDP),
			syn(h.peer, h.us, 5017, 0), syn(h.peer, h.us, 5017, 1),
			h.in(frame.TCP{SrcPort: 30002, DstPort: 5017, Flags: frame.ACK}).but(limitedACK),
		}
	}},
}

// laterCases are played between one and two intervals of a limit after limitCases.
var laterCases = []testCase{
	{67, "after a pause", nil, 0, func(h hosts) []step {
		return []step{
			syn(h.peer, h.us, 5010, 10), syn(h.peer, h.us, 5010, 11), syn(h.peer, h.us, 5010, 12),
			syn(h.peer, h.us, 5017, 10), syn(h.peer, h.us, 5017, 11),
		}
	}},
}

func TestLimits(t *testing.T) {
	const interval = 10 * time.Second // of 6/minute
	sides := limited.sides(t, modes)
	first := differ(t, sides, limitCases)
	time.Sleep(interval + interval/10)
	start := time.Now()
	for m, byFamily := range differ(t, sides, laterCases) {
		for f := range byFamily {
			byFamily[f].add(&first[m][f])
			byFamily[f].report(t, "limits", modes[m], families[f])
		}
	}
	if took := time.Since(start); took > interval/2 {
		t.Logf("the last packets took %s, which may be another interval", took)
	}
}
