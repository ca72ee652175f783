// SPDX-License-Identifier: Apache-2.0

package propose_test

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/portcullis-firewall/portcullis/firewall/propose"
	"github.com/portcullis-firewall/portcullis/loader"
	"github.com/portcullis-firewall/portcullis/maps"
	"github.com/portcullis-firewall/portcullis/policy"
)

const (
	syn = 0x02
	ack = 0x10
	rst = 0x04
	tcp = 6
	udp = 17
	gre = 47
)

var (
	own    = netip.MustParseAddr("192.0.2.1")
	own6   = netip.MustParseAddr("2001:db8::1")
	friend = netip.MustParseAddr("192.0.2.9")
)

// packet is one of an IP packet without a link header.
func packet(src, dst netip.Addr, protocol byte, from, to uint16, flags byte) loader.Monitored {
	transport := make([]byte, 20)
	binary.BigEndian.PutUint16(transport, from)
	binary.BigEndian.PutUint16(transport[2:], to)
	transport[12], transport[13] = 5<<4, flags
	var b []byte
	if src.Is4() {
		b = make([]byte, 20)
		b[0], b[8], b[9] = 0x45, 64, protocol
		binary.BigEndian.PutUint16(b[2:], uint16(len(b)+len(transport)))
		copy(b[12:], src.AsSlice())
		copy(b[16:], dst.AsSlice())
	} else {
		b = make([]byte, 40)
		b[0], b[6] = 6<<4, protocol
		binary.BigEndian.PutUint16(b[4:], uint16(len(transport)))
		copy(b[8:], src.AsSlice())
		copy(b[24:], dst.AsSlice())
	}
	return loader.Monitored{Packets: []loader.MonitoredPacket{{
		Time: time.Date(2026, 11, 28, 12, 3, 11, 0, time.Local), Interface: "eth0", Length: len(b) + len(transport), Frame: append(b, transport...),
	}}}
}

func collector() *propose.Collector { return propose.New([]netip.Addr{own, own6}) }

func address(i int) netip.Addr {
	return netip.AddrFrom4([4]byte{198, byte(51 + i>>16), byte(i >> 8), byte(i)})
}

func file(t *testing.T, c *propose.Collector, p *policy.Policy) (string, *policy.Policy) {
	t.Helper()
	proposal, err := c.Proposal(p.WatchOnly == false)
	if err != nil {
		t.Fatal(err)
	}
	text := string(proposal.File(p))
	back, err := policy.Parse("proposed.yaml", []byte(text))
	if err != nil {
		t.Fatalf("%s\n%v", text, err)
	}
	return text, back
}

func TestProposal(t *testing.T) {
	c := collector()
	for range 1204 {
		c.Add(packet(friend, own, tcp, 40000, 443, syn))
	}
	c.Add(packet(netip.MustParseAddr("2001:db8::"), own6, tcp, 40000, 443, syn))
	for i := range 20 {
		c.Add(packet(address(i), own, udp, 40000, 53, 0))
	}
	c.Add(packet(friend, own, gre, 0, 0, 0))
	c.Add(packet(friend, own, 99, 0, 0, 0))
	base, err := policy.Parse("fw.yaml", []byte("enforce: false\nopen: [ssh]\nforward: {policy: drop, open: [53/udp]}\n"))
	if err != nil {
		t.Fatal(err)
	}
	text, p := file(t, c, base)
	for _, want := range []string{
		`  - "443/tcp from 192.0.2.9,2001:db8::"  # 1,205 packets from 2 sources, last 12:03:11` + "\n",
		"  - 53/udp  # 20 packets from 20 sources, last 12:03:11\n",
		"  - gre from 192.0.2.9  # 1 packet from 1 source, last 12:03:11\n",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("it lacks %q:\n%s", want, text)
		}
	}
	if p.WatchOnly || strings.Count(text, "20 packets") != 1 {
		t.Errorf("it watches: %v, and has\n%s", p.WatchOnly, text)
	}
	want := []string{"ssh", "443/tcp from 192.0.2.9,2001:db8::", "53/udp", "gre from 192.0.2.9", "proto/99 from 192.0.2.9"}
	if got := policy.Texts(p.InputRules()); !slices.Equal(got, want) {
		t.Errorf("it opens %q, want %q", got, want)
	}
	if !slices.Equal(policy.Texts(p.ForwardRules()), []string{"53/udp"}) || !base.WatchOnly || len(base.Open) != 2 {
		t.Errorf("what is in force has changed, or been lost: %v, %v", p.Open, base.Open)
	}
}

