// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"bytes"
	"fmt"
	"maps"
	"net/netip"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/cilium/ebpf"

	"github.com/portcullis-firewall/portcullis/bpf"
	dpmaps "github.com/portcullis-firewall/portcullis/maps"
	"github.com/portcullis-firewall/portcullis/tests/internal/frame"
	"github.com/portcullis-firewall/portcullis/tests/internal/testdp"
)

var rejected = bpf.FirewallReasonDROP_REJECTED

// Two stations on a link. Test runs on TC are at lo, whose own is all zeroes.
var (
	ourMAC  = frame.MAC{}
	peerMAC = frame.MAC{2, 0, 0, 0, 0, 2}
)

const rejecting = "input: reject\ninvalid: drop\nopen: [80/tcp, 22/tcp from 203.0.113.0/24]\nicmp: drop\n"

// loadRejecting loads the datapath of a host that has the addresses of both worlds, and broadcast ones.
func loadRejecting(t testing.TB, o testdp.Options) *testdp.Datapath {
	t.Helper()
	if o.Policy == "" {
		o.Policy = rejecting
	}
	o.MAC = ourMAC
	d := load(t, o)
	own := []netip.Prefix{netip.PrefixFrom(worlds[0].us, 32), netip.PrefixFrom(worlds[1].us, 128)}
	shared := []netip.Prefix{netip.MustParsePrefix("192.0.2.255/32"), netip.MustParsePrefix("2001:db8::/128")}
	if err := d.Set.PutLocal(own, shared); err != nil {
		t.Fatal(err)
	}
	return d
}

// refill gives every CPU its answers anew.
func refill(t testing.TB, d *testdp.Datapath) {
	t.Helper()
	m := d.Map(t, bpf.FirewallMapRejections)
	if err := m.Put(uint32(0), make([]bpf.FirewallRejection, ebpf.MustPossibleCPU())); err != nil {
		t.Fatal(err)
	}
}

// between frames layers between two link layer addresses.
func between(src, dst frame.MAC, layers ...frame.Layer) []byte {
	return frame.Build(append([]frame.Layer{frame.Ethernet{Src: src, Dst: dst}}, layers...)...)
}

// inward is a frame of the peer's; back is what answers it.
func (w world) inward(layers ...frame.Layer) []byte {
	return between(peerMAC, ourMAC, append([]frame.Layer{w.ip(w.peer, w.us)}, layers...)...)
}

func (w world) reset(tcp frame.TCP) []byte {
	tcp.Closed = true
	if w.family == 4 {
		return between(ourMAC, peerMAC, frame.IPv4{Src: w.us, Dst: w.peer, DontFragment: true}, tcp)
	}
	return between(ourMAC, peerMAC, frame.IPv6{Src: w.us, Dst: w.peer}, tcp)
}

// portUnreachable answers a frame, of which it quotes so many bytes from the IP header on.
func (w world) portUnreachable(b []byte, tos byte) []byte {
	quote := b[frame.EthernetLen:]
	if w.family == 4 {
		quote = quote[:min(len(quote), 548)]
		return between(ourMAC, peerMAC, frame.IPv4{Src: w.us, Dst: w.peer, TOS: tos&0x1e | 0xc0},
			frame.ICMPv4{Type: frame.Unreachable, Code: 3}, frame.Raw(quote))
	}
	quote = quote[:min(len(quote), 1232)]
	return between(ourMAC, peerMAC, frame.IPv6{Src: w.us, Dst: w.peer},
		frame.ICMPv6{Type: frame.Unreachable6, Code: 4}, frame.Raw(quote))
}

