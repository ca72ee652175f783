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

func pinsOf(kinds []kind) (names []string) {
	for _, k := range kinds {
		names = append(names, k.pin)
	}
	return names
}
