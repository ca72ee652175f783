// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// Program puts the program under test where everybody may run it: the one that PORTCULLIS names, or else a new one.
func Program(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "portcullis-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(dir, "portcullis")
	cmd := exec.Command("go", "build", "-o", program, "github.com/portcullis-firewall/portcullis/cmd/portcullis")
	if built := os.Getenv("PORTCULLIS"); built != "" {
		cmd = exec.Command("cp", built, program)
	}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", cmd, err, out)
	}
	return program
}
