// SPDX-License-Identifier: Apache-2.0

package differential

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/portcullis-firewall/portcullis/tests/internal/frame"
	"github.com/portcullis-firewall/portcullis/tests/internal/lab"
)

// rejects answers what is closed. Netfilter's REJECT is told to leave alone what is invalid, and ICMP.
var rejects = world{
	name: "reject",
	rules: []string{established, "-m conntrack --ctstate INVALID -j DROP", "-p tcp --dport 80 -j ACCEPT", "-p PROTO-icmp -j DROP",
		"-p tcp -j REJECT --reject-with tcp-reset", "-j REJECT"}, // by default with port unreachable
	policy: "input: reject\ninvalid: drop\nicmp: drop\nopen: [80/tcp]\n",
}

// rejectCase is a packet of which the sender may be told.
type rejectCase struct {
	name   string
	frames [][]byte
	ours   answering // what Portcullis does otherwise, as documented
}

// answering is how Portcullis answers otherwise than netfilter, and the row of docs/netfilter-differences.md that says so.
type answering struct {
	row    string
	silent bool // where netfilter answers; else it answers where netfilter is silent
}

var (
	wrongSum  = answering{row: "wrong TCP or UDP checksum, rejected"}
	noSum     = answering{row: "other protocols whose checksum the network card has not verified, rejected"}
	pieces    = answering{row: "fragments, rejected", silent: true}
	broadcast = answering{row: "from the network's own broadcast address, rejected", silent: true}
)

