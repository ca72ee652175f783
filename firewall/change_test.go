// SPDX-License-Identifier: Apache-2.0

package firewall_test

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/portcullis-firewall/portcullis/firewall"
	"github.com/portcullis-firewall/portcullis/firewall/schedule"
	"github.com/portcullis-firewall/portcullis/loader"
)

func (s *stand) store() schedule.Store {
	return schedule.NewStore(filepath.Join(s.dir, "run", filepath.Base(schedule.Dir)), filepath.Join(s.dir, "pins"))
}

// lock makes this test a command that is at work.
func (s *stand) lock() (unlock func()) {
	s.Helper()
	unlock, err := s.store().Lock(context.Background())
	if err != nil {
		s.Fatal(err)
	}
	return unlock
}

// changes are the requests that change something.
func (s *stand) changes() map[string]func(context.Context) error {
	return map[string]func(context.Context) error{
		"up":    func(ctx context.Context) error { _, err := s.fw.Up(ctx, firewall.UpRequest{}); return err },
		"apply": func(ctx context.Context) error { _, err := s.fw.Apply(ctx, firewall.ApplyRequest{}); return err },
		"open": func(ctx context.Context) error {
			_, err := s.fw.Open(ctx, firewall.OpenRequest{Rules: s.rules("ftp")})
			return err
		},
		"close": func(ctx context.Context) error {
			_, err := s.fw.Close(ctx, firewall.CloseRequest{Rules: s.rules("ssh")})
			return err
		},
		"save": func(ctx context.Context) error { _, err := s.fw.Save(ctx); return err },
		"try": func(ctx context.Context) error {
			_, err := s.fw.Try(ctx, firewall.TryRequest{File: s.file, Timeout: time.Hour})
			return err
		},
		"confirm": func(ctx context.Context) error { _, err := s.fw.Confirm(ctx, false); return err },
		"revert":  func(ctx context.Context) error { _, err := s.fw.Revert(ctx); return err },
		"down":    func(ctx context.Context) error { _, err := s.fw.Down(ctx, nil); return err },
	}
}

// A change waits for another one for as long as it may, and no longer than its context; who reads does not wait.
func TestWaitsAreBounded(t *testing.T) {
	s := newStand(t, "interfaces: [eth0]\nopen: [ssh]\n")
	s.follower()
	o := s.options()
	o.Wait = 20 * time.Millisecond
	s.fw = firewall.New(o)
	unlock := s.lock()
	for name, change := range s.changes() {
		if err := change(context.Background()); !errors.Is(err, firewall.ErrLocked) {
			t.Errorf("%s: got %v", name, err)
		}
	}
	o.Wait = time.Hour
	s.fw = firewall.New(o)
	for name, change := range s.changes() {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
		if err := change(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%s: got %v", name, err)
		}
		cancel()
	}
	if _, err := s.fw.Status(context.Background()); err != nil {
		t.Errorf("status waits: %v", err)
	}
	if _, err := s.fw.Diff(context.Background(), ""); err != nil {
		t.Errorf("diff waits: %v", err)
	}
	unlock()
	s.opens("ssh")
}

