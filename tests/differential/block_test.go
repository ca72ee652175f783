// SPDX-License-Identifier: Apache-2.0

package differential

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/portcullis-firewall/portcullis/maps"
	"github.com/portcullis-firewall/portcullis/tests/internal/frame"
	"github.com/portcullis-firewall/portcullis/tests/internal/lab"
)

// blocking is whom a host blocks, bans and trusts. For netfilter these are sets, which the first rules ask.
type blocking struct{ bad, banned, trust []string }

// rules returns the rules of a family that come before all others.
func (b *blocking) rules(family string) (text string) {
	if b == nil {
		return ""
	}
	for _, chain := range []string{"INPUT -i eth0", "FORWARD -i eth0"} {
		for _, set := range []string{"bad", "banned"} {
			text += fmt.Sprintf("-A %s -m set ! --match-set trust%s src -m set --match-set %s%[2]s src -j DROP\n", chain, family, set)
		}
	}
	return text
}

// makeSets makes the sets of both families.
func (b *blocking) makeSets(t testing.TB, h *lab.Host) {
	t.Helper()
	if b == nil {
		return
	}
	lab.NeedProgram(t, "ipset")
	var text strings.Builder
	for name, networks := range map[string][]string{"bad": b.bad, "banned": b.banned, "trust": b.trust} {
		fmt.Fprintf(&text, "create %s4 hash:net family inet\ncreate %[1]s6 hash:net family inet6\n", name)
		for _, n := range networks {
			family := 4
			if netip.MustParsePrefix(n).Addr().Is6() {
				family = 6
			}
			fmt.Fprintf(&text, "add %s%d %s\n", name, family, n)
		}
	}
	restore := h.Command("ipset", "restore")
	restore.Stdin = strings.NewReader(text.String())
	if out, err := restore.CombinedOutput(); err != nil {
		t.Fatalf("ipset restore: %v\n%s", err, out)
	}
}

// ours returns the same for Portcullis.
func (b *blocking) ours(t testing.TB) (_ *maps.Blocking, bans func(put func([]maps.Ban) error) error) {
	t.Helper()
	if b == nil {
		return nil, nil
	}
	parse := func(networks []string) (out []netip.Prefix) {
		for _, n := range networks {
			out = append(out, netip.MustParsePrefix(n))
		}
		return out
	}
	ours, err := maps.NewBlocking([]maps.BlockList{{Name: "bad", Prefixes: parse(b.bad)}}, parse(b.trust))
	if err != nil {
		t.Fatal(err)
	}
	var list []maps.Ban
	for _, p := range parse(b.banned) {
		list = append(list, maps.Ban{Prefix: p, Reason: "test"})
	}
	return ours, func(put func([]maps.Ban) error) error { return put(list) }
}

var blocks = world{
	name: "block lists, bans and trust",
	block: &blocking{
		bad: []string{"192.0.2.3/32", "192.0.2.4/32", "198.51.100.0/24", "203.0.113.7/32", "10.0.0.0/8",
			"2001:db8::3/128", "2001:db8::4/128", "2001:db8:b::/48", "fe80::bad/128", "2400::/16"},
		banned: []string{"192.0.2.9/32", "192.0.2.4/32", "198.18.0.0/15", "198.51.100.7/32",
			"2001:db8::9/128", "2001:db8::4/128", "2001:db8:1800::/40", "2001:db8:b::7/128"},
		trust: []string{"192.0.2.4/32", "198.51.100.64/26", "2001:db8::4/128", "2001:db8:b:1::/64"},
	},
	rules: []string{established, "-p tcp --dport 80 -j ACCEPT", "-p PROTO-icmp -j ACCEPT"},
	own4:  []string{"-p tcp --dport 5010 -m set --match-set trust4 src -j ACCEPT", limit("-p tcp", 5010, "6/minute", 3, "4")},
	own6:  []string{"-p tcp --dport 5010 -m set --match-set trust6 src -j ACCEPT", limit("-p tcp", 5010, "6/minute", 3, "6")},
	policy: `
open:
  - 80/tcp
  - 5010/tcp limit 6/minute burst 3
`,
}

var routedBlocks = world{
	name:       "block lists, bans and trust on a router",
	forwarding: true,
	block:      blocks.block,
	rules:      []string{established, "-p tcp --dport 80 -j ACCEPT", "-p PROTO-icmp -j ACCEPT"},
	forward:    "ACCEPT",
	policy:     "open: [80/tcp]\nforward: accept\n",
}

