// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestLoadRefusesWhatIsNoPolicyFile(t *testing.T) {
	dir := t.TempDir()
	fifo, lines, huge := filepath.Join(dir, "fifo"), filepath.Join(dir, "lines"), filepath.Join(dir, "huge")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	text := append([]byte("open:\n"), bytes.Repeat([]byte("  - 80/tcp\n"), 3_000_000)...)
	if err := os.WriteFile(lines, text, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.WriteFile(huge, nil, 0o600), os.Truncate(huge, 1<<40)); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ path, want string }{
		{fifo, "not a regular file"},
		{"/dev/zero", "not a regular file"},
		{dir, "not a regular file"},
		{lines, "3000001 lines"},
		{huge, "larger than 64 MiB"},
	} {
		start, done := time.Now(), make(chan error, 1)
		go func() {
			_, err := Load(c.path)
			done <- err
		}()
		select {
		case err := <-done:
			if err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), c.path) {
				t.Errorf("%s: %v, want %q", c.path, err, c.want)
			}
		case <-time.After(5 * time.Second):
			t.Fatalf("%s is read for %v", c.path, time.Since(start))
		}
		if d := time.Since(start); d > time.Second {
			t.Errorf("%s: refused after %v", c.path, d)
		}
	}
	if _, err := Load(filepath.Join(dir, "none")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a file that is not there: %v", err)
	}
}
