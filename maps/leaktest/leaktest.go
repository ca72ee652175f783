// SPDX-License-Identifier: Apache-2.0

// Package leaktest finds file descriptors that a test leaves open. Maps and programs live as long as one does, so what
// is forgotten costs a host memory of its kernel until the process ends.
package leaktest

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// patience is how long what a test has ended may take to let go.
const patience = 2 * time.Second

// Main runs the tests of a package and what ends them, and returns the exit code: 1 if descriptors are left that were
// not there before.
func Main(m *testing.M, end ...func()) int {
	before := descriptors()
	code := m.Run()
	for _, work := range end {
		work()
	}
	var left []string
	for start := time.Now(); ; time.Sleep(patience / 20) {
		if left = more(before, descriptors()); len(left) == 0 {
			return code
		}
		if time.Since(start) > patience {
			break
		}
	}
	fmt.Printf("tests have left open: %s\n", strings.Join(left, ", "))
	return max(code, 1)
}

// descriptors counts the open descriptors by what they lead to. It leaves out those that Go keeps for itself: of its
// poller, and pipes by which it copies from one socket to another.
func descriptors() map[string]int {
	counts := make(map[string]int)
	paths, _ := filepath.Glob("/proc/self/fd/*")
	for _, path := range paths {
		target, err := os.Readlink(path)
		if err != nil {
			continue // it was that of the directory
		}
		switch kind, _, _ := strings.Cut(target, ":["); {
		case target == "anon_inode:[eventpoll]", target == "anon_inode:[eventfd]", kind == "pipe":
		case kind == "socket":
			counts[kind]++
		default:
			counts[target]++
		}
	}
	return counts
}

// more lists what there is more of than before.
func more(before, now map[string]int) (left []string) {
	for _, target := range slices.Sorted(maps.Keys(now)) {
		if n := now[target] - before[target]; n > 0 {
			left = append(left, fmt.Sprintf("%d × %s", n, target))
		}
	}
	return left
}
