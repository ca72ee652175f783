// SPDX-License-Identifier: Apache-2.0

package pin

import (
	"context"
	"errors"
	"os"
	"testing"
	"time"

	"github.com/portcullis-firewall/portcullis/loader/lock"
)

// Whoever mounts a bpf filesystem waits for another one that does no longer than its context.
func TestAMountWaitsNoLongerThanItsContext(t *testing.T) {
	dir := t.TempDir()
	if os.Geteuid() != 0 || HiddenMounts() || isBPFFS(dir) {
		t.Skip("needs root, and mounts that everybody sees")
	}
	unlock, err := lock.Dir(context.Background(), dir, lock.Exclusive)
	if err != nil {
		t.Fatal(err)
	}
	defer unlock()
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	start := time.Now()
	if err := mountBPFFS(ctx, dir); !errors.Is(err, context.DeadlineExceeded) || time.Since(start) > 10*time.Second {
		t.Errorf("%v after %v", err, time.Since(start))
	}
}
