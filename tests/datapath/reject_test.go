// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"bytes"
	"fmt"
	"maps"
	"net/netip"
	"strings"
	"testing"

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
	d.Advance(t, 100e6) // two of the spans in which answers are counted
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
