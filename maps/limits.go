// SPDX-License-Identifier: Apache-2.0

package maps

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"

	"github.com/portcullis-firewall/portcullis/bpf"
	"github.com/portcullis-firewall/portcullis/policy"
)

// limitOf returns how the datapath counts by a rule's limit. The salt goes by what the rule says: a rule keeps its
// buckets whatever its number, and another one that gets that number does not begin with them.
func limitOf(r policy.Rule) bpf.FirewallLimit {
	if r.Limit.Count == 0 {
		return bpf.FirewallLimit{}
	}
	sum := sha256.Sum256([]byte(r.Key()))
	count := uint64(r.Limit.Count)
	interval := max(1, (uint64(r.Limit.Per)+count/2)/count)
	return bpf.FirewallLimit{
		Salt:      binary.NativeEndian.Uint64(sum[:]),
		Interval:  interval,
		Tolerance: interval * uint64(max(r.Limit.Burst, 1)-1),
	}
}

// putLimits writes the limits of rules, before a port asks for them. Programs without limits have no room for any, and
// read none.
func (r *Ruleset) putLimits(rules []Rule) error {
	m, err := r.Map(bpf.FirewallMapLimits)
	if err != nil {
		return err
	}
	for _, rule := range rules {
		if uint32(rule.ID) >= m.MaxEntries() {
			continue
		}
		limit := limitOf(rule.Rule)
		if err := m.Put(uint32(rule.ID), &limit); err != nil {
			return fmt.Errorf("put the limit of rule %q: %w", rule.Rule, err)
		}
	}
	return nil
}
