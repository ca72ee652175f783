// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/portcullis-firewall/portcullis/policy/quote"
)

// ErrLocked: another command holds a lock, and patience is at its end.
var ErrLocked = errors.New("another command is at work")

// Patience is how this process waits for another one that changes the same filter or file. Set it before all else.
var Patience struct {
	Timeout time.Duration       // 0: for as long as it takes
	Waiting func(holder string) // called once when it has lasted for a second
}

const silence = time.Second // a command that waits for longer says why

// Lock waits until no other process holds the lock of a directory, and returns the function that lets the next one.
func Lock(dir string) (unlock func(), err error) {
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("lock %s: %w", dir, err)
	}
	// Mostly nobody holds it, and then no other thread need be woken.
	if unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB) == nil && leadsTo(dir, fd) {
		return func() { unix.Close(fd) }, nil
	}
	done := make(chan error, 1)
	go func() { // where the kernel makes those that wait take turns
		var err error
		for {
			if err = unix.Flock(fd, unix.LOCK_EX); err != unix.EINTR {
				break
			}
		}
		done <- err
	}()
	var timeout <-chan time.Time
	if Patience.Timeout > 0 {
		timeout = time.After(Patience.Timeout)
	}
	tell := time.After(silence)
	for {
		select {
		case err := <-done:
			if err != nil {
				unix.Close(fd)
				return nil, fmt.Errorf("lock %s: %w", dir, err)
			}
			if !leadsTo(dir, fd) { // whoever held it has taken the directory away
				unix.Close(fd)
				return Lock(dir)
			}
			return func() { unix.Close(fd) }, nil
		case <-tell:
			if Patience.Waiting != nil {
				Patience.Waiting(holder(dir))
			}
		case <-timeout:
			go func() { // the lock may come yet
				<-done
				unix.Close(fd)
			}()
			return nil, fmt.Errorf("%w: %s holds the lock of %s", ErrLocked, holder(dir), dir)
		}
	}
}

// leadsTo tells whether a path still names what is open.
func leadsTo(path string, fd int) bool {
	var named, opened unix.Stat_t
	return unix.Stat(path, &named) == nil && unix.Fstat(fd, &opened) == nil &&
		named.Dev == opened.Dev && named.Ino == opened.Ino
}

// holder names the process that holds the lock of a directory, as far as /proc tells. While one hands it on to the
// next, neither is listed.
func holder(dir string) string {
	for range 5 {
		if name := listedHolder(dir); name != "" {
			return name
		}
		time.Sleep(10 * time.Millisecond)
	}
	return "another process"
}

func listedHolder(dir string) string {
	var st unix.Stat_t
	if unix.Stat(dir, &st) != nil {
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
