// SPDX-License-Identifier: Apache-2.0

// Package fleet is one policy for many hosts: what a group of hosts runs is a bundle, which is signed and never changes. A
// store carries it, and is trusted with no more than that. Each host holds the public keys, and verifies for itself.
package fleet

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"

	"github.com/portcullis-firewall/portcullis/firewall/fleet/store"
)

// PointerKey returns the key under which a group's pointer is.
func PointerKey(group string) string { return "groups/" + group + "/current" }

// BundleKey returns the key of a bundle.
func BundleKey(digest string) string { return "bundles/" + digest }

// ListKey returns the key of a list.
func ListKey(digest string) string { return "lists/" + digest }

// HostsPrefix is what the keys of hosts begin with.
const HostsPrefix = "hosts/"

// StatusKey returns the key under which a host says how it is.
func StatusKey(host string) string { return HostsPrefix + host + "/status" }

// PresenceKey returns the key that is there as long as a host is.
func PresenceKey(host string) string { return HostsPrefix + host + "/present" }

// ProbesKey returns the key under which a host answers those that want to be probed.
func ProbesKey(host string) string { return HostsPrefix + host + "/probes" }

// BansPrefix returns what the keys of a group's bans begin with.
func BansPrefix(group string) string { return "bans/" + group + "/" }

// BansKey returns the key under which a host says whom it has banned.
func BansKey(group, host string) string { return BansPrefix(group) + host }

// OperatorBans is the name in the place of a host's under which whoever holds a key of the group bans: no host's name has it.
const OperatorBans = "0.operator"

// Digest returns what stands for an object.
func Digest(object []byte) string {
	sum := sha256.Sum256(object)
	return hex.EncodeToString(sum[:])
}

// IsDigest reports whether a text can be a digest.
func IsDigest(text string) bool {
	b, err := hex.DecodeString(text)
	return err == nil && len(b) == sha256.Size && hex.EncodeToString(b) == text
}

// CheckHost returns why a text cannot be the name of a host.
func CheckHost(name string) error {
	if name == OperatorBans {
		return fmt.Errorf("%q is no name of a host: the bans of operators have it", name)
	}
	return store.CheckName("host", name)
}