// What is closed is answered as netfilter's REJECT does: with a RST, or with an ICMP error.
func TestRejectAnswers(t *testing.T) {
	d := loadRejecting(t, testdp.Options{})
	for _, w := range worlds {
		long := frame.Text(strings.Repeat("x", 1401))
		udpTo := func(text string) []byte { return w.inward(frame.UDP{SrcPort: 40000, DstPort: 54}, frame.Text(text)) }
		gre := w.number(w.peer, w.us, frame.ProtoGRE)
		cases := []struct {
			name        string
			frame, want []byte
		}{
			{"SYN", w.inward(frame.TCP{SrcPort: 40000, DstPort: 23, Flags: frame.SYN, Seq: 0xffffffff}),
				w.reset(frame.TCP{SrcPort: 23, DstPort: 40000, Flags: frame.RST | frame.ACK, Ack: 0})},
			{"SYN with options", w.inward(frame.TCP{SrcPort: 40000, DstPort: 23, Flags: frame.SYN, Seq: 7, Options: make([]byte, 20)}),
				w.reset(frame.TCP{SrcPort: 23, DstPort: 40000, Flags: frame.RST | frame.ACK, Ack: 8})},
			{"SYN with data", w.inward(frame.TCP{SrcPort: 40000, DstPort: 23, Flags: frame.SYN, Seq: 7}, frame.Text("fast open")),
				w.reset(frame.TCP{SrcPort: 23, DstPort: 40000, Flags: frame.RST | frame.ACK, Ack: 17})},
			{"ACK", w.inward(frame.TCP{SrcPort: 40000, DstPort: 23, Flags: frame.ACK, Seq: 7, Ack: 9}, long),
				w.reset(frame.TCP{SrcPort: 23, DstPort: 40000, Flags: frame.RST, Seq: 9})},
			{"SYN from a source that is not let in", w.inward(frame.TCP{SrcPort: 40000, DstPort: 22, Flags: frame.SYN, Seq: 7}),
				w.reset(frame.TCP{SrcPort: 22, DstPort: 40000, Flags: frame.RST | frame.ACK, Ack: 8})},
			{"UDP", udpTo("query"), w.portUnreachable(udpTo("query"), 0)},
			{"UDP, empty", udpTo(""), w.portUnreachable(udpTo(""), 0)},
			{"UDP, long", udpTo(string(long)), w.portUnreachable(udpTo(string(long)), 0)},
			{"UDP without a checksum", w.inward(frame.UDP{SrcPort: 40000, DstPort: 54, Checksum: frame.Exactly(0)}, frame.Text("q")),
				w.portUnreachable(w.inward(frame.UDP{SrcPort: 40000, DstPort: 54, Checksum: frame.Exactly(0)}, frame.Text("q")), 0)},
			{"GRE", between(peerMAC, ourMAC, gre, frame.Raw("a protocol")),
				w.portUnreachable(between(peerMAC, ourMAC, gre, frame.Raw("a protocol")), 0)},
		}
		if w.family == 4 {
			tos := between(peerMAC, ourMAC, frame.IPv4{Src: w.peer, Dst: w.us, TOS: 0xb9, Options: make([]byte, 8)},
				frame.UDP{SrcPort: 40000, DstPort: 54}, frame.Text("q"))
			cases = append(cases, []struct {
				name        string
				frame, want []byte
			}{
				{"UDP behind options", tos, w.portUnreachable(tos, 0xb9)},
				{"SYN behind options", between(peerMAC, ourMAC, frame.IPv4{Src: w.peer, Dst: w.us, Options: make([]byte, 8)},
					frame.TCP{SrcPort: 40000, DstPort: 23, Flags: frame.SYN, Seq: 7}),
					w.reset(frame.TCP{SrcPort: 23, DstPort: 40000, Flags: frame.RST | frame.ACK, Ack: 8})},
			}...)
		} else {
			options := frame.Extension{Kind: frame.ProtoDestOptions}
			cases = append(cases, []struct {
				name        string
				frame, want []byte
			}{
				{"UDP behind an extension", w.inward(options, frame.UDP{SrcPort: 40000, DstPort: 54}, frame.Text("q")),
					w.portUnreachable(w.inward(options, frame.UDP{SrcPort: 40000, DstPort: 54}, frame.Text("q")), 0)},
				{"SYN behind an extension", w.inward(options, frame.TCP{SrcPort: 40000, DstPort: 23, Flags: frame.SYN, Seq: 7}),
					w.reset(frame.TCP{SrcPort: 23, DstPort: 40000, Flags: frame.RST | frame.ACK, Ack: 8})},
			}...)
		}
		for _, path := range testdp.Ingress {
			for _, c := range cases {
				t.Run(fmt.Sprintf("%s/%s/%s", w, path, c.name), func(t *testing.T) {
					d.Forget(t)
					refill(t, d)
					expected[rejected] = true
					got := d.Answer(t, path, c.frame, testdp.From{})
					if !bytes.Equal(got, c.want) {
						t.Errorf("answered with\n%x, not\n%x", got, c.want)
					}
					if up := d.Counted(t); !maps.Equal(up, map[dpmaps.Reason]uint64{dpmaps.Reason(rejected): 1}) {
						t.Errorf("counted %v", up)
					}
				})
			}
		}
	}
}

