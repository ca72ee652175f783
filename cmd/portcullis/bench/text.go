// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"fmt"
	"strconv"
	"strings"
)

// thousands writes a whole number with commas.
func thousands(n int) string {
	text := strconv.Itoa(n)
	for at := len(text) - 3; at > 0; at -= 3 {
		text = text[:at] + "," + text[at:]
	}
	return text
}

// count writes how many there are of something.
func count(n int, one string) string {
	if n == 1 {
		return "1 " + one
	}
	if strings.HasSuffix(one, "s") {
		one += "e"
	}
	return thousands(n) + " " + one + "s"
}

// figure writes a value with as many digits as mean something.
func figure(value float64, unit string) string {
	switch {
	case unit == Microseconds && value >= 1000:
		return fmt.Sprintf("%.2f ms", value/1000)
	case unit == Nanoseconds && value >= 100000:
		return fmt.Sprintf("%.0f µs", value/1000)
	case unit == Nanoseconds || unit == Entries || value >= 1000:
		return thousands(int(value+0.5)) + " " + unit
	}
	return strings.TrimSuffix(fmt.Sprintf("%.1f", value), ".0") + " " + unit
}

// ratio writes a factor.
func ratio(value float64) string {
	if value >= 100 {
		return "×" + thousands(int(value+0.5))
	}
	if value >= 10 {
		return fmt.Sprintf("×%.1f", value)
	}
	return fmt.Sprintf("×%.2f", value)
}
