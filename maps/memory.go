// SPDX-License-Identifier: Apache-2.0

package maps

import (
	"fmt"
	"sync/atomic"
	"unsafe"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// mapped gives work the memory of an array map whose values fill whole words, as the datapath reads and writes it.
func mapped(m *ebpf.Map, work func(memory []byte) error) error {
	size := int(m.ValueSize() * m.MaxEntries())
	memory, err := unix.Mmap(m.FD(), 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return fmt.Errorf("map the memory of %s: %w", m, err)
	}
	defer unix.Munmap(memory)
	return work(memory)
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
