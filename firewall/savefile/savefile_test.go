// SPDX-License-Identifier: Apache-2.0

package savefile

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestSave(t *testing.T) {
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
		if err := Save(file, []byte(text)); err != nil {
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
	if err := Save(filepath.Join(dir, "loop"), nil); err == nil {
		t.Error("a loop of links was saved to")
	}
	if err := Save(sub, nil); err == nil || err.Error() != "save "+sub+": not a regular file: name one that is" {
		t.Errorf("directory: %v", err)
	}
	if err := Save(filepath.Join(dir, "none", "p"), nil); err == nil {
		t.Error("a file was saved into no directory")
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 5 {
		t.Errorf("left behind: %v, %v", entries, err)
	}
}

func TestSaveKeepsOwner(t *testing.T) {
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
	if err := Save(path, []byte("x")); err != nil {
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

// nobody is a user that owns no file of a system.
const nobody = 65534

func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("only root can give files away")
	}
}

// directory makes one with a mode, and an owner if that is not root.
func directory(t *testing.T, mode os.FileMode, owner int) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "dir")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Lchown(dir, owner, owner); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Chmod(dir, uint32(mode)); err != nil {
		t.Fatal(err)
	}
	return dir
}

func write(t *testing.T, path, text string, mode os.FileMode, owner int) string {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(path, owner, owner); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, mode); err != nil {
		t.Fatal(err)
	}
	return path
}

func symlink(t *testing.T, target, path string, owner int) string {
	t.Helper()
	if err := os.Symlink(target, path); err != nil {
		t.Fatal(err)
	}
	if err := os.Lchown(path, owner, owner); err != nil {
		t.Fatal(err)
	}
	return path
}

// A link that a stranger puts where root is about to save must not lead root
// to a file of its own.
func TestSaveFollowsNoStrangersLink(t *testing.T) {
	needRoot(t)
	const secret = "root's"
	mine := write(t, filepath.Join(t.TempDir(), "mine"), secret, 0o600, 0)
	for name, c := range map[string]struct {
		mode        os.FileMode
		dirOwner    int
		linkOwner   int
		link, saved string // below the directory; link leads to mine or to its directory
		follows     bool
	}{
		"sticky":                   {0o1777, 0, nobody, "p.yaml", "p.yaml", false},
		"sticky, on the way":       {0o1777, 0, nobody, "sub", "sub/mine", false},
		"sticky, root's own":       {0o1777, 0, 0, "p.yaml", "p.yaml", true},
		"stranger's directory":     {0o755, nobody, nobody, "p.yaml", "p.yaml", false},
		"a link that was left":     {0o755, nobody, 0, "p.yaml", "p.yaml", false},
		"root's directory":         {0o755, 0, 0, "p.yaml", "p.yaml", true},
		"given away, on the way":   {0o755, 0, nobody, "sub", "sub/mine", false},
		"root's link on the way":   {0o755, 0, 0, "sub", "sub/mine", true},
		"everybody's directory":    {0o777, 0, 0, "p.yaml", "p.yaml", false},
		"a group's directory":      {0o775, 0, nobody, "p.yaml", "p.yaml", false},
		"a new file through a dir": {0o1777, 0, nobody, "sub", "sub/new", false},
	} {
		t.Run(name, func(t *testing.T) {
			dir := directory(t, c.mode, c.dirOwner)
			target := mine
			if c.link != c.saved {
				target = filepath.Dir(mine)
			}
			symlink(t, target, filepath.Join(dir, c.link), c.linkOwner)
			err := Save(filepath.Join(dir, c.saved), []byte("new"))
			text, readErr := os.ReadFile(mine)
			if readErr != nil {
				t.Fatal(readErr)
			}
			if (err == nil) != c.follows || (string(text) == "new") != c.follows {
				t.Errorf("error %v, the file holds %q", err, text)
			}
			if _, err := os.Lstat(filepath.Join(filepath.Dir(mine), "new")); err == nil {
				t.Error("a file was made where the link leads")
			}
			write(t, mine, secret, 0o600, 0)
		})
	}
}

