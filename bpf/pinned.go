// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"io/fs"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// OpenPinned opens the object that is pinned at a path. The library asks /proc for the type of each object as well, which
// takes longer than all else about it; whoever takes one for another type learns that when he uses it.
func OpenPinned(path string) (fd int, err error) {
	name, err := unix.BytePtrFromString(path)
	if err != nil {
		return -1, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	attr := struct { // of union bpf_attr
		name  uint64
		fd    uint32
		flags uint32
	}{name: uint64(uintptr(unsafe.Pointer(name)))}
	for {
		got, _, errno := unix.Syscall(unix.SYS_BPF, unix.BPF_OBJ_GET, uintptr(unsafe.Pointer(&attr)), unsafe.Sizeof(attr))
		runtime.KeepAlive(name)
		switch errno {
		case 0:
			return int(got), nil // which the kernel closes on exec
		case unix.EINTR, unix.EAGAIN:
			continue
		}
		return -1, &fs.PathError{Op: "open", Path: path, Err: errno}
	}
}
