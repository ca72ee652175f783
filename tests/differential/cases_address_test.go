// SPDX-License-Identifier: Apache-2.0

package differential

import (
	"fmt"
	"net/netip"

	"github.com/portcullis-firewall/portcullis/tests/internal/frame"
)

func addresses(texts ...string) (out []netip.Addr) {
	for _, text := range texts {
		out = append(out, netip.MustParseAddr(text))
	}
	return out
}

// syns sends a SYN to the open port and to a closed one, and a ping.
func (h hosts) syns(src, dst netip.Addr) []step {
	return []step{
		packet(src, dst, frame.TCP{SrcPort: 30000, DstPort: 80, Flags: frame.SYN}),
		packet(src, dst, frame.TCP{SrcPort: 30000, DstPort: 22, Flags: frame.SYN}),
		packet(src, dst, h.echo(3, 1)),
	}
}

// through sends to a host behind us.
func through(h hosts) (steps []step) {
	steps = h.syns(h.peer, h.inside)
	steps = append(steps, packet(h.peer, h.inside, frame.UDP{SrcPort: 30000, DstPort: 53}),
		packet(h.peer, h.inside, frame.TCP{SrcPort: 30000, DstPort: 80, Flags: frame.ACK}),
		whole("fragments", fragments(h.peer, h.inside, frame.ProtoUDP,
			transport(h.peer, h.inside, frame.UDP{SrcPort: 1, DstPort: 2}, frame.Raw(make([]byte, 100))), 48)...))
	return append(steps, h.syns(h.peer, h.us)...)
}

// special sends from each of some addresses to each of others.
func special(from, to []netip.Addr) func(hosts) []step {
	return func(h hosts) (steps []step) {
		for _, src := range from {
			for _, dst := range to {
				for _, s := range append(h.syns(src, dst), packet(src, dst, frame.UDP{SrcPort: 30000, DstPort: 80})) {
					steps = append(steps, s.as(fmt.Sprintf("%s > %s", src, dst)))
				}
			}
		}
		return steps
	}
}

var addressCases = []testCase{
	{19, "sources that nobody has", nil, 4, func(h hosts) (steps []step) {
		for _, src := range addresses("192.0.2.1", "127.0.0.1", "0.0.0.0", "224.0.0.1", "255.255.255.255", "192.0.2.255") {
			steps = append(steps, h.syns(src, h.us)...)
		}
		return steps
	}},
	{19, "sources that nobody has", nil, 6, func(h hosts) (steps []step) {
		for _, src := range addresses("2001:db8::1", "::1", "::", "ff02::1", "::ffff:192.0.2.2") {
			steps = append(steps, h.syns(src, h.us)...)
		}
		return steps
	}},
	{19, "from and to special addresses", nil, 4, special(
		addresses("192.0.2.2", "0.0.0.0", "0.1.2.3", "127.0.0.1", "169.254.7.7", "224.0.0.1", "240.0.0.7", "255.255.255.255",
			"192.0.2.1", "192.0.2.255", "198.51.100.2"),
		addresses("0.0.0.0", "0.1.2.3", "127.0.0.1", "127.9.9.9", "169.254.9.9", "224.0.0.1", "224.0.0.251", "239.1.1.1",
			"240.0.0.1", "255.255.255.255", "192.0.2.0", "192.0.2.255", "192.0.2.10", "198.51.100.0", "198.51.100.255"))},
	{19, "from and to special addresses", nil, 6, special(
		addresses("2001:db8::2", "::", "::1", "::ffff:192.0.2.2", "fe80::2", "fec0::2", "ff02::1", "2001:db8::1", "2001:db8:1::2"),
		addresses("::", "::1", "::ffff:192.0.2.1", "::192.0.2.1", "fe80::1", "fe80::77", "fec0::1", "ff00::1", "ff01::1",
			"ff02::1", "ff02::fb", "ff05::2", "ff0e::1", "2001:db8::", "2001:db8:1::", "2002:c000:201::1", "64:ff9b::c000:201"))},
	{20, "to the loopback address", nil, 0, func(h hosts) []step {
		if h.six {
			return h.syns(h.peer, netip.IPv6Loopback())
		}
		return h.syns(h.peer, netip.MustParseAddr("127.0.0.1"))
	}},
	{21, "to somebody else, without routing", nil, 0, func(h hosts) []step {
		if h.six {
			return h.syns(h.peer, netip.MustParseAddr("2001:db8::77"))
		}
		return h.syns(h.peer, netip.MustParseAddr("192.0.2.77"))
	}},
	{22, "through this host, which routes", &forwardDrop, 0, through},
	{22, "through this host, which routes answers", &forwardEstablished, 0, through},
	{22, "through this host, which routes everything", &forwardAccept, 0, through},
	{23, "through this host, which routes, but not on eth0", &halfRouter, 6, through},
	{24, "to another MAC address", nil, 0, func(h hosts) []step {
		return []step{whole("SYN to port 80", frame.Build(frame.Ethernet{Dst: frame.MAC{2, 0, 0, 0, 0, 9}, Src: clientMAC},
			ip(h.peer, h.us), frame.TCP{SrcPort: 30000, DstPort: 80, Flags: frame.SYN}))}
	}},
	{25, "to the broadcast MAC address", nil, 0, func(h hosts) (steps []step) {
		for _, port := range []uint16{80, 22} {
			steps = append(steps, whole("SYN", frame.Build(frame.Ethernet{Dst: frame.Broadcast, Src: clientMAC},
				ip(h.peer, h.us), frame.TCP{SrcPort: 30000, DstPort: port, Flags: frame.SYN})))
		}
		return steps
	}},
	{26, "to the broadcast address of the network", nil, 4, func(h hosts) []step {
		return h.syns(h.peer, netip.MustParseAddr("192.0.2.255"))
	}},
	{27, "to everybody", nil, 4, func(h hosts) []step {
		return append(h.syns(h.peer, netip.MustParseAddr("255.255.255.255")),
			h.syns(h.peer, netip.MustParseAddr("224.0.0.1"))...)
	}},
	{27, "to everybody", nil, 6, func(h hosts) []step { return h.syns(h.peer, netip.MustParseAddr("ff02::1")) }},
	{28, "IGMP query", nil, 4, func(h hosts) []step {
		all := netip.MustParseAddr("224.0.0.1")
		return []step{whole("query", frame.Build(ethernet(all),
			frame.IPv4{Src: h.peer, Dst: all, Protocol: frame.ProtoIGMP, TTL: 1, Options: []byte{148, 4, 0, 0}},
			frame.Raw{0x11, 100, 0xee, 0x9b, 0, 0, 0, 0}))}
	}},
}
