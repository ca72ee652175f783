// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"fmt"
	"maps"
	"testing"
	"time"

	"github.com/portcullis-firewall/portcullis/bpf"
	dpmaps "github.com/portcullis-firewall/portcullis/maps"
	"github.com/portcullis-firewall/portcullis/tests/internal/frame"
	"github.com/portcullis-firewall/portcullis/tests/internal/testdp"
)

const smallTable = server + "flows: {max: 1024}"

// fill answers queries from ports 1024 on until the table of answered flows is full.
func fill(t *testing.T, r *trial, w world) {
	t.Helper()
	capacity := int(r.Set.FlowCapacity())
	for i := range capacity {
		port := uint16(1024 + i)
		r.Passes(t, testdp.Out, w.out(frame.UDP{SrcPort: port, DstPort: 53}), testdp.From{})
		r.Passes(t, r.path, w.in(frame.UDP{SrcPort: 53, DstPort: port}), r.from)
	}
	if flows := r.Flows(t); len(flows) != capacity {
		t.Fatalf("%d flows were made, %d are there", capacity, len(flows))
	}
	if up := r.Counted(t); up[dpmaps.Reason(bpf.FirewallReasonSEEN_FLOWS_FULL)] > 0 {
		t.Fatalf("full before it is: %v", up)
	}
}

func TestAFullTable(t *testing.T) {
	d := load(t, testdp.Options{Policy: smallTable})
	for _, w := range worlds {
		for _, path := range testdp.Ingress {
			t.Run(w.String()+"/"+path.String(), func(t *testing.T) {
				d.Forget(t)
				r := &trial{Datapath: d, path: path}
				fill(t, r, w)

				query, answer := w.out(frame.UDP{SrcPort: 45000, DstPort: 53}), w.in(frame.UDP{SrcPort: 53, DstPort: 45000})
				sent(query)(t, r)
				for range 2 { // it stays pending, so each answer finds the table full
					r.Counted(t)
					if !r.Passes(t, path, answer, testdp.From{}) {
						t.Error("the answer to a query that finds no room was dropped")
					}
					up := r.Counted(t)
					if want := map[dpmaps.Reason]uint64{dpmaps.Reason(bpf.FirewallReasonPASS_ESTABLISHED): 1,
						dpmaps.Reason(bpf.FirewallReasonSEEN_FLOWS_FULL): 1}; !maps.Equal(up, want) {
						t.Errorf("it counts %v, want %v", up, want)
					}
				}

				r.expect(t, w.in(frame.UDP{SrcPort: 53, DstPort: 1024}), established)
				r.expect(t, w.in(frame.UDP{SrcPort: 53, DstPort: 2047}), established)
				r.expect(t, w.in(syn(80)), rule("80/tcp"))
				r.expect(t, w.from(w.friend, syn(22)), rule("22/tcp from 203.0.113.0/24,2001:db8:ff::/48"))
				r.expect(t, w.in(syn(23)), closedPort)
				r.expect(t, w.in(w.unreachable(), w.ip(w.us, w.peer), frame.UDP{SrcPort: 1024, DstPort: 53}), related)

				// The other family has a table of its own.
				o := worlds[0]
				if w.family == 4 {
					o = worlds[1]
				}
				sent(o.out(frame.UDP{SrcPort: 45000, DstPort: 53}))(t, r)
				r.expect(t, o.in(frame.UDP{SrcPort: 53, DstPort: 45000}), established)

				// When one dies and is swept, the next answer finds its place.
				d.Advance(t, 20*time.Second)
				for port := range uint16(1023) {
					sent(w.out(frame.UDP{SrcPort: 1025 + port, DstPort: 53}))(t, r)
				}
				sent(query)(t, r)
				d.Advance(t, 15*time.Second)
				if swept := d.Sweep(t, false); swept.Removed != 2 {
					t.Errorf("the sweep says %+v; want 2 removed", swept)
				}
				r.expect(t, answer, established)
			})
		}
	}
}

// A flood of what the host sends itself evicts pending flows alone.
func TestAFloodOfNewFlowsKeepsThoseThatWereAnswered(t *testing.T) {
	d := load(t, testdp.Options{Policy: smallTable})
	for _, w := range worlds {
		t.Run(w.String(), func(t *testing.T) {
			d.Forget(t)
			r := &trial{Datapath: d, path: testdp.XDP}
			for _, s := range w.connected() {
				s(t, r)
			}
			pending := d.Set.Map(bpf.FirewallMapPending4).MaxEntries()
			for i := range 2 * pending {
				r.Passes(t, testdp.Out, w.out(frame.UDP{SrcPort: uint16(1024 + i%30000), DstPort: uint16(1 + i/30000)}), testdp.From{})
			}
			r.expect(t, w.tcpIn(theirData), established)
		})
	}
}

