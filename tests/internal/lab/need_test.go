// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

// outcome keeps how a test would have ended.
type outcome struct {
	testing.TB
	text string
}

func (o *outcome) Helper()                        {}
func (o *outcome) Skipf(format string, a ...any)  { o.text = "skipped: " + fmt.Sprintf(format, a...) }
func (o *outcome) Fatalf(format string, a ...any) { o.text = "failed: " + fmt.Sprintf(format, a...) }

func TestNeedProgram(t *testing.T) {
	dir := t.TempDir()
	program := filepath.Join(dir, "there")
	if err := os.WriteFile(program, []byte("#!/bin/sh\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir)
	for _, c := range []struct{ ci, name, path, text string }{
		{"", "there", program, ""},
		{"1", "there", program, ""},
		{"", "not-there", "", `skipped: there is no not-there: "make deps" installs it`},
		{"1", "not-there", "", `failed: there is no not-there: "make deps" installs it`},
	} {
		t.Setenv(ciVariable, c.ci)
		var o outcome
		if path := NeedProgram(&o, c.name); o.text != c.text || c.path != "" && path != c.path {
			t.Errorf("%s=%q, %s: got %q, %q; want %q, %q", ciVariable, c.ci, c.name, path, o.text, c.path, c.text)
		}
	}
}
