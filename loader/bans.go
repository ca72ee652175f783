// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"net/netip"
	"time"
)

// Ban is a source that nothing comes in from for a time.
type Ban struct {
	Prefix  netip.Prefix
	Since   time.Time
	Until   time.Time // zero: for ever
	Reason  string
	Packets uint64
}
