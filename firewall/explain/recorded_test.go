// SPDX-License-Identifier: Apache-2.0

package explain

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/portcullis-firewall/portcullis/loader"
)

// four returns an IPv4 packet, six one of IPv6.
func four(protocol byte, body ...[]byte) []byte {
	b := append([]byte{0x45, 0, 0, 0, 0, 0, 0, 0, 64, protocol}, make([]byte, 10)...)
	b = append(b, bytes.Join(body, nil)...)
	binary.BigEndian.PutUint16(b[2:], uint16(len(b)))
	return b
}

func six(next byte, body ...[]byte) []byte {
	b := append([]byte{0x60, 0, 0, 0, 0, 0, next, 64}, make([]byte, 32)...)
	b = append(b, bytes.Join(body, nil)...)
	binary.BigEndian.PutUint16(b[4:], uint16(len(b)-headerIPv6))
	return b
}

// at sets bytes of a packet.
func at(b []byte, offset int, values ...byte) []byte {
	copy(b[offset:], values)
	return b
}

// ng writes blocks of a pcapng file.
type ng struct{ bytes.Buffer }

func newNG() *ng {
	f := &ng{}
	f.block(blockSection, uint32(magicOrder), uint32(1), uint64(1<<64-1))
	return f
}

func (f *ng) block(kind uint32, values ...any) {
	var body bytes.Buffer
	for _, v := range values {
		binary.Write(&body, binary.LittleEndian, v)
	}
	for body.Len()%4 != 0 {
		body.WriteByte(0)
	}
	length := uint32(body.Len() + 12)
	for _, v := range []any{kind, length, body.Bytes(), length} {
		binary.Write(f, binary.LittleEndian, v)
	}
}

func (f *ng) link(kind linkType, name string) {
	padded := append([]byte(name), make([]byte, -len(name)&3)...)
	f.block(blockInterface, uint16(kind), uint16(0), uint32(0), uint16(optionName), uint16(len(name)), padded)
}

func (f *ng) packet(on, length uint32, b []byte, flags ...uint32) {
	values := []any{on, uint64(0), uint32(len(b)), length, b, make([]byte, -len(b)&3)}
	for _, v := range flags {
		values = append(values, uint16(optionFlags), uint16(4), v)
	}
	f.block(blockPacket, values...)
}

func cooked(kind, device byte, packet []byte) []byte {
	return append(append([]byte{0, kind, 0, device, 0, 6}, make([]byte, 8)...), append([]byte{8, 0}, packet...)...)
}

func cooked2(index uint32, device uint16, kind byte, packet []byte) []byte {
	b := binary.BigEndian.AppendUint32([]byte{8, 0, 0, 0}, index)
	b = append(binary.BigEndian.AppendUint16(b, device), kind, 6)
	return append(append(b, make([]byte, 8)...), packet...)
}

