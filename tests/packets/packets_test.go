// SPDX-License-Identifier: Apache-2.0

// Package packets holds what "diff" and "apply" say of packets against the programs: two random policies are loaded, and
// random packets have to fare differently with them if and only if the computed difference says so, and as it says.
package packets

import (
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/portcullis-firewall/portcullis/maps/leaktest"
	"github.com/portcullis-firewall/portcullis/policy"
	"github.com/portcullis-firewall/portcullis/policy/packets"
	"github.com/portcullis-firewall/portcullis/tests/internal/lab"
	"github.com/portcullis-firewall/portcullis/tests/internal/testdp"
)

var (
	seed  = flag.Uint64("seed", 1, "of the random policies and packets")
	count = flag.Int("packets", 200_000, "that each of two policies decides, over all pairs of policies, at least")
	only  = flag.Int("pair", -1, "the one pair of policies, or the policy to explain packets at, to try again")
)

const (
	perInterface = 600 // packets
	interfacesOf = 3   // a pair of policies
	probe        = mostBurst + 2
	recovery     = 7 * 24 * time.Hour // longer than any limit takes to be forgotten
)

func TestMain(m *testing.M) { os.Exit(leaktest.Main(m)) }

func TestTheDifferenceIsThatOfThePrograms(t *testing.T) {
	lab.RequireRoot(t)
	pairs := *count/(perInterface*interfacesOf) + 1
	var next, stop int
	if stop = pairs; *only >= 0 {
		next, stop = *only, *only+1
	}
	var (
		mu      sync.Mutex
		total   tally
		failed  error
		working sync.WaitGroup
	)
	take := func() (int, bool) {
		mu.Lock()
		defer mu.Unlock()
		next++
		return next - 1, next <= stop && failed == nil
	}
	for range runtime.NumCPU() {
		working.Go(func() {
			w, err := newWorker()
			if err == nil {
				defer w.close()
				for i, ok := take(); ok && err == nil; i, ok = take() {
					if err = w.try(i); err != nil {
						err = fmt.Errorf("pair %d of seed %d: %w", i, *seed, err)
					}
				}
			}
			mu.Lock()
			defer mu.Unlock()
			failed = errors.Join(failed, err)
			total.add(w.tally)
		})
	}
	working.Wait()
	if failed != nil {
		t.Fatal(failed)
	}
	t.Logf("%d pairs of policies: %+v", pairs, total)
	if *only >= 0 {
		return
	}
	// Where nothing differs, nothing is tested.
	for what, n := range map[string]int{"come": total.come, "go": total.gone, "have another limit": total.limited} {
		if n < total.packets/400 {
			t.Errorf("%d of %d packets %s: too few to tell", n, total.packets, what)
		}
	}
}

// tally is how many packets of a kind there were.
type tally struct{ packets, runs, come, gone, limited, waited int }

func (t *tally) add(o tally) {
	t.packets += o.packets
	t.runs += o.runs
	t.come += o.come
	t.gone += o.gone
	t.limited += o.limited
	t.waited += o.waited
}

// worker has two datapaths on each way in, for the old and the new policy.
type worker struct {
	ways []way
	tally
}

type way [2]*testdp.Turns

func newWorker() (w *worker, err error) {
	w = new(worker)
	// One rule of each kind for 64 makes room for all that is drawn.
	like := &policy.Policy{}
	for i := range 64 {
		r, err := policy.ParseRule(fmt.Sprintf("1-9/tcp from 10.%d.0.0/16,2001:db8:%x::/48 to 10.0.0.1,2001:db8::1 limit 1/minute", i, i))
		if err != nil {
			return w, err
		}
		like.Open = append(like.Open, r)
	}
	like.MaxFlows = policy.DefaultMaxFlows
	for _, path := range testdp.Ingress {
		var pair way
		for i := range pair {
			if pair[i], err = testdp.OpenTurns(path, like); err != nil {
				w.close()
				return w, err
			}
		}
		w.ways = append(w.ways, pair)
	}
	return w, nil
}

