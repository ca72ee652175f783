// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"bytes"
	"testing"

	"github.com/portcullis-firewall/portcullis/tests/internal/frame"
	"github.com/portcullis-firewall/portcullis/tests/internal/testdp"
)

func TestIPv4Headers(t *testing.T) {
	w := worlds[0]
	ip := frame.IPv4{Src: w.peer, Dst: w.us}
	build := func(change func(*frame.IPv4), port uint16) []byte {
		changed := ip
		change(&changed)
		return frame.Build(frame.Ethernet{}, changed, syn(port))
	}
	same := func(*frame.IPv4) {}
	record := append([]byte{7, 39, 4}, make([]byte, 37)...) // record route
	loose := []byte{131, 11, 4, 10, 0, 0, 1, 10, 0, 0, 2, 0}
	words := func(n uint16) func(*frame.IPv4) {
		return func(ip *frame.IPv4) { ip.HeaderLength = frame.Exactly(n) }
	}
	total := func(n uint16) func(*frame.IPv4) {
		return func(ip *frame.IPv4) { ip.TotalLength = frame.Exactly(n) }
	}
	version := func(n uint16) func(*frame.IPv4) {
		return func(ip *frame.IPv4) { ip.Version = frame.Exactly(n) }
	}
	open := rule("80/tcp")
	whole := frame.Build(frame.Ethernet{}, ip, syn(80))
	arrive(t, load(t, testdp.Options{Policy: server}), []arrival{
		{name: "one word of options",
			frame: build(func(ip *frame.IPv4) { ip.Options = []byte{1, 1, 1, 0} }, 80), want: open},
		{name: "one word of options, closed port",
			frame: build(func(ip *frame.IPv4) { ip.Options = []byte{1, 1, 1, 0} }, 23), want: closedPort},
		{name: "as many options as there can be",
			frame: build(func(ip *frame.IPv4) { ip.Options = record }, 80), want: open},
		{name: "as many options as there can be, closed port",
			frame: build(func(ip *frame.IPv4) { ip.Options = record }, 23), want: closedPort},
		{name: "options that look like an open port, where a careless reader would look",
			frame: build(func(ip *frame.IPv4) { ip.Options = []byte{0, 1, 0, 80} }, 23), want: closedPort},
		{name: "a loose source route, which the stack refuses",
			frame: build(func(ip *frame.IPv4) { ip.Options = loose }, 80), want: open},
		{name: "a header of 4 words", frame: build(words(4), 80), want: badIPv4},
		{name: "a header of no words", frame: build(words(0), 80), want: badIPv4},
		{name: "a header longer than the packet", frame: build(words(15), 80), want: badIPv4},
		{name: "a header that reaches to the last byte", frame: build(words(10), 80), want: badTransport},
		{name: "version 6", frame: build(version(6), 80), want: badIPv4},
		{name: "version 0", frame: build(version(0), 80), want: badIPv4},
		{name: "a total length of one byte more than there is", frame: build(total(41), 80), want: badIPv4},
		{name: "a total length of 65535", frame: build(total(65535), 80), want: badIPv4},
		{name: "a total length below the header's", frame: build(total(19), 80), want: badIPv4},
		{name: "a total length of 0", frame: build(total(0), 80), want: badIPv4},
		{name: "a total length that ends behind the header", frame: build(total(20), 80), want: badTransport},
		{name: "a total length that ends inside the ports", frame: build(total(23), 80), want: badTransport},
		{name: "a total length that ends behind the ports, where netfilter matches them",
			frame: build(total(24), 80), want: open.of(badHeader)},
		{name: "a total length that ends behind the ports, closed port", frame: build(total(24), 23), want: invalid.of(badHeader)},
		{name: "padding behind the packet", frame: frame.Padded(whole, 6), want: open},
		{name: "padding behind the packet, closed port", frame: frame.Padded(build(same, 23), 6), want: closedPort},
		{name: "an open port in the padding, and none in the packet",
			frame: append(build(total(20), 80), 0, 1, 0, 80), want: badTransport},
		{name: "a bad header checksum, which the stack drops", frame: frame.With(whole, 24, 0, 0), want: open},
		{name: "the evil bit", frame: frame.With(whole, 20, 0x80), want: open},
		{name: "a time to live of 0", frame: frame.With(whole, 22, 0), want: open},
		{name: "cut off inside the header", frame: frame.Cut(whole, 33), want: badIPv4},
		{name: "cut off where the header begins", frame: frame.Cut(whole, 14), want: badIPv4},
		{name: "cut off behind the header", frame: frame.Cut(whole, 34), want: badIPv4},
		{name: "behind a tag, cut off inside the header", want: badIPv4,
			frame: frame.Cut(frame.Build(frame.Ethernet{}, frame.VLAN{}, ip, syn(80)), 37)},
		{name: "behind a tag, cut off where the header begins", want: badIPv4,
			frame: frame.Cut(frame.Build(frame.Ethernet{}, frame.VLAN{}, ip, syn(80)), 18)},
		{name: "IPv6 under IPv4's EtherType", want: badIPv4,
			frame: frame.Build(frame.Ethernet{Type: frame.TypeIPv4}, frame.IPv6{Src: worlds[1].peer, Dst: worlds[1].us}, syn(80))},
		{name: "to the subnet's broadcast address", frame: frame.Build(frame.Ethernet{Dst: frame.Broadcast},
			frame.IPv4{Src: w.peer, Dst: addr("192.0.2.255")}, syn(80)), want: open},
		{name: "to an address that is nobody's, while nothing forwards", frame: frame.Build(frame.Ethernet{},
			frame.IPv4{Src: w.peer, Dst: w.stranger}, syn(23)), want: closedPort},
	})
}

// The link may carry frames of any size up to the 64 KB that a driver merges.
func TestLongPackets(t *testing.T) {
	inBoth(t, func(w world) []arrival {
		data := frame.Raw(bytes.Repeat([]byte{0xff}, 1400))
		ack := frame.TCP{SrcPort: 9, DstPort: 80, Flags: frame.ACK}
		return []arrival{
			{name: "a full packet to an open port", frame: w.in(ack, data), want: rule("80/tcp")},
			{name: "a full packet to a closed port",
				frame: w.in(frame.TCP{SrcPort: 80, DstPort: 9, Flags: frame.ACK}, data), want: closedPort},
		}
	})
}

func TestJumboFramesAreReadByTheirFirstBuffer(t *testing.T) {
	d := load(t, testdp.Options{Policy: server, MultiBuffer: true})
	for _, w := range worlds {
		t.Run(w.String(), func(t *testing.T) {
			r := &trial{Datapath: d, path: testdp.XDP}
			data := frame.Raw(make([]byte, 8900))
			r.expect(t, w.in(frame.TCP{SrcPort: 9, DstPort: 80, Flags: frame.ACK}, data), rule("80/tcp"))
			r.expect(t, w.in(frame.TCP{SrcPort: 80, DstPort: 9, Flags: frame.ACK}, data), closedPort)
			r.expect(t, w.in(frame.UDP{SrcPort: 80, DstPort: 53}, data), rule("53/udp"))
			r.expect(t, frame.Cut(w.in(udp(53), data), 8000), map[int]want{4: badIPv4, 6: badIPv6}[w.family])
		})
	}
}
