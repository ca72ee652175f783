// SPDX-License-Identifier: Apache-2.0

// Package trial tests what happens by itself to a filter: a policy that is on trial is put back, a rule that is open
// for a time closes, whoever dies meanwhile.
package trial

import (
	"encoding/json"
	"errors"
	"io"
	"os"
	"strings"
	"testing"

	"github.com/portcullis-firewall/portcullis/loader"
)

// state is what portcullis status says, but for what any packet changes: that is how often each rule counted.
type state struct {
	text    string
	json    map[string]any
	packets map[string]float64
}

func (s *server) status() state {
	s.t.Helper()
	v := state{packets: make(map[string]float64)}
	if err := json.Unmarshal([]byte(s.run("status", "-o", "json")), &v.json); err != nil {
		s.t.Fatal(err)
	}
	delete(v.json, "counters")
	delete(v.json, "flows")
	delete(v.json, "ledger")
	delete(v.json, "closed_rules")
	for _, r := range v.json["rules"].([]any) {
		rule := r.(map[string]any)
		v.packets[rule["rule"].(string)] = rule["packets"].(float64)
		delete(rule, "packets")
		delete(rule, "bytes")
	}
	text, _ := json.MarshalIndent(v.json, "", " ")
	v.text = string(text)
	return v
}

// mustBe compares with an earlier status. Rules have counted on.
func (s *server) mustBe(before state) {
	s.t.Helper()
	now := s.status()
	if now.text != before.text {
		s.t.Fatalf("status is not what it was:\n%s\nwant\n%s", now.text, before.text)
	}
	for rule, n := range before.packets {
		if now.packets[rule] < n {
			s.t.Fatalf("the rule %s has counted %v packets, and before %v", rule, now.packets[rule], n)
		}
	}
}

func TestRevertAtTheTimeout(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	s.write("new.yaml", "interfaces: [eth0, eth1]\nicmp: drop\nopen: [10/tcp, 11/tcp]\ntimeouts:\n  udp: 10s\n")
	before, live := s.ready()
	s.run("try", "new.yaml", "--timeout", "12s")
	s.onTrial()
	s.lives(live)
	v := s.status()
	if v.json["try"] == nil || len(v.json["interfaces"].([]any)) != 2 {
		t.Fatalf("on trial: %s", v.text)
	}
	s.awaitNothing()
	s.mustBe(before)
	s.lives(live)
	s.closed(10)
	s.opens(9)
	if out := s.Server.Run(t, "ip", "-d", "link", "show", "eth1"); strings.Contains(out, "xdp") {
		t.Errorf("eth1 is still filtered:\n%s", out)
	}
	if e := s.schedule().Ended; e == nil || !e.Reverted || e.File != s.path("new.yaml") {
		t.Errorf("the end is remembered as %+v", e)
	}
}

func TestTryWhereNothingRan(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	s.run("try", "new.yaml", "--timeout", "10m")
	s.onTrial()
	s.makeDue()
	s.awaitNothing()
	s.opens(9)
	if _, err := os.Stat(s.PinPath + "/" + loader.Schema); err == nil {
		t.Error("pins are left")
	}
	s.refuses("no policy is on trial", "confirm")
}

func TestConfirmKeepsIt(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	s.ready()
	s.run("try", "new.yaml", "--timeout", "10m")
	s.run("confirm")
	s.awaitNothing()
	s.onTrial()
	s.run("up")
	s.onTrial()
}

func TestWait(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	s.ready()
	s.refuses("not confirmed in time", "try", "new.yaml", "--timeout", "1s", "--wait")
	s.closed(10)
	waiting := s.command("try", "new.yaml", "--wait")
	out, err := waiting.StdoutPipe()
	if err == nil {
		err = waiting.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	told := make([]byte, 16) // it has begun
	if _, err := io.ReadFull(out, told); err != nil {
		t.Fatal(err)
	}
	s.run("confirm")
	rest, _ := io.ReadAll(out)
	if err := waiting.Wait(); err != nil || !strings.HasSuffix(string(rest), "\nconfirmed\n") {
		t.Errorf("got %v: %s", err, rest)
	}
}

// Where nobody would put it back, nothing is put in force.
func TestNoWatchdogNoTry(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	before, _ := s.ready()
	// A directory cannot be opened for writing, by root neither.
	if err := errors.Join(os.RemoveAll(s.State()+"/watchdog.lock"), os.Mkdir(s.State()+"/watchdog.lock", 0o700)); err != nil {
		t.Fatal(err)
	}
	s.refuses("nothing was changed, as nothing would put it back", "try", "new.yaml")
	s.mustBe(before)
	s.refuses("nothing was changed, as nothing would close it", "open", "10/tcp", "--for", "1h")
	s.mustBe(before)
	s.refuses("no policy is on trial", "confirm")
}

// At the machine itself nobody needs a connection. A terminal that a program has made may be a connection's.
func TestConfirmAtTheConsole(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	s.ready()
	s.run("try", "new.yaml", "--timeout", "10m")
	if out, err := s.onTerminal("confirm"); err == nil || !strings.Contains(out, "say --console") {
		t.Fatalf("on a pseudo terminal: %v\n%s", err, out)
	}
	if out, err := s.onTerminal("confirm", "--console"); err != nil {
		t.Fatalf("on a pseudo terminal that is the machine's: %v\n%s", err, out)
	}
	s.onTrial()
	s.write("third.yaml", "interfaces: [eth0]\nopen: [9/tcp]\n")
	s.run("try", "third.yaml", "--timeout", "10m")
	if out, err := s.alone("confirm").CombinedOutput(); err != nil {
		t.Fatalf("without a terminal: %v\n%s", err, out)
	}
	s.awaitNothing()
	s.opens(9)
}
