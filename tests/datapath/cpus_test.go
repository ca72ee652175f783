// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"math/rand/v2"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"
	"unsafe"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/portcullis-firewall/portcullis/bpf"
	dpmaps "github.com/portcullis-firewall/portcullis/maps"
	"github.com/portcullis-firewall/portcullis/tests/internal/frame"
	"github.com/portcullis-firewall/portcullis/tests/internal/testdp"
)

// meanwhile runs work again and again on another CPU until the function that it returns is called.
func meanwhile(work func()) (stop func()) {
	var stopped atomic.Bool
	var working sync.WaitGroup
	working.Go(func() {
		for !stopped.Load() {
			work()
		}
	})
	return func() {
		stopped.Store(true)
		working.Wait()
	}
}

// queries returns a function that sends one of n queries, drawn at random. Run may fail with EINTR alone, as a test
// that forks gets signals.
func queries(d *testdp.Datapath, w world, n int) func() {
	frames := make([][]byte, n)
	for i := range frames {
		frames[i] = w.out(query(i))
	}
	program := d.Program(testdp.Out)
	return func() { _, _ = program.Run(&ebpf.RunOptions{Data: frames[rand.IntN(n)]}) }
}

// Connections live on, and are found, while another CPU begins flows that die and are swept, in a table that is too
// small for them.
func TestConnectionsAreFoundAmongOthersThatComeAndGo(t *testing.T) {
	d := load(t, testdp.Options{Policy: smallTable})
	const connections, rounds = 700, 4
	for _, w := range worlds {
		t.Run(w.String(), func(t *testing.T) {
			r := &trial{Datapath: d, path: testdp.XDP}
			for range rounds {
				d.Forget(t)
				query := queries(d, w, 60000)
				r.connect(t, w, connections)
				for range 6000 {
					query()
				}
				stop := meanwhile(query)
				for start := time.Now(); time.Since(start) < time.Second; {
					time.Sleep(10 * time.Millisecond)
					d.Advance(t, 31*time.Second)
					d.Sweep(t, false)
				}
				stop()
				lost := 0
				for i := range connections {
					if !r.Passes(t, testdp.XDP, r.tcpTo(w, uint16(20000+i), theirData), testdp.From{}) {
						lost++
					}
				}
				if lost > 0 {
					t.Errorf("%d of %d connections are not found", lost, connections)
				}
				mustForget(t, d)
			}
		})
	}
}

// Two CPUs that begin flows in a table full of unassured ones find room for each.
func TestTwoCPUsFindRoom(t *testing.T) {
	d := load(t, testdp.Options{Policy: smallTable})
	for _, w := range worlds {
		t.Run(w.String(), func(t *testing.T) {
			d.Forget(t)
			var working sync.WaitGroup
			for range 2 {
				query := queries(d, w, 60000)
				working.Go(func() {
					for range 100000 {
						query()
					}
				})
			}
			working.Wait()
			if refused := d.Counted(t)[full]; refused > 0 {
				t.Errorf("%d of 200000 queries found no room", refused)
			}
			if n := len(d.Flows(t)); n > tableSize+2 {
				t.Errorf("the table keeps %d flows, want %d", n, tableSize)
			}
			mustForget(t, d)
		})
	}
}

// A flow that has died and begins again while sweeps run is there when its answer comes.
func TestARevivedFlowOutlivesTheSweep(t *testing.T) {
	d := load(t, testdp.Options{Policy: server + "flows: {max: 1024}\ntimeouts: {udp: 1s}"})
	for _, w := range worlds {
		t.Run(w.String(), func(t *testing.T) {
			d.Forget(t)
			r := &trial{Datapath: d, path: testdp.XDP}
			stop := meanwhile(func() {
				args := bpf.FirewallSweep{}
				_, _ = d.Program(bpf.FirewallProgPortcullisSweep).Run(&ebpf.RunOptions{Context: &args, ContextOut: &args})
			})
			lost := 0
			for start := time.Now(); time.Since(start) < 4*time.Second; {
				d.Advance(t, 1100*time.Millisecond)
				for i := range 8 {
					r.Passes(t, testdp.Out, w.out(query(i)), testdp.From{})
					if !r.Passes(t, testdp.XDP, w.in(answer(i)), testdp.From{}) {
						lost++
					}
				}
			}
			stop()
			if lost > 0 {
				t.Errorf("%d answers were lost", lost)
			}
			mustForget(t, d)
		})
	}
}

