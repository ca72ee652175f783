// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"fmt"
	"testing"
	"time"

	"github.com/portcullis-firewall/portcullis/bpf"
	"github.com/portcullis-firewall/portcullis/maps"
	"github.com/portcullis-firewall/portcullis/tests/internal/frame"
	"github.com/portcullis-firewall/portcullis/tests/internal/testdp"
)

// What goes out is never counted, and is a flow afterwards or not.
func TestWhatGoesOutBeginsAFlow(t *testing.T) {
	d := load(t, testdp.Options{Policy: server})
	for _, w := range worlds {
		tcp := func(src uint16, flags uint8) []byte {
			return w.out(frame.TCP{SrcPort: src, DstPort: 50000, Seq: 1, Ack: 2, Flags: flags})
		}
		proto := func(number uint8, body []byte) []byte {
			return framed(w.number(w.us, w.peer, number), []frame.Layer{frame.Raw(body)})
		}
		part := func(protocol uint8, offset uint16, more bool, layers ...frame.Layer) []byte {
			return w.fragmentOf(w.us, w.peer, protocol, offset, more, w.transport(w.us, w.peer, layers...))
		}
		toFriend := func(layer frame.Layer) []byte { return framed(w.ip(w.us, w.friend), []frame.Layer{layer}) }
		query := frame.UDP{SrcPort: 40000, DstPort: 53}
		for _, c := range []struct {
			name  string
			frame []byte
			state string // "" for no flow
		}{
			{"a SYN", tcp(40000, frame.SYN), "tcp-syn-sent"},
			{"a SYN with congestion bits", tcp(40000, frame.SYN|frame.ECE|frame.CWR), "tcp-syn-sent"},
			{"an ACK", tcp(40000, frame.ACK), "tcp-loose"},
			{"data", tcp(40000, frame.ACK|frame.PSH), "tcp-loose"},
			{"a SYN-ACK", tcp(40000, frame.SYN|frame.ACK), ""},
			{"a RST", tcp(40000, frame.RST), ""},
			{"a RST-ACK", tcp(40000, frame.RST|frame.ACK), ""},
			{"a FIN-ACK", tcp(40000, frame.FIN|frame.ACK), ""},
			{"a FIN", tcp(40000, frame.FIN), ""},
			{"no flags", tcp(40000, 0), ""},
			{"a SYN-FIN", tcp(40000, frame.SYN|frame.FIN), ""},
			{"a SYN-ACK from an open port", tcp(80, frame.SYN|frame.ACK), ""},
			{"an ACK from an open port", tcp(80, frame.ACK), ""},
			{"data from an open port", tcp(2010, frame.ACK|frame.PSH), ""},
			{"a SYN from an open port", tcp(80, frame.SYN), ""},
			{"data from behind an open range", tcp(2011, frame.ACK|frame.PSH), "tcp-loose"},
			{"a SYN-ACK from a restricted port", tcp(22, frame.SYN|frame.ACK), ""},
			{"data from a restricted port", tcp(22, frame.ACK|frame.PSH), "tcp-loose"},
			{"data from a restricted port to whom it is open", toFriend(frame.TCP{SrcPort: 22, DstPort: 50000, Flags: frame.ACK}), ""},
			{"a SYN from a restricted port to whom it is open", toFriend(frame.TCP{SrcPort: 22, DstPort: 50000, Flags: frame.SYN}), ""},
			{"UDP from a restricted port", w.out(frame.UDP{SrcPort: 161, DstPort: 40000}), "udp"},
			{"UDP from a restricted port to whom it is open", toFriend(frame.UDP{SrcPort: 161, DstPort: 40000}), ""},
			{"UDP", w.out(query), "udp"},
			{"UDP from an open port", w.out(frame.UDP{SrcPort: 53, DstPort: 40000}), ""},
			{"UDP from a port that is open in TCP", w.out(frame.UDP{SrcPort: 80, DstPort: 40000}), "udp"},
			{"UDP-Lite", w.out(frame.UDPLite{SrcPort: 40000, DstPort: 53}), "udp"},
			{"an SCTP INIT", w.out(frame.SCTP{SrcPort: 40000, DstPort: 3868, Chunk: frame.ChunkInit}), "sctp-new"},
			{"an SCTP ABORT", w.out(frame.SCTP{SrcPort: 40000, DstPort: 3868, Chunk: frame.ChunkAbort}), ""},
			{"an SCTP SHUTDOWN COMPLETE", w.out(frame.SCTP{SrcPort: 40000, DstPort: 3868, Chunk: frame.ChunkShutdownComplete}), ""},
			{"a ping", w.out(w.echo(7, 1)), "icmp"},
			{"a reply to a ping", w.out(w.reply(7, 1)), ""},
			{"an ICMP error", w.out(w.unreachable(), w.ip(w.peer, w.us), udp(9)), ""},
			{"GRE", proto(frame.ProtoGRE, make([]byte, 8)), "gre"},
			{"ESP", proto(frame.ProtoESP, make([]byte, 8)), "other"},
			{"a first fragment", part(frame.ProtoUDP, 0, true, query), "udp"},
			{"a later fragment", part(frame.ProtoUDP, 3, false, query), ""},
			{"half of the ports", proto(frame.ProtoUDP, []byte{1, 2, 3}), ""},
			{"something malformed", frame.With(w.out(query), frame.EthernetLen, 0), ""},
			{"ARP", frame.Build(frame.Ethernet{Type: frame.TypeARP}, frame.Raw(make([]byte, 28))), ""},
			{"a tagged SYN", frame.Build(frame.Ethernet{}, frame.VLAN{ID: 5}, w.ip(w.us, w.peer), syn(50000)), "tcp-syn-sent"},
		} {
			t.Run(fmt.Sprintf("%s/%s", w, c.name), func(t *testing.T) {
				d.Forget(t)
				r := &trial{Datapath: d}
				sent(c.frame)(t, r)
				flow := r.expectState(t, c.state)
				if flow == nil {
					return
				}
				if flow.Answered || flow.Local.Addr() != w.us || flow.Remote.Addr() != w.peer {
					t.Errorf("the flow is %+v", flow)
				}
				if p := frame.Read(c.frame); p.HasPorts && (flow.Local.Port() != p.SrcPort || flow.Remote.Port() != p.DstPort) {
					t.Errorf("the flow's ports are %s and %s", flow.Local, flow.Remote)
				}
			})
		}
	}
}

