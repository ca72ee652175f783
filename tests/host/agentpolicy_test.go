// SPDX-License-Identifier: Apache-2.0

package host

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/portcullis-firewall/portcullis/firewall/schedule"
	"github.com/portcullis-firewall/portcullis/loader"
	"github.com/portcullis-firewall/portcullis/policy"
	"github.com/portcullis-firewall/portcullis/tests/internal/lab"
)

func TestAgentAppliesTheFileWhenItChanges(t *testing.T) {
	l := lab.New(t)
	l.Server.Echo(t, 7)
	l.Server.Echo(t, 9)
	a := newAgent(t, l, "interfaces: [eth0]\nopen: [7/tcp]\n")
	a.runs()
	live := mustDial(t, l.Client, "tcp", lab.ServerV4, 7)
	mustTalk(t, live, "before")
	a.types("open", "--runtime", "10/tcp")

	a.writes("interfaces: [eth0]\nopen: [9/tcp]\n")
	a.opens("9/tcp")
	a.closes("7/tcp")
	mustTalk(t, mustDial(t, l.Client, "tcp", lab.ServerV4, 9), "the new rule")
	mustNotDial(t, l.Client, lab.ServerV4, 7)
	mustTalk(t, live, "a connection of the rule that went")
	if rules := status(t, l).Rules; !slices.ContainsFunc(rules, func(r loader.RuleStatus) bool { return r.Rule == "10/tcp" && r.Runtime }) {
		t.Errorf("the rule that was opened for the time being has gone: %+v", rules)
	}

	// A bad file changes nothing, and is told of.
	a.writes("interfaces: [eth0]\nopen: [9/tpc]\n")
	a.waitsFor("complaint", func() bool { return a.says("not in force") && a.says("tpc") })
	a.signals(unix.SIGHUP)
	a.waitsFor("second complaint", func() bool { return strings.Count(a.logged(), "tpc") == 2 })
	if !a.open("9/tcp") || !a.open("10/tcp") || a.open("7/tcp") {
		t.Errorf("a bad file changes the rules: %+v", status(t, l).Rules)
	}
	if err := os.Remove(a.file()); err != nil {
		t.Fatal(err)
	}
	a.waitsFor("third complaint", func() bool { return a.says("no such file") })
	mustTalk(t, mustDial(t, l.Client, "tcp", lab.ServerV4, 9), "with no file at all")

	a.writes("interfaces: [eth0]\nopen: [7/tcp]\n")
	a.closes("9/tcp")
	a.waitsFor("end of the complaints", func() bool { return !a.says("not in force") })
	mustTalk(t, mustDial(t, l.Client, "tcp", lab.ServerV4, 7), "the good file")
}

// What open and close do to the file is done in the filter already.
func TestAgentLeavesToCommandsWhatTheyDo(t *testing.T) {
	l := lab.New(t)
	a := newAgent(t, l, "interfaces: [eth0]\n")
	a.runs()
	programs := programsOn(t, l, "eth0")
	for range 5 {
		if out := a.types("open", "http"); !strings.Contains(out, "opened http") {
			t.Errorf("open says %q", out)
		}
		if out := a.types("close", "http"); !strings.Contains(out, "closed http") {
			t.Errorf("close says %q", out)
		}
	}
	a.types("open", "https")
	time.Sleep(time.Second) // longer than a file has to be left alone
	if now := programsOn(t, l, "eth0"); !slices.Equal(programs, now) {
		t.Errorf("the agent has loaded programs for what was done: %v, then %v", programs, now)
	}
	if !a.open("https") || a.open("http") {
		t.Errorf("rules are %+v", status(t, l).Rules)
	}
	a.mustKeep("https")
}

