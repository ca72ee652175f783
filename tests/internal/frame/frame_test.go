// SPDX-License-Identifier: Apache-2.0

package frame

import (
	"encoding/hex"
	"net/netip"
	"testing"
)

var (
	a4 = netip.MustParseAddr("192.0.2.1")
	b4 = netip.MustParseAddr("192.0.2.2")
	a6 = netip.MustParseAddr("2001:db8::1")
	b6 = netip.MustParseAddr("2001:db8::2")
)

// The bytes come from elsewhere, so that the builder is held against something else than itself.
func TestBuildMakesWhatAStackSends(t *testing.T) {
	for _, c := range []struct {
		name string
		got  []byte
		want string
	}{
		{"an IPv4 header with its checksum (an example that many textbooks have)",
			Build(IPv4{Src: netip.MustParseAddr("192.168.0.1"), Dst: netip.MustParseAddr("192.168.0.199"),
				DontFragment: true, TotalLength: Exactly(0x73), Protocol: ProtoUDP}),
			"45000073000040004011b861c0a80001c0a800c7"},
		{"a UDP datagram over IPv6 (checksum worked out by hand)",
			Build(IPv6{Src: a6, Dst: b6}, UDP{SrcPort: 1, DstPort: 2}),
			"6000000000081140" + "20010db8000000000000000000000001" + "20010db8000000000000000000000002" +
				"000100020008" + "a466"},
	} {
		if got := hex.EncodeToString(c.got); got != c.want {
			t.Errorf("%s:\n got %s\nwant %s", c.name, got, c.want)
		}
	}
}

func TestChecksumsAddUp(t *testing.T) {
	payload := Text("odd")
	for name, c := range map[string]struct {
		outer Layer
		inner Layer
		proto uint8
	}{
		"TCP over IPv4":                      {IPv4{Src: a4, Dst: b4}, TCP{SrcPort: 1, DstPort: 2, Options: []byte{1, 1, 1, 0}}, ProtoTCP},
		"TCP over IPv6":                      {IPv6{Src: a6, Dst: b6}, TCP{SrcPort: 1, DstPort: 2}, ProtoTCP},
		"UDP over IPv4":                      {IPv4{Src: a4, Dst: b4}, UDP{SrcPort: 1, DstPort: 2}, ProtoUDP},
		"UDP-Lite":                           {IPv6{Src: a6, Dst: b6}, UDPLite{SrcPort: 1, DstPort: 2}, ProtoUDPLite},
		"ICMPv6":                             {IPv6{Src: a6, Dst: b6}, ICMPv6{Type: Echo6, ID: 7}, ProtoICMPv6},
		"ICMP, which needs no pseudo header": {IPv4{Src: a4, Dst: b4}, ICMPv4{Type: Echo, ID: 7}, 0},
	} {
		p := ReadIP(Build(c.outer, c.inner, payload))
		var head []byte
		if c.proto != 0 {
			head = pseudo([]Layer{c.outer}, c.proto, len(p.Payload))
		}
		if got := sum(head, p.Payload); got != 0 {
			t.Errorf("%s: what is left is %#x", name, got)
		}
	}
}

func TestReadFindsWhatBuildPutIn(t *testing.T) {
	tcp := TCP{SrcPort: 1000, DstPort: 80, Flags: SYN}
	v4 := IPv4{Src: b4, Dst: a4}
	v6 := IPv6{Src: b6, Dst: a6}
	port := Packet{IP: true, Src: b4, Dst: a4, Protocol: ProtoTCP, HasPorts: true, SrcPort: 1000, DstPort: 80}
	port6 := port
	port6.Src, port6.Dst = b6, a6
	first6, later6 := port6, Packet{IP: true, Src: b6, Dst: a6, Protocol: ProtoTCP, Later: true}
	first6.First = true
	options := v4
	options.Options = make([]byte, 40)
	for _, c := range []struct {
		name   string
		layers []Layer
		want   Packet
	}{
		{"TCP", []Layer{Ethernet{}, v4, tcp}, port},
		{"TCP behind options and two tags", []Layer{Ethernet{}, VLAN{ID: 5, Service: true}, VLAN{}, options, tcp}, port},
		{"three tags", []Layer{Ethernet{}, VLAN{}, VLAN{}, VLAN{}, v4, tcp}, Packet{Fault: BadVLAN}},
		{"ARP", []Layer{Ethernet{Type: TypeARP}, Raw(make([]byte, 28))}, Packet{}},
		{"TCP over IPv6", []Layer{Ethernet{}, v6, Extension{Kind: ProtoHopByHop}, Extension{Kind: ProtoRouting, Words: 2}, tcp}, port6},
		{"a first fragment", []Layer{Ethernet{}, v6, Fragment{MoreFragments: true}, tcp}, first6},
		{"an atomic fragment", []Layer{Ethernet{}, v6, Fragment{}, tcp}, port6},
		{"a later fragment", []Layer{Ethernet{}, v6, Fragment{Offset: 9}, tcp}, later6},
		{"a fragment that overwrites flags", []Layer{Ethernet{}, v6, Fragment{Offset: 1}, tcp}, fault(TinyFragment)},
		{"another protocol", []Layer{Ethernet{}, v4, Raw("?")}, Packet{IP: true, Src: b4, Dst: a4, Protocol: ProtoNoNext}},
		{"half a port", []Layer{Ethernet{}, IPv4{Src: b4, Dst: a4, Protocol: ProtoUDP}, Raw{0, 1, 2}}, fault(BadTransport)},
	} {
		got := Read(Build(c.layers...))
		got.Payload = nil
		if got.Src != c.want.Src || got.Dst != c.want.Dst {
			t.Errorf("%s: addresses %s %s", c.name, got.Src, got.Dst)
		}
		if got.IP != c.want.IP || got.Fault != c.want.Fault || got.Protocol != c.want.Protocol ||
			got.First != c.want.First || got.Later != c.want.Later || got.HasPorts != c.want.HasPorts ||
			got.SrcPort != c.want.SrcPort || got.DstPort != c.want.DstPort {
			t.Errorf("%s:\n got %+v\nwant %+v", c.name, got, c.want)
		}
	}
}

func TestReadNeverPanics(t *testing.T) {
	whole := Build(Ethernet{}, VLAN{}, IPv6{Src: a6, Dst: b6}, Extension{Kind: ProtoDestOptions}, Fragment{}, UDP{SrcPort: 5, DstPort: 6})
	for n := range len(whole) {
		if p := Read(Cut(whole, n)); p.HasPorts {
			t.Errorf("the first %d bytes have ports: %+v", n, p)
		}
	}
}
