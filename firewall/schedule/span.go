// SPDX-License-Identifier: Apache-2.0

package schedule

import (
	"fmt"
	"strings"
	"time"
)

// Span returns a duration in its two largest units: 4d23h, 1m30s.
func Span(d time.Duration) string {
	seconds := int64(d.Round(time.Second) / time.Second)
	units := []struct {
		name    string
		seconds int64
	}{{"d", 86400}, {"h", 3600}, {"m", 60}, {"s", 1}}
	var b strings.Builder
	for i, u := range units {
		n := seconds / u.seconds
		if n == 0 {
			continue
		}
		fmt.Fprintf(&b, "%d%s", n, u.name)
		if i+1 < len(units) {
			next := units[i+1]
			if m := seconds % u.seconds / next.seconds; m > 0 {
				fmt.Fprintf(&b, "%d%s", m, next.name)
			}
		}
		return b.String()
	}
	return "0s"
}
