// SPDX-License-Identifier: Apache-2.0

package firewall_test

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/portcullis-firewall/portcullis/firewall"
	"github.com/portcullis-firewall/portcullis/loader"
)

const withPartners = "interfaces: [eth0]\nlists:\n  partners: {file: partners.txt}\nopen: [22/tcp, 80/tcp from @partners]\n"

// newListStand returns a stand whose policy names a list file, and which keeps its last good state.
func newListStand(t *testing.T) (s *stand, list string) {
	t.Helper()
	s = newStand(t, withPartners)
	list = filepath.Join(s.dir, "partners.txt")
	s.writes(list, "192.0.2.0/24\n")
	o := s.options()
	o.StateDir = filepath.Join(s.dir, "state")
	s.fw = firewall.New(o)
	return s, list
}

// admits checks from where port 80 is open.
func (s *stand) admits(networks string) {
	s.Helper()
	var got []string
	for _, r := range s.Running.Open {
		for _, p := range r.From {
			got = append(got, p.String())
		}
	}
	if strings.Join(got, " ") != networks {
		s.Errorf("it admits %q, want %q", got, networks)
	}
}

// boots is a boot: nothing is filtered any more, and what ends with it is gone.
func (s *stand) boots() *firewall.Follower {
	s.Helper()
	s.Running = nil
	if err := os.RemoveAll(s.options().RunDir); err != nil {
		s.Fatal(err)
	}
	return s.follower()
}

// What others can write, or have put in the place of a list, would let them open ports.
func TestAListOfOthersIsRefused(t *testing.T) {
	ctx := context.Background()
	for _, c := range []struct {
		name   string
		spoil  func(s *stand, list string) error
		remedy string
		root   bool
	}{
		{"everybody writes to it", func(_ *stand, list string) error { return os.Chmod(list, 0o666) }, `run "chmod o-w `, false},
		{"it is somebody's", func(_ *stand, list string) error { return os.Chown(list, 65534, 0) }, `run "chown root `, true},
		{"it is a FIFO", func(_ *stand, list string) error {
			_ = os.Remove(list)
			return unix.Mkfifo(list, 0o600)
		}, "is not a regular file", false},
		{"somebody's link leads there", func(s *stand, list string) error {
			_ = os.Rename(list, list+".real")
			_ = os.Symlink(list+".real", list)
			return os.Lchown(list, 65534, 0)
		}, "is a symbolic link of uid 65534", true},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.root && os.Geteuid() != 0 {
				t.Skip("needs root, to give a file away")
			}
			s, list := newListStand(t)
			fl := s.follower()
			before, err := os.ReadFile(s.file)
			if err != nil {
				t.Fatal(err)
			}
			if err := c.spoil(s, list); err != nil {
				t.Fatal(err)
			}
			_, up := s.fw.Up(ctx, firewall.UpRequest{Mode: loader.ModeAuto})
			_, apply := s.fw.Apply(ctx, firewall.ApplyRequest{})
			_, diff := s.fw.Diff(ctx, "")
			_, open := s.fw.Open(ctx, firewall.OpenRequest{Rules: s.rules("https")})
			_, shut := s.fw.Close(ctx, firewall.CloseRequest{Rules: s.rules("22/tcp")})
			_, save := s.fw.Save(ctx)
			_, try := s.fw.Try(ctx, firewall.TryRequest{File: s.file})
			for what, err := range map[string]error{"up": up, "apply": apply, "diff": diff, "open": open, "close": shut, "save": save, "try": try} {
				if err == nil || !strings.Contains(err.Error(), s.file+":3:20: cannot read list \"partners\": ") || !strings.Contains(err.Error(), c.remedy) {
					t.Errorf("%s says %v", what, err)
				}
			}
			s.says(fl.ApplyChanged(ctx), c.remedy)
			s.admits("192.0.2.0/24")
			if after, err := os.ReadFile(s.file); err != nil || string(after) != string(before) {
				t.Errorf("the policy file is %q, %v", after, err)
			}
			report, err := s.fw.Check("")
			if c.remedy == "is not a regular file" {
				if err == nil {
					t.Error("check takes a FIFO")
				}
			} else if err != nil || !strings.Contains(strings.Join(report.Refused, "\n"), c.remedy) {
				t.Errorf("check refuses %v, %v", report, err)
			}
		})
	}
}

