// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"fmt"
	"testing"
	"time"

	"github.com/portcullis-firewall/portcullis/maps"
	"github.com/portcullis-firewall/portcullis/tests/internal/frame"
	"github.com/portcullis-firewall/portcullis/tests/internal/testdp"
)

// life is a flow in some state, and how long it lives from there.
type life struct {
	name   string
	before []step
	state  string
	lasts  time.Duration
	probe  []byte // a frame that passes as long as the flow lives
}

// lives checks for each, on both paths, the state, that the probe passes a second before the end, and that it does not
// a second after.
func lives(t *testing.T, cases func(world) []life) {
	t.Helper()
	d := load(t, testdp.Options{Policy: server})
	for _, w := range worlds {
		for _, path := range testdp.Ingress {
			for _, c := range cases(w) {
				t.Run(fmt.Sprintf("%s/%s/%s", w, path, c.name), func(t *testing.T) {
					for _, end := range []struct {
						after time.Duration
						lives bool
					}{{c.lasts - time.Second, true}, {c.lasts + time.Second, false}} {
						d.Forget(t)
						r := &trial{Datapath: d, path: path}
						for _, s := range c.before {
							s(t, r)
						}
						r.expectState(t, c.state)
						d.Advance(t, end.after)
						if got := r.Passes(t, path, c.probe, testdp.From{}); got != end.lives {
							t.Errorf("after %s the flow lives: %v, want %v", end.after, got, end.lives)
						}
					}
				})
			}
		}
	}
}

// expectState checks that there is one flow, and its state; "" is for none.
func (r *trial) expectState(t testing.TB, state string) *maps.Flow {
	t.Helper()
	flows := r.Flows(t)
	if state == "" {
		if len(flows) > 0 {
			t.Fatalf("there are %d flows, the first %+v; want none", len(flows), flows[0])
		}
		return nil
	}
	if len(flows) != 1 || flows[0].State.String() != state {
		t.Fatalf("the flows are %+v; want one, %s", flows, state)
	}
	return &flows[0]
}

func TestTCPTimeouts(t *testing.T) {
	lives(t, func(w world) []life {
		probe := w.tcpIn(theirData)
		our := func(s segment) step { return sent(w.tcpOut(s)) }
		their := func(s segment) step { return received(w.tcpIn(s)) }
		connected := w.connected()
		with := func(more ...step) []step { return after(connected, more...) }
		crossed := []step{our(ourSYN), their(segment{flags: frame.SYN}), our(segment{flags: frame.SYN | frame.ACK})}
		return []life{
			{"our SYN", w.asked(), "tcp-syn-sent", 120 * time.Second, w.tcpIn(theirSA)},
			{"our SYN, sent again a minute later", []step{our(ourSYN), waited(time.Minute), our(ourSYN)},
				"tcp-syn-sent", 60 * time.Second, w.tcpIn(theirSA)},
			{"our SYN and a bare ACK", []step{our(ourSYN), their(theirACK)}, "tcp-syn-sent", 120 * time.Second, w.tcpIn(theirSA)},
			{"their SYN-ACK", []step{our(ourSYN), their(theirSA)}, "tcp-syn-recv", 60 * time.Second, probe},
			{"crossing SYNs", crossed, "tcp-syn-recv", 60 * time.Second, w.tcpIn(theirSA)},
			{"a connection", connected, "tcp-established", 5 * 24 * time.Hour, probe},
			{"a connection that we use a day later", with(waited(24*time.Hour), our(ourACK)), "tcp-established", 5 * 24 * time.Hour, probe},
			{"our data that nobody acknowledges", with(our(ourData)), "tcp-established", 300 * time.Second, probe},
			{"our data, sent again", with(our(ourData), waited(4*time.Minute), our(ourData)), "tcp-established", 300 * time.Second, probe},
			{"our data, and what does not acknowledge it", with(our(ourData), their(theirData)), "tcp-established", 300 * time.Second, probe},
			{"our data and its ACK", with(our(ourData), their(dataACK)), "tcp-established", 5 * 24 * time.Hour, probe},
			{"an old ACK of ours", with(our(ourData), their(dataACK), our(ourProbe)), "tcp-established", 5 * 24 * time.Hour, probe},
			{"probes that nobody answers", with(our(ourData), their(dataACK), our(ourProbe), our(ourProbe)), "tcp-established", 300 * time.Second, probe},
			{"probes and an answer", with(our(ourData), their(dataACK), our(ourProbe), our(ourProbe), their(dataACK)), "tcp-established", 5 * 24 * time.Hour, probe},
			{"probes that are answered each", with(our(ourData), their(dataACK), our(ourProbe), their(dataACK), our(ourProbe)), "tcp-established", 5 * 24 * time.Hour, probe},
			{"our ACK after a RST that was none", with(their(exactRST), our(ourACK), their(theirData)), "tcp-established", 5 * 24 * time.Hour, probe},
			{"a connection that they use a day later", with(waited(24*time.Hour), their(theirData)), "tcp-established", 5 * 24 * time.Hour, probe},
			{"a connection and a RST somewhere in the window", with(their(theirRST)), "tcp-established", 300 * time.Second, probe},
			{"a connection and a FIN that may be forged", with(their(theirFIN)), "tcp-established", 5 * 24 * time.Hour, probe},
			{"a connection and a RST where we wait for it", with(their(exactRST)), "tcp-close", 10 * time.Second, probe},
			{"a connection and our RST", with(our(ourRST)), "tcp-close", 10 * time.Second, probe},
			{"our FIN", with(our(ourFIN)), "tcp-fin-wait", 120 * time.Second, probe},
			{"our FIN and its ACK", with(our(ourFIN), their(theirACK)), "tcp-close-wait", 60 * time.Second, probe},
			{"our FIN and theirs", with(our(ourFIN), their(theirFIN)), "tcp-time-wait", 120 * time.Second, probe},
			{"our FIN, its ACK and their FIN", with(our(ourFIN), their(theirACK), their(theirFIN)), "tcp-time-wait", 120 * time.Second, probe},
			{"their FIN and ours", with(their(theirFIN), our(ourACK), our(ourFIN)), "tcp-last-ack", 30 * time.Second, probe},
			{"their FIN, ours and its ACK", with(their(theirFIN), our(ourFIN), their(theirACK)), "tcp-time-wait", 120 * time.Second, probe},
			{"our data in the middle, not answered", []step{our(ourData)}, "tcp-loose", 300 * time.Second, probe},
			{"our data in the middle, answered", []step{our(ourData), their(dataACK)}, "tcp-established", 5 * 24 * time.Hour, probe},
		}
	})
}

