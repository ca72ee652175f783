// SPDX-License-Identifier: Apache-2.0

package maps

import (
	"errors"
	"fmt"
	"io/fs"

	"github.com/cilium/ebpf"
)

// Adopt takes the maps of group Policy that are pinned in dir in the place of new ones, where they have the same
// size. Nobody else may use them; what they hold stays until it is written anew.
func (s *Set) Adopt(dir string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, k := range kinds {
		if k.group != Policy {
			continue
		}
		m, err := openPinned(dir, k.pin)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		fresh := s.byName[Policy][k.name]
		if m.MaxEntries() != fresh.MaxEntries() || m.ValueSize() != fresh.ValueSize() {
			m.Close()
			continue
		}
		s.unmap(k.name)
		fresh.Close()
		s.byName[Policy][k.name] = m
	}
	return nil
}

// IDs returns the kernel's ids of the maps.
func (s *Set) IDs() (map[ebpf.MapID]bool, error) {
	all, err := s.All()
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
