// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"os"
	"path/filepath"
	"testing"
	"time"
)

// A change of what the path of the policy file leads to is one of the file, whatever on the way has changed.
func TestEveryLinkOnTheWayIsWatched(t *testing.T) {
	dir := t.TempDir()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	in := func(names ...string) string { return filepath.Join(append([]string{dir}, names...)...) }
	write := func(path string) {
		t.Helper()
		must(os.MkdirAll(filepath.Dir(path), 0o755))
		must(os.WriteFile(path, []byte(path), 0o644))
	}
	// replace puts a link in the place of another one, as ln -sfn and configuration managers do.
	replace := func(target, link string) {
		t.Helper()
		must(os.Symlink(target, link+"~"))
		must(os.Rename(link+"~", link))
	}
	write(in("v1", "etc", "policy.yaml"))
	write(in("v2", "etc", "policy.yaml"))
	must(os.Symlink("v1", in("cur")))
	must(os.Symlink(in("cur", "etc"), in("etc")))
	w, err := watchFiles()
	must(err)
	defer w.Close()
	policy := in("etc", "policy.yaml")
	follow := func() { w.follow([]string{policy}, []string{in("pins")}) }
	follow()
	for _, change := range []struct {
		what string
		do   func()
	}{
		{"a link to a directory on the way", func() { replace("v2", in("cur")) }},
		{"the file behind it", func() { write(in("v2", "etc", "policy.yaml")) }},
		{"another link on the way", func() { replace("v1/etc", in("etc")) }},
		{"a directory on the way is gone", func() { must(os.Rename(in("v1"), in("v0"))) }},
		{"and another one comes", func() { must(os.Rename(in("v2"), in("v1"))) }},
		{"the file in that", func() { write(in("v1", "etc", "policy.yaml")) }},
		{"everybody may write to a directory on the way", func() { must(os.Chmod(in("v1"), 0o777)) }},
	} {
		change.do()
		select {
		case <-w.policy:
		case <-time.After(10 * time.Second):
			t.Fatalf("%s: nothing is noticed", change.what)
		}
		follow()
	}
	write(in("v0", "etc", "policy.yaml"))
	write(in("beside"))
	select {
	case <-w.policy:
		t.Error("a file is noticed that is not the policy")
	case <-time.After(2 * quietTime):
	}
}

// A list file is watched as the policy file is, and while one of them is being written none is read.
func TestListFilesAreWatched(t *testing.T) {
	dir, lists := t.TempDir(), t.TempDir()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	policy, list, linked := filepath.Join(dir, "policy.yaml"), filepath.Join(lists, "v1", "partners.txt"), filepath.Join(lists, "cur")
	must(os.Mkdir(filepath.Dir(list), 0o755))
	must(os.Symlink("v1", linked))
	must(os.WriteFile(policy, []byte("{}\n"), 0o644))
	must(os.WriteFile(list, []byte("192.0.2.1\n"), 0o644))
	w, err := watchFiles()
	must(err)
	defer w.Close()
	files := []string{policy, filepath.Join(linked, "partners.txt")}
	follow := func() { w.follow(files, []string{filepath.Join(dir, "pins")}) }
	follow()
	noticed := func(what string, want bool) {
		t.Helper()
		patience := 10 * time.Second
		if !want {
			patience = 3 * quietTime
		}
		select {
		case <-w.policy:
			if !want {
				t.Errorf("%s: it is noticed", what)
			}
		case <-time.After(patience):
			if want {
				t.Errorf("%s: nothing is noticed", what)
			}
		}
		follow()
	}
	must(os.WriteFile(list, []byte("192.0.2.2\n"), 0o644))
	noticed("the list is written", true)
	must(os.WriteFile(list+"~", []byte("192.0.2.3\n"), 0o644))
	must(os.Rename(list+"~", list))
	noticed("another list comes in its place", true)
	must(os.Mkdir(filepath.Join(lists, "v2"), 0o755))
	must(os.WriteFile(filepath.Join(lists, "v2", "partners.txt"), []byte("192.0.2.4\n"), 0o644))
	must(os.Symlink("v2", linked+"~"))
	must(os.Rename(linked+"~", linked))
	noticed("a link to the directory of the list leads elsewhere", true)

	half, err := os.Create(filepath.Join(linked, "partners.txt"))
	must(err)
	_, err = half.WriteString("192.0")
	must(err)
	must(os.WriteFile(policy, []byte("input: drop\n"), 0o644))
	noticed("the policy changes while a list is written", false)
	if !w.isWriting() {
		t.Error("nobody writes a list, it says")
	}
	must(half.Close())
	noticed("the list is complete", true)

	// Who writes a list that no policy names any more holds nothing up.
	half, err = os.Create(filepath.Join(linked, "partners.txt"))
	must(err)
	defer half.Close()
	_, err = half.WriteString("192.0")
	must(err)
	noticed("a list is written", false)
	files = files[:1]
	follow()
	must(os.WriteFile(policy, []byte("{}\n"), 0o644))
	noticed("the policy changes", true)
}