func TestOtherTimeouts(t *testing.T) {
	lives(t, func(w world) []life {
		query, answer := sent(w.out(frame.UDP{SrcPort: 40000, DstPort: 53})), w.in(frame.UDP{SrcPort: 53, DstPort: 40000})
		lite := w.in(frame.UDPLite{SrcPort: 53, DstPort: 40000})
		greOut, greIn := framed(w.number(w.us, w.peer, frame.ProtoGRE), nil), framed(w.number(w.peer, w.us, frame.ProtoGRE), nil)
		espOut, espIn := framed(w.number(w.us, w.peer, frame.ProtoESP), nil), framed(w.number(w.peer, w.us, frame.ProtoESP), nil)
		sctpOut := func(chunk uint8) step { return sent(w.out(frame.SCTP{SrcPort: 40000, DstPort: 3868, Chunk: chunk})) }
		sctpIn := func(chunk uint8) []byte { return w.in(frame.SCTP{SrcPort: 3868, DstPort: 40000, Chunk: chunk}) }
		return []life{
			{"a UDP query", []step{query}, "udp", 30 * time.Second, answer},
			{"a UDP query, sent again", []step{query, waited(20 * time.Second), query}, "udp", 30 * time.Second, answer},
			{"UDP answered at once", []step{query, received(answer)}, "udp", 30 * time.Second, answer},
			{"UDP answered twice within a second", []step{query, received(answer), waited(time.Second / 2), received(answer)}, "udp", 30 * time.Second, answer},
			{"UDP answered after four seconds", []step{query, waited(4 * time.Second), received(answer)}, "udp", 30 * time.Second, answer},
			{"UDP answered twice after four seconds", []step{query, waited(4 * time.Second), received(answer), received(answer)}, "udp-stream", 120 * time.Second, answer},
			{"UDP that goes on after three seconds", []step{query, received(answer), waited(3 * time.Second), query}, "udp-stream", 120 * time.Second, answer},
			{"UDP that goes on after four seconds without an answer", []step{query, waited(4 * time.Second), query}, "udp", 30 * time.Second, answer},
			{"UDP-Lite", []step{sent(w.out(frame.UDPLite{SrcPort: 40000, DstPort: 53}))}, "udp", 30 * time.Second, lite},
			{"UDP-Lite answered", []step{sent(w.out(frame.UDPLite{SrcPort: 40000, DstPort: 53})), received(lite)}, "udp", 30 * time.Second, lite},
			{"UDP-Lite answered twice", []step{sent(w.out(frame.UDPLite{SrcPort: 40000, DstPort: 53})), received(lite), received(lite)},
				"udp-stream", 120 * time.Second, lite},
			{"a ping", []step{sent(w.out(w.echo(7, 1)))}, "icmp", 30 * time.Second, w.in(w.reply(7, 1))},
			{"a ping and another", []step{sent(w.out(w.echo(7, 1))), waited(20 * time.Second), sent(w.out(w.echo(7, 2)))}, "icmp", 30 * time.Second, w.in(w.reply(7, 2))},
			{"GRE", []step{sent(greOut)}, "gre", 30 * time.Second, greIn},
			{"GRE answered", []step{sent(greOut), received(greIn)}, "gre", 30 * time.Second, greIn},
			{"GRE answered twice", []step{sent(greOut), received(greIn), received(greIn)}, "gre-stream", 180 * time.Second, greIn},
			{"GRE that goes on after an answer", []step{sent(greOut), received(greIn), sent(greOut)}, "gre-stream", 180 * time.Second, greIn},
			{"ESP", []step{sent(espOut)}, "other", 600 * time.Second, espIn},
			{"an SCTP INIT", []step{sctpOut(frame.ChunkInit)}, "sctp-new", 10 * time.Second, sctpIn(frame.ChunkInitAck)},
			{"an SCTP INIT, sent again", []step{sctpOut(frame.ChunkInit), waited(4 * time.Second), sctpOut(frame.ChunkInit)},
				"sctp-new", 6 * time.Second, sctpIn(frame.ChunkInitAck)},
			{"an SCTP association", []step{sctpOut(frame.ChunkInit), received(sctpIn(frame.ChunkInitAck)), sctpOut(frame.ChunkCookieEcho)},
				"sctp-established", 210 * time.Second, sctpIn(frame.ChunkData)},
			{"an SCTP association that we abort", []step{sctpOut(frame.ChunkInit), received(sctpIn(frame.ChunkInitAck)), sctpOut(frame.ChunkAbort)},
				"sctp-closed", 10 * time.Second, sctpIn(frame.ChunkData)},
			{"an SCTP association after one that we abort", []step{sctpOut(frame.ChunkInit), received(sctpIn(frame.ChunkInitAck)), sctpOut(frame.ChunkAbort),
				sctpOut(frame.ChunkInit), received(sctpIn(frame.ChunkInitAck))}, "sctp-established", 210 * time.Second, sctpIn(frame.ChunkData)},
			{"an SCTP association that somebody aborts", []step{sctpOut(frame.ChunkInit), received(sctpIn(frame.ChunkInitAck)), received(sctpIn(frame.ChunkAbort))},
				"sctp-established", 210 * time.Second, sctpIn(frame.ChunkData)},
		}
	})
}

