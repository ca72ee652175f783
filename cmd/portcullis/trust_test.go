// SPDX-License-Identifier: Apache-2.0

package main

import (
	"net/netip"
	"os"
	"path/filepath"
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
	h.types(1, "check", path)
	h.complains(`portcullis: "up", "apply" and "run" refuse this file: ` + remedy)
	h.says(path + " is not good for this host: open: ssh; http\n")
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

// What "apply" refuses is not good, whoever asks.
func TestCheckIsNotGoodWhereApplyRefuses(t *testing.T) {
	h := newHost(t)
	h.runs("open: [ssh]\n")
	h.Addrs = []netip.Addr{netip.MustParseAddr("192.0.2.9")}
	list := filepath.Join(t.TempDir(), "bad.txt")
	for _, c := range []struct {
		holds string
		mode  os.FileMode
		code  int
		says  string
	}{
		{"198.51.100.0/24", 0o644, 0, ""},
		{"198.51.100.0/24", 0o666, 1, "everybody can write to " + list},
		{"192.0.2.0/24", 0o644, 1, "list bad blocks 192.0.2.0/24, which holds 192.0.2.9, an address of this host"},
	} {
		if err := os.WriteFile(list, []byte(c.holds+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(list, c.mode); err != nil {
			t.Fatal(err)
		}
		path := h.writes("open: [ssh]\nlists: {bad: {file: " + list + "}}\nblock: ['@bad']\n")
		h.types(c.code, "apply", path)
		h.types(c.code, "check", path)
		h.complains(c.says)
		h.types(c.code, "check", path, "-o", "json")
		var v checkView
		h.json(&v)
		if v.OK != (c.code == 0) || len(v.Errors) != c.code {
			t.Errorf("%s with mode %o: JSON says %+v", c.holds, c.mode, v)
		}
	}
}
