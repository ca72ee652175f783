// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

func TestSaveFile(t *testing.T) {
	dir := t.TempDir()
	old := syscall.Umask(0o077)
	defer syscall.Umask(old)
	path := filepath.Join(dir, "p.yaml")
	check := func(file, text string, mode os.FileMode) {
		t.Helper()
		data, err := os.ReadFile(file)
		if err != nil || string(data) != text {
			t.Errorf("%s holds %q, %v, want %q", file, data, err, text)
		}
		if info, err := os.Lstat(file); err != nil || info.Mode() != mode {
			t.Errorf("%s is %v, %v, want %v", file, info.Mode(), err, mode)
		}
	}
	save := func(file, text string) {
		t.Helper()
		if err := SaveFile(file, []byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	save(path, "one")
	check(path, "one", 0o644)
	if err := os.Chmod(path, 0o640); err != nil {
		t.Fatal(err)
	}
	save(path, "two")
	check(path, "two", 0o640)

	sub := filepath.Join(dir, "sub")
	if err := os.Mkdir(sub, 0o700); err != nil {
		t.Fatal(err)
	}
	link, link2, dangling := filepath.Join(sub, "link"), filepath.Join(dir, "link2"), filepath.Join(dir, "dangling")
	for from, to := range map[string]string{link: "../p.yaml", link2: link, dangling: "sub/new", filepath.Join(dir, "loop"): "loop"} {
		if err := os.Symlink(to, from); err != nil {
			t.Fatal(err)
		}
	}
	save(link2, "three")
	check(path, "three", 0o640)
	save(dangling, "four")
	check(filepath.Join(sub, "new"), "four", 0o644)
	if info, err := os.Lstat(link2); err != nil || info.Mode()&os.ModeSymlink == 0 {
		t.Errorf("the link was replaced: %v, %v", info, err)
	}
	if err := SaveFile(filepath.Join(dir, "loop"), nil); err == nil {
		t.Error("a loop of links was saved to")
	}
	if err := SaveFile(sub, nil); err == nil || err.Error() != "save "+sub+": not a regular file: name one that is" {
		t.Errorf("directory: %v", err)
	}
	if err := SaveFile(filepath.Join(dir, "none", "p"), nil); err == nil {
		t.Error("a file was saved into no directory")
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 5 {
		t.Errorf("left behind: %v, %v", entries, err)
	}
}

func TestSaveFileKeepsOwner(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can give files away")
	}
	path := filepath.Join(t.TempDir(), "p.yaml")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(path, 12, 34); err != nil {
		t.Fatal(err)
	}
	if err := SaveFile(path, []byte("x")); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if st := info.Sys().(*syscall.Stat_t); st.Uid != 12 || st.Gid != 34 || info.Mode() != 0o600 {
		t.Errorf("owner %d:%d, mode %v", st.Uid, st.Gid, info.Mode())
	}
}
