// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"testing"
	"time"

	"github.com/portcullis-firewall/portcullis/bpf"
	"github.com/portcullis-firewall/portcullis/maps"
	"github.com/portcullis-firewall/portcullis/tests/internal/frame"
	"github.com/portcullis-firewall/portcullis/tests/internal/testdp"
)

const (
	full    = maps.Reason(bpf.FirewallReasonSEEN_FLOWS_FULL)
	evicted = maps.Reason(bpf.FirewallReasonSEEN_FLOWS_EVICTED)
)

// connect makes TCP connections of local ports from 20000 on, and ends them by a step.
func (r *trial) connect(t testing.TB, w world, n int, end ...segment) {
	t.Helper()
	for i := range n {
		port := uint16(20000 + i)
		out := func(s segment) []byte {
			return w.out(frame.TCP{SrcPort: port, DstPort: 443, Seq: s.seq, Ack: s.ack, Flags: s.flags}, frame.Text(s.data))
		}
		sent(out(ourSYN))(t, r)
		received(r.tcpTo(w, port, theirSA))(t, r)
		sent(out(ourACK))(t, r)
		for _, s := range end {
			sent(out(s))(t, r)
		}
	}
}

// tcpTo is a segment of the peer to a connection of connect.
func (r *trial) tcpTo(w world, port uint16, s segment) []byte {
	return w.in(frame.TCP{SrcPort: 443, DstPort: port, Seq: s.seq, Ack: s.ack, Flags: s.flags}, frame.Text(s.data))
}

// A table that is full keeps what the policy asks for, and no more, and counts each flow that gave way and each packet
// that found no room.
func TestAFullTableCounts(t *testing.T) {
	d := load(t, testdp.Options{Policy: smallTable})
	for _, w := range worlds {
		t.Run(w.String(), func(t *testing.T) {
			d.Forget(t)
			r := &trial{Datapath: d, path: testdp.XDP}
			for number := range 3 * tableSize {
				if !asks(t, r, w, number) {
					t.Fatalf("query %d found no room", number)
				}
			}
			if n := len(d.Flows(t)); n != tableSize {
				t.Errorf("the table keeps %d flows, want %d", n, tableSize)
			}
			d.Forget(t)
			fill(t, r, w)
			r.Counted(t)
			for number := range 100 {
				r.Passes(t, testdp.Out, w.out(query(50000+number)), testdp.From{})
			}
			if up := r.Counted(t); up[full] != 100 || up[evicted] != 0 {
				t.Errorf("100 queries in a table of assured flows count %v", up)
			}
			mustForget(t, d)
			r.connect(t, w, tableSize/2)
			for number := range tableSize / 2 {
				sent(w.out(query(number)))(t, r)
			}
			r.Counted(t)
			for number := range 100 {
				r.Passes(t, testdp.Out, w.out(query(50000+number)), testdp.From{})
			}
			if up := r.Counted(t); up[full] != 0 || up[evicted] != 100 {
				t.Errorf("100 queries in a table of queries and connections count %v", up)
			}
			for i := range tableSize / 2 {
				r.expect(t, r.tcpTo(w, uint16(20000+i), theirData), established)
			}
			mustForget(t, d)
		})
	}
}

// Connections that are over make room before those that wait for an answer, and live ones never.
func TestWhatIsOverGivesWayFirst(t *testing.T) {
	d := load(t, testdp.Options{Policy: smallTable})
	for _, w := range worlds {
		for name, end := range map[string][]segment{
			"TIME_WAIT": {ourFIN, {flags: frame.ACK, seq: 1002, ack: 5002}},
			"CLOSE":     {ourRST},
		} {
			t.Run(w.String()+"/"+name, func(t *testing.T) {
				d.Forget(t)
				r := &trial{Datapath: d, path: testdp.XDP}
				const half = tableSize / 2
				for number := range half {
					sent(w.out(query(number)))(t, r)
				}
				r.connect(t, w, half, end[:1]...)
				if len(end) > 1 {
					for i := range half {
						received(r.tcpTo(w, uint16(20000+i), segment{flags: frame.FIN | frame.ACK, seq: 5001, ack: 1002}))(t, r)
					}
				}
				d.Advance(t, time.Second)
				for number := range half / 4 {
					if !asks(t, r, w, 10000+number) {
						t.Fatalf("query %d found no room", number)
					}
				}
				for number := range half {
					r.expect(t, w.in(answer(number)), established)
				}
				for number := range half / 4 {
					r.expect(t, w.in(answer(10000+number)), established)
				}
				mustForget(t, d)
			})
		}
	}
}

// Of flows that are not assured, those give way that have been idle for longest, however long they would live.
func TestTheIdleGiveWayFirst(t *testing.T) {
	d := load(t, testdp.Options{Policy: smallTable})
	for _, w := range worlds {
		t.Run(w.String(), func(t *testing.T) {
			d.Forget(t)
			r := &trial{Datapath: d, path: testdp.XDP}
			syns := func(from, n int) {
				for i := range n {
					r.Passes(t, testdp.Out, w.out(frame.TCP{SrcPort: uint16(1024 + from + i), DstPort: 9, Flags: frame.SYN}), testdp.From{})
				}
			}
			syns(0, tableSize) // 120 s to live
			d.Advance(t, time.Second)
			for number := range 100 { // 30 s to live
				asks(t, r, w, number)
			}
			syns(5000, tableSize/4)
			for number := range 100 {
				r.expect(t, w.in(answer(number)), established)
			}
		})
	}
}

// A table that is full of dead flows has room for new ones, though nothing sweeps. It looks for them in a few sets, and
// may let a young one go before it has found all.
func TestDeadFlowsMakeRoom(t *testing.T) {
	d := load(t, testdp.Options{Policy: smallTable})
	for _, w := range worlds {
		t.Run(w.String(), func(t *testing.T) {
			d.Forget(t)
			r := &trial{Datapath: d, path: testdp.XDP}
			fill(t, r, w)
			d.Advance(t, 3*time.Minute)
			gone := uint64(0)
			for number := range tableSize {
				r.Counted(t)
				r.Passes(t, testdp.Out, w.out(query(10000+number)), testdp.From{})
				up := r.Counted(t)
				if up[full] > 0 {
					t.Fatalf("query %d found no room", number)
				}
				gone += up[evicted]
			}
			if gone > tableSize/12 {
				t.Errorf("%d of %d flows gave way while there were dead ones", gone, tableSize)
			}
			mustForget(t, d)
		})
	}
}

// Local ports that follow one another, to ten ports of one peer, leave no flow without a place: the hash spreads them
// like random ones.
func TestPortsThatFollowOneAnotherSpread(t *testing.T) {
	const flows = 65536
	d := load(t, testdp.Options{Policy: server + "flows: {max: 65536}"})
	for _, w := range worlds {
		t.Run(w.String(), func(t *testing.T) {
			d.Forget(t)
			r := &trial{Datapath: d, path: testdp.XDP}
			r.Counted(t)
			for i := range flows {
				r.Passes(t, testdp.Out, w.out(frame.UDP{SrcPort: uint16(32768 + i/10), DstPort: uint16(5300 + i%10)}), testdp.From{})
			}
			if up := r.Counted(t); len(up) > 0 {
				t.Errorf("%d flows count %v", flows, up)
			}
			if n := len(d.Flows(t)); n != flows {
				t.Errorf("%d flows began, %d are there", flows, n)
			}
			mustForget(t, d)
		})
	}
}
