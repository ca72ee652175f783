// SPDX-License-Identifier: Apache-2.0

package trial

import (
	"math/rand/v2"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// The terminal goes, the shell on it and all of its session are killed, and what was tried is put back.
func TestRevertOutlivesItsTerminal(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	before, live := s.ready()
	master, tty := terminal(t)
	shell := s.prepare(s.Server.Command("sh", "-c", s.program+" try new.yaml --timeout 10m; while :; do sleep 1; done"))
	lead(shell, tty)
	if err := shell.Start(); err != nil {
		t.Fatal(err)
	}
	tty.Close()
	var told strings.Builder
	for b := make([]byte, 1024); !strings.Contains(told.String(), "to end the trial now"); {
		n, err := master.Read(b)
		if err != nil {
			t.Fatalf("%v after %q", err, told.String())
		}
		told.Write(b[:n])
	}
	session := shell.Process.Pid
	for _, pid := range s.watchdogs() {
		if of, err := unix.Getsid(pid); err != nil || of == session {
			t.Errorf("the watchdog %d is of the session %d of the shell: %v", pid, of, err)
		}
	}
	master.Close() // SIGHUP
	unix.Kill(-session, unix.SIGKILL)
	shell.Wait()
	s.onTrial()
	s.makeDue()
	s.awaitNothing()
	s.mustBe(before)
	s.lives(live)
}

// When the watchdog is killed too, the next command does its work, whatever it is.
func TestTheNextCommandDoesWhatAKilledWatchdogDidNot(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	before, _ := s.ready()
	for _, next := range []string{"status", "open 12/tcp", "revert", "confirm"} {
		s.run("try", "new.yaml")
		s.killWatchdog()
		s.makeDue()
		s.onTrial() // nobody is there to do it
		s.command(strings.Fields(next)...).Run()
		s.closed(10)
		if next == "open 12/tcp" {
			s.run("close", "12/tcp")
		}
		s.mustBe(before)
	}
	s.run("open", "10/tcp", "--for", "1h")
	s.killWatchdog()
	s.makeDue("10/tcp")
	s.opens(10)
	s.run("status")
	s.closed(10)
	s.mustBe(before)
}

// A watchdog that was killed before its time is replaced by the next command that needs one.
func TestAKilledWatchdogIsReplaced(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	before, _ := s.ready()
	s.run("open", "10/tcp", "--for", "1h")
	s.killWatchdog()
	s.run("open", "11/tcp", "--for", "1h")
	if n := len(s.watchdogs()); n != 1 {
		t.Fatalf("%d watchdogs", n)
	}
	s.makeDue("10/tcp", "11/tcp")
	s.awaitNothing()
	s.mustBe(before)
}

// A watchdog does not stay when all that it keeps is taken away.
func TestAWatchdogOfNothingEnds(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	s.ready()
	s.run("open", "10/tcp", "--for", "1h")
	if n := len(s.watchdogs()); n != 1 {
		t.Fatalf("%d watchdogs", n)
	}
	if err := os.Remove(s.State() + "/record.json"); err != nil {
		t.Fatal(err)
	}
	s.awaitNothing()
}

// Whenever a try is killed, what was in force before is in force when its time is over.
func TestKillTheTry(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	before, live := s.ready()
	random := rand.New(rand.NewPCG(5, 6))
	const tries = 8
	cutOff := 0
	for range tries {
		cmd := s.command("try", "new.yaml", "--timeout", "10m")
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		timer := time.AfterFunc(time.Duration(random.IntN(1000))*time.Millisecond, func() { cmd.Process.Kill() })
		if err := cmd.Wait(); err != nil {
			cutOff++
			if d := s.schedule(); d.Trial != nil && !d.Trial.InForce {
				s.refuses("was cut off", "confirm")
			}
		}
		timer.Stop()
		if s.schedule().Trial != nil {
			s.makeDue()
		}
		s.awaitNothing()
		s.mustBe(before)
		s.lives(live)
	}
	if cutOff == 0 {
		t.Error("no try was killed")
	}
	t.Logf("%d of %d were killed before they ended", cutOff, tries)
}
