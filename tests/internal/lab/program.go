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
	return programs(t, "portcullis")
}

// ProgramWithDaemon is Program, with portcullisd beside it.
func ProgramWithDaemon(t testing.TB) string {
	t.Helper()
	return programs(t, "portcullis", "portcullisd")
}

// programs puts programs into a directory of their own, and returns the path of the first one.
func programs(t testing.TB, names ...string) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "portcullis-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		program := filepath.Join(dir, name)
		cmd := exec.Command("go", "build", "-o", program, "github.com/portcullis-firewall/portcullis/cmd/"+name)
		if built := os.Getenv("PORTCULLIS"); built != "" {
			cmd = exec.Command("cp", filepath.Join(filepath.Dir(built), name), program)
		}
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", cmd, err, out)
		}
	}
	return filepath.Join(dir, names[0])
}
