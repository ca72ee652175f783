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
	follow := func() { w.follow(policy, []string{in("pins")}) }
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
