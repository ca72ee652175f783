// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"encoding/binary"
	"fmt"
	"math"
	"time"

	"github.com/cilium/ebpf"
)

// measureTime is long enough to tell 250 ticks a second from 300 with a tick's error at each end.
const measureTime = 100 * time.Millisecond

// jiffies asks the datapath's clock.
func jiffies(clock *ebpf.Program) (uint64, error) {
	out := make([]byte, 8)
	if _, err := clock.Run(&ebpf.RunOptions{Context: out, ContextOut: out}); err != nil {
		return 0, fmt.Errorf("read the datapath's clock: %w", err)
	}
	return binary.NativeEndian.Uint64(out), nil
}

// measureHZ finds out how many jiffies a second has: the kernel tells nobody, and its configuration is not always at
// hand.
func measureHZ(clock *ebpf.Program) (uint32, error) {
	before, err := jiffies(clock)
	if err != nil {
		return 0, err
	}
	start := time.Now()
	time.Sleep(measureTime)
	after, err := jiffies(clock)
	if err != nil {
		return 0, err
	}
	rate := float64(after-before) / time.Since(start).Seconds()
	best := uint32(0)
	for _, hz := range []uint32{100, 250, 300, 1000} {
		if best == 0 || math.Abs(float64(hz)-rate) < math.Abs(float64(best)-rate) {
			best = hz
		}
	}
	return best, nil
}