// A flow is assured when netfilter calls it so: what is not gives way in a full table.
func TestFlowsAreAssured(t *testing.T) {
	d := load(t, testdp.Options{Policy: server})
	for _, w := range worlds {
		asks, answers := sent(w.out(frame.UDP{SrcPort: 40000, DstPort: 53})), received(w.in(frame.UDP{SrcPort: 53, DstPort: 40000}))
		tunnels := sent(framed(w.number(w.us, w.peer, frame.ProtoGRE), nil))
		tunneled := received(framed(w.number(w.peer, w.us, frame.ProtoGRE), nil))
		associates := func(chunk uint8) step { return sent(w.out(frame.SCTP{SrcPort: 40000, DstPort: 3868, Chunk: chunk})) }
		for _, path := range testdp.Ingress {
			for _, c := range []struct {
				name    string
				steps   []step
				assured bool
			}{
				{"a SYN", w.asked(), false},
				{"a SYN and a RST, which may be forged", after(w.asked(), received(w.tcpIn(theirRST))), false},
				{"a SYN and a crossing SYN", after(w.asked(), received(w.tcpIn(segment{flags: frame.SYN}))), false},
				{"a SYN and its SYN-ACK", after(w.asked(), received(w.tcpIn(theirSA))), false},
				{"a handshake", w.connected(), true},
				{"data and more data", []step{sent(w.tcpOut(ourData)), sent(w.tcpOut(ourData))}, false},
				{"data and its ACK", []step{sent(w.tcpOut(ourData)), received(w.tcpIn(theirACK))}, false},
				{"data, its ACK and more", []step{sent(w.tcpOut(ourData)), received(w.tcpIn(theirACK)), received(w.tcpIn(theirData))}, true},
				{"a ping and its reply", []step{sent(w.out(w.echo(7, 1))), received(w.in(w.reply(7, 1))), received(w.in(w.reply(7, 1)))}, false},
				{"a query and something else", []step{sent(w.out(udp(53))), refused(w.in(udp(9)))}, false},
				{"a query and its answers", []step{asks, answers, answers}, false},
				{"a query and an answer late", []step{asks, waited(3 * time.Second), answers}, false},
				{"a query that is asked again late", []step{asks, waited(3 * time.Second), asks}, false},
				{"a query and answers late", []step{asks, waited(3 * time.Second), answers, answers}, true},
				{"GRE, and an answer", []step{tunnels, tunneled}, false},
				{"GRE, and two answers", []step{tunnels, tunneled, tunneled}, true},
				{"an SCTP INIT", []step{associates(frame.ChunkInit)}, false},
				{"an SCTP INIT and its answer", []step{associates(frame.ChunkInit), received(w.in(frame.SCTP{SrcPort: 3868, DstPort: 40000, Chunk: frame.ChunkInitAck}))}, true},
			} {
				t.Run(fmt.Sprintf("%s/%s/%s", w, path, c.name), func(t *testing.T) {
					d.Forget(t)
					r := &trial{Datapath: d, path: path}
					for _, s := range c.steps {
						s(t, r)
					}
					flows := d.Flows(t)
					if len(flows) != 1 || flows[0].Assured != c.assured {
						t.Errorf("the flows are %+v; want one, assured: %v", flows, c.assured)
					}
				})
			}
		}
	}
}

