// SPDX-License-Identifier: Apache-2.0

package maps

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/portcullis-firewall/portcullis/bpf"
	"github.com/portcullis-firewall/portcullis/policy"
)

// sources returns the prefixes in force.
func (s *Set) sources() ([]policy.SourcePrefix, error) {
	var out []policy.SourcePrefix
	var rule uint32
	var key4 bpf.FirewallSourceKey4
	it := s.byName[Policy][bpf.FirewallMapSources4].Iterate()
	for it.Next(&key4, &rule) {
		out = append(out, policy.SourcePrefix{Set: uint16(key4.Set), Prefix: prefixOf4(&key4), Rule: uint16(rule)})
	}
	if err := it.Err(); err != nil {
		return nil, fmt.Errorf("read sources: %w", err)
	}
	var key6 bpf.FirewallSourceKey6
	it = s.byName[Policy][bpf.FirewallMapSources6].Iterate()
	for it.Next(&key6, &rule) {
		out = append(out, policy.SourcePrefix{Set: uint16(key6.Set), Prefix: prefixOf6(&key6), Rule: uint16(rule)})
	}
	if err := it.Err(); err != nil {
		return nil, fmt.Errorf("read sources: %w", err)
	}
	slices.SortStableFunc(out, func(a, b policy.SourcePrefix) int { return cmp.Compare(a.Set, b.Set) })
	return out, nil
}

func (s *Set) addSources(sources []policy.SourcePrefix) error {
	for _, p := range sources {
		var err error
		if p.Prefix.Addr().Is4() {
			err = s.byName[Policy][bpf.FirewallMapSources4].Put(sourceKey4(p.Set, p.Prefix), uint32(p.Rule))
		} else {
			err = s.byName[Policy][bpf.FirewallMapSources6].Put(sourceKey6(p.Set, p.Prefix), uint32(p.Rule))
		}
		if errors.Is(err, unix.ENOSPC) {
			return fmt.Errorf("%w: too many source prefixes", ErrNoRoom)
		}
		if err != nil {
			return fmt.Errorf("add source %s: %w", p.Prefix, err)
		}
	}
	return nil
}

func (s *Set) dropSources(old, current []policy.SourcePrefix) error {
	type key struct {
		set    uint16
		prefix netip.Prefix
	}
	keep := make(map[key]bool, len(current))
	for _, p := range current {
		keep[key{p.Set, p.Prefix}] = true
	}
	for _, p := range old {
		if keep[key{p.Set, p.Prefix}] {
			continue
		}
		var err error
		if p.Prefix.Addr().Is4() {
			err = s.byName[Policy][bpf.FirewallMapSources4].Delete(sourceKey4(p.Set, p.Prefix))
		} else {
			err = s.byName[Policy][bpf.FirewallMapSources6].Delete(sourceKey6(p.Set, p.Prefix))
		}
		if err != nil {
			return fmt.Errorf("remove source %s: %w", p.Prefix, err)
		}
	}
	return nil
}