func rejectCases(h hosts) []rejectCase {
	tcp := func(flags uint8, more ...frame.Layer) [][]byte {
		return h.in(append([]frame.Layer{frame.TCP{SrcPort: 40000, DstPort: 23, Flags: flags, Seq: 0xfffffff0, Ack: 77}}, more...)...).frames
	}
	udp := func(bytes int) [][]byte {
		return h.in(frame.UDP{SrcPort: 40000, DstPort: 54}, frame.Text(strings.Repeat("q", bytes))).frames
	}
	of := func(protocol uint8, bytes int) [][]byte {
		return [][]byte{frame.Build(ethernet(h.us), ipOf(h.peer, h.us, protocol), frame.Text(strings.Repeat("p", bytes)))}
	}
	cases := []rejectCase{
		{name: "SYN", frames: tcp(frame.SYN)},
		{name: "SYN with data", frames: tcp(frame.SYN, frame.Text("more than sixteen bytes"))},
		{name: "SYN that asks for ECN", frames: tcp(frame.SYN | frame.ECE | frame.CWR)},
		{name: "SYN with options", frames: h.in(frame.TCP{SrcPort: 40000, DstPort: 23, Flags: frame.SYN, Seq: 1, Options: make([]byte, 40)}).frames},
		{name: "ACK", frames: tcp(frame.ACK)},
		{name: "data", frames: tcp(frame.ACK|frame.PSH, frame.Text(strings.Repeat("d", 1000)))},
		{name: "RST", frames: tcp(frame.RST)},
		{name: "RST-ACK", frames: tcp(frame.RST | frame.ACK)},
		{name: "FIN", frames: tcp(frame.FIN | frame.ACK)},
		{name: "SYN-ACK", frames: tcp(frame.SYN | frame.ACK)},
		{name: "no flags", frames: tcp(0)},
		{name: "TCP with a wrong checksum", ours: wrongSum,
			frames: h.in(frame.TCP{SrcPort: 40000, DstPort: 23, Flags: frame.SYN, Checksum: frame.Exactly(1)}).frames},
		{name: "UDP, empty", frames: udp(0)},
		{name: "UDP, odd", frames: udp(7)},
		{name: "UDP, as much as is quoted", frames: udp(520)},
		{name: "UDP, more than is quoted", frames: udp(521)},
		{name: "UDP, long", frames: udp(1400)},
		{name: "UDP with a wrong checksum", ours: wrongSum,
			frames: h.in(frame.UDP{SrcPort: 40000, DstPort: 54, Checksum: frame.Exactly(1)}, frame.Text("q")).frames},
		{name: "UDP-Lite", ours: noSum, frames: h.in(frame.UDPLite{SrcPort: 40000, DstPort: 54}, frame.Text("query")).frames},
		{name: "SCTP", ours: noSum, frames: h.in(frame.SCTP{SrcPort: 40000, DstPort: 54, Chunk: 1}).frames},
		{name: "GRE", frames: of(frame.ProtoGRE, 30)},
		{name: "ESP", frames: of(frame.ProtoESP, 31)},
		{name: "OSPF", ours: noSum, frames: of(frame.ProtoOSPF, 30)},
		{name: "a protocol that nobody knows", ours: noSum, frames: of(201, 100)},
		{name: "a ping", frames: h.in(h.echo(7, 1)).frames},
		{name: "from this host", frames: packet(h.us, h.us, frame.UDP{SrcPort: 40000, DstPort: 54}).frames},
		{name: "to the second address", frames: packet(h.peer, h.second, frame.TCP{SrcPort: 40000, DstPort: 23, Flags: frame.SYN}).frames},
		{name: "from another host", frames: packet(h.other, h.us, frame.UDP{SrcPort: 40000, DstPort: 54}, frame.Text("q")).frames},
	}
	syn, query := frame.TCP{SrcPort: 40000, DstPort: 23, Flags: frame.SYN, Seq: 7}, frame.UDP{SrcPort: 40000, DstPort: 54}
	to := func(dst string, layers ...frame.Layer) [][]byte {
		return packet(h.peer, netip.MustParseAddr(dst), layers...).frames
	}
	from := func(src string, layers ...frame.Layer) [][]byte {
		return packet(netip.MustParseAddr(src), h.us, layers...).frames
	}
	behind := func(header frame.Layer, layers ...frame.Layer) [][]byte {
		return [][]byte{frame.Build(append([]frame.Layer{ethernet(h.us), header}, layers...)...)}
	}
	if h.six {
		options := frame.Extension{Kind: frame.ProtoDestOptions}
		return append(cases, []rejectCase{
			{name: "UDP of a class", frames: behind(frame.IPv6{Src: h.peer, Dst: h.us, TrafficClass: 0xb9}, query)},
			{name: "SYN of a class", frames: behind(frame.IPv6{Src: h.peer, Dst: h.us, TrafficClass: 0xb9}, syn)},
			{name: "SYN behind an extension", frames: h.in(options, syn).frames},
			{name: "UDP behind an extension", frames: h.in(options, query, frame.Text("q")).frames},
			{name: "to a group", frames: to("ff02::1", query)},
			{name: "from ::", frames: from("::", query)},
			{name: "from ::1", frames: from("::1", query)},
			{name: "in fragments", ours: pieces, frames: fragmented(h, query)},
		}...)
	}
	return append(cases, []rejectCase{
		{name: "UDP of a class", frames: behind(frame.IPv4{Src: h.peer, Dst: h.us, TOS: 0xb9}, query)},
		{name: "SYN of a class", frames: behind(frame.IPv4{Src: h.peer, Dst: h.us, TOS: 0xb9}, syn)},
		{name: "SYN behind options", frames: behind(frame.IPv4{Src: h.peer, Dst: h.us, Options: []byte{1, 1, 1, 0}}, syn)},
		{name: "UDP behind options", frames: behind(frame.IPv4{Src: h.peer, Dst: h.us, Options: []byte{1, 1, 1, 0}}, query, frame.Text("q"))},
		{name: "UDP without a checksum", frames: h.in(frame.UDP{SrcPort: 40000, DstPort: 54, Checksum: frame.Exactly(0)}, frame.Text("q")).frames},
		{name: "to a group", frames: to("224.0.0.1", query)},
		{name: "to the network's broadcast address", frames: to("192.0.2.255", query)},
		{name: "to the broadcast address, in a frame for this host", frames: behind(ip(h.peer, netip.MustParseAddr("192.0.2.255")), query)},
		{name: "from 0.0.0.0", frames: from("0.0.0.0", query)},
		{name: "from a group", frames: from("224.0.0.1", query)},
		{name: "from loopback", frames: from("127.0.0.1", query)},
		{name: "from the broadcast address", ours: broadcast, frames: from("192.0.2.255", query)},
		{name: "in fragments", ours: pieces, frames: fragmented(h, query)},
	}...)
}

// fragmented is a datagram in two fragments.
func fragmented(h hosts, udp frame.Layer) [][]byte {
	b := transport(h.peer, h.us, udp, frame.Text(strings.Repeat("f", 24)))
	var frames [][]byte
	for i, part := range [][]byte{b[:16], b[16:]} {
		if h.six {
			frames = append(frames, frame.Build(ethernet(h.us), frame.IPv6{Src: h.peer, Dst: h.us},
				frame.Fragment{NextHeader: frame.Exactly(frame.ProtoUDP), Offset: uint16(i * 2), MoreFragments: i == 0, ID: 7}, frame.Raw(part)))
		} else {
			frames = append(frames, frame.Build(ethernet(h.us),
				frame.IPv4{Src: h.peer, Dst: h.us, Protocol: frame.ProtoUDP, Offset: uint16(i * 2), MoreFragments: i == 0, ID: 7}, frame.Raw(part)))
		}
	}
	return frames
}

