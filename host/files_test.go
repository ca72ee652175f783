// SPDX-License-Identifier: Apache-2.0

package host

import (
	"io/fs"
	"os/exec"
	"strings"
	"testing"
	"testing/fstest"

	"golang.org/x/sys/unix"
)

// A sysctl answers one read, so whoever begins with a short one sees the first digit.
func TestSysctlIsReadWhole(t *testing.T) {
	for _, name := range []string{"kernel/osrelease", "kernel/pid_max", "net/ipv4/ip_local_port_range", "net/core/somaxconn", "fs/file-max"} {
		want, err := exec.Command("cat", "/proc/sys/"+name).Output()
		if err != nil {
			t.Fatal(err)
		}
		if len(want) < 3 {
			t.Errorf("%s is %q: too short for this test", name, want)
		}
		// A wrapped file system has no ReadFile of its own.
		for _, files := range []fs.FS{nil, Files, struct{ fs.FS }{Files}} {
			if got, err := Sysctl(files, name); err != nil || got != strings.TrimSpace(string(want)) {
				t.Errorf("%s is %q, %v; want %q", name, got, err, want)
			}
		}
	}
	var name unix.Utsname
	if err := unix.Uname(&name); err != nil {
		t.Fatal(err)
	}
	if got, _ := Sysctl(nil, "kernel/osrelease"); got != unix.ByteSliceToString(name.Release[:]) {
		t.Errorf("the kernel is %q, and uname says %q", got, unix.ByteSliceToString(name.Release[:]))
	}
}

func TestReadFile(t *testing.T) {
	long := strings.Repeat("0123456789", longestRead/5)
	tree := fstest.MapFS{"empty": {}, "long": {Data: []byte(long)}, "proc/sys/word": {Data: []byte("many\n")}}
	for name, want := range map[string]string{"empty": "", "long": long} {
		if got, err := ReadFile(tree, name); err != nil || string(got) != want {
			t.Errorf("%s: %d bytes, %v; want %d", name, len(got), err, len(want))
		}
	}
	if _, err := ReadFile(tree, "none"); err == nil {
		t.Error("a file that is not there is read")
	}
	if _, err := SysctlNumber(tree, "word"); err == nil || !strings.Contains(err.Error(), `"many"`) {
		t.Errorf("a word is a number: %v", err)
	}
	if n, err := SysctlNumber(nil, "kernel/pid_max"); err != nil || n < 300 {
		t.Errorf("pid_max is %d, %v", n, err)
	}
}