// A file of several interfaces has packets of each, and says of those that cannot be played why.
func TestRecordingOfSeveralLinks(t *testing.T) {
	f := newNG()
	f.link(linkEthernet, "eth0")
	f.link(105, "wlan0")
	f.link(linkRaw, "tun0")
	f.link(linkCooked, "any")
	f.link(linkCooked2, "any")
	packet := four(unix.IPPROTO_TCP, make([]byte, 20))
	whole := func(b []byte) uint32 { return uint32(len(b)) }
	for i, b := range [][]byte{append(make([]byte, 14), packet...), []byte("beacon"), packet, cooked(0, 0, packet), cooked2(7, 1, 0, packet)} {
		f.packet(uint32(i), whole(b), b)
	}
	f.packet(0, 60, make([]byte, 60), uint32(outbound))
	f.packet(2, whole(packet), packet, uint32(inbound))
	for kind := range byte(5) {
		b := cooked(kind, 0, packet)
		f.packet(3, whole(b), b)
		b = cooked2(1, loopback, kind, packet)
		f.packet(4, whole(b), b)
	}
	f.packet(4, 100, []byte("short"))
	f.packet(2, 100, packet[:30])
	r, err := NewRecording(f)
	if err != nil {
		t.Fatal(err)
	}
	want := []Recorded{
		{Interface: "eth0", Ethernet: true},
		{Interface: "wlan0", Problem: "recorded on link type 105 (802.11), which cannot be played"},
		{Interface: "tun0"},
		{Interface: "any", In: true},
		{Interface: "any", In: true, Index: 7},
		{Interface: "eth0", Ethernet: true, Out: true},
		{Interface: "tun0", In: true},
	}
	for kind := range byte(5) {
		p := Recorded{Interface: "any", In: kind != fromHere, Out: kind == fromHere, To: []loader.Destination{0, loader.ToAll, loader.ToGroup, 0, 0}[kind]}
		if kind == toOther {
			p.Problem = "it went to another MAC address"
		}
		want = append(want, p)
		p.Index, p.Loopback = 1, true
		want = append(want, p)
	}
	want = append(want, Recorded{Interface: "any", Problem: "5 bytes of it were recorded"}, Recorded{Interface: "tun0", Problem: "30 of its 100 bytes were recorded"})
	for i, w := range want {
		p, err := r.Next()
		if err != nil {
			t.Fatalf("packet %d: %v", i+1, err)
		}
		if p.Problem == "" && !p.Ethernet && !bytes.Equal(p.Bytes, packet) {
			t.Errorf("packet %d has the bytes %x", i+1, p.Bytes)
		}
		if w.Problem == "" != (p.Problem == "") || !strings.HasPrefix(p.Problem, w.Problem) {
			t.Errorf("packet %d: %q, want %q", i+1, p.Problem, w.Problem)
		}
		got := Recorded{Interface: p.Interface, Index: p.Index, Ethernet: p.Ethernet, Out: p.Out, In: p.In, Loopback: p.Loopback, To: p.To}
		if w.Problem = ""; !same(got, w) {
			t.Errorf("packet %d is %+v, want %+v", i+1, got, w)
		}
	}
	if p, err := r.Next(); !errors.Is(err, io.EOF) {
		t.Errorf("behind the last packet: %+v, %v", p, err)
	}
}

func same(a, b Recorded) bool {
	a.Bytes, b.Bytes = nil, nil
	return a.Interface == b.Interface && a.Index == b.Index && a.Ethernet == b.Ethernet && a.Out == b.Out && a.In == b.In && a.Loopback == b.Loopback && a.To == b.To
}

