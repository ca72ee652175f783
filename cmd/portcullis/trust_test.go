// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"testing"
)

// What everybody can write to would let everybody open ports.
func TestAFileOfOthersIsRefused(t *testing.T) {
	h := newHost(t)
	path := h.runs("open: [ssh]\n")
	writable := func() {
		t.Helper()
		if err := os.WriteFile(path, []byte("open: [ssh, http]\n"), 0o644); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, 0o666); err != nil {
			t.Fatal(err)
		}
	}
	writable()
	remedy := "everybody can write to " + path + ` (mode 0666): run "chmod o-w ` + path + `"`
	for _, args := range [][]string{{"--config", path, "up", "eth0"}, {"apply"}, {"apply", path}, {"diff"}, {"try", path}, {"open", "https"}, {"close", "ssh"}} {
		h.types(1, args...)
		h.complains(remedy)
		h.opens("ssh")
	}
	h.types(0, "check", path)
	h.complains(`warning: "up", "apply" and "run" refuse this file: ` + remedy)
	h.types(0, "status")
	h.complains("the policy file is no longer good", remedy)
	if err := os.Chmod(path, 0o644); err != nil {
		t.Fatal(err)
	}
	h.types(0, "apply")
	h.opens("ssh", "http")
	h.types(0, "check", path)
	if h.stderr != "" {
		t.Errorf("warns of %q", h.stderr)
	}
}
