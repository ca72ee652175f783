// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cilium/ebpf"

	dpmaps "github.com/portcullis-firewall/portcullis/maps"
	"github.com/portcullis-firewall/portcullis/tests/internal/testdp"
)

// While lists are swapped and bans of neighbours come and go, two CPUs receive packets of an address that is on each of
// the lists, of a trusted one, and of a clean one beside them.
func TestBlockListsAreSwappedWhole(t *testing.T) {
	d := load(t, testdp.Options{Policy: "input: accept", Bans: 4096, Blocking: 1 << 15})
	defer clear(t, d)
	long := 4 * time.Second
	if testing.Short() {
		long = time.Second
	}
	for _, w := range worlds {
		t.Run(w.String(), func(t *testing.T) {
			clear(t, d)
			r := rand.New(rand.NewPCG(16, 9))
			bad, good, clean := w.stranger, w.friend, w.peer
			lists := make([]dpmaps.BlockList, 4)
			for i := range lists {
				lists[i].Name = fmt.Sprint("list ", i)
				lists[i].Prefixes = []netip.Prefix{single(bad), around(bad, bad.BitLen()-i), single(good)}
				for range 1 + 5000*i {
					if p := single(anyAddress(r, w.family)); p.Addr() != clean {
						lists[i].Prefixes = append(lists[i].Prefixes, p)
					}
				}
			}
			trust := []netip.Prefix{single(good)}
			putLists(t, d, trust, lists[0])
			var wrong, sent atomic.Int64
			var stops []func()
			var working sync.WaitGroup
			var stopped atomic.Bool
			for _, path := range testdp.Ingress {
				program := d.Program(path)
				frames := []struct {
					data   []byte
					passes bool
				}{{w.from(bad, udp(9)), false}, {w.from(good, udp(9)), true}, {w.from(clean, udp(9)), true}}
				working.Go(func() {
					for !stopped.Load() {
						for _, f := range frames {
							result, err := program.Run(&ebpf.RunOptions{Data: f.data})
							if err == nil {
								sent.Add(1)
								if result != testdp.Verdict(path, f.passes) {
									wrong.Add(1)
								}
							}
						}
					}
				})
			}
			stops = append(stops, func() { stopped.Store(true); working.Wait() })
			swaps := 0
			neighbours := []netip.Prefix{single(bad.Next()), single(good.Next()), single(clean.Next())}
			for start := time.Now(); time.Since(start) < long; swaps++ {
				putLists(t, d, trust, lists[r.IntN(len(lists))])
				if r.IntN(2) == 0 {
					if err := d.Set.TidyGate(); err != nil {
						t.Fatal(err)
					}
				}
				clock := d.Clock(t)
				var some []dpmaps.Ban
				for _, p := range neighbours {
					some = append(some, dpmaps.Ban{Prefix: p})
				}
				if _, err := d.Set.PutBans(clock, some); err != nil {
					t.Fatal(err)
				}
				if _, err := d.Set.RemoveBans(clock, neighbours); err != nil {
					t.Fatal(err)
				}
			}
			for _, stop := range stops {
				stop()
			}
			t.Logf("%d swaps, %d packets", swaps, sent.Load())
			if n := wrong.Load(); n > 0 {
				t.Errorf("in %d swaps %d packets of %d met something else than the old or the new list", swaps, n, sent.Load())
			}
			if swaps < 5 || sent.Load() < 1000 {
				t.Errorf("%d swaps met %d packets: too few to tell", swaps, sent.Load())
			}
		})
	}
}
