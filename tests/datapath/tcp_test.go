// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"testing"
	"time"

	"github.com/portcullis-firewall/portcullis/tests/internal/frame"
	"github.com/portcullis-firewall/portcullis/tests/internal/testdp"
)

// A TCP connection of ours to the peer's port 443, from port 40000. We count our bytes from 1000, the peer from 5000.
type segment struct {
	flags    uint8
	seq, ack uint32
	data     string
}

func (w world) tcpOut(s segment) []byte {
	return w.out(frame.TCP{SrcPort: 40000, DstPort: 443, Seq: s.seq, Ack: s.ack, Flags: s.flags}, frame.Text(s.data))
}

func (w world) tcpIn(s segment) []byte {
	return w.in(frame.TCP{SrcPort: 443, DstPort: 40000, Seq: s.seq, Ack: s.ack, Flags: s.flags}, frame.Text(s.data))
}

var (
	ourSYN    = segment{flags: frame.SYN, seq: 1000}
	theirSA   = segment{flags: frame.SYN | frame.ACK, seq: 5000, ack: 1001}
	ourACK    = segment{flags: frame.ACK, seq: 1001, ack: 5001}
	theirACK  = segment{flags: frame.ACK, seq: 5001, ack: 1001}
	ourData   = segment{flags: frame.ACK | frame.PSH, seq: 1001, ack: 5001, data: "GET"}
	theirData = segment{flags: frame.ACK | frame.PSH, seq: 5001, ack: 1001, data: "200"}
	dataACK   = segment{flags: frame.ACK, seq: 5001, ack: 1004}
	ourProbe  = segment{flags: frame.ACK, seq: 1003, ack: 5001} // a keepalive, or one for a window
	ourFIN    = segment{flags: frame.FIN | frame.ACK, seq: 1001, ack: 5001}
	theirFIN  = segment{flags: frame.FIN | frame.ACK, seq: 5001, ack: 1001}
	ourRST    = segment{flags: frame.RST, seq: 1001}
	theirRST  = segment{flags: frame.RST, seq: 9999}
	exactRST  = segment{flags: frame.RST, seq: 5001} // at the byte that we wait for
)

// asked is a connection that we have asked for, and connected one that stands.
func (w world) asked() []step { return []step{sent(w.tcpOut(ourSYN))} }

func (w world) connected() []step {
	return []step{sent(w.tcpOut(ourSYN)), received(w.tcpIn(theirSA)), sent(w.tcpOut(ourACK))}
}

// Cases 1 to 14 of the list that was measured against netfilter, and 43.
func TestUnsolicitedTCP(t *testing.T) {
	packet := func(w world, port uint16, flags uint8) []byte {
		return w.in(frame.TCP{SrcPort: 50000, DstPort: port, Seq: 7, Ack: 8, Flags: flags})
	}
	kinds := []struct {
		name   string
		flags  uint8
		closed want
	}{
		{"a SYN", frame.SYN, closedPort},
		{"a SYN with congestion bits", frame.SYN | frame.ECE | frame.CWR, closedPort},
		{"an ACK", frame.ACK, closedPort},
		{"data", frame.ACK | frame.PSH, closedPort},
		{"urgent data", frame.ACK | frame.URG, closedPort},
		{"a SYN-ACK", frame.SYN | frame.ACK, invalid.of(wrongState)},
		{"a RST", frame.RST, invalid.of(wrongState)},
		{"a RST-ACK", frame.RST | frame.ACK, invalid.of(wrongState)},
		{"a FIN", frame.FIN, invalid.of(impossible)},
		{"a FIN-ACK", frame.FIN | frame.ACK, invalid.of(wrongState)},
		{"no flag", 0, invalid.of(impossible)},
		{"FIN, URG and PSH", frame.FIN | frame.URG | frame.PSH, invalid.of(impossible)},
		{"a SYN-FIN", frame.SYN | frame.FIN, invalid.of(impossible)},
		{"a SYN-RST", frame.SYN | frame.RST, invalid.of(impossible)},
		{"all flags", 0xff, invalid.of(impossible)},
	}
	inBoth(t, func(w world) []arrival {
		var cases []arrival
		for _, k := range kinds {
			open := rule("80/tcp")
			if k.closed.kind == impossible { // which the packet alone shows
				open.kind = impossible
			}
			cases = append(cases,
				arrival{name: k.name + " to a closed port", frame: packet(w, 23, k.flags), want: k.closed},
				arrival{name: k.name + " to an open port", frame: packet(w, 80, k.flags), want: open})
		}
		odd := func(port uint16, offset uint16) []byte {
			return w.in(frame.TCP{SrcPort: 5, DstPort: port, Flags: frame.SYN, DataOffset: frame.Exactly(offset)})
		}
		short := func(port uint16, n int) []byte {
			part := w.transport(w.peer, w.us, syn(port))
			return framed(w.number(w.peer, w.us, frame.ProtoTCP), []frame.Layer{frame.Raw(part[:n])})
		}
		return append(cases, []arrival{
			{name: "a data offset of 4 to an open port", frame: odd(80, 4), want: rule("80/tcp").of(badHeader)},
			{name: "a data offset of 4 to a closed port", frame: odd(23, 4), want: invalid.of(badHeader)},
			{name: "options cut off, to an open port", frame: odd(80, 6), want: rule("80/tcp").of(badHeader)},
			{name: "options cut off, to a closed port", frame: odd(23, 6), want: invalid.of(badHeader)},
			{name: "a header of 12 bytes to an open port", frame: short(80, 12), want: rule("80/tcp").of(badHeader)},
			{name: "a header of 12 bytes to a closed port", frame: short(23, 12), want: invalid.of(badHeader)},
			{name: "a header of 4 bytes to an open port", frame: short(80, 4), want: rule("80/tcp").of(badHeader)},
			{name: "a header of 3 bytes to an open port", frame: short(80, 3), want: badTransport},
			{name: "no header", frame: short(80, 0), want: badTransport},
		}...)
	})
}

