// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// The key of the bouncer is read from a file that is nobody else's, and nobody can make it wait.
func TestReadKey(t *testing.T) {
	dir := t.TempDir()
	file := func(name, text string, mode os.FileMode) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
		return path
	}
	fifo := filepath.Join(dir, "fifo")
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	others := file("others", "secret\n", 0o600)
	if os.Geteuid() == 0 {
		if err := os.Chown(others, 1234, -1); err != nil {
			t.Fatal(err)
		}
	}
	if key, err := readKey(file("good", "secret\n", 0o600)); key != "secret" || err != nil {
		t.Errorf("got %q, %v", key, err)
	}
	for path, want := range map[string]string{
		fifo:                                   "holds no key",
		dir:                                    "holds no key",
		file("empty", "\n", 0o600):             "holds no key",
		file("two", "a b\n", 0o600):            "holds no key",
		file("readable", "secret\n", 0o644):    "others can read",
		others:                                 "belongs to user 1234, who could put another key there: run \"chown root ",
		filepath.Join(dir, "there", "is none"): "read the key of the bouncer",
	} {
		if path == others && os.Geteuid() != 0 {
			continue
		}
		if key, err := readKey(path); key != "" || err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %q, %v; want %q", path, key, err, want)
		}
	}
}