// At a boot a list that is missing or bad is what it last was, and that is told.
func TestBootWithABadList(t *testing.T) {
	ctx := context.Background()
	for _, c := range []struct {
		name  string
		spoil func(list string) error
		told  string
	}{
		{"missing", os.Remove, "portcullis.yaml:3:20: cannot read list \"partners\": "},
		{"bad", func(list string) error { return os.WriteFile(list, []byte("198.51.100.1\n192.0.2.300\n"), 0o644) }, "partners.txt:2:1: "},
		{"empty", func(list string) error { return os.WriteFile(list, nil, 0o644) }, "partners.txt:1:1: nothing in the file"},
		{"everybody writes to it", func(list string) error { return os.Chmod(list, 0o666) }, "chmod o-w"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s, list := newListStand(t)
			s.follower()
			if err := c.spoil(list); err != nil {
				t.Fatal(err)
			}
			// The policy file itself is good, and has changed while nothing ran.
			s.writes(s.file, withPartners+"icmp: drop\n")
			s.Running = nil
			fl := s.fw.Follow(firewall.FollowRequest{Mode: loader.ModeAuto})
			notes, err := fl.Start(ctx)
			if err != nil {
				t.Fatal(err)
			}
			s.says(notes, c.told)
			s.says(notes, "the last good copy is used until that is mended")
			s.opens("22/tcp", "80/tcp from @partners")
			s.admits("192.0.2.0/24")
			if problem := fl.Problem(); !strings.Contains(problem, "last good copies of lists are in force: ") || !strings.Contains(problem, c.told) {
				t.Errorf("the problem is %q", problem)
			}
			status, err := s.fw.Status(ctx)
			if err != nil {
				t.Fatal(err)
			}
			warnings := strings.Join(status.Warnings, "\n")
			if !strings.Contains(warnings, c.told) || !strings.Contains(warnings, `the list stays as it was: mend it, then run "portcullis apply"`) ||
				strings.Contains(warnings, "differs from what is in force") {
				t.Errorf("status warns %q", warnings)
			}
			// Who is at the terminal is asked to mend it.
			if _, err := s.fw.Apply(ctx, firewall.ApplyRequest{}); err == nil || !strings.Contains(err.Error(), c.told) {
				t.Errorf("apply says %v", err)
			}
			s.says(fl.ApplyChanged(ctx), "")
			s.close(true, "22/tcp")
			_ = os.Remove(list)
			s.writes(list, "192.0.2.0/24\n")
			s.says(fl.ApplyChanged(ctx), "is good again")
			s.opens("80/tcp from @partners") // the list says what it said, so nothing overrules that
			if fl.Problem() != "" {
				t.Errorf("the problem is %q", fl.Problem())
			}
			// And the copy is still there for the next time.
			_ = os.Remove(list)
			s.boots()
			s.admits("192.0.2.0/24")
		})
	}

	// Where there is no copy of a list, the whole policy is what it last was.
	s, list := newListStand(t)
	s.follower()
	for _, err := range []error{os.RemoveAll(filepath.Join(s.dir, "state", "last-good-lists")), os.Remove(list)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	s.boots()
	s.opens("22/tcp", "80/tcp from 192.0.2.0/24")
}

