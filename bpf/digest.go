// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"crypto/sha256"
	"encoding/hex"
)

// FirewallDigest tells one build of the datapath from another.
func FirewallDigest() string {
	sum := sha256.Sum256(_FirewallBytes)
	return hex.EncodeToString(sum[:8])
}