// A flow whose first packets leave on two CPUs at once is in the table once.
func TestAFlowThatTwoCPUsBeginIsOne(t *testing.T) {
	d := load(t, testdp.Options{Policy: server + "flows: {max: 65536}"})
	const flows = 10000
	for _, w := range worlds {
		t.Run(w.String(), func(t *testing.T) {
			d.Forget(t)
			frames := make([][]byte, flows)
			for i := range flows {
				frames[i] = w.out(query(i))
			}
			var at [2]atomic.Int64
			var working sync.WaitGroup
			for me := range 2 {
				working.Go(func() {
					program := d.Program(testdp.Out)
					for i := range flows {
						at[me].Store(int64(i))
						for at[1-me].Load() < int64(i) {
						}
						_, _ = program.Run(&ebpf.RunOptions{Data: frames[i]})
					}
					at[me].Store(flows)
				})
			}
			working.Wait()
			seen := make(map[dpmaps.FlowID]int)
			for _, f := range d.Flows(t) {
				seen[f.ID()]++
			}
			twice := 0
			for _, n := range seen {
				if n > 1 {
					twice++
				}
			}
			if twice > 0 || len(seen) != flows {
				t.Errorf("of %d flows %d are there, %d twice", flows, len(seen), twice)
			}
			mustForget(t, d)
		})
	}
}

// One CPU sends in a connection, and one receives: it ends as it would on one.
func TestAConnectionOnTwoCPUs(t *testing.T) {
	d := load(t, testdp.Options{Policy: server})
	for _, w := range worlds {
		t.Run(w.String(), func(t *testing.T) {
			d.Forget(t)
			r := &trial{Datapath: d, path: testdp.XDP}
			for _, s := range w.connected() {
				s(t, r)
			}
			program, data := d.Program(testdp.Out), w.tcpOut(ourData)
			stop := meanwhile(func() { _, _ = program.Run(&ebpf.RunOptions{Data: data}) })
			in := w.tcpIn(segment{flags: frame.ACK, seq: 5001, ack: 1004})
			for start := time.Now(); time.Since(start) < time.Second; {
				if !r.Passes(t, testdp.XDP, in, testdp.From{}) {
					t.Error("a segment was lost")
					break
				}
			}
			stop()
			r.expect(t, in, established)
			r.expectState(t, "tcp-established")
			sent(w.tcpOut(ourRST))(t, r)
			r.expectState(t, "tcp-close")
		})
	}
}

// A packet is judged by the lists of one policy, also where another one comes in between: here one has no lists, and the
// other blocks everybody and trusts everybody.
func TestNoPacketMeetsTheListsOfTwoPolicies(t *testing.T) {
	d := load(t, testdp.Options{Policy: "input: accept", Bans: 4096, Blocking: 4096})
	defer clear(t, d)
	m, err := d.Set.Map(".data.blocking")
	if err != nil {
		t.Fatal(err)
	}
	memory, err := unix.Mmap(m.FD(), 0, os.Getpagesize(), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Munmap(memory)
	word := (*uint64)(unsafe.Pointer(&memory[0]))
	for _, w := range worlds {
		t.Run(w.String(), func(t *testing.T) {
			clear(t, d)
			r := &trial{Datapath: d, path: testdp.XDP}
			all := []netip.Prefix{netip.PrefixFrom(w.peer, 0).Masked()}
			bans(0, around(w.friend, w.friend.BitLen()-1))(t, r) // which takes a while to ask
			blocks(all, all...)(t, r)
			lists := atomic.LoadUint64(word)
			d.Counted(t)
			program := d.Program(testdp.XDP)
			stop := meanwhile(func() { _, _ = program.Run(&ebpf.RunOptions{Data: w.in(syn(80)), Repeat: 10000}) })
			for start := time.Now(); time.Since(start) < time.Second; {
				atomic.StoreUint64(word, 0)
				for range 100 {
					_ = atomic.LoadUint64(word)
				}
				atomic.StoreUint64(word, lists)
			}
			stop()
			if n := d.Counted(t)[dpmaps.Reason(bpf.FirewallReasonDROP_BLOCKED)]; n > 0 {
				t.Errorf("%d packets were blocked, which either policy lets in", n)
			}
		})
	}
}