// A copy goes with what is in force: from whatever command that comes, and not longer.
func TestCopiesOfListsAreThoseInForce(t *testing.T) {
	ctx := context.Background()
	s, list := newListStand(t)
	copies := func() (texts []string) {
		t.Helper()
		entries, _ := os.ReadDir(filepath.Join(s.dir, "state", "last-good-lists"))
		for _, e := range entries {
			text, err := os.ReadFile(filepath.Join(s.dir, "state", "last-good-lists", e.Name()))
			if err != nil {
				t.Fatal(err)
			}
			if info, err := e.Info(); err != nil || info.Mode() != 0o600 {
				t.Errorf("a copy has mode %v, %v", info.Mode(), err)
			}
			_, held, _ := strings.Cut(string(text), "\n")
			texts = append(texts, held)
		}
		return texts
	}
	want := func(texts ...string) {
		t.Helper()
		if got := copies(); strings.Join(got, "|") != strings.Join(texts, "|") {
			t.Errorf("kept are %q, want %q", got, texts)
		}
	}
	fl := s.follower()
	want("192.0.2.0/24\n")
	s.writes(list, "198.51.100.0/24\n")
	want("192.0.2.0/24\n")
	if _, err := s.fw.Apply(ctx, firewall.ApplyRequest{}); err != nil {
		t.Fatal(err)
	}
	want("198.51.100.0/24\n")
	s.writes(list, "203.0.113.0/24\n")
	fl.ApplyChanged(ctx)
	want("203.0.113.0/24\n")
	s.open(false, "https")
	want("203.0.113.0/24\n")

	// Another file that is applied is not that of the next boot.
	other := filepath.Join(s.dir, "other.yaml")
	s.writes(other, "open: [22/tcp]\n")
	if _, err := s.fw.Apply(ctx, firewall.ApplyRequest{File: other}); err != nil {
		t.Fatal(err)
	}
	want("203.0.113.0/24\n")
	s.follower() // which leaves that as it is
	s.opens("22/tcp")
	want("203.0.113.0/24\n")

	// Nor is one that a command edits beside it.
	o := s.options()
	o.StateDir, o.Config = filepath.Join(s.dir, "state"), other
	if _, err := firewall.New(o).Open(ctx, firewall.OpenRequest{Rules: s.rules("https")}); err != nil {
		t.Fatal(err)
	}
	want("203.0.113.0/24\n")

	// What did not get through leaves the copy alone.
	s.writes(list, "203.0.113.0/24\n192.0.2.\n")
	fl.ApplyChanged(ctx)
	want("203.0.113.0/24\n")

	s.writes(s.file, "interfaces: [eth0]\nopen: [22/tcp]\n")
	fl.ApplyChanged(ctx)
	want()
}

