// SPDX-License-Identifier: Apache-2.0

package firewall

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/portcullis-firewall/portcullis/policy"
)

// sshd is a host on which an sshd listens.
type sshd struct {
	HostKernel
	ports []uint16
}

func (s sshd) SSHPorts() ([]uint16, error) { return s.ports, nil }

func TestWhatIsBuiltIn(t *testing.T) {
	fw := New(Options{Kernel: sshd{ports: []uint16{22, 2222}}})
	for text, want := range map[string]bool{"{}": true, "open: [ssh]": true, "open: [22/tcp, 2222/tcp]": true, "open: [http]": false,
		"open: [22/tcp from 192.0.2.1]": false, "icmp: drop": false, "open: [22-2222/tcp]": false} {
		p, err := policy.Parse("fw.yaml", []byte(text+"\n"))
		if err != nil {
			t.Fatal(err)
		}
		if got := fw.isBuiltIn(p); got != want {
			t.Errorf("%q: %t, want %t", text, got, want)
		}
	}
}

// A file has one lock, by whatever name it is called.
func TestNamesOfOneFileHaveOneLock(t *testing.T) {
	dir := t.TempDir()
	file, link, linked := filepath.Join(dir, "fw.yaml"), filepath.Join(t.TempDir(), "link.yaml"), filepath.Join(t.TempDir(), "dir")
	for _, err := range []error{os.WriteFile(file, nil, 0o644), os.Symlink(file, link), os.Symlink(dir, linked)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	want := lockName(file)
	for _, name := range []string{link, filepath.Join(linked, "fw.yaml"), filepath.Join(dir, ".", "fw.yaml")} {
		if got := lockName(name); got != want {
			t.Errorf("the lock of %s is %s, want %s", name, got, want)
		}
	}
	missing := filepath.Join(dir, "other.yaml")
	if lockName(missing) == want || lockName(missing) != lockName(filepath.Join(linked, "other.yaml")) {
		t.Error("a file that is not there yet has another lock than its name")
	}
}