// Cases 29 to 42.
func TestAnswersToOurSYN(t *testing.T) {
	inBoth(t, func(w world) []arrival {
		wrongAck := theirSA
		wrongAck.ack = 77
		aheadAck, oldAck := theirSA, theirSA
		aheadAck.ack, oldAck.ack = 1002, ^uint32(0)-64999
		from := func(src, dst uint16) []byte {
			return w.in(frame.TCP{SrcPort: src, DstPort: dst, Flags: frame.SYN | frame.ACK, Ack: 1001})
		}
		return []arrival{
			{name: "a SYN-ACK", before: w.asked(), frame: w.tcpIn(theirSA), want: established},
			{name: "a SYN-ACK of an older number", before: w.asked(), frame: w.tcpIn(wrongAck), want: established},
			{name: "a SYN-ACK of a number that we have not sent", before: w.asked(), frame: w.tcpIn(aheadAck), want: invalid.of(wrongState)},
			{name: "a SYN-ACK of a number of long ago", before: w.asked(), frame: w.tcpIn(oldAck), want: established},
			{name: "a SYN-ACK after a forged one, which we have answered", frame: w.tcpIn(theirSA), want: established,
				before: after(w.asked(), received(w.tcpIn(wrongAck)), sent(w.tcpOut(segment{flags: frame.RST, seq: 77})))},
			{name: "data of a connection after a forged SYN-ACK, an hour later", frame: w.tcpIn(theirData), want: established,
				before: after(w.asked(), received(w.tcpIn(wrongAck)), sent(w.tcpOut(segment{flags: frame.RST, seq: 77})),
					received(w.tcpIn(theirSA)), sent(w.tcpOut(ourACK)), received(w.tcpIn(theirACK)), waited(time.Hour))},
			{name: "a second SYN-ACK", before: after(w.asked(), received(w.tcpIn(theirSA))),
				frame: w.tcpIn(theirSA), want: established},
			{name: "a RST", before: w.asked(), frame: w.tcpIn(theirRST), want: established},
			{name: "a RST-ACK", before: w.asked(),
				frame: w.tcpIn(segment{flags: frame.RST | frame.ACK, ack: 1001}), want: established},
			{name: "a SYN, for both may open at once", before: w.asked(),
				frame: w.tcpIn(segment{flags: frame.SYN, seq: 5000}), want: established},
			{name: "a bare ACK, from a connection half forgotten", before: w.asked(),
				frame: w.tcpIn(theirACK), want: established},
			{name: "a FIN-ACK", before: w.asked(), frame: w.tcpIn(theirFIN), want: invalid.of(wrongState)},
			{name: "no flags", before: w.asked(), frame: w.tcpIn(segment{}), want: invalid.of(impossible)},
			{name: "FIN, URG and PSH", before: w.asked(),
				frame: w.tcpIn(segment{flags: frame.FIN | frame.URG | frame.PSH}), want: invalid.of(impossible)},
			{name: "a SYN-ACK from another port", before: w.asked(), frame: from(444, 40000), want: invalid.of(wrongState)},
			{name: "a SYN-ACK to another port", before: w.asked(), frame: from(443, 40001), want: invalid.of(wrongState)},
			{name: "a SYN-ACK from another address", before: w.asked(), want: invalid.of(wrongState),
				frame: w.from(w.stranger, frame.TCP{SrcPort: 443, DstPort: 40000, Flags: frame.SYN | frame.ACK})},
			{name: "the same ports in UDP", before: w.asked(),
				frame: w.in(frame.UDP{SrcPort: 443, DstPort: 40000}), want: closedPort},
			{name: "a SYN-ACK after we have sent a RST", before: after(w.asked(), sent(w.tcpOut(ourRST))),
				frame: w.tcpIn(theirSA), want: invalid.of(wrongState)},
			{name: "a SYN-ACK after we have sent a RST and asked again",
				before: after(w.asked(), sent(w.tcpOut(ourRST)), sent(w.tcpOut(ourSYN))), frame: w.tcpIn(theirSA), want: established},
		}
	})
}