// Where there is no room for copies all else is as it would be, and the copies of before stay.
func TestNoSpaceIsLeftForCopiesOfLists(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root, to mount a file system")
	}
	ctx := context.Background()
	s, list := newListStand(t)
	copies := filepath.Join(s.dir, "state", "last-good-lists")
	if err := os.MkdirAll(copies, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("full", copies, "tmpfs", 0, "size=16k"); err != nil {
		t.Skipf("needs a tmpfs: %v", err)
	}
	t.Cleanup(func() { _ = unix.Unmount(copies, unix.MNT_DETACH) })
	s.follower()
	s.writes(list, "198.51.100.0/24\n#"+strings.Repeat("x", 64<<10)+"\n")
	report, err := s.fw.Apply(ctx, firewall.ApplyRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if warnings := strings.Join(report.Warnings, "\n"); !strings.Contains(warnings, "keep the policy for the next boot: the list "+list+": ") ||
		!strings.Contains(warnings, "no space left") {
		t.Errorf("apply warns %q", warnings)
	}
	s.admits("198.51.100.0/24")
	if text, err := os.ReadFile(filepath.Join(s.dir, "state", "last-good.yaml")); err != nil || !strings.Contains(string(text), "198.51.100.0/24") {
		t.Errorf("the last good policy is %q, %v", text, err)
	}
	_ = os.Remove(list)
	s.boots()
	s.admits("192.0.2.0/24")
}

// A policy that is confirmed moves to the policy file, and its lists do not.
func TestTryWithAListBesideIt(t *testing.T) {
	ctx := context.Background()
	s, list := newListStand(t)
	s.follower()
	elsewhere := filepath.Join(t.TempDir(), "new.yaml")
	s.writes(filepath.Join(filepath.Dir(elsewhere), "partners.txt"), "198.51.100.0/24\n")
	s.writes(elsewhere, withPartners)
	_, err := s.fw.Try(ctx, firewall.TryRequest{File: elsewhere, Timeout: time.Hour})
	if err == nil || !strings.Contains(err.Error(), "once confirmed it would be in "+list+": write an absolute path") {
		t.Errorf("try says %v", err)
	}
	s.admits("192.0.2.0/24")
	s.writes(elsewhere, strings.ReplaceAll(withPartners, "partners.txt", filepath.Join(filepath.Dir(elsewhere), "partners.txt")))
	if _, err := s.fw.Try(ctx, firewall.TryRequest{File: elsewhere, Timeout: time.Hour}); err != nil {
		t.Fatal(err)
	}
	s.admits("198.51.100.0/24")
	if _, err := s.fw.Confirm(ctx, true); err != nil {
		t.Fatal(err)
	}
	_ = os.Remove(filepath.Join(filepath.Dir(elsewhere), "partners.txt"))
	s.boots()
	s.admits("198.51.100.0/24")
}

// A list that changes is put in force as a change of the policy is.
func TestFollowerAppliesAListThatChanges(t *testing.T) {
	ctx := context.Background()
	s, list := newListStand(t)
	fl := s.follower()
	if files := fl.Files(); len(files) != 2 || files[0] != s.file || files[1] != list {
		t.Errorf("followed are %q", files)
	}
	s.says(fl.ApplyChanged(ctx), "")
	s.writes(list, "198.51.100.0/24\n")
	if fl.Steady(); !fl.Changed() || !fl.Steady() {
		t.Error("a list that changes is not seen")
	}
	s.writes(list, "203.0.113.0/24\n")
	if fl.Steady() {
		t.Error("a list that changes again counts as steady")
	}
	s.says(fl.ApplyChanged(ctx), list+" has changed")
	s.admits("203.0.113.0/24")
	s.says(fl.ApplyChanged(ctx), "")

	// What was decided at runtime stays until it changes, also for another agent.
	s.close(true, "22/tcp")
	s.follower()
	s.opens("80/tcp from @partners")
	s.writes(list, "203.0.113.0/25\n")
	fl = s.follower()
	s.opens("22/tcp", "80/tcp from @partners")
	s.admits("203.0.113.0/25")

	// Half a list, and none, change nothing, and are told of once for each kind.
	for _, c := range []struct{ text, told string }{
		{"203.0.113.0/25\n10.", "no newline after"},
		{"203.0.113.0/25\n10.0.0.0/8\n1", ""},
		{"", "nothing in the file"},
		{"", ""},
		{"198.51.100.0/24\n10.", "no newline after"},
	} {
		s.writes(list, c.text)
		s.says(fl.ApplyChanged(ctx), c.told)
		s.admits("203.0.113.0/25")
		if fl.Problem() == "" {
			t.Errorf("%q is no problem", c.text)
		}
	}
	// Who asks is told again.
	s.says(fl.Reload(ctx), "no newline after")
	s.writes(list, "192.0.2.0/24\n")
	s.says(fl.ApplyChanged(ctx), "is good again")
	s.admits("192.0.2.0/24")

	// The guard looks at lists, too.
	s.SSHD = []uint16{22}
	s.writes(s.file, "interfaces: [eth0]\nlists: {partners: {file: partners.txt}}\nopen: [22/tcp from @partners]\n")
	s.says(fl.ApplyChanged(ctx), "has changed")
	s.writes(list, "240.0.0.1\n")
	s.says(fl.ApplyChanged(ctx), "an sshd listens on port 22, which no rule opens")
	s.admits("192.0.2.0/24")
}

// Status says which list is another than in force.
func TestStatusComparesLists(t *testing.T) {
	ctx := context.Background()
	s, list := newListStand(t)
	s.follower()
	warns := func() string {
		t.Helper()
		status, err := s.fw.Status(ctx)
		if err != nil {
			t.Fatal(err)
		}
		var out []string
		for _, w := range status.Warnings {
			if strings.Contains(w, s.dir) {
				out = append(out, w)
			}
		}
		return strings.Join(out, "\n")
	}
	if got := warns(); got != "" {
		t.Errorf("status warns %q", got)
	}
	s.writes(list, "# the same\n192.0.2.0/24\n")
	if got := warns(); got != "" {
		t.Errorf("status warns %q of a comment", got)
	}
	s.writes(list, "198.51.100.0/24\n")
	if got := warns(); got != list+` differs from what is in force: "portcullis apply" applies it` {
		t.Errorf("status warns %q", got)
	}
	s.writes(s.file, withPartners+"icmp: drop\n")
	if got := warns(); !strings.Contains(got, list+" differs") || !strings.Contains(got, s.file+" differs from what is in force (~ icmp: accept -> drop)") {
		t.Errorf("status warns %q", got)
	}
}
