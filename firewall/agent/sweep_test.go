// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"testing"
	"time"
)

// A clock that runs, or is kept right by small steps, was not set.
func TestWhetherTheClockWasSet(t *testing.T) {
	before := time.Now()
	if clockWasSet(before, before.Add(10*time.Minute)) || clockWasSet(time.Time{}, before) {
		t.Error("time goes on, and the clock counts as set")
	}
	// Of a time without a monotonic reading, which cannot be made up, that of the other one is not used either; so the
	// difference is shown by one that was changed.
	for by, want := range map[time.Duration]bool{0: false, 30 * time.Second: false, -30 * time.Second: false, time.Hour: true, -time.Hour: true} {
		if got := isStep(10*time.Minute+by, 10*time.Minute); got != want {
			t.Errorf("by %v: %t, want %t", by, got, want)
		}
	}
}
