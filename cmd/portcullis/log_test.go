// SPDX-License-Identifier: Apache-2.0

package main

import (
	"net"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"

	"github.com/portcullis-firewall/portcullis/firewall/monitor"
	"github.com/portcullis-firewall/portcullis/loader"
)

func build(t testing.TB, of ...gopacket.SerializableLayer) []byte {
	t.Helper()
	buffer := gopacket.NewSerializeBuffer()
	if err := gopacket.SerializeLayers(buffer, gopacket.SerializeOptions{FixLengths: true}, of...); err != nil {
		t.Fatal(err)
	}
	return buffer.Bytes()
}

func ipv4(protocol layers.IPProtocol) *layers.IPv4 {
	return &layers.IPv4{Version: 4, TTL: 64, Protocol: protocol, SrcIP: net.IP{192, 0, 2, 2}, DstIP: net.IP{192, 0, 2, 1}}
}

func ipv6(next layers.IPProtocol) *layers.IPv6 {
	return &layers.IPv6{Version: 6, NextHeader: next, SrcIP: net.ParseIP("2001:db8::2"), DstIP: net.ParseIP("2001:db8::1")}
}

func ethernet(kind layers.EthernetType) *layers.Ethernet {
	return &layers.Ethernet{SrcMAC: make([]byte, 6), DstMAC: make([]byte, 6), EthernetType: kind}
}

func TestLog(t *testing.T) {
	h := newHost(t)
	h.runs("")
	h.types(0, "log")
	h.says("nothing was logged\n")
	h.types(0, "log", "-o", "json")

	packet := loader.LoggedPacket{
		Time: time.Date(2026, 11, 23, 1, 2, 3, 4e6, time.Local), Interface: "eth0", Reason: "invalid flags", Length: 60, Ethernet: true,
		Frame: build(t, ethernet(layers.EthernetTypeIPv4), ipv4(layers.IPProtocolTCP),
			&layers.TCP{SrcPort: 30000, DstPort: 22, FIN: true, PSH: true, URG: true}),
	}
	h.Logged = []loader.LoggedPacket{packet}
	h.types(0, "log")
	h.says("2026-11-23 01:02:03.004  eth0  invalid flags  tcp 192.0.2.2:30000 > 192.0.2.1:22 fin,psh,urg, 60 bytes\n")

	h.Logged = []loader.LoggedPacket{packet, packet}
	h.types(0, "log", "-o", "json")
	var views []logView
	h.json(&views)
	if len(views) != 2 || views[0].Reason != "invalid flags" || views[1].Length != 60 || len(views[1].Frame) != len(packet.Frame) {
		t.Errorf("JSON: %+v", views)
	}

	h.Logged = []loader.LoggedPacket{packet, packet}
	e := h.env()
	e.stdout, e.stderr = new(strings.Builder), new(strings.Builder)
	if code := run(e, []string{"log", "--follow", "-o", "json"}); code != 0 {
		t.Fatalf("exits with %d: %s", code, e.stderr)
	}
	if lines := strings.Count(e.stdout.(*strings.Builder).String(), "\n"); lines != 2 {
		t.Errorf("%d lines of JSON for 2 packets", lines)
	}
}