func TestTimeoutsComeFromThePolicy(t *testing.T) {
	d := load(t, testdp.Options{Policy: "timeouts: {udp: 5s, tcp-established: 1h}"})
	for _, w := range worlds {
		d.Forget(t)
		r := &trial{Datapath: d, path: testdp.XDP}
		sent(w.out(frame.UDP{SrcPort: 40000, DstPort: 53}))(t, r)
		flow := r.expectState(t, "udp")
		if got := maps.Duration(int64(flow.Expires-d.Now(t)+flow.Age(d.Now(t))), testdp.HZ); got < 4900*time.Millisecond || got > 5100*time.Millisecond {
			t.Errorf("%s: UDP lives %s", w, got)
		}
	}
}

// Packets within an eighth of a timeout do not write to the entry, and later ones do.
func TestTheEndIsPutOffByEighths(t *testing.T) {
	d := load(t, testdp.Options{Policy: server})
	for _, w := range worlds {
		for _, path := range testdp.Ingress {
			t.Run(w.String()+"/"+path.String(), func(t *testing.T) {
				d.Forget(t)
				r := &trial{Datapath: d, path: path}
				for _, s := range w.connected() {
					s(t, r)
				}
				eighth := 15 * time.Hour // of five days
				first := r.expectState(t, "tcp-established").Expires
				d.Advance(t, eighth-time.Minute)
				received(w.tcpIn(theirData))(t, r)
				sent(w.tcpOut(ourACK))(t, r)
				if now := r.expectState(t, "tcp-established").Expires; now != first {
					t.Errorf("before an eighth has gone, the end moves by %d jiffies", now-first)
				}
				d.Advance(t, 2*time.Minute)
				received(w.tcpIn(theirData))(t, r)
				moved := maps.Duration(int64(r.expectState(t, "tcp-established").Expires-first), testdp.HZ)
				if moved < eighth || moved > eighth+10*time.Minute {
					t.Errorf("after an eighth has gone, the end moves by %s", moved)
				}
			})
		}
	}
}
