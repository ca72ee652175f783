// SPDX-License-Identifier: Apache-2.0

// Package lock makes processes take turns. A lock is held by flock(2) on a file or directory, so it ends with its
// holder, however that ends. Whoever can open the file can hold it: keep it where only root gets.
package lock

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// ErrLocked is returned when another process has held a lock for as long as the caller would wait.
var ErrLocked = errors.New("another command is at work")

// DefaultTimeout is how long to wait for a lock where nothing else is said.
const DefaultTimeout = 30 * time.Second

// silence is how long a command waits before it says for whom.
const silence = time.Second

// Wait says how to wait for a lock that another process holds.
type Wait struct {
	Timeout time.Duration       // 0: DefaultTimeout
	Waiting func(holder string) // called once when it has lasted for a second; may be nil
}

type waitKey struct{}

// WithWait returns a context under which locks are waited for as wait says.
func WithWait(ctx context.Context, wait Wait) context.Context {
	return context.WithValue(ctx, waitKey{}, wait)
}

func waitOf(ctx context.Context) Wait {
	wait, _ := ctx.Value(waitKey{}).(Wait)
	if wait.Timeout <= 0 {
		wait.Timeout = DefaultTimeout
	}
	return wait
}

// Mode says who else may hold a lock at the same time.
type Mode int

// The modes. Readers share a lock; who changes something excludes everybody.
const (
	Exclusive Mode = unix.LOCK_EX
	Shared    Mode = unix.LOCK_SH
)

// Dir locks a directory, and returns the function that unlocks it.
func Dir(ctx context.Context, path string, mode Mode) (unlock func(), err error) {
	return take(ctx, path, unix.O_RDONLY|unix.O_DIRECTORY, mode)
}

// File locks a file, which it makes if need be, and returns the function that unlocks it. Nothing is written into the
// file: a full file system keeps nobody from a lock.
func File(ctx context.Context, path string) (unlock func(), err error) {
	return take(ctx, path, unix.O_RDWR|unix.O_CREAT|unix.O_NOFOLLOW, Exclusive)
}

func take(ctx context.Context, path string, flags int, mode Mode) (unlock func(), err error) {
	fd, err := unix.Open(path, flags|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	// Mostly nobody holds it, and then no other thread need be woken.
	if unix.Flock(fd, int(mode)|unix.LOCK_NB) == nil && leadsTo(path, fd) {
		return func() { unix.Close(fd) }, nil
	}
	done := make(chan error, 1)
	go func() { // where the kernel makes those that wait take turns
		var err error
		for {
			if err = unix.Flock(fd, int(mode)); err != unix.EINTR {
				break
			}
		}
		done <- err
	}()
	giveUp := func() {
		go func() { // the lock may come yet
			<-done
			unix.Close(fd)
		}()
	}
	wait := waitOf(ctx)
	timeout, tell := time.NewTimer(wait.Timeout), time.NewTimer(silence)
	defer timeout.Stop()
	defer tell.Stop()
	for {
		select {
		case err := <-done:
			if err != nil {
				unix.Close(fd)
				return nil, fmt.Errorf("lock %s: %w", path, err)
			}
			if !leadsTo(path, fd) { // whoever held it has taken it away
				unix.Close(fd)
				return take(ctx, path, flags, mode)
			}
			return func() { unix.Close(fd) }, nil
		case <-tell.C:
			if wait.Waiting != nil {
				wait.Waiting(holderOf(path))
			}
		case <-ctx.Done():
			giveUp()
			return nil, fmt.Errorf("wait for the lock of %s: %w", path, ctx.Err())
		case <-timeout.C:
			giveUp()
			return nil, fmt.Errorf("%w: %s has held the lock of %s for %s", ErrLocked, holderOf(path), path, wait.Timeout)
		}
	}
}

// leadsTo reports whether a path still names what is open.
func leadsTo(path string, fd int) bool {
	var named, opened unix.Stat_t
	return unix.Stat(path, &named) == nil && unix.Fstat(fd, &opened) == nil &&
		named.Dev == opened.Dev && named.Ino == opened.Ino
}

// Try is File that does not wait: where another process holds the lock, holder names it.
func Try(path string) (unlock func(), holder string, err error) {
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_CREAT|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, "", fmt.Errorf("lock %s: %w", path, err)
	}
	switch err := unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB); {
	case errors.Is(err, unix.EWOULDBLOCK):
		unix.Close(fd)
		return nil, holderOf(path), nil
	case err != nil:
		unix.Close(fd)
		return nil, "", fmt.Errorf("lock %s: %w", path, err)
	}
	return func() { unix.Close(fd) }, "", nil
}
