// SPDX-License-Identifier: Apache-2.0

package importcheck

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"
)

// space is a network namespace, which lasts as long as its thread.
type space struct {
	work chan func() error
	done chan error
}

// newSpace makes a network namespace.
func newSpace() (*space, error) {
	s := &space{make(chan func() error), make(chan error)}
	go func() {
		runtime.LockOSThread() // never unlocked: the thread dies with the goroutine
		s.done <- unix.Unshare(unix.CLONE_NEWNET)
		for work := range s.work {
			s.done <- work()
		}
	}()
	if err := <-s.done; err != nil {
		return nil, fmt.Errorf("make a network namespace: %w", err)
	}
	return s, nil
}

// do works in the namespace. What opens a socket there, or runs a program, does it in this thread.
func (s *space) do(work func() error) error {
	s.work <- work
	return <-s.done
}

func (s *space) end() { close(s.work) }

// run runs a program in the namespace, with some text as its input.
func (s *space) run(input, name string, args ...string) error {
	return s.do(func() error { return run(input, name, args...) })
}

// errNoProgram says that a program is missing.
var errNoProgram = errors.New("is not on this host")

func run(input, name string, args ...string) error {
	path, err := exec.LookPath(name)
	if err != nil { // a user's PATH has no sbin
		if path, err = exec.LookPath("/usr/sbin/" + name); err != nil {
			return fmt.Errorf("%s %w", name, errNoProgram)
		}
	}
	cmd := exec.Command(path, args...)
	cmd.Stdin = strings.NewReader(input)
	var complaint bytes.Buffer
	cmd.Stderr = &complaint
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%s: %w: %s", name, err, strings.TrimSpace(complaint.String()))
	}
	return nil
}

// sysctl sets values below /proc/sys/net in the namespace.
func (s *space) sysctl(values map[string]string) error {
	return s.do(func() error {
		for key, value := range values {
			if err := os.WriteFile("/proc/sys/net/"+key, []byte(value), 0); err != nil && !errors.Is(err, os.ErrNotExist) {
				return err
			}
		}
		return nil
	})
}
