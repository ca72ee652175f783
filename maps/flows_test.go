// SPDX-License-Identifier: Apache-2.0

package maps

import (
	"slices"
	"testing"

	"github.com/portcullis-firewall/portcullis/bpf"
	"github.com/portcullis-firewall/portcullis/policy"
)

func TestFlowMemory(t *testing.T) {
	if got := FlowMemory(policy.DefaultMaxFlows); got/1e6 != 34 {
		t.Errorf("the default table takes %d bytes, and README says 34 MB", got)
	}
}

func TestConnectionsThatAreOverGiveWay(t *testing.T) {
	var names []string
	for _, s := range FlowStates() {
		if givesWay(&bpf.FirewallFlow{State: uint8(s)}) {
			names = append(names, s.String())
		}
	}
	if want := []string{"tcp-last-ack", "tcp-time-wait", "tcp-close"}; !slices.Equal(names, want) {
		t.Errorf("these give way: %q, want %q", names, want)
	}
}
