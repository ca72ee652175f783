// SPDX-License-Identifier: Apache-2.0

package host

import (
	"bytes"
	"fmt"
	"iter"
	"os"
	"strconv"
	"strings"
)

// Ancestors returns the process ids of this process's parent, its parent and so on, as far as they can be seen.
func Ancestors() iter.Seq[int] {
	return func(yield func(int) bool) {
		for pid := os.Getppid(); pid > 0 && yield(pid); pid = parentOf(pid) {
		}
	}
}

// Fields of /proc/PID/stat behind the name (proc_pid_stat(5)).
const (
	statParent   = 1
	statTerminal = 4
)

// statField returns one field of /proc/PID/stat, or 0 where there is none.
func statField(pid, field int) int {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0
	}
	// The name, in parentheses, may hold anything.
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	if len(fields) <= field {
		return 0
	}
	number, _ := strconv.Atoi(fields[field])
	return number
}

// parentOf returns the parent of a process, or 0.
func parentOf(pid int) int { return statField(pid, statParent) }