// mustBeSilent fails when a frame is answered, or counted otherwise.
func mustBeSilent(t *testing.T, d *testdp.Datapath, path testdp.Path, b []byte, w want) {
	t.Helper()
	if got := d.Answer(t, path, b, testdp.From{}); got != nil {
		t.Errorf("answered with\n%x", got)
	}
	wanted := map[dpmaps.Reason]uint64{dpmaps.Reason(w.reason): 1}
	if w.kind != 0 {
		wanted[dpmaps.Reason(w.kind)] = 1
	}
	if up := d.Counted(t); !maps.Equal(up, wanted) {
		t.Errorf("counted %v, not %v", up, wanted)
	}
}

// What may have come to many, from nobody or as an answer itself, is dropped without a word.
func TestRejectIsSilent(t *testing.T) {
	d := loadRejecting(t, testdp.Options{})
	group := frame.MAC{1, 0, 0x5e, 0, 0, 1}
	for _, w := range worlds {
		tcp := frame.TCP{SrcPort: 40000, DstPort: 23, Flags: frame.SYN, Seq: 7}
		udp := frame.UDP{SrcPort: 40000, DstPort: 54}
		from := func(src string) []byte { return between(peerMAC, ourMAC, w.ip(addr(src), w.us), tcp) }
		to := func(dst string) []byte {
			return between(peerMAC, ourMAC, w.ip(w.peer, addr(dst)), udp, frame.Text("q"))
		}
		firstFragment := w.fragmentOf(w.peer, w.us, frame.ProtoUDP, 0, true, w.transport(w.peer, w.us, udp, frame.Text("12345678")))
		firstFragment = frame.With(firstFragment, 6, peerMAC[:]...)
		type silence struct {
			name  string
			frame []byte
			want  want
		}
		cases := []silence{
			{"broadcast frame", between(peerMAC, frame.Broadcast, w.ip(w.peer, w.us), tcp), closedPort},
			{"group frame", between(peerMAC, group, w.ip(w.peer, w.us), udp), closedPort},
			{"frame from a group", between(group, ourMAC, w.ip(w.peer, w.us), udp), closedPort},
			{"RST", w.inward(frame.TCP{SrcPort: 40000, DstPort: 23, Flags: frame.RST}), invalid.of(wrongState)},
			{"FIN", w.inward(frame.TCP{SrcPort: 40000, DstPort: 23, Flags: frame.FIN | frame.ACK}), invalid.of(wrongState)},
			{"SYN-ACK", w.inward(frame.TCP{SrcPort: 40000, DstPort: 23, Flags: frame.SYN | frame.ACK}), invalid.of(wrongState)},
			{"no flags", w.inward(frame.TCP{SrcPort: 40000, DstPort: 23}), invalid.of(impossible)},
			{"UDP with a wrong length", w.inward(frame.UDP{SrcPort: 40000, DstPort: 54, Length: frame.Exactly(999)}), invalid.of(wrongLength)},
			{"ping", w.inward(w.echo(1, 1)), icmpClosed},
			{"error about nothing of ours", w.inward(w.unreachable(), frame.Raw(udpOf(w))), invalid.of(noFlow)},
			{"from this host", between(peerMAC, ourMAC, w.ip(w.us, w.us), tcp), closedPort},
			{"first fragment", firstFragment, closedPort},
		}
		if w.family == 4 {
			cases = append(cases, []silence{
				{"from 0.0.0.0", from("0.0.0.0"), closedPort},
				{"from 0.1.2.3", from("0.1.2.3"), closedPort},
				{"from loopback", from("127.0.0.1"), closedPort},
				{"from a group", from("224.0.0.1"), closedPort},
				{"from the reserved class", from("240.0.0.1"), closedPort},
				{"from the broadcast address", from("255.255.255.255"), closedPort},
				{"from the network's broadcast address", from("192.0.2.255"), closedPort},
				{"to the network's broadcast address", to("192.0.2.255"), closedPort},
				{"to the broadcast address", to("255.255.255.255"), closedPort},
				{"to a group", to("224.0.0.251"), closedPort},
				{"to an address that is not in the map", to("192.0.2.99"), closedPort},
			}...)
		} else {
			cases = append(cases, []silence{
				{"from ::", from("::"), closedPort},
				{"from loopback", from("::1"), closedPort},
				{"from a group", from("ff02::1"), closedPort},
				{"from IPv4 as IPv6", from("::ffff:192.0.2.2"), closedPort},
				{"to an anycast address", to("2001:db8::"), closedPort},
				{"to a group", to("ff02::fb"), closedPort},
			}...)
		}
		for _, path := range testdp.Ingress {
			for _, c := range cases {
				t.Run(fmt.Sprintf("%s/%s/%s", w, path, c.name), func(t *testing.T) {
					d.Forget(t)
					refill(t, d)
					mustBeSilent(t, d, path, c.frame, c.want)
				})
			}
		}
	}
}

