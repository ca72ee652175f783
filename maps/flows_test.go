// SPDX-License-Identifier: Apache-2.0

package maps

import (
	"testing"

	"github.com/portcullis-firewall/portcullis/policy"
)

func TestFlowMemory(t *testing.T) {
	if got := FlowMemory(policy.DefaultMaxFlows); got/1e6 != 34 {
		t.Errorf("the default table takes %d bytes, and README says 34 MB", got)
	}
}
