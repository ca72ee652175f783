// SPDX-License-Identifier: Apache-2.0

package testdp

import (
	"path/filepath"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"
)

// Enter moves the rest of the test, or subtest, into a network namespace of /run/netns.
func Enter(tb testing.TB, name string) {
	tb.Helper()
	runtime.LockOSThread()
	home := openNS(tb, "/proc/thread-self/ns/net")
	there := openNS(tb, filepath.Join("/run/netns", name))
	defer unix.Close(there)
	if err := unix.Setns(there, unix.CLONE_NEWNET); err != nil {
		tb.Fatalf("enter %s: %v", name, err)
	}
	tb.Cleanup(func() {
		// A thread that cannot go back stays locked, and ends with its goroutine.
		if err := unix.Setns(home, unix.CLONE_NEWNET); err == nil {
			runtime.UnlockOSThread()
		}
		unix.Close(home)
	})
}

func openNS(tb testing.TB, path string) int {
	tb.Helper()
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		tb.Fatalf("open %s: %v", path, err)
	}
	return fd
}
