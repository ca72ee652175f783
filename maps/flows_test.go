// SPDX-License-Identifier: Apache-2.0

package maps

import (
	"testing"

	"github.com/portcullis-firewall/portcullis/policy"
)

// Whatever a policy may ask for, the sizes of the maps tell it, and leave room for twice as many.
func TestATableTellsItsLimit(t *testing.T) {
	for limit := policy.MinMaxFlows; limit <= policy.MaxMaxFlows; limit++ {
		sets, entries := flowTable(limit)
		places := sets * uint32(placesPerSet)
		if got := maxFlows(sets, entries); got != uint32(limit) {
			t.Fatalf("a table for %d flows says %d", limit, got)
		}
		if places < 2*uint32(limit) || entries < places || entries >= places+uint32(placesPerSet) {
			t.Fatalf("a table for %d flows has %d places and %d entries", limit, places, entries)
		}
	}
}

func TestFlowMemory(t *testing.T) {
	if got := FlowMemory(policy.DefaultMaxFlows); got/1e6 != 34 {
		t.Errorf("the default table takes %d bytes, and README says 34 MB", got)
	}
}