func (w *worker) close() {
	for _, pair := range w.ways {
		pair[0].Close()
		pair[1].Close()
	}
}

// try compares a pair of policies, which the number alone decides, on some interfaces.
func (w *worker) try(number int) error {
	d := draw{rand.New(rand.NewPCG(*seed, uint64(number)))}
	texts := [2]text{d.policy()}
	texts[1] = d.change(texts[0])
	var policies [2]*policy.Policy
	for i := range texts {
		var err error
		if policies[i], err = texts[i].parse(); err != nil {
			return err
		}
	}
	changes := packets.Diff(policies[0], policies[1])
	borders := bordersOf(policies[:]...)
	way := w.ways[0]
	if number%8 == 7 { // a run on TC takes the kernel longer
		way = w.ways[1]
	}
	for _, i := range d.Perm(len(interfaces))[:interfacesOf] {
		iface := interfaces[i]
		for side, p := range policies {
			if err := way[side].Apply(p, iface); err != nil {
				return fmt.Errorf("%w\n%s", err, texts[side])
			}
		}
		here := slices.DeleteFunc(slices.Clone(changes), func(c packets.Change) bool { return !c.AppliesOn(iface) })
		for range perInterface {
			p := borders.draw(d, iface)
			if err := w.compare(way, policies, here, p, d); err != nil {
				return fmt.Errorf("%s: %w\n%s\n%s\n%v", p, err, texts[0], texts[1], changes)
			}
		}
	}
	return nil
}

// compare sends a packet to both policies: once, or as often as it takes to see a limit, and perhaps again a while later.
func (w *worker) compare(way way, policies [2]*policy.Policy, changes []packets.Change, p packet, d draw) error {
	w.packets++
	times := 1
	intervals := intervalsFor(policies, p)
	if len(intervals) > 0 {
		times = probe
		if err := way.advance(recovery); err != nil {
			return err
		}
	}
	says := admissionsOf(changes, p)
	if says != nil {
		w.count(*says)
	}
	if err := w.send(way, p, times, says, func(a admitted) int { return a.passes(p, times) }); err != nil {
		return err
	}
	pause := time.Duration(d.Int64N(int64(2 * time.Hour)))
	if len(intervals) == 0 || p.goesOn || !isClear(pause, intervals) {
		return nil
	}
	w.waited++
	if err := way.advance(pause); err != nil {
		return err
	}
	err := w.send(way, p, times, says, func(a admitted) int { return a.passesAfter(pause, times) })
	if err != nil {
		err = fmt.Errorf("%v later: %w", pause, err)
	}
	return err
}

// send sends a packet so many times to each policy. As many have to pass as are expected, or the same if nothing changes.
func (w *worker) send(way way, p packet, times int, says *[2]admitted, expected func(admitted) int) error {
	b := p.frame()
	var passed [2]int
	for side := range way {
		for range times {
			ok, err := way[side].Passes(b)
			if err != nil {
				return err
			}
			if ok {
				passed[side]++
			}
		}
	}
	w.runs += 2 * times
	if says == nil {
		if passed[0] != passed[1] {
			return fmt.Errorf("of %d pass %d with the old policy and %d with the new one, and no change says so", times, passed[0], passed[1])
		}
		return nil
	}
	for side, got := range passed {
		if want := expected(says[side]); got != want {
			return fmt.Errorf("of %d pass %v with the old policy and the new one, and the change says %d of side %d", times, passed, want, side)
		}
	}
	return nil
}

func (w *worker) count(says [2]admitted) {
	switch {
	case says[0].ok && !says[1].ok:
		w.gone++
	case !says[0].ok && says[1].ok:
		w.come++
	case says[0] != says[1]:
		w.limited++
	}
}

func (y way) advance(by time.Duration) error {
	return errors.Join(y[0].Advance(by), y[1].Advance(by))
}