func TestSaveAmongStrangers(t *testing.T) {
	needRoot(t)
	// What is nobody's stays nobody's: it is not for root to fill.
	sticky := directory(t, 0o1777, 0)
	foreign := write(t, filepath.Join(sticky, "p.yaml"), "his", 0o644, nobody)
	if err := Save(foreign, []byte("mine")); err == nil || !strings.Contains(err.Error(), "belongs to uid 65534") {
		t.Errorf("got %v", err)
	}
	if text, _ := os.ReadFile(foreign); string(text) != "his" {
		t.Errorf("it holds %q", text)
	}
	// So where a group makes files, but not where root's group does.
	for group, refused := range map[int]bool{nobody: true, 0: false} {
		dir := directory(t, 0o755, 0)
		if err := os.Chown(dir, 0, group); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(dir, 0o775); err != nil {
			t.Fatal(err)
		}
		if err := Save(write(t, filepath.Join(dir, "p.yaml"), "his", 0o644, nobody), []byte("mine")); (err != nil) != refused {
			t.Errorf("in a directory of group %d: %v", group, err)
		}
	}
	// New files, and root's own, may be anywhere but where everybody may replace them.
	for _, dir := range []string{sticky, directory(t, 0o755, nobody), directory(t, 0o2775, 0)} {
		for _, text := range []string{"one", "two"} {
			path := filepath.Join(dir, "mine.yaml")
			if err := Save(path, []byte(text)); err != nil {
				t.Error(err)
			}
			if got, err := os.ReadFile(path); string(got) != text {
				t.Errorf("%s: %q, %v", path, got, err)
			}
		}
	}
	open := directory(t, 0o777, 0)
	want := fmt.Sprintf("everybody can write to directory %s (mode 0777): run \"chmod o-w %s\"", open, open)
	if err := Save(filepath.Join(open, "p.yaml"), nil); err == nil || !strings.HasSuffix(err.Error(), want) {
		t.Errorf("got %v", err)
	}
}

// An administrator may keep the file elsewhere.
func TestSaveFollowsTheOwnersLinks(t *testing.T) {
	etc, srv := directory(t, 0o755, os.Geteuid()), directory(t, 0o755, os.Geteuid())
	if err := os.Mkdir(filepath.Join(srv, "conf"), 0o755); err != nil {
		t.Fatal(err)
	}
	file := write(t, filepath.Join(srv, "conf", "p.yaml"), "old", 0o640, os.Geteuid())
	link := symlink(t, filepath.Join(srv, "conf", "..", "conf", "p.yaml"), filepath.Join(etc, "p.yaml"), os.Geteuid())
	if err := Save(link, []byte("new")); err != nil {
		t.Fatal(err)
	}
	if text, err := os.ReadFile(file); string(text) != "new" {
		t.Errorf("%q, %v", text, err)
	}
	if info, err := os.Lstat(link); err != nil || info.Mode()&os.ModeSymlink == 0 {
		t.Errorf("the link is %v, %v", info, err)
	}
	if err := Check(link); err != nil {
		t.Error(err)
	}
	t.Chdir(etc)
	if err := Save("p.yaml", []byte("newer")); err != nil {
		t.Fatal(err)
	}
	if text, err := os.ReadFile(file); string(text) != "newer" {
		t.Errorf("%q, %v", text, err)
	}
}

func TestOldTemporaryFilesGo(t *testing.T) {
	dir := t.TempDir()
	want := []string{".p.yaml.20260101", prefix + "new" + suffix}
	for n := range 20 { // among others, in whatever order they are listed
		other := fmt.Sprintf("other%02d", n)
		write(t, filepath.Join(dir, other), "x", 0o600, os.Geteuid())
		want = append(want, other)
	}
	want = append(want, "p.yaml")
	for _, name := range []string{"old", "new"} {
		write(t, filepath.Join(dir, prefix+name+suffix), "x", 0o600, os.Geteuid())
	}
	backup := write(t, filepath.Join(dir, ".p.yaml.20260101"), "x", 0o600, os.Geteuid())
	old := time.Now().Add(-time.Hour)
	for _, path := range []string{filepath.Join(dir, prefix+"old"+suffix), backup} {
		if err := os.Chtimes(path, old, old); err != nil {
			t.Fatal(err)
		}
	}
	if err := Save(filepath.Join(dir, "p.yaml"), nil); err != nil {
		t.Fatal(err)
	}
	var names []string
	entries, err := os.ReadDir(dir)
	for _, e := range entries {
		names = append(names, e.Name())
	}
	if !slices.Equal(names, want) {
		t.Errorf("left are %q, %v, want %q", names, err, want)
	}
}

