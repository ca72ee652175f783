// SPDX-License-Identifier: Apache-2.0

package maps

import (
	"fmt"
	"os"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// memory returns that of an array map whose values fill whole words, as the datapath reads and writes it. It stays
// mapped until the group is closed: to map it anew costs a fault for each page that is touched.
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

// window is memory for the bytes of a map between two offsets, till release. The kernel enters each page of a mapping
// at once, and the ports take 264: to map two of them is 0.1 ms less.
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

// unmap lets go of a map's memory, under the lock.
func (g *group) unmap(name string) {
	if memory := g.mapped[name]; memory != nil {
		_ = unix.Munmap(memory) // fails for no memory that was mapped
		delete(g.mapped, name)
	}
}

// view looks at memory as an array of what the datapath keeps there.
func view[T any](memory []byte) []T {
	return unsafe.Slice((*T)(unsafe.Pointer(unsafe.SliceData(memory))), len(memory)/int(unsafe.Sizeof(*new(T))))
}

// words views memory as 32-bit words, each to be read and written as one with sync/atomic.
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
