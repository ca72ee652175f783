// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"math"
	"slices"
)

// Spread is a median and the quartiles around it.
type Spread struct {
	Median float64 `json:"median"`
	Low    float64 `json:"low"`
	High   float64 `json:"high"`
}

// spread sums up values; it is nil without any.
func spread(values []float64) *Spread {
	if len(values) == 0 {
		return nil
	}
	sorted := slices.Sorted(slices.Values(values))
	return &Spread{quantile(sorted, 0.5), quantile(sorted, 0.25), quantile(sorted, 0.75)}
}

// quantile interpolates between the two values that are nearest.
func quantile(sorted []float64, q float64) float64 {
	at := q * float64(len(sorted)-1)
	below := math.Floor(at)
	value := sorted[int(below)]
	if int(below)+1 < len(sorted) {
		value += (at - below) * (sorted[int(below)+1] - value)
	}
	return value
}

// ratios divides round by round: what disturbs a machine for a while disturbs both.
func ratios(values, base []float64) []float64 {
	var out []float64
	for i := range min(len(values), len(base)) {
		out = append(out, values[i]/base[i])
	}
	return out
}
