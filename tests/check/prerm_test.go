// SPDX-License-Identifier: Apache-2.0

package check

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// A package that stays because its filter could not be taken down keeps its service as it was.
func TestPackageThatStays(t *testing.T) {
	script, err := os.ReadFile("../../packaging/deb/prerm")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		action string
		active bool
		down   int
		want   string
		fails  bool
	}{
		{"remove", true, 0, "stop, down, disable", false},
		{"remove", false, 3, "stop, down, disable", false},
		{"remove", true, 1, "stop, down, start", true},
		{"remove", false, 1, "stop, down", true},
		{"upgrade", true, 0, "", false},
	} {
		dir := t.TempDir()
		log, pins := filepath.Join(dir, "log"), filepath.Join(dir, "pins")
		active := 3
		if c.active {
			active = 0
		}
		for name, text := range map[string]string{
			"systemctl":  fmt.Sprintf("case $2 in is-active) exit %d ;; *) shift; echo \"$*\" >>%s ;; esac", active, log),
			"portcullis": fmt.Sprintf("echo $1 >>%s; exit %d", log, c.down),
		} {
			if err := os.WriteFile(filepath.Join(dir, name), []byte("#!/bin/sh\n"+text+"\n"), 0o700); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.Mkdir(pins, 0o700); err != nil {
			t.Fatal(err)
		}
		run := exec.Command("/bin/sh", "-c", strings.ReplaceAll(string(script), "/sys/fs/bpf/portcullis", pins), "prerm", c.action)
		run.Env = []string{"PATH=" + dir}
		output, err := run.CombinedOutput()
		did, _ := os.ReadFile(log) // or it did nothing
		got := strings.ReplaceAll(strings.TrimSpace(strings.ReplaceAll(string(did), " portcullis.service", "")), "\n", ", ")
		if got != c.want || (err != nil) != c.fails {
			t.Errorf("%+v: it did %q, %v\n%s", c, got, err, output)
		}
	}
}
