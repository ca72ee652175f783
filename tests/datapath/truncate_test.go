// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"strings"
	"testing"

	"github.com/portcullis-firewall/portcullis/bpf"
	"github.com/portcullis-firewall/portcullis/maps"
	"github.com/portcullis-firewall/portcullis/tests/internal/frame"
	"github.com/portcullis-firewall/portcullis/tests/internal/testdp"
)

// wholeFrames are well-formed frames of every kind; the fuzzer begins with them.
func wholeFrames() [][]byte {
	var list [][]byte
	add := func(b []byte) { list = append(list, b) }
	options := frame.Extension{Kind: frame.ProtoDestOptions, Words: 1}
	for _, w := range worlds {
		for _, l := range []frame.Layer{
			syn(80), syn(23), udp(53), udp(54), frame.SCTP{SrcPort: 1, DstPort: 5000, Chunk: frame.ChunkInit},
			frame.UDPLite{SrcPort: 1, DstPort: 5000}, frame.TCP{SrcPort: 1, DstPort: 80, Flags: frame.ACK, Options: make([]byte, 40)},
			w.echo(7, 1), w.reply(7, 1), frame.ICMPv6{Type: frame.NeighborSolicitation},
		} {
			add(w.in(l, frame.Text("data")))
		}
		add(w.in(w.unreachable(), w.ip(w.us, w.peer), frame.TCP{SrcPort: 80, DstPort: 9, Flags: frame.ACK}))
		add(w.in(w.unreachable(), w.ip(w.us, w.peer), frame.UDP{SrcPort: 40000, DstPort: 53}))
		add(frame.Build(frame.Ethernet{}, frame.VLAN{ID: 1, Service: true}, frame.VLAN{ID: 2}, w.ip(w.peer, w.us), syn(80)))
		add(frame.Build(frame.Ethernet{}, frame.VLAN{}, w.ip(w.peer, w.us), udp(53)))
		add(frame.Build(frame.Ethernet{}, frame.VLAN{}, frame.VLAN{}, frame.VLAN{}, w.ip(w.peer, w.us), udp(53)))
		add(w.fragmentOf(w.peer, w.us, frame.ProtoTCP, 0, true, w.transport(w.peer, w.us, syn(80), frame.Text("data"))))
		add(w.fragmentOf(w.peer, w.us, frame.ProtoTCP, 3, false, make([]byte, 24)))
		add(w.fragmentOf(w.peer, w.us, frame.ProtoTCP, 1, false, make([]byte, 24)))
		add(framed(w.number(w.peer, w.us, frame.ProtoESP), []frame.Layer{frame.Raw(make([]byte, 32))}))
	}
	six := worlds[1]
	add(six.in(frame.Extension{Kind: frame.ProtoHopByHop}, frame.Extension{Kind: frame.ProtoRouting, Words: 2}, options, frame.Fragment{}, options, syn(80)))
	add(six.in(options, options, options, options, options, options, options, options, options, options, udp(53)))
	add(six.in(options, options, options, options, options, options, options, options, options, options, options, udp(53)))
	add(six.in(frame.Extension{Kind: frame.ProtoHopByHop}, frame.ICMPv6{Type: frame.ListenerQuery}, frame.Raw(make([]byte, 20))))
	add(six.in(six.unreachable(), six.ip(six.us, six.peer), options, options, frame.TCP{SrcPort: 80, DstPort: 9, Flags: frame.ACK}))
	add(frame.Build(frame.Ethernet{}, frame.IPv4{Src: worlds[0].peer, Dst: worlds[0].us, Options: make([]byte, 40)}, udp(53)))
	add(frame.Build(frame.Ethernet{Type: frame.TypeARP}, frame.Raw(make([]byte, 28))))
	return list
}

// The end of the frame and the end that the IP header gives are the same here, so any frame that is cut off says more
// than there is, and is dropped.
func TestNoTruncatedPacketPasses(t *testing.T) {
	d := load(t, testdp.Options{Policy: server + "input: accept\n"})
	for _, path := range testdp.Ingress {
		r := &trial{Datapath: d, path: path}
		for _, whole := range wholeFrames() {
			if p := frame.Read(whole); !p.IP && p.Fault == "" {
				continue
			}
			for n := frame.EthernetLen; n < len(whole); n++ {
				b := frame.Cut(whole, n)
				if !testdp.CanRun(path, b) {
					continue
				}
				if r.Passes(t, path, b, testdp.From{}) {
					t.Errorf("%s: %d of %d bytes pass: %v\n%x", path, n, len(whole), r.Counted(t), b)
				}
			}
		}
	}
}

// Here the lengths say what is left, so each cut is a packet that is whole but short. It may pass only by a port that
// it names, and what a reader sees in it decides which.
func TestNoShortenedPacketPassesUnread(t *testing.T) {
	d := load(t, testdp.Options{Policy: strings.Replace(server, "icmp: [echo-request]", "icmp: drop", 1)})
	for _, path := range testdp.Ingress {
		r := &trial{Datapath: d, path: path}
		for _, whole := range wholeFrames() {
			for n := frame.EthernetLen; n < len(whole); n++ {
				b, ok := shortened(whole, n)
				if !ok || !testdp.CanRun(path, b) {
					continue
				}
				r.Counted(t)
				passes := r.Passes(t, path, b, testdp.From{})
				for reason := range r.Counted(t) {
					if p := frame.Read(b); passes && !justified(p, reason) {
						t.Errorf("%s: %d of %d bytes pass by %s\n%x", path, n, len(whole), reason, b)
					}
				}
			}
		}
	}
}

// shortened cuts a frame and mends the length in its IP header, if there still is one.
func shortened(whole []byte, n int) ([]byte, bool) {
	b := frame.Cut(whole, n)
	at := frame.EthernetLen
	kind := func() int { return int(b[at-2])<<8 | int(b[at-1]) }
	for kind() == frame.TypeVLAN || kind() == frame.TypeQinQ {
		if at += frame.VLANLen; at > n {
			return nil, false
		}
	}
	switch {
	case kind() == frame.TypeIPv4 && n >= at+frame.IPv4Len:
		length := n - at
		return frame.With(b, at+2, byte(length>>8), byte(length)), true
	case kind() == frame.TypeIPv6 && n >= at+frame.IPv6Len:
		length := n - at - frame.IPv6Len
		return frame.With(b, at+4, byte(length>>8), byte(length)), true
	}
	return nil, false
}

// justified reports whether a packet may pass by a reason, under a policy that drops ICMP.
func justified(p frame.Packet, by maps.Reason) bool {
	switch {
	case p.Fault != "" || !p.IP:
		return false
	case by == maps.Reason(bpf.FirewallReasonPASS_FRAGMENT):
		return p.Later
	case by == maps.Reason(bpf.FirewallReasonPASS_NEIGHBOR_DISCOVERY):
		return p.Protocol == frame.ProtoICMPv6 && len(p.Payload) >= frame.ICMPLen
	case by == maps.Reason(bpf.FirewallReasonPASS_RELATED):
		return len(p.Payload) >= frame.ICMPLen+frame.IPv4Len+4
	}
	return p.HasPorts && (p.DstPort == 80 || p.DstPort == 53 || p.DstPort == 5000)
}