// The kernel merges segments, and leaves the length in the IP header 0 when the sum has no room in it.
func TestMergedPackets(t *testing.T) {
	d := load(t, testdp.Options{Policy: server})
	for _, w := range worlds {
		none := func(src, dst uint16) []byte {
			tcp := frame.TCP{SrcPort: src, DstPort: dst, Flags: frame.ACK}
			local, remote := w.us, w.peer
			if dst == 80 {
				local, remote = w.peer, w.us
			}
			if w.family == 4 {
				return frame.Build(frame.Ethernet{}, frame.IPv4{Src: local, Dst: remote, TotalLength: frame.Exactly(0)}, tcp, frame.Raw(make([]byte, 3000)))
			}
			return frame.Build(frame.Ethernet{}, frame.IPv6{Src: local, Dst: remote, PayloadLength: frame.Exactly(0)}, tcp, frame.Raw(make([]byte, 3000)))
		}
		t.Run(w.String(), func(t *testing.T) {
			d.Forget(t)
			r := &trial{Datapath: d, path: testdp.TC, from: testdp.From{Segments: 3}}
			leaves(none(40000, 443), testdp.From{Segments: 3})(t, r)
			r.expectState(t, "tcp-loose")
			before := merged(t, d)
			r.expect(t, none(5, 80), rule("80/tcp"))
			if got := merged(t, d) - before; got != 2 {
				t.Errorf("a packet of 3 frames counts %d besides itself, want 2", got)
			}
			r.from.Segments = 1
			r.expect(t, none(5, 80), map[int]want{4: badIPv4, 6: badTransport}[w.family])
			// A merged UDP packet carries the length of one datagram or of all.
			r.from.Segments = 2
			sent(w.out(frame.UDP{SrcPort: 41000, DstPort: 53}))(t, r)
			r.expect(t, w.in(frame.UDP{SrcPort: 53, DstPort: 41000, Length: frame.Exactly(60000)}, frame.Raw(make([]byte, 500))), established)
		})
	}
}

func merged(t testing.TB, d *testdp.Datapath) uint64 {
	t.Helper()
	counted, err := d.Set.Counters()
	if err != nil {
		t.Fatal(err)
	}
	expected[bpf.FirewallReasonSEEN_MERGED] = true
	return counted[maps.Merged]
}

// A flow is written in one orientation, so that both sides find it, whatever the ports.
func TestFlowsOfOneHostDoNotMix(t *testing.T) {
	d := load(t, testdp.Options{Policy: server})
	for _, w := range worlds {
		for _, path := range testdp.Ingress {
			t.Run(w.String()+"/"+path.String(), func(t *testing.T) {
				d.Forget(t)
				r := &trial{Datapath: d, path: path}
				for port := range uint16(300) {
					sent(w.out(frame.UDP{SrcPort: 40000 + port, DstPort: 7000 + port%7}))(t, r)
				}
				for port := range uint16(300) {
					r.expect(t, w.in(frame.UDP{SrcPort: 7000 + port%7, DstPort: 40000 + port}), established)
					r.expect(t, w.in(frame.UDP{SrcPort: 7000 + (port+1)%7, DstPort: 40000 + port}), closedPort)
				}
				var answered int
				if err := d.Set.Flows(func(f *maps.Flow) bool {
					if f.Answered {
						answered++
					}
					return true
				}); err != nil || answered != 300 {
					t.Errorf("%d flows are answered, %v; want 300", answered, err)
				}
			})
		}
	}
}