func TestASYNFloodAddsNothing(t *testing.T) {
	d := load(t, testdp.Options{Policy: server})
	for _, w := range worlds {
		for _, path := range testdp.Ingress {
			t.Run(w.String()+"/"+path.String(), func(t *testing.T) {
				d.Forget(t)
				r := &trial{Datapath: d, path: path}
				for i := range 2000 {
					in := frame.TCP{SrcPort: uint16(1024 + i), DstPort: uint16(22 + 58*(i%2)), Seq: uint32(i), Flags: frame.SYN}
					r.Passes(t, path, w.in(in), testdp.From{})
					out := frame.TCP{SrcPort: 80, DstPort: uint16(1024 + i), Flags: frame.SYN | frame.ACK}
					r.Passes(t, testdp.Out, w.out(out), testdp.From{})
				}
				r.expectState(t, "")
			})
		}
	}
}

func TestTheSweep(t *testing.T) {
	d := load(t, testdp.Options{Policy: server})
	r := &trial{Datapath: d, path: testdp.XDP}
	for _, w := range worlds {
		sent(w.out(frame.UDP{SrcPort: 40000, DstPort: 53}))(t, r) // pending, 30 s
		for _, s := range w.connected() {                         // answered, five days
			s(t, r)
		}
	}
	check := func(name string, got bpf.FirewallSweep, live4, live6, removed uint32) {
		t.Helper()
		if got.Live4 != live4 || got.Live6 != live6 || got.Removed != removed {
			t.Errorf("%s: %d and %d live, %d removed; want %d, %d and %d", name, got.Live4, got.Live6, got.Removed, live4, live6, removed)
		}
	}
	check("all alive", d.Sweep(t, false), 2, 2, 0)
	d.Advance(t, 31*time.Second)
	check("the queries died", d.Sweep(t, false), 1, 1, 2)
	check("they are gone", d.Sweep(t, false), 1, 1, 0)
	check("flush", d.Sweep(t, true), 0, 0, 2)
	if got, now := d.Sweep(t, false).Now, d.Now(t); now < got || now-got > 10*testdp.HZ {
		t.Errorf("the sweep's clock says %d, the clock %d", got, now)
	}
}

// A port without a mark is not looked up; the marks of living flows outlast any number of sweeps.
func TestMarksOfUsedPorts(t *testing.T) {
	d := load(t, testdp.Options{Policy: server})
	marks := func() (n int) {
		t.Helper()
		var used [4 * 65536]uint8
		if err := d.Set.Map(".data.used").Lookup(uint32(0), &used); err != nil {
			t.Fatal(err)
		}
		for _, mark := range used {
			if mark != 0 {
				n++
			}
		}
		return n
	}
	for _, w := range worlds {
		t.Run(w.String(), func(t *testing.T) {
			d.Forget(t)
			r := &trial{Datapath: d, path: testdp.XDP}
			for _, s := range w.connected() {
				s(t, r)
			}
			sent(w.out(frame.UDP{SrcPort: 40001, DstPort: 53}))(t, r)
			if got := marks(); got != 2 {
				t.Fatalf("%d ports are marked, want 2", got)
			}
			d.Advance(t, 31*time.Second)
			for i := range 600 { // more than the numbers that there are
				d.Sweep(t, false)
				if got := marks(); i < 1 && got != 2 || i > 1 && got != 1 {
					t.Fatalf("after %d sweeps %d ports are marked", i+1, got)
				}
				if i%50 == 0 {
					r.expect(t, w.tcpIn(theirData), established)
				}
			}
			sent(w.out(frame.UDP{SrcPort: 40001, DstPort: 53}))(t, r)
			r.expect(t, w.in(frame.UDP{SrcPort: 53, DstPort: 40001}), established)
		})
	}
}

func TestFlowsAreSeededAsTheyAreMade(t *testing.T) {
	d := load(t, testdp.Options{Policy: server})
	for _, w := range worlds {
		for _, path := range testdp.Ingress {
			for _, c := range []struct {
				story         []step
				state         string
				frame         []byte
				without, with want
			}{
				{w.connected(), "tcp-established", w.tcpIn(theirData), closedPort, established},
				{w.asked(), "tcp-syn-sent", w.tcpIn(segment{flags: frame.SYN, seq: 1}), closedPort, established},
			} {
				t.Run(fmt.Sprintf("%s/%s/%s", w, path, c.state), func(t *testing.T) {
					d.Forget(t)
					r := &trial{Datapath: d, path: path}
					for _, s := range c.story {
						s(t, r)
					}
					flow := *r.expectState(t, c.state)
					d.Forget(t)
					sent(w.out(frame.UDP{SrcPort: 40001, DstPort: 53}))(t, r) // now the filter is asked
					r.expect(t, c.frame, c.without)
					if err := d.Set.PutFlow(&flow); err != nil {
						t.Fatal(err)
					}
					d.Sweep(t, false) // tells the filter
					r.expect(t, c.frame, c.with)
				})
			}
		}
	}
}
