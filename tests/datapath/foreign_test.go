// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"fmt"
	"testing"
	"time"

	"github.com/portcullis-firewall/portcullis/tests/internal/frame"
	"github.com/portcullis-firewall/portcullis/tests/internal/lab"
	"github.com/portcullis-firewall/portcullis/tests/internal/testdp"
)

// BenchmarkForeign measures a frame to another station's MAC, with a verdict that is known, and the search for one among
// the devices of a host. ns-over-empty is what the firewall adds to a program that passes everything.
func BenchmarkForeign(b *testing.B) {
	counts := []int{3, 100, 1000}
	if testing.Short() {
		counts = counts[:1] // making a thousand devices takes longer than all other benchmarks
	}
	for _, devices := range counts {
		b.Run(fmt.Sprintf("%d devices", devices), func(b *testing.B) {
			l := lab.New(b)
			for i := 0; i < devices-2; i += 2 {
				l.Server.IP(b, "link", "add", fmt.Sprintf("a%d", i), "type", "veth", "peer", "name", fmt.Sprintf("b%d", i))
			}
			d := load(b, testdp.Options{Policy: benchPolicy, MAC: ours})
			empty := emptyProgram(b, testdp.XDP)
			testdp.Enter(b, l.Server.Name) // a test run's frames come in on the loopback there
			frameTo := func(mac frame.MAC) []byte {
				return frame.Build(frame.Ethernet{Dst: mac}, worlds[0].ip(worlds[0].peer, worlds[0].us), syn(23))
			}
			known, passes := frameTo(other), testdp.Verdict(testdp.XDP, true)
			var base, cached, search []time.Duration
			for range 9 {
				base = append(base, timed(b, empty, known, 200000, passes))
				cached = append(cached, timed(b, d.Program(testdp.XDP), known, 200000, passes))
			}
			var alone []time.Duration
			for i := range 200 {
				if i%20 == 0 {
					d.Advance(b, time.Duration(devices)*time.Hour) // a new budget, also after the benchmark before
				}
				f := frameTo(frame.MAC{2, byte(devices >> 8), byte(devices), 0, 0, byte(i)})
				alone = append(alone, timed(b, empty, f, 1, passes))
				search = append(search, timed(b, d.Program(testdp.XDP), f, 1, passes))
			}
			b.ReportMetric(float64((median(cached) - median(base)).Nanoseconds()), "ns-known")
			b.ReportMetric(float64((median(search) - median(alone)).Nanoseconds()), "ns-search")
			b.ReportMetric(0, "ns/op")
		})
	}
}
