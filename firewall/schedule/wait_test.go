// SPDX-License-Identifier: Apache-2.0

package schedule

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// Whoever waits for an alarm or for systemd waits no longer than its context.
func TestWaitsEndWithTheirContext(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "systemd-run"), []byte("#!/bin/sh\nsleep 60\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	store := NewStore(dir, "pins")
	unlock, err := store.Lock(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	unlock()
	alarm, err := store.NewAlarm()
	if err != nil {
		t.Fatal(err)
	}
	defer alarm.Close()
	for name, wait := range map[string]func(context.Context) error{
		"an alarm":   func(ctx context.Context) error { return alarm.Wait(ctx, After(time.Minute)) },
		"a unit":     func(ctx context.Context) error { return runUnit(ctx, nil) },
		"a watchdog": func(ctx context.Context) error { return store.awaitWatchdog(ctx) },
	} {
		ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
		start := time.Now()
		err := wait(ctx)
		cancel()
		if took := time.Since(start); !errors.Is(err, context.DeadlineExceeded) || took > 5*time.Second {
			t.Errorf("%s: %v after %v", name, err, took)
		}
	}
	start := time.Now()
	if err := alarm.Wait(context.Background(), After(50*time.Millisecond)); err != nil || time.Since(start) < 40*time.Millisecond {
		t.Errorf("the alarm rings after %v, %v", time.Since(start), err)
	}
}
