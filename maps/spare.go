// SPDX-License-Identifier: Apache-2.0

package maps

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"

	"github.com/cilium/ebpf"
)

// Adopt takes the maps of group Policy that are pinned in dir in the place of new ones, where they have the same
// size. Nobody else may use them; what they hold stays until it is written anew.
func (s *Set) Adopt(dir string) error {
	for _, k := range kinds {
		if k.group != Policy {
			continue
		}
		m, err := ebpf.LoadPinnedMap(filepath.Join(dir, k.pin), nil)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return fmt.Errorf("open pinned map %s: %w", k.pin, err)
		}
		fresh := s.byName[k.name]
		if m.MaxEntries() != fresh.MaxEntries() || m.ValueSize() != fresh.ValueSize() {
			m.Close()
			continue
		}
		s.unmap(k.name)
		fresh.Close()
		s.byName[k.name] = m
	}
	return nil
}

// IDs returns the kernel's ids of the maps.
func (s *Set) IDs() (map[ebpf.MapID]bool, error) {
	ids := make(map[ebpf.MapID]bool)
	for name, m := range s.byName {
		info, err := m.Info()
		if err != nil {
			return nil, fmt.Errorf("map %s: %w", name, err)
		}
		id, _ := info.ID()
		ids[id] = true
	}
	return ids, nil
}
