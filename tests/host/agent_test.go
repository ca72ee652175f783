// SPDX-License-Identifier: Apache-2.0

package host

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/portcullis-firewall/portcullis/tests/internal/lab"
)

// patience is how long a test waits for what has to happen: a machine may be busy.
const patience = 30 * time.Second

// agent is "portcullis run" at the server.
type agent struct {
	t       *testing.T
	lab     *lab.Lab
	program string
	dir     string // what it keeps, and the policy file
	process *exec.Cmd
	ended   chan error
	mu      sync.Mutex
	told    []string     // to systemd
	log     bytes.Buffer // to the journal
}

// newAgent prepares an agent, which does not run yet, with a policy file of that text.
func newAgent(t *testing.T, l *lab.Lab, policy string) *agent {
	t.Helper()
	a := &agent{t: t, lab: l, program: lab.Program(t), dir: t.TempDir()}
	a.writes(policy)
	return a
}

func (a *agent) file() string { return filepath.Join(a.dir, "portcullis.yaml") }

// writes puts a new policy file in the place of the old one, as editors do.
func (a *agent) writes(text string) {
	a.t.Helper()
	next := a.file() + "~"
	err := os.WriteFile(next, []byte(text), 0o644)
	if err == nil {
		err = os.Rename(next, a.file())
	}
	if err != nil {
		a.t.Fatal(err)
	}
}

// Write takes what the agent writes to its standard error.
func (a *agent) Write(text []byte) (int, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.log.Write(text)
}

func (a *agent) logged() string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.log.String()
}

// command prepares a command line at the server, about the filter of the agent.
func (a *agent) command(args ...string) *exec.Cmd {
	cmd := a.lab.Server.Command(a.program, args...)
	cmd.Env = append(os.Environ(), "PORTCULLIS_PIN_PATH="+a.lab.PinPath, "STATE_DIRECTORY="+a.dir,
		"NOTIFY_SOCKET="+filepath.Join(a.dir, "notify"), "SSH_CONNECTION=")
	return cmd
}

// types runs a command that has to succeed.
func (a *agent) types(args ...string) string {
	a.t.Helper()
	out, err := a.command(args...).CombinedOutput()
	if err != nil {
		a.t.Fatalf("portcullis %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

// run prepares the agent, with the capabilities that its service has.
func (a *agent) run(args ...string) *exec.Cmd {
	cmd := a.command()
	service := a.lab.Server.Command("setpriv", append([]string{"--bounding-set=-all,+bpf,+net_admin,+net_raw,+perfmon",
		a.program, "--config", a.file(), "run"}, args...)...)
	service.Env = cmd.Env
	return service
}

// runs starts the agent and waits until it is ready.
func (a *agent) runs(args ...string) {
	a.t.Helper()
	a.starts(a.run(args...))
	a.waitsFor("READY", func() bool { return a.tells("READY=1") })
}

func (a *agent) starts(process *exec.Cmd) {
	a.t.Helper()
	socket := &net.UnixAddr{Name: filepath.Join(a.dir, "notify"), Net: "unixgram"}
	_ = os.Remove(socket.Name)
	conn, err := net.ListenUnixgram("unixgram", socket)
	if err != nil {
		a.t.Fatal(err)
	}
	a.forget()
	go func() {
		defer conn.Close()
		b := make([]byte, 4096)
		for {
			n, err := conn.Read(b)
			if err != nil {
				return
			}
			a.mu.Lock()
			a.told = append(a.told, string(b[:n]))
			a.mu.Unlock()
		}
	}()
	a.process, a.ended = process, make(chan error, 1)
	a.process.Stderr = a
	if err := a.process.Start(); err != nil {
		a.t.Fatal(err)
	}
	ended := a.ended
	go func() { ended <- process.Wait() }()
	a.t.Cleanup(func() {
		process.Process.Kill()
		conn.Close()
		if a.t.Failed() {
			a.t.Logf("the agent's log:\n%s", a.logged())
		}
	})
}

// tells whether systemd was told a line that begins so.
func (a *agent) tells(line string) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, message := range a.told {
		if strings.HasPrefix(message, line) || strings.Contains(message, "\n"+line) {
			return true
		}
	}
	return false
}

// says whether the last status line holds a text.
func (a *agent) says(text string) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	last := ""
	for _, message := range a.told {
		if strings.HasPrefix(message, "STATUS=") {
			last = message
		}
	}
	return strings.Contains(last, text)
}

// forget what systemd was told.
func (a *agent) forget() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.told = nil
}

func (a *agent) signals(signal unix.Signal) {
	a.t.Helper()
	if err := a.process.Process.Signal(signal); err != nil {
		a.t.Fatal(err)
	}
}