// Killed at any moment, a save leaves nothing but the old file or the new one.
func TestKilledSaveLeavesNothing(t *testing.T) {
	if dir := os.Getenv("SAVEFILE_TEST_DIR"); dir != "" {
		for n := 0; ; n++ {
			if err := Save(filepath.Join(dir, "p.yaml"), bytes.Repeat([]byte{byte('0' + n%10)}, 1<<20)); err != nil {
				t.Fatal(err)
			}
		}
	}
	dir := t.TempDir()
	left := 0
	for range 20 {
		cmd := exec.Command(os.Args[0], "-test.run=^TestKilledSaveLeavesNothing$")
		cmd.Env = append(os.Environ(), "SAVEFILE_TEST_DIR="+dir)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(30 * time.Millisecond)
		cmd.Process.Kill()
		cmd.Wait()
		entries, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			switch {
			case e.Name() == "p.yaml":
				text, err := os.ReadFile(filepath.Join(dir, "p.yaml"))
				if err != nil || len(text) != 1<<20 || !bytes.Equal(text, bytes.Repeat(text[:1], len(text))) {
					t.Fatalf("half a file of %d bytes, %v", len(text), err)
				}
			default:
				left++ // between its name and its place, which is microseconds
				os.Remove(filepath.Join(dir, e.Name()))
			}
		}
	}
	if left > 2 {
		t.Errorf("%d of 20 killed processes left a file", left)
	}
}

func TestCheck(t *testing.T) {
	needRoot(t)
	trusted := directory(t, 0o755, 0)
	for name, c := range map[string]struct {
		path string
		also []uint32
		want string // the end of the error
	}{
		"good":              {path: write(t, filepath.Join(trusted, "good"), "", 0o644, 0)},
		"a group may write": {path: write(t, filepath.Join(trusted, "group"), "", 0o664, 0)},
		"everybody may write": {path: write(t, filepath.Join(trusted, "all"), "", 0o666, 0),
			want: `everybody can write to ` + trusted + `/all (mode 0666): run "chmod o-w ` + trusted + `/all"`},
		"foreign": {path: write(t, filepath.Join(trusted, "foreign"), "", 0o644, nobody),
			want: trusted + `/foreign belongs to uid 65534, who can change it: run "chown root ` + trusted + `/foreign"`},
		"who is trusted":      {path: filepath.Join(trusted, "foreign"), also: []uint32{nobody}},
		"missing":             {path: filepath.Join(trusted, "none"), want: "no such file or directory"},
		"foreign directory":   {path: write(t, filepath.Join(directory(t, 0o755, nobody), "p"), "", 0o644, 0), want: `/dir belongs to uid 65534, who can change it: run "chown root `},
		"names the directory": {path: write(t, filepath.Join(directory(t, 0o755, nobody), "q"), "", 0o644, 0), want: "directory /"},
		"in a sticky one":     {path: write(t, filepath.Join(directory(t, 0o1777, 0), "p"), "", 0o644, 0)},
		"foreign in a sticky": {path: write(t, filepath.Join(directory(t, 0o1777, 0), "p"), "", 0o644, nobody), want: `/p"`},
		"in everybody's":      {path: write(t, filepath.Join(directory(t, 0o777, 0), "p"), "", 0o644, 0), want: `/dir"`},
		"a stranger's link":   {path: symlink(t, filepath.Join(trusted, "good"), filepath.Join(directory(t, 0o1777, 0), "p"), nobody), want: "name the file itself"},
	} {
		err := Check(c.path, c.also...)
		if (err == nil) != (c.want == "") || err != nil && !strings.HasSuffix(err.Error(), c.want) && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want %q", name, err, c.want)
		}
	}
	if err := Check(filepath.Join(trusted, "none")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("missing: %v", err)
	}
	var untrusted *UntrustedError
	if err := Check(filepath.Join(trusted, "all")); !errors.As(err, &untrusted) || untrusted.Mode != 0o666 {
		t.Errorf("got %v", err)
	}
}

// Where nobody knows whether a crash would bring the old file back, the new one is there all the same.
func TestAFileThatIsNotSynced(t *testing.T) {
	path := filepath.Join(t.TempDir(), "p.yaml")
	before := syncDir
	defer func() { syncDir = before }()
	syncDir = func(*os.File) error { return syscall.EIO }
	if err := Save(path, []byte("new")); !errors.Is(err, ErrUnsynced) || !errors.Is(err, syscall.EIO) {
		t.Errorf("got %v", err)
	}
	if data, err := os.ReadFile(path); string(data) != "new" {
		t.Errorf("the file holds %q, %v", data, err)
	}
}