// Nobody but root can open what is locked.
func TestLocksAreRootsAlone(t *testing.T) {
	s := newStand(t, "interfaces: [eth0]\nopen: [ssh]\n")
	s.follower()
	s.open(false, "http")
	release, err := s.fw.ClaimAgent()
	if err != nil {
		t.Fatal(err)
	}
	defer release()
	if _, err := s.fw.ClaimAgent(); !errors.As(err, new(*firewall.AgentError)) {
		t.Errorf("a second agent: %v", err)
	}
	run := filepath.Join(s.dir, "run")
	locks := 0
	err = filepath.WalkDir(run, func(path string, e fs.DirEntry, err error) error {
		if err != nil || path == run {
			return err
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		if e.IsDir() && info.Mode().Perm() != 0o700 && strings.Count(strings.TrimPrefix(path, run), "/") > 1 || path == filepath.Join(run, "locks") && info.Mode().Perm() != 0o700 {
			t.Errorf("%s has mode %v", path, info.Mode())
		}
		if filepath.Dir(path) == filepath.Join(run, "locks") {
			locks++
			if info.Mode() != 0o600 || info.Size() != 0 {
				t.Errorf("%s has mode %v, and %d bytes", path, info.Mode(), info.Size())
			}
		}
		return nil
	})
	if err != nil || locks != 2 {
		t.Errorf("%d locks, %v; want those of the agent and of the file", locks, err)
	}

	// Where others get in, no lock is taken, as it could be held by them.
	for _, dir := range []string{filepath.Join(run, "locks"), filepath.Dir(s.store().Path("x"))} {
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		_, err := s.fw.Open(context.Background(), firewall.OpenRequest{Rules: s.rules("https")})
		if err == nil || !strings.Contains(err.Error(), dir+" is not a directory that is closed to all but its owner") {
			t.Errorf("%s is open to others: %v", dir, err)
		}
		if err := os.Chmod(dir, 0o700); err != nil {
			t.Fatal(err)
		}
	}
}

// What is in force cannot be read: nothing is written that says otherwise.
func TestWhatCannotBeReadIsNotWritten(t *testing.T) {
	const text = "interfaces: [eth0]\nopen: [ssh, http]\n"
	ctx := context.Background()
	s := newStand(t, text)
	s.follower()
	s.PolicyErr = errors.New("rule 2 in force cannot be read")
	calls := s.changes()
	delete(calls, "up") // which puts something else in its place
	delete(calls, "down")
	delete(calls, "confirm")
	delete(calls, "revert")
	delete(calls, "open") // which need not read it
	calls["diff"] = func(ctx context.Context) error { _, err := s.fw.Diff(ctx, ""); return err }
	for name, call := range calls {
		if err := call(ctx); !errors.Is(err, s.PolicyErr) {
			t.Errorf("%s: got %v", name, err)
		}
	}
	copied := filepath.Join(s.dir, "copy.yaml")
	o := s.options()
	o.Config = copied
	if _, err := firewall.New(o).Save(ctx); !errors.Is(err, s.PolicyErr) {
		t.Errorf("save to a copy: got %v", err)
	}
	if _, err := os.Stat(copied); err == nil {
		t.Error("there is a copy of what cannot be read")
	}
	if now, err := os.ReadFile(s.file); err != nil || string(now) != text {
		t.Errorf("the file is %q, %v", now, err)
	}
	if _, err := s.fw.Up(ctx, firewall.UpRequest{}); err != nil {
		t.Errorf("up cannot repair it: %v", err)
	}
}

// Killed commands leave half a file behind, and the next one removes it.
func TestLeftoversAreRemoved(t *testing.T) {
	s := newStand(t, "interfaces: [eth0]\nopen: [ssh]\n")
	s.follower()
	left := s.store().Path(".record.json.1234")
	s.writes(left, "{")
	if _, err := s.fw.Open(context.Background(), firewall.OpenRequest{Rules: s.rules("http"), For: time.Hour}); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(left); err == nil {
		t.Errorf("%s stays", left)
	}
}

// Only the agent says where the last good policy is kept; commands that come later keep it there.
func TestWhereTheLastGoodPolicyIsKept(t *testing.T) {
	s := newStand(t, "interfaces: [eth0]\nopen: [ssh]\n")
	s.follower()
	s.open(false, "http")
	if kept, _ := filepath.Glob(filepath.Join(s.dir, "*", "last-good.yaml")); len(kept) > 0 {
		t.Errorf("a firewall that is not the host's has kept %q", kept)
	}
	commands := s.fw
	o := s.options()
	o.StateDir = filepath.Join(s.dir, "state")
	fl := firewall.New(o).Follow(firewall.FollowRequest{Mode: loader.ModeAuto})
	if _, err := fl.Start(context.Background()); err != nil {
		t.Fatal(err)
	}
	s.fw = commands
	s.close(false, "http")
	text, err := os.ReadFile(filepath.Join(o.StateDir, "last-good.yaml"))
	if err != nil || strings.Contains(string(text), "http") || !strings.Contains(string(text), "22/tcp") {
		t.Errorf("kept is %q, %v", text, err)
	}
}

// Down needs nothing but the filter.
func TestDownIsTheWayOut(t *testing.T) {
	ctx := context.Background()
	for name, spoil := range map[string]func(*stand) error{
		"a damaged record": func(s *stand) error { return os.WriteFile(s.store().Path("record.json"), []byte("{"), 0o600) },
		"a directory that is open to others": func(s *stand) error {
			return os.Chmod(filepath.Dir(s.store().Path("x")), 0o755)
		},
		"a policy that cannot be read": func(s *stand) error {
			s.PolicyErr = errors.New("rule 2 in force cannot be read")
			return nil
		},
	} {
		s := newStand(t, "interfaces: [eth0]\nopen: [ssh]\n")
		s.follower()
		if err := spoil(s); err != nil {
			t.Fatal(err)
		}
		report, err := s.fw.Down(ctx, nil)
		if err != nil || len(s.Downs) != 1 {
			t.Errorf("%s: %v", name, err)
		} else if s.PolicyErr == nil && len(report.Warnings) != 1 {
			t.Errorf("%s: the warnings are %q", name, report.Warnings)
		}
	}
}

// Status tells what there is, though it cannot do what is overdue.
func TestStatusDoesNotWait(t *testing.T) {
	s := newStand(t, "interfaces: [eth0]\nopen: [ssh]\n")
	s.follower()
	if err := s.store().Save(&schedule.Schedule{Timed: []schedule.TimedRule{{Rule: s.rules("http")[0], Due: schedule.Now()}}}); err != nil {
		t.Fatal(err)
	}
	defer s.lock()()
	o := s.options()
	o.Wait = 10 * time.Millisecond
	status, err := firewall.New(o).Status(context.Background())
	if err != nil || len(status.Warnings) != 1 || !strings.Contains(status.Warnings[0], "another command is at work") {
		t.Errorf("status: %+v, %v", status, err)
	}
}

// Save to a copy changes nothing but the copy: what is open for a time still closes by itself.
func TestSaveToACopyLeavesTheTimers(t *testing.T) {
	ctx := context.Background()
	s := newStand(t, "interfaces: [eth0]\nopen: [ssh]\n")
	s.follower()
	if _, err := s.fw.Open(ctx, firewall.OpenRequest{Rules: s.rules("http"), For: time.Hour}); err != nil {
		t.Fatal(err)
	}
	o := s.options()
	o.Config = filepath.Join(s.dir, "copy.yaml")
	if _, err := firewall.New(o).Save(ctx); err != nil {
		t.Fatal(err)
	}
	timed := func() int {
		scheduled, err := s.store().Read()
		if err != nil {
			t.Fatal(err)
		}
		return len(scheduled.Timed)
	}
	if n := timed(); n != 1 {
		t.Errorf("%d rules are open for a time, want 1", n)
	}
	if _, err := s.fw.Save(ctx); err != nil {
		t.Fatal(err)
	}
	if n := timed(); n != 0 {
		t.Errorf("%d rules are open for a time though the file has them", n)
	}
}

// What happens by itself is told once, whoever does it, and what somebody has done before is not.
func TestWhatHappensByItselfIsTold(t *testing.T) {
	ctx := context.Background()
	s := newStand(t, "interfaces: [eth0]\nopen: [ssh]\n")
	s.follower()
	var told []firewall.Event
	o := s.options()
	o.Happens = func(e firewall.Event) { told = append(told, e) }
	fw := firewall.New(o)
	if _, err := fw.Open(ctx, firewall.OpenRequest{Rules: s.rules("http", "ftp"), For: time.Hour}); err != nil {
		t.Fatal(err)
	}
	if _, err := fw.Close(ctx, firewall.CloseRequest{Rules: s.rules("ftp"), Runtime: true}); err != nil {
		t.Fatal(err)
	}
	scheduled, err := s.store().Read()
	if err != nil {
		t.Fatal(err)
	}
	for i := range scheduled.Timed {
		scheduled.Timed[i].Due = schedule.Now()
	}
	if err := s.store().Save(scheduled); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := fw.CatchUp(ctx); err != nil {
			t.Fatal(err)
		}
	}
	s.opens("ssh")
	if len(told) != 1 || !strings.HasPrefix(told[0].Text, "closed http: ") || told[0].Fields["RULE"] != "http" || told[0].Fields["PIN_PATH"] != o.PinPath {
		t.Errorf("told %+v", told)
	}
}

