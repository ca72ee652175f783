// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// RunSyscallProgram runs a program of the type syscall once, with a context that it may change. The library first loads a
// program of its own to see whether the kernel runs any, which takes longer than most of ours.
func RunSyscallProgram(fd int, context []byte) error {
	attr := struct { // of union bpf_attr
		fd, result              uint32
		dataSizeIn, dataSizeOut uint32
		dataIn, dataOut         uint64
		repeat, duration        uint32
		sizeIn, sizeOut         uint32
		in, out                 uint64
		flags, cpu              uint32
		batchSize, _            uint32
	}{fd: uint32(fd), sizeIn: uint32(len(context)), in: uint64(uintptr(unsafe.Pointer(unsafe.SliceData(context))))}
	for {
		_, _, errno := unix.Syscall(unix.SYS_BPF, unix.BPF_PROG_TEST_RUN, uintptr(unsafe.Pointer(&attr)), unsafe.Sizeof(attr))
		runtime.KeepAlive(context)
		switch errno {
		case 0:
			return nil
		case unix.EINTR, unix.EAGAIN:
			continue
		}
		return errno
	}
}
