// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"bytes"
	"fmt"
	"iter"
	"os"
	"strconv"
)

// Ancestors yields the process ids of this process's parent, its parent and so on, as far as they can be seen.
func Ancestors() iter.Seq[int] {
	return func(yield func(int) bool) {
		for pid := os.Getppid(); pid > 0 && yield(pid); pid = parentOf(pid) {
		}
	}
}

// parentOf returns the parent of a process, or 0.
func parentOf(pid int) int {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0
	}
	// The name, in parentheses, may hold anything; then come the state and the parent.
	fields := bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:])
	if len(fields) < 2 {
		return 0
	}
	parent, _ := strconv.Atoi(string(fields[1]))
	return parent
}
