// SPDX-License-Identifier: Apache-2.0

package maps

import (
	"errors"
	"io/fs"

	"github.com/cilium/ebpf"
)

// Lost opens a map whose pin is gone, by its name in the object. Programs that run still hold most of them.
type Lost func(name string) (*ebpf.Map, error)

// open opens a map by its pin, or without.
func (lost Lost) open(dir, name, pin string) (*ebpf.Map, error) {
	m, err := openPinned(dir, pin)
	if errors.Is(err, fs.ErrNotExist) && lost != nil {
		return lost(name)
	}
	return m, err
}

// OpenState opens the maps of group State, when they are first asked for.
func OpenState(dir string, lost Lost) *Set {
	s := newSet()
	s.stateDir, s.lost = dir, lost
	return s
}

// OpenStateAll opens the maps of group State that have not been asked for yet.
func (s *Set) OpenStateAll() error {
	for _, k := range kinds {
		if k.group == State {
			if _, err := s.Map(k.name); err != nil {
				return err
			}
		}
	}
	return nil
}

// Pins returns what the pins of a group are called.
func Pins(group Group) (names []string) {
	for _, k := range kinds {
		if k.group == group {
			names = append(names, k.pin)
		}
	}
	return names
}