// What cannot be played is told by what is in the way.
func TestRecordingThatCannotBePlayed(t *testing.T) {
	head := func(link uint32) string {
		var b bytes.Buffer
		for _, v := range []any{uint32(magicMicro), uint32(2 | 4<<16), uint64(0), uint32(65536), link} {
			binary.Write(&b, binary.LittleEndian, v)
		}
		return b.String()
	}
	for text, want := range map[string]string{
		"":                       "the recording is empty",
		head(1)[:20]:             "cut off before its first packet",
		head(105):                "recorded on link type 105 (802.11), which cannot be played: only Ethernet, raw IP and Linux's cooked links can",
		head(300):                "recorded on link type 300, which",
		"\x1f\x8b\x08rest of it": "compressed",
		"abc":                    "no recording",
	} {
		if _, err := NewRecording(strings.NewReader(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.30q: %v, want %q", text, err, want)
		}
	}
	r, err := NewRecording(strings.NewReader(head(1) + strings.Repeat("\x01\x00\x00\x00", 4) + "xy"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.Next(); err != nil {
		t.Error(err)
	}
	if _, err := r.Next(); err == nil || !strings.Contains(err.Error(), "the recording was cut off behind packet 1") {
		t.Errorf("half a packet: %v", err)
	}
}

// Of a packet that was recorded in part, so many bytes decide.
func TestHowMuchOfAPacketDecides(t *testing.T) {
	header, payload := func(n int, values ...byte) []byte { return at(make([]byte, n), 0, values...) }, make([]byte, 100)
	for _, c := range []struct {
		name string
		b    []byte
		want int // bytes
	}{
		{"tcp", four(unix.IPPROTO_TCP, header(20), payload), 40},
		{"options", at(four(unix.IPPROTO_TCP, header(8), header(20), payload), 0, 0x47), 48},
		{"a later fragment", at(four(unix.IPPROTO_TCP, payload), 6, 0, 8), 20},
		{"udp", four(unix.IPPROTO_UDP, header(8), payload), 28},
		{"sctp", four(unix.IPPROTO_SCTP, header(16), payload), 36},
		{"gre", four(unix.IPPROTO_GRE, payload), 20},
		{"ping", four(unix.IPPROTO_ICMP, header(8, 8), payload), 28},
		{"an error", four(unix.IPPROTO_ICMP, header(8, 3), four(unix.IPPROTO_TCP, header(20), payload)), 68},
		{"a short error", four(unix.IPPROTO_ICMP, header(8, 3), four(unix.IPPROTO_TCP, header(8))), 56},
		{"an error about an error", four(unix.IPPROTO_ICMP, header(8, 3), four(unix.IPPROTO_ICMP, header(8, 3), four(unix.IPPROTO_TCP, header(20)))), 56},
		{"icmpv6 in IPv4", four(unix.IPPROTO_ICMPV6, payload), 20},
		{"tcp in IPv6", six(unix.IPPROTO_TCP, header(20), payload), 60},
		{"an error in IPv6", six(unix.IPPROTO_ICMPV6, header(8, 2), six(unix.IPPROTO_UDP, header(8), payload)), 96},
		{"extensions", six(unix.IPPROTO_HOPOPTS, header(16, unix.IPPROTO_DSTOPTS, 1), header(8, unix.IPPROTO_TCP), header(20), payload), 84},
		{"a fragment of IPv6", six(unix.IPPROTO_FRAGMENT, header(8, unix.IPPROTO_TCP, 0, 0, 8), payload), 48},
		{"what ends early", four(unix.IPPROTO_TCP, header(3)), 23},
		{"what is too short", []byte("\x45abc"), 4},
	} {
		b := c.b
		dressed := append(make([]byte, 12), 0x81, 0, 0, 5)
		dressed = append(dressed, map[bool][]byte{true: {0x86, 0xdd}, false: {8, 0}}[b[0]>>4 == 6]...)
		for _, p := range []struct {
			Recorded
			header int
		}{{Recorded{Bytes: b}, 0}, {Recorded{Bytes: append(dressed, b...), Ethernet: true}, len(dressed)}} {
			for p.Captured = range len(p.Bytes) + 1 {
				if got := p.isWhole(); got != (p.Captured >= p.header+c.want) {
					t.Errorf("%s: %d of %d bytes, %d of them the link's, decide: %v", c.name, p.Captured, len(p.Bytes), p.header, got)
				}
			}
		}
	}
}

// The end of what the kernel had merged is left out, whatever tags stand before it.
func TestShortenedPackets(t *testing.T) {
	merged := four(unix.IPPROTO_UDP, make([]byte, 9000))
	for _, p := range []Recorded{
		{Bytes: merged},
		{Bytes: merged, Type: 0x0800},
		{Bytes: append([]byte{0, 5, 8, 0}, merged...), Type: 0x8100},
		{Bytes: append(append(make([]byte, 12), 8, 0), merged...), Ethernet: true},
		{Bytes: append(append(make([]byte, 12), 0x88, 0xa8, 0, 5, 0x81, 0, 0, 6, 8, 0), merged...), Ethernet: true},
	} {
		b := shorten(&p)
		ip := slices.Index(b, 0x45)
		if total := int(binary.BigEndian.Uint16(b[ip+2:])); len(b) != longestRun || total != len(b)-ip || int(binary.BigEndian.Uint16(b[ip+24:])) != total-20 {
			t.Errorf("of %d bytes, %d of a packet that says %d are left", len(p.Bytes), len(b)-ip, total)
		}
	}
}

// A time that nobody meant is none: it cannot be written as JSON.
func TestRecordedInTheFarFuture(t *testing.T) {
	f := newNG()
	f.block(blockInterface, uint16(linkRaw), uint16(0), uint32(0), uint16(optionResolution), uint16(1), []byte{0, 0, 0, 0})
	packet := four(unix.IPPROTO_GRE, make([]byte, 10))
	for _, high := range []uint32{0, 100, 1 << 31} {
		f.block(blockPacket, uint32(0), high, uint32(5), uint32(len(packet)), uint32(len(packet)), packet, make([]byte, -len(packet)&3))
	}
	r, err := NewRecording(f)
	if err != nil {
		t.Fatal(err)
	}
	for _, none := range []bool{false, true, true} {
		p, err := r.Next()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := p.Time.UTC().MarshalJSON(); p.Time.IsZero() != none || err != nil {
			t.Errorf("it was recorded at %v, %v", p.Time, err)
		}
	}
}
