// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"sync"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"golang.org/x/sys/unix"
)

// patience is how long a script waits for what has to happen: a machine may be busy.
const patience = 30 * time.Second

// service NAME PORT lets the server's /etc/services know a service, or with "-" for the port no longer.
func (s *server) service(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: service NAME PORT|-")
	}
	if s.services == "" {
		text, err := os.ReadFile("/etc/services")
		ts.Check(err)
		s.services = ts.MkAbs("services")
		ts.Check(os.WriteFile(s.services, text, 0o644))
	}
	var kept []string
	for line := range strings.Lines(ts.ReadFile(s.services)) {
		if !strings.HasPrefix(line, args[0]+"\t") {
			kept = append(kept, line)
		}
	}
	if args[1] != "-" {
		kept = append(kept, fmt.Sprintf("%s\t%s/tcp\n", args[0], args[1]))
	}
	// In place: the file may be mounted.
	ts.Check(os.WriteFile(s.services, []byte(strings.Join(kept, "")), 0o644))
}

// agentLog is what an agent has written.
type agentLog struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *agentLog) Write(text []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(text)
}

func (l *agentLog) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// agent start [ARG...] runs "portcullis run" until the script ends; agent says REGEXP waits until it does; agent kill
// ends it as nothing else would.
func (s *server) agent(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) == 0 {
		ts.Fatalf("usage: agent start [ARG...] | agent says REGEXP | agent kill")
	}
	switch args[0] {
	case "start":
		s.log = &agentLog{}
		line := s.command(ts, append([]string{"run"}, args[1:]...))
		cmd := exec.Command(line[0], line[1:]...)
		cmd.Dir = ts.MkAbs(".")
		cmd.Env = append(os.Environ(), "PORTCULLIS_PIN_PATH="+ts.Getenv("PIN"), "STATE_DIRECTORY="+ts.MkAbs("state"),
			"RUNTIME_DIRECTORY="+ts.MkAbs("run"), "SSH_CONNECTION=")
		cmd.Stderr = s.log
		ts.Check(cmd.Start())
		ended := make(chan struct{})
		go func() { cmd.Wait(); close(ended) }()
		s.kill = func() { _ = cmd.Process.Signal(unix.SIGKILL); <-ended }
		ts.Defer(s.kill)
	case "kill":
		s.kill()
	case "says":
		pattern := regexp.MustCompile("(?m)" + args[1])
		deadline := time.Now().Add(patience)
		if neg {
			if pattern.MatchString(s.log.String()) {
				ts.Fatalf("the agent says %q:\n%s", args[1], s.log)
			}
			return
		}
		for !pattern.MatchString(s.log.String()) {
			if time.Now().After(deadline) {
				ts.Fatalf("the agent does not say %q:\n%s", args[1], s.log)
			}
			time.Sleep(50 * time.Millisecond)
		}
	}
}

// await REGEXP ARG... runs the program again and again until its output matches.
func (s *server) await(ts *testscript.TestScript, neg bool, args []string) {
	pattern := regexp.MustCompile("(?m)" + args[0])
	line := s.command(ts, args[1:])
	for deadline := time.Now().Add(patience); ; time.Sleep(100 * time.Millisecond) {
		cmd := exec.Command(line[0], line[1:]...)
		cmd.Dir, cmd.Env = ts.MkAbs("."), append(os.Environ(), "PORTCULLIS_PIN_PATH="+ts.Getenv("PIN"), "SSH_CONNECTION=")
		out, _ := cmd.CombinedOutput() // which says why, too
		if pattern.Match(out) != neg {
			return
		}
		if time.Now().After(deadline) {
			ts.Fatalf("portcullis %s does not say %q, or with ! says it still:\n%s\nthe agent's log:\n%s",
				strings.Join(args[1:], " "), args[0], out, s.log)
		}
	}
}

// slowly FROM TO PORT... writes a file as a bad editor does: it truncates TO, and writes what FROM holds in pieces, with
// pauses longer than any watcher waits. Between them each port has to answer.
func (s *server) slowly(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: slowly FROM TO [PORT...]")
	}
	text := ts.ReadFile(args[0])
	f, err := os.OpenFile(ts.MkAbs(args[1]), os.O_WRONLY|os.O_TRUNC, 0)
	ts.Check(err)
	defer f.Close()
	const pieces = 12
	for i := range pieces {
		_, err := f.WriteString(text[len(text)*i/pieces : len(text)*(i+1)/pieces])
		ts.Check(err)
		time.Sleep(400 * time.Millisecond)
		for _, port := range args[2:] {
			s.connect(ts, false, []string{port})
		}
	}
}
