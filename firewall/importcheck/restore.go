// SPDX-License-Identifier: Apache-2.0

package importcheck

import (
	"errors"
	"fmt"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// maxRefused bounds how many rules netfilter may refuse.
const maxRefused = 100

var failedLine = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`(?i)(?:error occurred at line: |line )(\d+)`) })

// restore loads rules, without those that netfilter does not take here, and returns what it has loaded.
func (s *side) restore(tool, text string) (loaded string, refused []string, err error) {
	lines := strings.Split(text, "\n")
	for range maxRefused {
		loaded = strings.Join(lines, "\n")
		err := s.run(loaded, tool)
		if err == nil {
			return loaded, refused, nil
		}
		m := failedLine().FindStringSubmatch(err.Error())
		if m == nil || errors.Is(err, errNoProgram) {
			return "", nil, err
		}
		n, _ := strconv.Atoi(m[1])
		if n < 1 || n > len(lines) || !strings.HasPrefix(lines[n-1], "-") && !strings.HasPrefix(lines[n-1], "[") {
			return "", nil, err
		}
		refused = append(refused, fmt.Sprintf("%s: %s", lines[n-1], firstLine(err.Error())))
		lines = slices.Delete(lines, n-1, n)
	}
	return "", nil, fmt.Errorf("%s refuses more than %d rules, of which the first is %s", tool, maxRefused, refused[0])
}

func firstLine(text string) string {
	line, _, _ := strings.Cut(text, "\n")
	return line
}

// pin keeps the calling goroutine on one CPU: what it sends waits in one queue there, so that nothing overtakes a packet.
func pin() (unpin func(), err error) {
	var all, one unix.CPUSet
	runtime.LockOSThread()
	if err := unix.SchedGetaffinity(0, &all); err != nil {
		runtime.UnlockOSThread()
		return nil, err
	}
	for cpu := range 1024 {
		if all.IsSet(cpu) {
			one.Set(cpu)
			break
		}
	}
	if err := unix.SchedSetaffinity(0, &one); err != nil {
		runtime.UnlockOSThread()
		return nil, err
	}
	return func() {
		_ = unix.SchedSetaffinity(0, &all)
		runtime.UnlockOSThread()
	}, nil
}