// A command that holds the lock is in the middle of its work.
func TestAgentWaitsForACommand(t *testing.T) {
	l := lab.New(t)
	a := newAgent(t, l, "interfaces: [eth0]\n")
	a.runs()
	unlock, err := schedule.NewStore(schedule.Dir, l.PinPath).Lock(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	a.writes("interfaces: [eth0]\nopen: [http]\n")
	time.Sleep(3 * time.Second) // longer than it waits at a time
	if a.open("http") {
		t.Error("the agent has not waited for the lock")
	}
	unlock()
	a.opens("http")
}

// mustKeep checks the rules of the last good policy.
func (a *agent) mustKeep(rules ...string) {
	a.t.Helper()
	path := filepath.Join(a.dir, "last-good.yaml")
	info, err := os.Stat(path)
	if err != nil {
		a.t.Fatal(err)
	}
	if info.Mode() != 0o600 {
		a.t.Errorf("the last good policy has mode %v", info.Mode())
	}
	p, err := policy.Load(path)
	if err != nil {
		a.t.Fatal(err)
	}
	// It is kept in numbers, as /etc/services may say something else at the next boot.
	want := policyOf(a.t, rules...).InNumbers()
	want.Interfaces = []string{"eth0"}
	if got := policy.Diff(want, p); len(got) > 0 || fmt.Sprint(p.Open) != fmt.Sprint(want.Open) {
		a.t.Errorf("the last good policy opens %v on %q, want %v on eth0", p.Open, p.Interfaces, want.Open)
	}
}

func TestAgentStartsWithABadFile(t *testing.T) {
	l := lab.New(t)
	l.Server.Echo(t, 7)
	l.Server.Echo(t, 9)
	a := newAgent(t, l, "open: [9/tcp]\n")
	a.runs("eth0")
	a.ends(unix.SIGTERM)
	a.mustKeep("9/tcp")
	a.types("open", "7/tcp")
	a.types("open", "10/tcp", "--runtime")
	a.mustKeep("9/tcp", "7/tcp")
	a.types("close", "9/tcp")
	a.mustKeep("7/tcp")
	a.types("down")

	// As at a boot: nothing runs, and the file is bad or missing.
	for _, breakFile := range []func(){
		func() { a.writes("open: 7\n") },
		func() { os.Remove(a.file()) },
	} {
		breakFile()
		a.runs()
		mustTalk(t, mustDial(t, l.Client, "tcp", lab.ServerV4, 7), "what was open last")
		mustNotDial(t, l.Client, lab.ServerV4, 9)
		if !strings.Contains(a.logged(), "last good policy is used") || !a.says("not in force") {
			t.Errorf("nothing is said of it: %s", a.logged())
		}
		a.ends(unix.SIGTERM)

		// A filter that runs is better than one of yesterday.
		a.types("open", "--runtime", "9/tcp")
		a.runs()
		mustTalk(t, mustDial(t, l.Client, "tcp", lab.ServerV4, 9), "what is open now")
		a.ends(unix.SIGTERM)
		a.types("down")
	}

	// With nothing to go by, ssh is all that is open, and the interface is that of the default route, once there is one.
	if err := os.Remove(filepath.Join(a.dir, "last-good.yaml")); err != nil {
		t.Fatal(err)
	}
	a.runs()
	a.waitsFor("status", func() bool { return a.says("unprotected") })
	l.Server.IP(t, "route", "add", "default", "via", lab.ClientV4.String())
	a.waitsFor("filter", func() bool { return a.says("filtering eth0") })
	mustNotDial(t, l.Client, lab.ServerV4, 7)
	if rules := status(t, l).Rules; len(rules) != 1 || rules[0].Rule != "ssh" {
		t.Errorf("open are %+v, want ssh", rules)
	}
}

// A rule of a list that was opened at runtime stays as it was when the list changes, and looks like that; so it can be
// closed, and opened anew.
func TestAgentKeepsARuntimeRuleOfAListThatChanges(t *testing.T) {
	l := lab.New(t)
	l.Server.Echo(t, 9)
	a := newAgent(t, l, "interfaces: [eth0]\nlists: {friends: {file: friends}}\nopen: [7/tcp from @friends]\n")
	list := filepath.Join(a.dir, "friends")
	writes := func(text string) {
		t.Helper()
		if err := os.WriteFile(list, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	writes(lab.ClientV4.String() + "\n")
	a.runs()
	a.types("--config", a.file(), "open", "--runtime", "9/tcp from @friends")
	writes("198.51.100.1\n")
	old := "9/tcp from " + lab.ClientV4.String()
	a.opens(old)
	mustTalk(t, mustDial(t, l.Client, "tcp", lab.ServerV4, 9), "as it was opened")
	if a.open("9/tcp from @friends") {
		t.Errorf("rules are %+v", status(t, l).Rules)
	}
	// The agent says so once the rule is in force.
	a.waitsFor("the agent to say so", func() bool { return strings.Contains(a.logged(), "stays like that") })
	a.types("--config", a.file(), "close", old)
	mustNotDial(t, l.Client, lab.ServerV4, 9)
}
