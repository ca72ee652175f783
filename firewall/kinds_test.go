// SPDX-License-Identifier: Apache-2.0

package firewall_test

import (
	"context"
	"errors"
	"os"
	"testing"
)

// Each way in which the policy file is bad is told once, also right after another one.
func TestABadFileThatBecomesBadInAnotherWay(t *testing.T) {
	ctx := context.Background()
	s := newStand(t, "interfaces: [eth0]\nopen: [22/tcp]\n")
	s.SSHD = []uint16{22}
	fl := s.follower()
	writes := func(text string) func() {
		return func() {
			_ = os.Remove(s.file)
			s.writes(s.file, text)
		}
	}
	for _, bad := range []struct {
		make func()
		want string
	}{
		{writes("nonsense: 1\n"), "unknown key"},
		{writes("open: [\n"), "a bracket is not closed"},
		{writes(""), "nothing in the file"},
		{writes("interfaces: [eth0]\nopen: [http]\n"), "an sshd listens on port 22"},
		{func() { _ = os.Chmod(s.file, 0o666) }, "everybody can write"},
		{func() { _ = os.Remove(s.file) }, "is gone"},
		{func() { _ = os.Mkdir(s.file, 0o755) }, "not a regular file"},
		{writes("nonsense: 1\n"), "unknown key"},
	} {
		bad.make()
		s.says(fl.ApplyChanged(ctx), bad.want)
		s.says(fl.ApplyChanged(ctx), "")
	}
	// A file that is good and cannot be put in force is tried again and again, and that is told once.
	s.Fail = errors.New("no memory")
	writes("interfaces: [eth0]\nopen: [22/tcp, http]\n")()
	s.says(fl.ApplyChanged(ctx), "no memory")
	s.says(fl.ApplyChanged(ctx), "")
	writes("interfaces: [eth0]\nopen: [22/tcp, http, smtp]\n")()
	s.says(fl.ApplyChanged(ctx), "no memory")
	s.says(fl.ApplyChanged(ctx), "")
	s.Fail = nil
	s.says(fl.ApplyChanged(ctx), "eth0 is filtered")
	s.opens("22/tcp", "http", "smtp")
}