// senders are addresses in and beside each of the networks.
func (h hosts) senders() (out []netip.Addr) {
	texts := []string{
		"192.0.2.2", "192.0.2.3", "192.0.2.4", "192.0.2.5", "192.0.2.9", "198.51.100.1", "198.51.100.7", "198.51.100.64", "198.51.100.127",
		"198.51.100.128", "198.51.101.1", "198.18.0.1", "198.19.255.255", "198.20.0.0", "203.0.113.7", "203.0.113.8", "10.255.255.255", "11.0.0.1",
	}
	if h.six {
		texts = []string{
			"2001:db8::2", "2001:db8::3", "2001:db8::4", "2001:db8::5", "2001:db8::9", "2001:db8:b::1", "2001:db8:b::7", "2001:db8:b:1::7",
			"2001:db8:b:2::", "2001:db8:c::", "2001:db8:1800::1", "2001:db8:18ff:ffff::1", "2001:db8:1900::1", "fe80::bad", "fe80::bae",
			"2400:ffff::1", "2401::1",
		}
	}
	for _, text := range texts {
		out = append(out, netip.MustParseAddr(text))
	}
	return out
}

var blockCases = []testCase{
	{name: "what a source begins", steps: func(h hosts) (steps []step) {
		for i, src := range h.senders() {
			steps = append(steps, syn(src, h.us, 80, i), syn(src, h.us, 22, i), syn(src, h.second, 80, 100+i),
				packet(src, h.us, frame.UDP{SrcPort: 30000, DstPort: 9}),
				packet(src, h.us, h.echo(uint16(i), 1)))
		}
		return steps
	}},
	{name: "answers to what we begin", steps: func(h hosts) (steps []step) {
		for i, src := range []netip.Addr{h.peer, h.other} {
			port := uint16(40000 + i)
			steps = append(steps,
				sent(packet(h.us, src, frame.UDP{SrcPort: port, DstPort: 53})),
				packet(src, h.us, frame.UDP{SrcPort: 53, DstPort: port}),
				sent(packet(h.us, src, frame.TCP{SrcPort: port, DstPort: 443, Flags: frame.SYN, Seq: 1000})),
				packet(src, h.us, frame.TCP{SrcPort: 443, DstPort: port, Flags: frame.SYN | frame.ACK, Seq: 5000, Ack: 1001}),
				sent(packet(h.us, src, h.echo(uint16(i), 1))),
				packet(src, h.us, h.echoReply(uint16(i), 1)))
		}
		return steps
	}},
	{name: "errors from a source, and about one", steps: func(h hosts) (steps []step) {
		for _, src := range []netip.Addr{h.peer, h.other} {
			steps = append(steps, sent(packet(h.us, src, frame.UDP{SrcPort: 40100, DstPort: 53})))
			for _, from := range h.senders() {
				steps = append(steps, packet(from, h.us, h.unreachable(), ip(h.us, src), frame.UDP{SrcPort: 40100, DstPort: 53}))
			}
		}
		return steps
	}},
	{name: "fragments", steps: func(h hosts) (steps []step) {
		for _, src := range h.senders() {
			datagram := transport(src, h.us, h.echo(7, 1), frame.Text(strings.Repeat("ping", 30)))
			protocol := uint8(frame.ProtoICMP)
			if h.six {
				protocol = frame.ProtoICMPv6
			}
			steps = append(steps, whole(fmt.Sprintf("a ping of %s in fragments", src), fragments(src, h.us, protocol, datagram, 40)...))
		}
		return steps
	}},
	{name: "a limit", steps: func(h hosts) (steps []step) {
		for _, src := range []netip.Addr{h.trusted(), h.peer, h.other} {
			for i := range 6 {
				steps = append(steps, syn(src, h.us, 5010, i))
			}
		}
		return steps
	}},
	{name: "to a group", steps: func(h hosts) (steps []step) {
		for _, src := range h.senders() {
			steps = append(steps, packet(src, h.group(), frame.UDP{SrcPort: 30000, DstPort: 9}), packet(src, h.group(), frame.TCP{SrcPort: 30000, DstPort: 80, Flags: frame.SYN}))
		}
		return steps
	}},
}

var routedBlockCases = []testCase{
	{name: "through the router", steps: func(h hosts) (steps []step) {
		behind := h.behind()
		for i, src := range h.senders() {
			if src.IsLinkLocalUnicast() {
				continue // never routed
			}
			steps = append(steps, syn(src, behind.us, 80, i), syn(src, behind.us, 22, i), syn(src, h.us, 80, i),
				packet(src, behind.us, frame.UDP{SrcPort: 30000, DstPort: 9}), packet(src, behind.us, h.echo(uint16(i), 1)))
		}
		return steps
	}},
}

func TestBlockLists(t *testing.T) { blocks.mustAgree(t, "block lists, bans and trust", blockCases) }

func TestBlockListsOnARouter(t *testing.T) {
	routedBlocks.mustAgree(t, "block lists, bans and trust, routed", routedBlockCases)
}
