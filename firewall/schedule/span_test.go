// SPDX-License-Identifier: Apache-2.0

package schedule

import (
	"testing"
	"time"
)

func TestSpan(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0:                                 "0s",
		400 * time.Millisecond:            "0s",
		59600 * time.Millisecond:          "1m",
		90 * time.Second:                  "1m30s",
		time.Hour + time.Second:           "1h",
		5*24*time.Hour - time.Second:      "4d23h",
		30*24*time.Hour + 2*time.Hour + 1: "30d2h",
	} {
		if got := Span(d); got != want {
			t.Errorf("%v: %q, want %q", d, got, want)
		}
	}
}