func TestDescribeFrame(t *testing.T) {
	four, six := ethernet(layers.EthernetTypeIPv4), ethernet(layers.EthernetTypeIPv6)
	broken := build(t, four, ipv4(layers.IPProtocolTCP), &layers.TCP{SrcPort: 1, DstPort: 2, SYN: true, ACK: true})
	broken[14+20+12] = 4 << 4
	short := build(t, six, ipv6(layers.IPProtocolUDP), &layers.UDP{SrcPort: 53, DstPort: 2})
	short[14+40+5] = 7
	for want, b := range map[string][]byte{
		"tcp 192.0.2.2:1 > 192.0.2.1:2 no flags": build(t, four, ipv4(layers.IPProtocolTCP), &layers.TCP{SrcPort: 1, DstPort: 2}),
		"tcp 192.0.2.2:1 > 192.0.2.1:2 syn,ack":  broken,
		"udp [2001:db8::2]:53 > [2001:db8::1]:2": short,
		"sctp [2001:db8::2]:3 > [2001:db8::1]:4": build(t, six, ipv6(layers.IPProtocolSCTP), &layers.SCTP{SrcPort: 3, DstPort: 4}),
		"icmp 192.0.2.2 > 192.0.2.1 type 3 code 4": build(t, four, ipv4(layers.IPProtocolICMPv4),
			&layers.ICMPv4{TypeCode: layers.CreateICMPv4TypeCode(3, 4)}),
		"icmpv6 2001:db8::2 > 2001:db8::1 type 129 code 0": build(t, six, ipv6(layers.IPProtocolICMPv6),
			&layers.ICMPv6{TypeCode: layers.CreateICMPv6TypeCode(129, 0)}),
		"gre 192.0.2.2 > 192.0.2.1": build(t, four, ipv4(layers.IPProtocolGRE), gopacket.Payload("?")),
	} {
		if got := monitor.Describe(b, true); got != want {
			t.Errorf("%q, want %q", got, want)
		}
		if got := monitor.Describe(b[14:], false); got != want {
			t.Errorf("without Ethernet: %q, want %q", got, want)
		}
	}
	tag := &layers.Dot1Q{VLANIdentifier: 7, Type: layers.EthernetTypeIPv4}
	outer := &layers.Dot1Q{VLANIdentifier: 8, Type: layers.EthernetTypeDot1Q}
	udp := &layers.UDP{SrcPort: 1, DstPort: 2}
	options, fragment := ipv4(layers.IPProtocolUDP), ipv4(layers.IPProtocolUDP)
	options.Options = []layers.IPv4Option{{OptionType: 148, OptionLength: 4, OptionData: []byte{0, 0}}}
	fragment.FragOffset = 3
	hop := gopacket.Payload{byte(layers.IPProtocolIPv6Fragment), 0, 1, 4, 0, 0, 0, 0}
	first := gopacket.Payload{byte(layers.IPProtocolUDP), 0, 0, 1, 1, 2, 3, 4}
	later := gopacket.Payload{byte(layers.IPProtocolUDP), 0, 0, 8, 1, 2, 3, 4, 9, 9, 9, 9, 9, 9, 9, 9}
	const four12, six12 = "udp 192.0.2.2:1 > 192.0.2.1:2", "udp [2001:db8::2]:1 > [2001:db8::1]:2"
	for name, c := range map[string]struct {
		frame []byte
		want  string
	}{
		"a tag":           {build(t, ethernet(layers.EthernetTypeDot1Q), tag, ipv4(layers.IPProtocolUDP), udp), four12},
		"two tags":        {build(t, ethernet(layers.EthernetTypeQinQ), outer, tag, ipv4(layers.IPProtocolUDP), udp), four12},
		"options":         {build(t, four, options, udp), four12},
		"later fragment":  {build(t, four, fragment, udp), "udp 192.0.2.2 > 192.0.2.1"},
		"extensions":      {build(t, six, ipv6(layers.IPProtocolIPv6HopByHop), hop, first, gopacket.Payload{0, 1, 0, 2}), six12},
		"IPv6 fragment":   {build(t, six, ipv6(layers.IPProtocolIPv6Fragment), later), "udp 2001:db8::2 > 2001:db8::1"},
		"ICMP over IPv6":  {build(t, six, ipv6(layers.IPProtocolICMPv4), first), "icmp 2001:db8::2 > 2001:db8::1"},
		"cut in the tags": {build(t, ethernet(layers.EthernetTypeDot1Q), tag)[:16], "unreadable (00000000000000000000000081000007)"},
		"no name":         {build(t, four, ipv4(253)), "protocol 253 192.0.2.2 > 192.0.2.1"},
		"ports alone":     {build(t, four, ipv4(layers.IPProtocolTCP), gopacket.Payload{0, 1, 0, 2}), "tcp 192.0.2.2:1 > 192.0.2.1:2"},
	} {
		if got := monitor.Describe(c.frame, true); got != c.want {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
	if got := monitor.Describe([]byte{1, 2}, true); got != "unreadable (0102)" {
		t.Errorf("two bytes are %q", got)
	}
}

// Whatever is logged, what is printed is one line.
func FuzzDescribeFrame(f *testing.F) {
	f.Add(build(f, ethernet(layers.EthernetTypeIPv4), ipv4(layers.IPProtocolTCP), &layers.TCP{SrcPort: 1, DstPort: 2}), true)
	f.Add(build(f, ipv6(layers.IPProtocolSCTP), &layers.SCTP{SrcPort: 3, DstPort: 4}), false)
	f.Add([]byte{}, false)
	f.Fuzz(func(t *testing.T, b []byte, ethernet bool) {
		if text := monitor.Describe(b, ethernet); text == "" || strings.ContainsAny(text, "\r\n\x1b") || !utf8.ValidString(text) {
			t.Errorf("%x is %q", b, text)
		}
	})
}
