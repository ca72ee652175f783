// SPDX-License-Identifier: Apache-2.0

package lock

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// briefly returns a context under which nobody waits for long.
func briefly(told *string) context.Context {
	return WithWait(context.Background(), Wait{Timeout: 20 * time.Millisecond, Waiting: func(holder string) { *told = holder }})
}

func TestReadersShareALock(t *testing.T) {
	dir := t.TempDir()
	ctx := briefly(new(string))
	one, err := Dir(ctx, dir, Shared)
	if err != nil {
		t.Fatal(err)
	}
	two, err := Dir(ctx, dir, Shared)
	if err != nil {
		t.Fatalf("a second reader: %v", err)
	}
	if _, err := Dir(ctx, dir, Exclusive); !errors.Is(err, ErrLocked) {
		t.Errorf("a writer beside readers: %v", err)
	}
	one()
	two()
	change, err := Dir(ctx, dir, Exclusive)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Dir(ctx, dir, Shared); !errors.Is(err, ErrLocked) {
		t.Errorf("a reader beside a writer: %v", err)
	}
	change()
}

func TestAWaitEndsWithItsContext(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	unlock, err := File(context.Background(), path)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	time.AfterFunc(20*time.Millisecond, cancel)
	start := time.Now()
	if _, err := File(ctx, path); !errors.Is(err, context.Canceled) || time.Since(start) > 10*time.Second {
		t.Errorf("got %v after %v", err, time.Since(start))
	}
	if _, holder, err := Try(path); err != nil || !strings.Contains(holder, "process ") {
		t.Errorf("it is held by %q, %v", holder, err)
	}
	unlock()
	unlock, holder, err := Try(path)
	if err != nil || holder != "" {
		t.Fatalf("it is free, and held by %q, %v", holder, err)
	}
	unlock()
	if info, err := os.Stat(path); err != nil || info.Mode() != 0o600 || info.Size() != 0 {
		t.Errorf("the lock: %v, %v", info, err)
	}
}

// Who waits gets the lock of the path, not of what was there when the wait began.
func TestALockThatWasTakenAway(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "pins")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	first, err := Dir(context.Background(), dir, Exclusive)
	if err != nil {
		t.Fatal(err)
	}
	second := make(chan error, 1)
	go func() {
		_, err := Dir(context.Background(), dir, Exclusive)
		second <- err
	}()
	time.Sleep(20 * time.Millisecond)
	if err := os.Remove(dir); err != nil {
		t.Fatal(err)
	}
	first()
	if err := <-second; !errors.Is(err, os.ErrNotExist) {
		t.Errorf("got %v", err)
	}
}

func TestHolderIsToldAndHarmless(t *testing.T) {
	for command, want := range map[string]string{
		"vi\x00a b\x00":            "vi a b",
		"sh\x00\x1b[2J\nroot#\x00": `sh \x1b[2J\nroot#`,
		strings.Repeat("x", 300):   strings.Repeat("x", longestCommand) + "...",
	} {
		if got := printable([]byte(command)); got != want {
			t.Errorf("%q is shown as %q, want %q", command, got, want)
		}
	}
}