// told is what the peer hears on a packet: one answer at most, but for what each kernel chooses by itself.
func (s *side) told(p *tap, c rejectCase) (answer []byte, err error) {
	for _, f := range c.frames {
		if err := s.wire.Send(f); err != nil {
			return nil, err
		}
	}
	for end := time.Now().Add(100 * time.Millisecond); time.Now().Before(end); {
		b, err := p.next(time.Until(end))
		if err != nil {
			return nil, err
		}
		if len(b) < frame.EthernetLen || frame.MAC(b[6:12]) != serverMAC {
			continue
		}
		got := frame.Read(b)
		if got.Protocol != frame.ProtoTCP && !strings.HasPrefix(string(got.Payload), "\x03\x03") && !strings.HasPrefix(string(got.Payload), "\x01\x04") {
			continue // neighbour discovery
		}
		if answer != nil {
			return nil, fmt.Errorf("%s: %s is answered twice", s.name, c.name)
		}
		if answer, err = plain(b); err != nil {
			return nil, fmt.Errorf("%s: %s: %w", s.name, c.name, err)
		}
	}
	return answer, nil
}

// plain takes out of an answer what each kernel chooses by itself: the identification, the flow label.
func plain(b []byte) ([]byte, error) {
	b = bytes.Clone(b)
	ip := b[frame.EthernetLen:]
	if ip[0]>>4 == 6 {
		ip[1], ip[2], ip[3] = ip[1]&0xf0, 0, 0
		return b, nil
	}
	if internetSum(ip[:frame.IPv4Len]) != 0xffff {
		return nil, errors.New("the checksum of the IP header is wrong")
	}
	copy(ip[4:], []byte{0, 0})
	copy(ip[10:], []byte{0, 0})
	if segment := ip[frame.IPv4Len:]; ip[9] == frame.ProtoTCP {
		pseudo := append(bytes.Clone(ip[12:20]), 0, frame.ProtoTCP, 0, byte(len(segment)))
		left := binary.BigEndian.Uint16(segment[16:]) == internetSum(pseudo) // netfilter leaves the sum to the device
		if !left && internetSum(append(pseudo, segment...)) != 0xffff {
			return nil, errors.New("the checksum of TCP is wrong")
		}
		copy(segment[16:], []byte{0, 0})
	}
	return b, nil
}

func internetSum(b []byte) uint16 {
	var sum uint32
	for i := 0; i < len(b); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(b[i:]))
	}
	sum = sum>>16 + sum&0xffff
	return uint16(sum>>16 + sum&0xffff)
}

// What is rejected is answered as netfilter does it, byte by byte, and what it does not answer is not.
func TestRejectAnswersAlike(t *testing.T) {
	text, err := os.ReadFile("../../docs/netfilter-differences.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range []answering{wrongSum, noSum, pieces, broadcast} {
		if !strings.Contains(string(text), "\n| "+d.row+" |") {
			t.Errorf("the documentation does not list %q", d.row)
		}
	}
	sides := rejects.sides(t, modes)
	taps := make([]*tap, len(sides))
	for i, s := range sides {
		s.lab.Server.Run(t, "nft", "flush chain inet observer mute")
		for _, key := range []string{"ipv4/icmp_ratelimit", "ipv6/icmp/ratelimit"} {
			s.lab.Server.Sysctl(t, key, "0") // REJECT's errors are limited for each host
		}
		s.lab.Client.Run(t, lab.NeedProgram(t, "ethtool"), "-K", "eth0", "gro", "on") // or no answer of native XDP arrives
		taps[i] = newTap(t, s.lab.Client)
	}
	for _, h := range families {
		for _, c := range rejectCases(h) {
			told, errs := make([][]byte, len(sides)), make([]error, len(sides))
			var wait sync.WaitGroup
			for i, s := range sides {
				wait.Go(func() {
					if errs[i] = s.flush(); errs[i] == nil {
						told[i], errs[i] = s.told(taps[i], c)
					}
				})
			}
			wait.Wait()
			if err := errors.Join(errs...); err != nil {
				t.Errorf("%s: %v", h, err)
				continue
			}
			for i, s := range sides[1:] {
				got, same := told[i+1], bytes.Equal(told[i+1], told[0])
				differs := (got == nil) == c.ours.silent && (told[0] == nil) != c.ours.silent
				switch documented := c.ours.row != ""; {
				case !documented && !same:
					t.Errorf("%s, %s: %s answers\n%x, netfilter\n%x", h, c.name, s.name, got, told[0])
				case documented && !differs:
					t.Errorf("%s, %s: not %q: %s answers\n%x, netfilter\n%x", h, c.name, c.ours.row, s.name, got, told[0])
				}
			}
		}
	}
}
