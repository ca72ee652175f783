// SPDX-License-Identifier: Apache-2.0

package pin

import (
	"os"
	"slices"
	"strings"
	"testing"
)

func TestAt(t *testing.T) {
	for path, want := range map[string]string{
		"/sys/fs/bpf/portcullis":  "/sys/fs/bpf/portcullis",
		"/sys/fs/bpf/portcullis/": "/sys/fs/bpf/portcullis",
		"/run/../run/pins":        "/run/pins",
	} {
		if d, err := At(path); err != nil || d.Base != want {
			t.Errorf("%q: got %q, %v", path, d.Base, err)
		}
	}
	for path, want := range map[string]string{
		"":             "relative",
		"pins":         "relative",
		"../pins":      "relative",
		"/sys/fs/bpf":  "whole bpf filesystem",
		"/sys/fs/bpf/": "whole bpf filesystem",
	} {
		if _, err := At(path); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %v, want that it is %s", path, err, want)
		}
	}
}

func TestInterfacesAndTheirModes(t *testing.T) {
	d := Dir{Base: t.TempDir()}
	names := []string{"eth0", "eth0.5", "a%2Eb"}
	for _, name := range names {
		if strings.Contains(d.Link(name)[len(d.Links()):], ".") {
			t.Errorf("%s is pinned at %s, where no bpf filesystem takes a dot", name, d.Link(name))
		}
		if err := os.MkdirAll(d.Link(name), 0o700); err != nil {
			t.Fatal(err)
		}
		for _, mode := range []string{"tc", "generic", "", ""} {
			if err := d.SetMode(name, mode); err != nil || d.Mode(name) != mode {
				t.Errorf("%s: got mode %q, %v; want %q", name, d.Mode(name), err, mode)
			}
		}
	}
	got, err := d.Interfaces()
	slices.Sort(got)
	slices.Sort(names)
	if err != nil || !slices.Equal(got, names) {
		t.Errorf("got %q, %v; want %q", got, err, names)
	}
}

func TestMountPathsAreUnescaped(t *testing.T) {
	if got := unescapeMount(`/a\040b\134c`); got != `/a b\c` {
		t.Errorf("got %q", got)
	}
}
