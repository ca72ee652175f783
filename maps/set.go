// SPDX-License-Identifier: Apache-2.0

// Package maps gives typed access to each map of the datapath. It is the only
// place that turns policies, addresses and flows into their wire form and back.
package maps

import (
	"errors"
	"fmt"
	"slices"

	"github.com/cilium/ebpf"

	"github.com/portcullis-firewall/portcullis/policy"
)

// Set holds the maps that a program is loaded over: a state and one ruleset.
type Set struct {
	*State
	*Ruleset
}

// NewSet creates the maps that spec describes. Its state goes on with the maps of old, which may be nil: see [NewState].
func NewSet(spec *ebpf.CollectionSpec, old *State) (*Set, error) {
	state, err := NewState(spec, old)
	if err != nil {
		return nil, err
	}
	ruleset, err := NewRuleset(spec)
	if err != nil {
		state.Close()
		return nil, err
	}
	return &Set{state, ruleset}, nil
}

// OpenSet opens the pinned maps of a datapath, those of the state when they are first asked for. Lost, which may be nil,
// opens those that have lost their pins.
func OpenSet(stateDir, rulesetDir string, lost Lost) (*Set, error) {
	ruleset, err := OpenRuleset(rulesetDir, lost)
	if err != nil {
		return nil, err
	}
	return &Set{OpenState(stateDir, lost), ruleset}, nil
}

// Map returns one map by its name in the object.
func (s *Set) Map(name string) (*ebpf.Map, error) {
	if s.Ruleset.has(name) {
		return s.Ruleset.Map(name)
	}
	return s.State.Map(name)
}

// All returns the maps by their names in the object, in the form that a program load takes: those for interfaces of the
// empty group.
func (s *Set) All() (map[string]*ebpf.Map, error) { return s.AllOf("") }

// AllOf is like All, for the programs of interfaces of a group.
func (s *Set) AllOf(g policy.Group) (map[string]*ebpf.Map, error) {
	all := make(map[string]*ebpf.Map)
	for _, k := range slices.Concat(stateKinds, rulesetKinds) {
		m, err := s.Map(k.name)
		if err != nil {
			return nil, err
		}
		all[k.name] = m
	}
	table, err := s.Table(g)
	if err != nil {
		return nil, err
	}
	all[portsMap] = table
	return all, nil
}

// OpenAll opens the maps that have not been asked for yet.
func (s *Set) OpenAll() error {
	_, err := s.All()
	return err
}

// IDs returns the kernel's ids of the maps for interfaces of the empty group.
func (s *Set) IDs() (map[ebpf.MapID]bool, error) { return s.IDsOf("") }

// IDsOf is like IDs, for the programs of interfaces of a group.
func (s *Set) IDsOf(g policy.Group) (map[ebpf.MapID]bool, error) {
	all, err := s.AllOf(g)
	if err != nil {
		return nil, err
	}
	ids := make(map[ebpf.MapID]bool)
	for name, m := range all {
		info, err := m.Info()
		if err != nil {
			return nil, fmt.Errorf("map %s: %w", name, err)
		}
		id, _ := info.ID()
		ids[id] = true
	}
	return ids, nil
}

// Close closes the maps; what is pinned or used by a program stays.
func (s *Set) Close() error { return errors.Join(s.State.Close(), s.Ruleset.Close()) }
