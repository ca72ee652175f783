// SPDX-License-Identifier: Apache-2.0

package lock

import (
	"fmt"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/portcullis-firewall/portcullis/policy/quote"
)

// holderOf names the process that holds the lock of a path, as far as /proc shows. While one hands it on to the next,
// neither is listed.
func holderOf(path string) string {
	for range 5 {
		if name := Holder(path); name != "" {
			return name
		}
		time.Sleep(10 * time.Millisecond)
	}
	return "another process"
}

// Holder names the process that holds the lock of a path, as far as /proc shows, or returns "". Unlike Try it is in nobody's
// way.
func Holder(path string) string {
	var st unix.Stat_t
	if unix.Stat(path, &st) != nil {
		return ""
	}
	text, err := os.ReadFile("/proc/locks")
	if err != nil {
		return ""
	}
	file := fmt.Sprintf("%02x:%02x:%d", unix.Major(uint64(st.Dev)), unix.Minor(uint64(st.Dev)), st.Ino)
	for line := range strings.Lines(string(text)) {
		// "1: FLOCK  ADVISORY  WRITE 708 00:1d:5 0 EOF"; who waits has an arrow in the second column.
		fields := strings.Fields(line)
		if len(fields) < 6 || fields[1] != "FLOCK" || fields[5] != file {
			continue
		}
		command, err := os.ReadFile("/proc/" + fields[4] + "/cmdline")
		if err != nil || len(command) == 0 {
			return "process " + fields[4]
		}
		words := strings.ReplaceAll(strings.TrimRight(string(command), "\x00"), "\x00", " ")
		return fmt.Sprintf("process %s (%s)", fields[4], quote.Name(words))
	}
	return ""
}
