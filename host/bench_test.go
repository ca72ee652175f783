// SPDX-License-Identifier: Apache-2.0

package host

import "testing"

// Each open asks whether this host forwards.
func BenchmarkForwards(b *testing.B) {
	for b.Loop() {
		Forwards(nil)
	}
}