// udpOf is a UDP packet to somewhere.
func udpOf(w world) []byte {
	return frame.Build(frame.Ethernet{}, w.ip(w.us, w.peer), frame.UDP{SrcPort: 1, DstPort: 2}, frame.Text("12345678"))[frame.EthernetLen:]
}

// The link header goes back turned round, with the tags that it came with, or none where the device has none.
func TestRejectKeepsTheLink(t *testing.T) {
	for _, w := range worlds {
		tcp := frame.TCP{SrcPort: 40000, DstPort: 23, Flags: frame.SYN, Seq: 7}
		udp := []frame.Layer{frame.UDP{SrcPort: 40000, DstPort: 54}, frame.Text("query")}
		tagged := func(b []byte, tags ...byte) []byte { return slices.Insert(bytes.Clone(b), 12, tags...) }
		plain := map[string][2][]byte{
			"TCP": {w.inward(tcp), w.reset(frame.TCP{SrcPort: 23, DstPort: 40000, Flags: frame.RST | frame.ACK, Ack: 8})},
			"UDP": {w.inward(udp...), w.portUnreachable(w.inward(udp...), 0)},
		}
		d := loadRejecting(t, testdp.Options{})
		l3 := loadRejecting(t, testdp.Options{L3: true})
		for name, p := range plain {
			for _, tags := range [][]byte{{0x81, 0, 0x60, 7}, {0x88, 0xa8, 0, 9, 0x81, 0, 0, 7}} {
				refill(t, d)
				got := d.Answer(t, testdp.XDP, tagged(p[0], tags...), testdp.From{})
				if want := tagged(p[1], tags...); !bytes.Equal(got, want) {
					t.Errorf("%s, %s behind %x: answered with\n%x, not\n%x", w, name, tags, got, want)
				}
			}
			there, back := p[0][frame.EthernetLen:], p[1][frame.EthernetLen:]
			refill(t, l3)
			if got := l3.Answer(t, testdp.XDP, there, testdp.From{}); !bytes.Equal(got, back) {
				t.Errorf("%s, %s without a link header: answered with\n%x, not\n%x", w, name, got, back)
			}
		}
	}
}

