// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"bytes"
	"testing"

	"github.com/portcullis-firewall/portcullis/bpf"
	dpmaps "github.com/portcullis-firewall/portcullis/maps"
	"github.com/portcullis-firewall/portcullis/tests/internal/frame"
	"github.com/portcullis-firewall/portcullis/tests/internal/testdp"
)

// Whatever is dropped in a case of this package passes first, while the filter only watches: see expect.

// While the filter only watches, who is to be told that his packet is dropped is not, as it passes.
func TestNothingIsAnsweredWhileWatching(t *testing.T) {
	d := loadRejecting(t, testdp.Options{})
	expected[bpf.FirewallReason(dpmaps.Reason(rejected).Watched())] = true // it never is
	for _, w := range worlds {
		for _, path := range testdp.Ingress {
			t.Run(w.String()+"/"+path.String(), func(t *testing.T) {
				d.Forget(t)
				refill(t, d)
				r := &trial{Datapath: d, path: path}
				b := w.inward(frame.TCP{SrcPort: 40000, DstPort: 23, Flags: frame.SYN, Seq: 7})
				watch(t, d, true)
				r.expectOnce(t, b, want{passes: true, reason: bpf.FirewallReason(dpmaps.Reason(closedPort.reason).Watched())})
				watch(t, d, false)
				answer := w.reset(frame.TCP{SrcPort: 23, DstPort: 40000, Flags: frame.RST | frame.ACK, Ack: 8})
				if got := d.Answer(t, path, b, testdp.From{}); !bytes.Equal(got, answer) {
					t.Errorf("answered by\n%x, want\n%x", got, answer)
				}
			})
		}
	}
}

// What this host answers while the filter only watches begins flows: a connection that came in then goes on when the policy
// is enforced, and one that nobody answered does not come in.
func TestConnectionsOutliveTheFlip(t *testing.T) {
	inBothPaths(t, func(t *testing.T, d *testdp.Datapath, w world, path testdp.Path) {
		r := &trial{Datapath: d, path: path}
		watch(t, d, true)
		in, other := w.in(frame.UDP{SrcPort: 40000, DstPort: 5353}), w.in(frame.UDP{SrcPort: 40001, DstPort: 5353})
		r.expectOnce(t, in, want{passes: true, reason: bpf.FirewallReason(dpmaps.Reason(closedPort.reason).Watched())})
		r.expectOnce(t, other, want{passes: true, reason: bpf.FirewallReason(dpmaps.Reason(closedPort.reason).Watched())})
		sent(w.out(frame.UDP{SrcPort: 5353, DstPort: 40000}))(t, r)
		watch(t, d, false)
		r.expectOnce(t, in, established)
		r.expectOnce(t, other, closedPort)
	})
}

func inBothPaths(t *testing.T, each func(*testing.T, *testdp.Datapath, world, testdp.Path)) {
	t.Helper()
	d := load(t, testdp.Options{Policy: server, MAC: ours})
	for _, w := range worlds {
		for _, path := range testdp.Ingress {
			t.Run(w.String()+"/"+path.String(), func(t *testing.T) {
				d.Forget(t)
				each(t, d, w, path)
			})
		}
	}
}

// Neither the ledger of a page nor the total loses a packet over flips: what came in is what passed, would be dropped or was.
func TestTheLedgerAddsUpOverFlips(t *testing.T) {
	inBothPaths(t, func(t *testing.T, d *testdp.Datapath, w world, path testdp.Path) {
		closed, open := w.in(frame.UDP{SrcPort: 40000, DstPort: 7}), w.in(frame.TCP{SrcPort: 40000, DstPort: 80, Flags: frame.SYN})
		from, err := d.Set.Ledger()
		if err != nil {
			t.Fatal(err)
		}
		for i := range 10 {
			watch(t, d, i%2 == 0)
			for range i {
				d.Passes(t, path, closed, testdp.From{})
			}
			d.Passes(t, path, open, testdp.From{})
		}
		watch(t, d, false)
		to, err := d.Set.Ledger()
		if err != nil {
			t.Fatal(err)
		}
		page := func(l *dpmaps.Ledger) *dpmaps.Page { return l.Rest(nil) } // all of them
		up := func(of func(*dpmaps.Page) dpmaps.Tally) uint64 { return of(page(to)).Packets - of(page(from)).Packets }
		with := func(verdict string) uint64 {
			return up(func(p *dpmaps.Page) dpmaps.Tally { return p.With(verdict) })
		}
		if received, passed := up((*dpmaps.Page).Received), up((*dpmaps.Page).Passed); received != 55 || passed != 30 ||
			with(dpmaps.Drop) != 25 || with(dpmaps.WouldDrop) != 20 || with(dpmaps.Pass) != 10 {
			t.Errorf("received %d, passed %d, of which %d would be dropped, dropped %d", received, passed, with(dpmaps.WouldDrop), with(dpmaps.Drop))
		}
	})
}
