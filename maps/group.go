// SPDX-License-Identifier: Apache-2.0

package maps

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"unsafe"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/portcullis-firewall/portcullis/bpf"
)

// kind is a map by its name in the object and the name of its pin, which may hold no dot.
type kind struct{ name, pin string }

// group is a number of maps with the same lifetime.
type group struct {
	kinds []kind
	dir   string // where maps are pinned that are not open yet
	lost  Lost

	mu     sync.Mutex // of the following
	byName map[string]*ebpf.Map
	mapped map[string][]byte // see memory
}

// create creates a map as spec describes it.
func (g *group) create(k kind, spec *ebpf.CollectionSpec) error {
	mapSpec := spec.Maps[k.name]
	if mapSpec == nil {
		return fmt.Errorf("the object has no map %s", k.name)
	}
	if strings.HasPrefix(k.name, ".") {
		mapSpec.Flags |= unix.BPF_F_MMAPABLE // as the library does it for the sections of global variables
	}
	m, err := ebpf.NewMap(mapSpec)
	if err != nil {
		return fmt.Errorf("create map %s: %w", k.name, err)
	}
	g.put(k.name, m)
	return nil
}

func (g *group) put(name string, m *ebpf.Map) {
	if g.byName == nil {
		g.byName = make(map[string]*ebpf.Map)
	}
	g.byName[name] = m
}

func (g *group) has(name string) bool {
	for _, k := range g.kinds {
		if k.name == name {
			return true
		}
	}
	return false
}

// Map returns one map by its name in the object.
func (g *group) Map(name string) (*ebpf.Map, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.find(name)
}

// find is Map with the lock held.
func (g *group) find(name string) (*ebpf.Map, error) {
	for _, k := range g.kinds {
		if k.name != name {
			continue
		}
		m, err := g.byName[name], error(nil)
		if m == nil {
			if m, err = g.lost.open(g.dir, k.name, k.pin); err == nil {
				g.put(name, m)
			}
		}
		return m, err
	}
	return nil, fmt.Errorf("there is no map %s", name)
}

// OpenAll opens the maps that have not been asked for yet.
func (g *group) OpenAll() error {
	for _, k := range g.kinds {
		if _, err := g.Map(k.name); err != nil {
			return err
		}
	}
	return nil
}

// Pin pins the maps below dir. Pins of the same name are replaced.
func (g *group) Pin(dir string) error {
	for _, k := range g.kinds {
		// Pin into a name beside and rename: a map is never without its pin.
		path, next := filepath.Join(dir, k.pin), filepath.Join(dir, k.pin+"_next")
		m, err := g.Map(k.name)
		if err != nil {
			return err
		}
		clone, err := m.Clone() // a Map remembers one pin only
		if err != nil {
			return err
		}
		_ = os.Remove(next)
		err = clone.Pin(next)
		clone.Close()
		if err != nil {
			return fmt.Errorf("pin map %s: %w", k.pin, err)
		}
		if err := os.Rename(next, path); err != nil {
			return fmt.Errorf("pin map %s: %w", k.pin, err)
		}
	}
	return nil
}

func openPinned(dir, pin string) (*ebpf.Map, error) {
	fd, err := bpf.OpenPinned(filepath.Join(dir, pin))
	if err != nil {
		return nil, fmt.Errorf("open pinned map %s: %w", pin, err)
	}
	m, err := ebpf.NewMapFromFD(fd)
	if err != nil {
		return nil, fmt.Errorf("open pinned map %s: %w", pin, err)
	}
	return m, nil
}

// Close closes the maps; what is pinned or used by a program stays.
func (g *group) Close() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	var errs []error
	for name, m := range g.byName {
		g.unmap(name)
		errs = append(errs, m.Close())
	}
	return errors.Join(errs...)
}

// memory returns the memory of an array map whose values fill whole words, shared with the datapath. It stays mapped
// until the group is closed, since mapping it again costs a fault for each page.
func (g *group) memory(name string) ([]byte, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if have := g.mapped[name]; have != nil {
		return have, nil
	}
	m, err := g.find(name)
	if err != nil {
		return nil, err
	}
	memory, err := unix.Mmap(m.FD(), 0, int(m.ValueSize()*m.MaxEntries()), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("map the memory of %s: %w", m, err)
	}
	if g.mapped == nil {
		g.mapped = make(map[string][]byte)
	}
	g.mapped[name] = memory
	return memory, nil
}

// window is like memory, for the bytes between two offsets and until release. The kernel enters each page of a mapping
// at once: for the ports, two of 264 pages are 0.1 ms less, and a flow table may be larger than what a command may use.
func (g *group) window(name string, from, to uintptr) (memory []byte, release func(), err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if whole := g.mapped[name]; whole != nil {
		return whole[from:to], func() {}, nil
	}
	m, err := g.find(name)
	if err != nil {
		return nil, nil, err
	}
	page := uintptr(os.Getpagesize())
	start := from &^ (page - 1)
	pages, err := unix.Mmap(m.FD(), int64(start), int(to-start), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, nil, fmt.Errorf("map the memory of %s: %w", m, err)
	}
	return pages[from-start:], func() { _ = unix.Munmap(pages) }, nil
}

// unmap unmaps the memory of a map, with the lock held.
func (g *group) unmap(name string) {
	if memory := g.mapped[name]; memory != nil {
		_ = unix.Munmap(memory) // fails for no memory that was mapped
		delete(g.mapped, name)
	}
}

// view returns memory as an array of what the datapath keeps there.
func view[T any](memory []byte) []T {
	return unsafe.Slice((*T)(unsafe.Pointer(unsafe.SliceData(memory))), len(memory)/int(unsafe.Sizeof(*new(T))))
}

// words returns memory as 32-bit words, to be read and written with sync/atomic.
func words(memory []byte) []uint32 { return view[uint32](memory) }

// clearByte sets byte i of memory to 0 if it still is old, whatever happens to its neighbours meanwhile.
func clearByte(memory []byte, i int, old byte) {
	word := &words(memory)[i/4]
	for {
		before := atomic.LoadUint32(word)
		after := before
		b := unsafe.Slice((*byte)(unsafe.Pointer(&after)), 4)
		if b[i%4] != old {
			return
		}
		b[i%4] = 0
		if atomic.CompareAndSwapUint32(word, before, after) {
			return
		}
	}
}