// What begins nothing needs no rule.
func TestNoiseNeedsNoRule(t *testing.T) {
	for name, told := range map[string]loader.Monitored{
		"an ACK":           packet(friend, own, tcp, 40000, 443, ack),
		"a SYN-ACK":        packet(friend, own, tcp, 443, 40000, syn|ack),
		"a RST":            packet(friend, own, tcp, 443, 40000, rst),
		"impossible flags": packet(friend, own, tcp, 40000, 443, syn|1),
		"a late answer":    packet(friend, own, udp, 53, 40000, 0),
		"broadcast":        packet(friend, netip.MustParseAddr("192.0.2.255"), udp, 40000, 137, 0),
		"multicast":        packet(friend, netip.MustParseAddr("224.0.0.251"), udp, 5353, 5353, 0),
		"from us":          packet(own, own, tcp, 40000, 443, syn),
		"from a multicast": packet(netip.MustParseAddr("224.0.0.1"), own, tcp, 40000, 443, syn),
		"from all":         packet(netip.MustParseAddr("255.255.255.255"), own, tcp, 40000, 443, syn),
		"from nobody":      packet(netip.MustParseAddr("0.0.0.0"), own, tcp, 40000, 443, syn),
		"from loopback":    packet(netip.MustParseAddr("::1"), own6, tcp, 40000, 443, syn),
		"for another host": packet(friend, friend, tcp, 40000, 443, syn),
		"to no port":       packet(friend, own, tcp, 40000, 0, syn),
		"ICMP":             packet(friend, own, 1, 0x0800, 0, 0),
		"unreadable":       {Packets: []loader.MonitoredPacket{{Frame: []byte{0x45, 0}}}},
		"nothing":          {Packets: []loader.MonitoredPacket{{}}},
		"on its way out":   {Packets: []loader.MonitoredPacket{{Outbound: true, Frame: packet(friend, own, tcp, 40000, 443, syn).Packets[0].Frame}}},
	} {
		c := collector()
		c.Add(told)
		if needs, err := c.Needs(); err != nil || len(needs) > 0 {
			t.Errorf("%s: %v, %v", name, needs, err)
		}
		if r, _ := c.Proposal(true); r.Noise != 1 {
			t.Errorf("%s is not counted as noise", name)
		}
	}
}

// Whoever asks for everything gets nothing proposed, and takes no more memory than others; whom he would crowd out stays.
func TestScansAreNotOpened(t *testing.T) {
	c := collector()
	for range 3 {
		c.Add(packet(friend, own, tcp, 40000, 443, syn))
	}
	scanner := netip.MustParseAddr("198.51.100.66")
	for port := range 65535 {
		c.Add(packet(scanner, own, tcp, 40000, uint16(port+1), syn))
	}
	text, p := file(t, c, policy.Default())
	if got := policy.Texts(p.Open); !slices.Equal(got, []string{"443/tcp from 192.0.2.9,198.51.100.66"}) {
		t.Errorf("it opens %q", got)
	}
	r, _ := c.Proposal(true)
	if len(r.Needs) > 256 || r.Forgotten == 0 || !strings.Contains(text, "packets were to ports beyond the 256 that are remembered") {
		t.Errorf("%d ports are remembered, %d packets forgotten:\n%.600s", len(r.Needs), r.Forgotten, text)
	}
	sum := r.Forgotten
	for _, n := range r.Needs {
		sum += n.Packets
	}
	if sum != 65535+3 {
		t.Errorf("of %d packets, %d are accounted for", 65535+3, sum)
	}
}

// A flood of forged sources opens one port, in one rule, and takes no memory for each.
func TestForgedSourcesAreBounded(t *testing.T) {
	c := collector()
	for i := range 100_000 {
		c.Add(packet(address(i), own, tcp, 40000, 443, syn))
	}
	c.Add(loader.Monitored{Missed: map[maps.Reason]uint64{propose.Reasons()[0]: 1_234_567}})
	needs, err := c.Needs()
	if err != nil || len(needs) != 1 || needs[0].Rule != "443/tcp" || !needs[0].More || len(needs[0].Sources) != 64 || needs[0].Packets != 100_000 {
		t.Fatalf("%.300v, %v", fmt.Sprint(needs), err)
	}
	text, _ := file(t, c, policy.Default())
	for _, want := range []string{"443/tcp  # 100,000 packets from more than 64 sources", "# 1,234,567 more packets came too fast"} {
		if !strings.Contains(text, want) {
			t.Errorf("it lacks %q:\n%s", want, text)
		}
	}
}

// What is asked for of the monitor is what a rule helps against, whether the filter drops it or only watches.
func TestReasons(t *testing.T) {
	var dropped, watched []string
	for _, r := range propose.Reasons() {
		if r.IsWatched() {
			watched = append(watched, r.String())
		} else {
			dropped = append(dropped, r.String())
		}
	}
	if len(dropped) != 4 || !slices.Equal(dropped, watched) {
		t.Errorf("asked for are %q and %q", dropped, watched)
	}
}
