// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"fmt"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/cilium/ebpf"

	"github.com/portcullis-firewall/portcullis/bpf"
	dpmaps "github.com/portcullis-firewall/portcullis/maps"
	"github.com/portcullis-firewall/portcullis/tests/internal/frame"
	"github.com/portcullis-firewall/portcullis/tests/internal/testdp"
)

// mustForget takes all flows out, after which nothing of them may be left: neither tags nor counted strays.
func mustForget(t *testing.T, d *testdp.Datapath) {
	t.Helper()
	d.Sweep(t, true)
	var set uint32
	var tags bpf.FirewallTags
	for it := d.Map(t, bpf.FirewallMapFlowTags).Iterate(); it.Next(&set, &tags); {
		if tags != (bpf.FirewallTags{}) {
			t.Fatalf("set %d is empty, and its tags are %#x", set, tags.Words)
		}
	}
}

const smallTable = server + "flows: {max: 1024}"

// asks sends a query of its own for each number, and tells whether there was room for the flow.
func asks(t testing.TB, r *trial, w world, number int) bool {
	t.Helper()
	r.Counted(t)
	if !r.Passes(t, testdp.Out, w.out(query(number)), testdp.From{}) {
		t.Fatal("a frame on the way out was dropped")
	}
	return r.Counted(t)[dpmaps.Reason(bpf.FirewallReasonSEEN_FLOWS_FULL)] == 0
}

func query(number int) frame.UDP {
	return frame.UDP{SrcPort: uint16(1024 + number%50000), DstPort: uint16(53 + number/50000)}
}

func answer(number int) frame.UDP {
	q := query(number)
	return frame.UDP{SrcPort: q.DstPort, DstPort: q.SrcPort}
}

// fill answers queries, from number 0 on, until no place is free. It returns those that have one.
func fill(t *testing.T, r *trial, w world) (numbers []int) {
	t.Helper()
	const tagsPerWord = 6
	places := int(r.Map(t, bpf.FirewallMapFlowTags).MaxEntries()) * len(bpf.FirewallTags{}.Words) * tagsPerWord
	for number := 0; len(numbers) < places; number++ {
		if asks(t, r, w, number) {
			r.expect(t, w.in(answer(number)), established)
			numbers = append(numbers, number)
		}
		if number > 100*places {
			t.Fatalf("%d queries have filled %d places", number, len(numbers))
		}
	}
	return numbers
}

func TestAFullTable(t *testing.T) {
	d := load(t, testdp.Options{Policy: smallTable})
	for _, w := range worlds {
		for _, path := range testdp.Ingress {
			t.Run(w.String()+"/"+path.String(), func(t *testing.T) {
				d.Forget(t)
				r := &trial{Datapath: d, path: path}
				numbers := fill(t, r, w)
				if flows := r.Flows(t); len(flows) != len(numbers) {
					t.Fatalf("%d flows were made, %d are there", len(numbers), len(flows))
				}

				const more = 60000
				if asks(t, r, w, more) {
					t.Fatal("there is room in a full table")
				}
				r.expect(t, w.in(answer(more)), closedPort)
				for _, number := range numbers {
					r.expect(t, w.in(answer(number)), established)
				}
				r.expect(t, w.in(syn(80)), rule("80/tcp"))
				r.expect(t, w.from(w.friend, syn(22)), rule("22/tcp from 203.0.113.0/24,2001:db8:ff::/48"))
				r.expect(t, w.in(syn(23)), closedPort)
				r.expect(t, w.in(w.unreachable(), w.ip(w.us, w.peer), query(numbers[0])), related)

				// When they have died, new ones take their places without a sweep.
				d.Advance(t, 3*time.Minute)
				if !asks(t, r, w, more) {
					t.Error("no dead flow made room")
				}
				r.expect(t, w.in(answer(more)), established)
				if swept := d.Sweep(t, false); swept.Live != 1 || int(swept.Removed) != len(numbers)-1 {
					t.Errorf("the sweep says %+v; want 1 live and %d removed", swept, len(numbers)-1)
				}
			})
		}
	}
}

