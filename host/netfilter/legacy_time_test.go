// SPDX-License-Identifier: Apache-2.0

package netfilter

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// A tool that hangs, as behind another one's lock, is waited for no longer than the caller would.
func TestAToolThatHangs(t *testing.T) {
	tool := filepath.Join(t.TempDir(), "iptables-legacy-save")
	if err := os.WriteFile(tool, []byte("#!/bin/sh\nsleep 60\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	start := time.Now()
	_, err := saveTable(ctx, tool, "filter")
	if took := time.Since(start); !errors.Is(err, context.DeadlineExceeded) || took > 20*time.Second {
		t.Errorf("after %v: %v", took, err)
	}
}
