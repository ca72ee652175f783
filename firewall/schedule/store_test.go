// SPDX-License-Identifier: Apache-2.0

package schedule

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/portcullis-firewall/portcullis/host"
	"github.com/portcullis-firewall/portcullis/loader"
	"github.com/portcullis-firewall/portcullis/policy"
)

// What an earlier version has put on trial, or opened for a time, this one ends: it reads the record, under the lock that
// the other one takes, at the place where that is.
func TestRecordsOfEarlierVersions(t *testing.T) {
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		t.Fatal(err)
	}
	netns, err := host.NetnsCookie()
	if err != nil {
		t.Fatal(err)
	}
	root := t.TempDir()
	dir := filepath.Join(root, "%2Fsys%2Ffs%2Fbpf%2Fportcullis")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	record := fmt.Sprintf(`{
  "boot": %q,
  "netns": %d,
  "try": {
    "file": "/srv/new.yaml",
    "text": "open: [http]\n",
    "config": "/etc/portcullis/portcullis.yaml",
    "before": {
      "policy": "input: drop\n",
      "rules": [{"id": 1, "rule": "ssh", "runtime": false}, {"id": 2, "rule": "8080/tcp", "runtime": true}],
      "interfaces": ["eth0"],
      "config": "/etc/portcullis/portcullis.yaml"
    },
    "in_force": true,
    "due": %d
  },
  "timed": [{"rule": "8080/tcp", "due": %d}]
}
`, strings.TrimSpace(string(boot)), netns, int64(After(time.Minute)), int64(After(-time.Minute)))
	if err := os.WriteFile(filepath.Join(dir, "record.json"), []byte(record), 0o600); err != nil {
		t.Fatal(err)
	}
	store := NewStore(root, loader.DefaultPinPath)
	unlock, err := store.Lock(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	defer unlock()
	s, err := store.Read()
	if err != nil {
		t.Fatal(err)
	}
	if s.Trial == nil || !s.Trial.InForce || s.Trial.Before == nil || len(s.Trial.Before.Rules) != 2 || !s.Trial.Before.Rules[1].Runtime ||
		s.Trial.Due.Left() > time.Minute || s.Trial.Due.Left() < 0 {
		t.Errorf("the trial is %+v", s.Trial)
	}
	due := s.DueRules()
	if !s.Overdue() || len(due) != 1 || due[0].String() != "8080/tcp" {
		t.Errorf("to close are %v", due)
	}
	// What is closed meanwhile does not come back with the trial's end.
	s.Trial.Before.ForgetRuntime(due)
	s.ForgetRules(due)
	if len(s.Trial.Before.Rules) != 1 || len(s.Timed) != 0 || s.Overdue() {
		t.Errorf("left are %+v and %+v", s.Trial.Before.Rules, s.Timed)
	}
	if err := store.Save(s); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(dir, "record.json"))
	if err != nil || !strings.Contains(string(text), `"try": {`) || !strings.Contains(string(text), `"in_force": true`) {
		t.Errorf("an earlier version could not read it: %v\n%s", err, text)
	}
}

func TestWhenRulesClose(t *testing.T) {
	rule := func(text string) policy.Rule {
		r, err := policy.ParseRule(text)
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	s := &Schedule{}
	if _, ok := s.Next(); ok || s.Overdue() {
		t.Error("something is due on an empty schedule")
	}
	s.SetDue([]policy.Rule{rule("http"), rule("https")}, After(time.Hour))
	s.SetDue([]policy.Rule{rule("80/tcp")}, After(time.Minute)) // counts anew
	first, ok := s.Next()
	if len(s.Timed) != 2 || !ok || first.Left() > time.Minute {
		t.Errorf("the schedule is %+v, and begins in %v", s.Timed, first.Left())
	}
	if due, ok := s.RuleDue(rule("https")); !ok || due.Left() < 59*time.Minute {
		t.Errorf("https closes in %v", due.Left())
	}
	s.ForgetRules([]policy.Rule{rule("http")})
	if _, ok := s.RuleDue(rule("http")); ok || len(s.Timed) != 1 {
		t.Errorf("the schedule is %+v", s.Timed)
	}
}