// So many flows as the policy asks for have room, whatever they have in common.
func TestThereIsRoomForTheFlowsOfThePolicy(t *testing.T) {
	d := load(t, testdp.Options{Policy: smallTable})
	near := func(a netip.Addr, by int) netip.Addr {
		b := a.AsSlice()
		b[len(b)-1], b[len(b)-2] = byte(by), byte(by>>8)
		a, _ = netip.AddrFromSlice(b)
		return a
	}
	for _, w := range worlds {
		for name, flow := range map[string]func(i int) []byte{
			"local ports":  func(i int) []byte { return w.out(frame.UDP{SrcPort: uint16(32768 + i), DstPort: 53}) },
			"remote ports": func(i int) []byte { return w.out(frame.UDP{SrcPort: 40000, DstPort: uint16(1 + i)}) },
			"every other port": func(i int) []byte {
				return w.out(frame.UDP{SrcPort: uint16(32768 + 2*i), DstPort: 53})
			},
			"remote addresses": func(i int) []byte {
				return framed(w.ip(w.us, near(w.peer, i)), []frame.Layer{frame.UDP{SrcPort: 40000, DstPort: 53}})
			},
			"both": func(i int) []byte {
				return framed(w.ip(w.us, near(w.peer, i)), []frame.Layer{frame.UDP{SrcPort: uint16(32768 + i), DstPort: 53}})
			},
			"identifiers": func(i int) []byte { return w.out(w.echo(uint16(i), 1)) },
		} {
			t.Run(w.String()+"/"+name, func(t *testing.T) {
				d.Forget(t)
				r := &trial{Datapath: d, path: testdp.XDP}
				for i := range 1024 {
					sent(flow(i))(t, r)
				}
				if flows := r.Flows(t); len(flows) != 1024 {
					t.Errorf("1024 flows began, %d are there", len(flows))
				}
				mustForget(t, d)
			})
		}
	}
}

// A flood of what the host sends itself takes the places of unanswered flows alone, and first of those that have least
// to live.
func TestAFloodOfNewFlowsKeepsThoseThatWereAnswered(t *testing.T) {
	d := load(t, testdp.Options{Policy: smallTable})
	for _, w := range worlds {
		t.Run(w.String(), func(t *testing.T) {
			d.Forget(t)
			r := &trial{Datapath: d, path: testdp.XDP}
			for _, s := range w.connected() {
				s(t, r)
			}
			for number := range 512 {
				sent(w.out(query(number)))(t, r)
			}
			for number := range 256 {
				r.expect(t, w.in(answer(number)), established)
			}
			d.Advance(t, time.Second)
			const flood = 8 * 2048
			for number := range flood {
				if !asks(t, r, w, 10000+number) {
					t.Fatalf("the flood found no room after %d", number)
				}
			}
			r.expect(t, w.tcpIn(theirData), established)
			for number := range 256 {
				r.expect(t, w.in(answer(number)), established)
			}
			for number := 256; number < 512; number++ {
				r.expect(t, w.in(answer(number)), closedPort)
			}
			last := 10000 + flood - 1
			r.expect(t, w.in(answer(last)), established)
			mustForget(t, d)
		})
	}
}

// CPUs that begin flows at the same time, while others sweep, never get the same place.
func TestPlacesAreTakenOnce(t *testing.T) {
	d := load(t, testdp.Options{Policy: server + "flows: {max: 65536}"})
	const workers, each = 4, 4000
	for _, w := range worlds {
		t.Run(w.String(), func(t *testing.T) {
			d.Forget(t)
			r := &trial{Datapath: d, path: testdp.XDP}
			var working sync.WaitGroup
			for worker := range workers {
				working.Go(func() {
					program := d.Program(testdp.Out)
					for i := range each {
						if _, err := program.Run(&ebpf.RunOptions{Data: w.out(query(worker*each + i))}); err != nil {
							t.Error(err)
						}
					}
				})
			}
			for range 20 {
				d.Sweep(t, false)
			}
			working.Wait()
			seen := make(map[dpmaps.FlowID]int)
			for _, f := range d.Flows(t) {
				seen[f.ID()]++
			}
			for id, n := range seen {
				if n > 1 {
					t.Errorf("%v is there %d times", id, n)
				}
			}
			if len(seen) != workers*each {
				t.Errorf("%d flows began, %d are there", workers*each, len(seen))
			}
			for number := range workers * each {
				r.expect(t, w.in(answer(number)), established)
			}
			mustForget(t, d)
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
	check := func(name string, got bpf.FirewallSweep, live, removed uint32) {
		t.Helper()
		if got.Live != live || got.Removed != removed {
			t.Errorf("%s: %d live, %d removed; want %d and %d", name, got.Live, got.Removed, live, removed)
		}
	}
	check("all alive", d.Sweep(t, false), 4, 0)
	d.Advance(t, 31*time.Second)
	check("the queries died", d.Sweep(t, false), 2, 2)
	check("they are gone", d.Sweep(t, false), 2, 0)
	check("flush", d.Sweep(t, true), 0, 2)
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
		if err := d.Map(t, ".data.used").Lookup(uint32(0), &used); err != nil {
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
					r.expect(t, c.frame, c.without)
					if !d.Enter(t, &flow, false) {
						t.Fatal("it was not entered")
					}
					r.expect(t, c.frame, c.with)

					if d.Enter(t, &flow, false) {
						t.Error("it was entered again, where it is alive")
					}
					flow.State = dpmaps.FlowKilled
					if !d.Enter(t, &flow, true) {
						t.Error("it was not replaced")
					}
					r.expect(t, c.frame, c.without)
				})
			}
		}
	}
}