// ends sends a signal and waits for the end.
func (a *agent) ends(signal unix.Signal) error {
	a.t.Helper()
	a.signals(signal)
	select {
	case err := <-a.ended:
		return err
	case <-time.After(patience):
		a.t.Fatalf("the agent does not end")
		return nil
	}
}

func (a *agent) waitsFor(what string, condition func() bool) {
	a.t.Helper()
	for end := time.Now().Add(patience); !condition(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			a.mu.Lock()
			defer a.mu.Unlock()
			a.t.Fatalf("no %s; systemd was told %q", what, a.told)
		}
	}
}

// opens waits until a rule is in force, and closes until it is not.
func (a *agent) opens(rule string) {
	a.t.Helper()
	a.waitsFor(rule, func() bool { return a.open(rule) })
}

func (a *agent) closes(rule string) {
	a.t.Helper()
	a.waitsFor("end of "+rule, func() bool { return !a.open(rule) })
}

func (a *agent) open(rule string) bool {
	a.t.Helper()
	for _, r := range status(a.t, a.lab).Rules {
		if r.Rule == rule {
			return true
		}
	}
	return false
}

// filters tells whether an interface is there, and filtered.
func (a *agent) filters(iface string) bool {
	a.t.Helper()
	for _, i := range status(a.t, a.lab).Interfaces {
		if i.Name == iface {
			return i.Present
		}
	}
	return false
}

// prepared tells whether so many programs are ready for interfaces that are yet to appear.
func (a *agent) prepared(programs int) bool {
	a.t.Helper()
	ready, err := filepath.Glob(filepath.Join(a.lab.PinPath, "*/policy/preload_*"))
	if err != nil {
		a.t.Fatal(err)
	}
	return len(ready) == programs
}

func TestAgentEndsAndTheFilterStays(t *testing.T) {
	l := lab.New(t)
	l.Server.Echo(t, 7)
	l.Server.Echo(t, 9)
	l.Client.Echo(t, 8)
	a := newAgent(t, l, "interfaces: [eth0]\nopen: [9/tcp]\n")
	var programs []ebpf.ProgramID
	for _, signal := range []unix.Signal{unix.SIGTERM, unix.SIGKILL} {
		a.runs()
		running := programsOn(t, l, "eth0")
		if programs != nil && !slices.Equal(running, programs) {
			t.Errorf("an agent that finds the same policy loads programs: %v then %v", programs, running)
		}
		programs = running
		out := mustDial(t, l.Server, "tcp", lab.ClientV4, 8)
		in := mustDial(t, l.Client, "tcp", lab.ServerV4, 9)
		err := a.ends(signal)
		if signal == unix.SIGTERM && (err != nil || !a.tells("STOPPING=1")) {
			t.Errorf("the agent ends with %v", err)
		}
		mustTalk(t, out, "a flow")
		mustTalk(t, in, "an open port")
		mustTalk(t, mustDial(t, l.Client, "tcp", lab.ServerV4, 9), "a new connection to it")
		mustNotDial(t, l.Client, lab.ServerV4, 7)
	}
}

func TestSecondAgentIsRefused(t *testing.T) {
	l := lab.New(t)
	a := newAgent(t, l, "interfaces: [eth0]\n")
	a.runs()
	out, err := a.command("--config", a.file(), "run").CombinedOutput()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != 1 || !strings.Contains(string(out), fmt.Sprintf("process %d (", a.process.Process.Pid)) {
		t.Errorf("the second agent ends with %v: %s", err, out)
	}
	if !a.filters("eth0") {
		t.Error("the second agent has harmed the first one's filter")
	}
}

func TestAgentTellsSystemd(t *testing.T) {
	l := lab.New(t)
	a := newAgent(t, l, "interfaces: [eth0, wg0]\n")
	process := a.run()
	process.Env = append(process.Env, "WATCHDOG_USEC=200000")
	a.starts(process)
	for _, line := range []string{"READY=1", "WATCHDOG=1", "STATUS=filtering eth0; waiting for wg0"} {
		a.waitsFor(line, func() bool { return a.tells(line) })
	}
	a.forget()
	a.signals(unix.SIGHUP)
	for _, line := range []string{"RELOADING=1", "MONOTONIC_USEC=", "READY=1"} {
		a.waitsFor(line, func() bool { return a.tells(line) })
	}
	if err := a.ends(unix.SIGTERM); err != nil || !a.tells("STOPPING=1") {
		t.Errorf("the agent ends with %v", err)
	}
	if log := a.logged(); strings.Contains(log, "error") || strings.Contains(log, "not permitted") {
		t.Errorf("the agent complains, of its capabilities perhaps:\n%s", log)
	}
}
