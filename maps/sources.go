// SPDX-License-Identifier: Apache-2.0

package maps

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/cilium/ebpf"

	"github.com/portcullis-firewall/portcullis/bpf"
	"github.com/portcullis-firewall/portcullis/policy"
)

// sourceBatch is how many sources a call to the kernel reads or writes.
const sourceBatch = 4096

// sources returns the prefixes in force.
func (r *Ruleset) sources() ([]policy.SourcePrefix, error) {
	out, err := readSources(nil, r.byName[bpf.FirewallMapSources4], func(k *bpf.FirewallSourceKey4) (uint32, netip.Prefix) {
		return k.Set, prefixOf4(k)
	})
	if err != nil {
		return nil, err
	}
	out, err = readSources(out, r.byName[bpf.FirewallMapSources6], func(k *bpf.FirewallSourceKey6) (uint32, netip.Prefix) {
		return k.Set, prefixOf6(k)
	})
	slices.SortStableFunc(out, func(a, b policy.SourcePrefix) int { return cmp.Compare(a.Set, b.Set) })
	return out, err
}

func readSources[K any](out []policy.SourcePrefix, m *ebpf.Map, read func(*K) (set uint32, prefix netip.Prefix)) ([]policy.SourcePrefix, error) {
	keys, decisions := make([]K, sourceBatch), make([]bpf.FirewallDecision, sourceBatch)
	var cursor ebpf.MapBatchCursor
	for {
		n, err := m.BatchLookup(&cursor, keys, decisions, nil)
		if err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return nil, fmt.Errorf("read sources: %w", err)
		}
		for i := range n {
			set, prefix := read(&keys[i])
			out = append(out, policy.SourcePrefix{Set: uint16(set), Prefix: prefix, Decision: decisionOf(decisions[i])})
		}
		if err != nil {
			return out, nil // that was the last
		}
	}
}

type sourceKey struct {
	set    uint16
	prefix netip.Prefix
}

// newSources returns those of wanted that are not in force, or say something else there. The error is ErrNoRoom if they and
// those in force are too many.
func (r *Ruleset) newSources(wanted, current []policy.SourcePrefix) (fresh []policy.SourcePrefix, err error) {
	have := make(map[sourceKey]policy.Decision, len(current))
	count4, count6 := 0, 0
	count := func(p netip.Prefix) {
		if p.Addr().Is4() {
			count4++
		} else {
			count6++
		}
	}
	for _, p := range current {
		have[sourceKey{p.Set, p.Prefix}] = p.Decision
		count(p.Prefix)
	}
	for _, p := range wanted {
		decision, ok := have[sourceKey{p.Set, p.Prefix}]
		if !ok {
			count(p.Prefix)
		}
		if !ok || decision != p.Decision {
			fresh = append(fresh, p)
		}
	}
	most4, most6 := r.byName[bpf.FirewallMapSources4].MaxEntries(), r.byName[bpf.FirewallMapSources6].MaxEntries()
	if count4 > int(most4) || count6 > int(most6) {
		return nil, fmt.Errorf("%w: sources of the old rules and of the new ones are more than %d", ErrNoRoom, min(most4, most6))
	}
	return fresh, nil
}

func (r *Ruleset) addSources(sources []policy.SourcePrefix) error {
	keys4, keys6, decisions4, decisions6 := split(sources)
	if err := inBatches(keys4, func(first, end int) (int, error) {
		return r.byName[bpf.FirewallMapSources4].BatchUpdate(keys4[first:end], decisions4[first:end], nil)
	}); err != nil {
		return fmt.Errorf("add sources: %w", err)
	}
	if err := inBatches(keys6, func(first, end int) (int, error) {
		return r.byName[bpf.FirewallMapSources6].BatchUpdate(keys6[first:end], decisions6[first:end], nil)
	}); err != nil {
		return fmt.Errorf("add sources: %w", err)
	}
	return nil
}

func (r *Ruleset) dropSources(old, current []policy.SourcePrefix) error {
	keep := make(map[sourceKey]bool, len(current))
	for _, p := range current {
		keep[sourceKey{p.Set, p.Prefix}] = true
	}
	var gone []policy.SourcePrefix
	for _, p := range old {
		if !keep[sourceKey{p.Set, p.Prefix}] {
			gone = append(gone, p)
		}
	}
	keys4, keys6, _, _ := split(gone)
	if err := inBatches(keys4, func(first, end int) (int, error) {
		return r.byName[bpf.FirewallMapSources4].BatchDelete(keys4[first:end], nil)
	}); err != nil {
		return fmt.Errorf("remove sources: %w", err)
	}
	if err := inBatches(keys6, func(first, end int) (int, error) {
		return r.byName[bpf.FirewallMapSources6].BatchDelete(keys6[first:end], nil)
	}); err != nil {
		return fmt.Errorf("remove sources: %w", err)
	}
	return nil
}

func split(sources []policy.SourcePrefix) (keys4 []bpf.FirewallSourceKey4, keys6 []bpf.FirewallSourceKey6, decisions4, decisions6 []bpf.FirewallDecision) {
	for _, p := range sources {
		if p.Prefix.Addr().Is4() {
			keys4, decisions4 = append(keys4, sourceKey4(p.Set, p.Prefix)), append(decisions4, wireDecision(p.Decision))
		} else {
			keys6, decisions6 = append(keys6, sourceKey6(p.Set, p.Prefix)), append(decisions6, wireDecision(p.Decision))
		}
	}
	return keys4, keys6, decisions4, decisions6
}

func wireDecision(d policy.Decision) bpf.FirewallDecision {
	switch {
	case d.To != 0:
		return bpf.FirewallDecision{Number: d.To, Kind: uint16(bpf.FirewallDecisionKindBY_ADDRESS)}
	case d.Limited:
		return bpf.FirewallDecision{Number: d.Rule, Kind: uint16(bpf.FirewallDecisionKindLIMITED)}
	}
	return bpf.FirewallDecision{Number: d.Rule}
}

func decisionOf(wire bpf.FirewallDecision) policy.Decision {
	if wire.Kind == uint16(bpf.FirewallDecisionKindBY_ADDRESS) {
		return policy.Decision{To: wire.Number}
	}
	return policy.Decision{Rule: wire.Number, Limited: wire.Kind == uint16(bpf.FirewallDecisionKindLIMITED)}
}

// inBatches calls do for one batch of keys after the other until it fails.
func inBatches[K any](keys []K, do func(first, end int) (int, error)) error {
	for first := 0; first < len(keys); first += sourceBatch {
		if _, err := do(first, min(first+sourceBatch, len(keys))); err != nil {
			return err
		}
	}
	return nil
}
