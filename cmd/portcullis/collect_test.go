// SPDX-License-Identifier: Apache-2.0

package main

import (
	"runtime"
	"runtime/debug"
	"testing"
	"time"
)

// A command that needs more memory than most is not collected again and again to stay below a limit.
func TestTheFirstCollectionEndsTheLimit(t *testing.T) {
	percent, limit := debug.SetGCPercent(-1), debug.SetMemoryLimit(-1)
	defer func() {
		debug.SetGCPercent(percent)
		debug.SetMemoryLimit(limit)
	}()
	collectLate()
	if got := debug.SetMemoryLimit(-1); got != memoryBeforeCollection {
		t.Errorf("the limit is %d bytes before the first collection, want %d", got, memoryBeforeCollection)
	}
	runtime.GC()
	for start := time.Now(); debug.SetMemoryLimit(-1) == memoryBeforeCollection; time.Sleep(time.Millisecond) {
		if time.Since(start) > 10*time.Second {
			t.Fatal("the limit stays after a collection")
		}
	}
}
