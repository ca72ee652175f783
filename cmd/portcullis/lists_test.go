// SPDX-License-Identifier: Apache-2.0

package main

import (
	"testing"
	"time"
)

// Times are of this place, and look alike wherever they are printed.
func TestTimesOfListsAreLocal(t *testing.T) {
	at := time.Date(2026, 3, 1, 12, 30, 0, 0, time.FixedZone("", 3*3600))
	if got, want := localTime(at.Format(time.RFC3339)), at.Local().Format(time.DateTime); got != want {
		t.Errorf("%s, want %s", got, want)
	}
	if got := localTime(""); got != "" {
		t.Errorf("no time is %q", got)
	}
}