func TestEstablishedTCP(t *testing.T) {
	inBoth(t, func(w world) []arrival {
		broken := frame.With(w.tcpIn(theirData), len(w.tcpIn(theirData))-len("200")-8, 0x40)
		return []arrival{
			{name: "data", before: w.connected(), frame: w.tcpIn(theirData), want: established},
			{name: "old data", before: w.connected(),
				frame: w.tcpIn(segment{flags: frame.ACK, seq: 4000, ack: 900, data: "old"}), want: established},
			{name: "an ACK", before: w.connected(), frame: w.tcpIn(theirACK), want: established},
			{name: "a FIN", before: w.connected(), frame: w.tcpIn(theirFIN), want: established},
			{name: "a RST", before: w.connected(), frame: w.tcpIn(theirRST), want: established},
			{name: "a second SYN-ACK", before: w.connected(), frame: w.tcpIn(theirSA), want: established},
			{name: "a SYN", before: w.connected(), frame: w.tcpIn(segment{flags: frame.SYN, seq: 1}), want: invalid.of(wrongState)},
			{name: "no flags", before: w.connected(), frame: w.tcpIn(segment{}), want: invalid.of(impossible)},
			{name: "a data offset of 4", before: w.connected(), frame: broken, want: invalid.of(badHeader)},
			{name: "data after a refused SYN", before: after(w.connected(), refused(w.tcpIn(segment{flags: frame.SYN}))),
				frame: w.tcpIn(theirData), want: established},
			{name: "data that begins with theirs", frame: w.tcpIn(theirData), want: closedPort},
			{name: "an answer to data of ours, picked up in the middle", before: []step{sent(w.tcpOut(ourData))},
				frame: w.tcpIn(theirData), want: established},
			{name: "a FIN for an ACK of ours, picked up in the middle", before: []step{sent(w.tcpOut(ourACK))},
				frame: w.tcpIn(theirFIN), want: established},
			{name: "a RST for data of ours, picked up in the middle", before: []step{sent(w.tcpOut(ourData))},
				frame: w.tcpIn(exactRST), want: established},
			{name: "data after both SYNs crossed", want: established, frame: w.tcpIn(theirData),
				before: after(w.asked(), received(w.tcpIn(segment{flags: frame.SYN, seq: 5000})),
					sent(w.tcpOut(segment{flags: frame.SYN | frame.ACK, seq: 1000, ack: 5001})), received(w.tcpIn(theirSA)))},
		}
	})
}

// Case 43: a server's connection needs no flow, from its first packet to its last.
func TestOpenPortKeepsNoState(t *testing.T) {
	d := load(t, testdp.Options{Policy: server})
	for _, w := range worlds {
		for _, path := range testdp.Ingress {
			t.Run(w.String()+"/"+path.String(), func(t *testing.T) {
				d.Forget(t)
				r := &trial{Datapath: d, path: path}
				in := func(flags uint8, data string) {
					t.Helper()
					r.expect(t, w.in(frame.TCP{SrcPort: 50000, DstPort: 80, Flags: flags}, frame.Text(data)), rule("80/tcp"))
				}
				out := func(flags uint8, data string) {
					t.Helper()
					sent(w.out(frame.TCP{SrcPort: 80, DstPort: 50000, Flags: flags}, frame.Text(data)))(t, r)
				}
				in(frame.SYN, "")
				out(frame.SYN|frame.ACK, "")
				in(frame.ACK, "")
				in(frame.ACK|frame.PSH, "GET")
				out(frame.ACK|frame.PSH, "200")
				in(frame.FIN|frame.ACK, "")
				out(frame.FIN|frame.ACK, "")
				in(frame.ACK, "")
				out(frame.RST, "")
				in(frame.RST, "")
				for port := range uint16(200) {
					r.Passes(t, path, w.in(frame.TCP{SrcPort: port, DstPort: 80, Flags: frame.SYN}), testdp.From{})
					sent(w.out(frame.TCP{SrcPort: 80, DstPort: port, Flags: frame.SYN | frame.ACK}))(t, r)
				}
				if flows := d.Flows(t); len(flows) > 0 {
					t.Errorf("the flow table has %d entries: %+v ...", len(flows), flows[0])
				}
			})
		}
	}
}