// A flood gets 50 answers in a twentieth of a second, from each CPU, and what is more is dropped as closed.
func TestRejectIsBounded(t *testing.T) {
	const flood = 500
	d := loadRejecting(t, testdp.Options{})
	for _, path := range testdp.Ingress {
		refill(t, d)
		d.Counted(t)
		begin, answers := d.Now(t), uint64(0)
		for i := range flood {
			if d.Answer(t, path, worlds[0].inward(frame.TCP{SrcPort: uint16(i), DstPort: 23, Flags: frame.SYN}), testdp.From{}) != nil {
				answers++
			}
		}
		spans := (d.Now(t)-begin)/(testdp.HZ/20) + 1
		if answers < 50 || answers > 50*spans*uint64(runtime.NumCPU()) {
			t.Errorf("%s: %d answers in %d spans", path, answers, spans)
		}
		if up := d.Counted(t); up[dpmaps.Reason(rejected)] != answers || up[dpmaps.Reason(closedPort.reason)] != flood-answers {
			t.Errorf("%s: %d answers, and counted %v", path, answers, up)
		}
	}
}

// An answer of ours leaves, begins no flow and is not taken for a routed packet; what is routed is judged as ever.
func TestRejectedAnswersLeave(t *testing.T) {
	d := loadRejecting(t, testdp.Options{})
	for _, w := range worlds {
		hairpin := testdp.From{Device: 1, Routed: 1}
		reset := frame.TCP{SrcPort: 23, DstPort: 40000, Flags: frame.RST | frame.ACK, Ack: 8}
		for name, c := range map[string]struct {
			frame  []byte
			from   testdp.From
			passes bool
		}{
			"a RST":                    {w.out(reset), hairpin, true},
			"an error":                 {w.out(w.unreachable(), frame.Raw(udpOf(w))), hairpin, true},
			"a RST of somebody else's": {framed(w.ip(w.stranger, w.peer), []frame.Layer{reset}), hairpin, false},
			"a SYN":                    {w.out(frame.TCP{SrcPort: 23, DstPort: 40000, Flags: frame.SYN}), hairpin, false},
			"a RST from elsewhere":     {w.out(reset), testdp.From{Device: 1, Routed: 2}, false},
		} {
			if got := d.Passes(t, testdp.Out, c.frame, c.from); got != c.passes {
				t.Errorf("%s: %s leaves: %v, want %v", w, name, got, c.passes)
			}
			if flows := d.Flows(t); len(flows) > 0 {
				t.Errorf("%s: %s begins a flow: %v", w, name, flows)
			}
		}
	}
}

// A frame that goes on behind the driver's first buffer is answered, with what that has.
func TestRejectWithMultiBuffer(t *testing.T) {
	d := loadRejecting(t, testdp.Options{MultiBuffer: true})
	for _, w := range worlds {
		text := frame.Text(strings.Repeat("y", 6000))
		reset := w.reset(frame.TCP{SrcPort: 23, DstPort: 40000, Flags: frame.RST, Seq: 9})
		refill(t, d)
		if got := d.Answer(t, testdp.XDP, w.inward(frame.TCP{SrcPort: 40000, DstPort: 23, Flags: frame.ACK, Seq: 7, Ack: 9}, text), testdp.From{}); !bytes.Equal(got, reset) {
			t.Errorf("%s: answered with\n%x, not\n%x", w, got, reset)
		}
		udp := w.inward(frame.UDP{SrcPort: 40000, DstPort: 54}, text)
		if got, want := d.Answer(t, testdp.XDP, udp, testdp.From{}), w.portUnreachable(udp, 0); !bytes.Equal(got, want) {
			t.Errorf("%s: answered with\n%x, not\n%x", w, got, want)
		}
	}
}