// Up is what helps where a damaged filter keeps a rule from being closed in time.
func TestUpRepairsWhatIsOverdue(t *testing.T) {
	ctx := context.Background()
	s := newStand(t, "interfaces: [eth0]\nopen: [ssh]\n")
	s.follower()
	if err := s.store().Save(&schedule.Schedule{Timed: []schedule.TimedRule{{Rule: s.rules("http")[0], Due: schedule.Now()}}}); err != nil {
		t.Fatal(err)
	}
	s.OpenErr = loader.ErrDamaged
	if _, err := s.fw.Open(ctx, firewall.OpenRequest{Rules: s.rules("ftp")}); !errors.Is(err, loader.ErrDamaged) {
		t.Errorf("open: got %v", err)
	}
	ups := len(s.Ups)
	if _, err := s.fw.Up(ctx, firewall.UpRequest{Mode: loader.ModeAuto}); err != nil || len(s.Ups) != ups+1 {
		t.Errorf("up: %v", err)
	}
}

// A change of the file that cannot be put in force now is not forgotten.
func TestAChangeOfTheFileIsNotForgotten(t *testing.T) {
	ctx := context.Background()
	s := newStand(t, "interfaces: [eth0]\nopen: [ssh]\n")
	fl := s.follower()
	s.writes(s.file, "interfaces: [eth0]\nopen: [ssh, http]\n")
	s.OpenErr = errors.New("something is in the way")
	s.says(fl.ApplyChanged(ctx), "something is in the way")
	s.OpenErr = nil
	if !fl.Changed() {
		t.Error("the file counts as read")
	}
	fl.ApplyChanged(ctx)
	s.opens("ssh", "http")
}
