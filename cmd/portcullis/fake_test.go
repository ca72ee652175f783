// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/portcullis-firewall/portcullis/firewall/firewalltest"
	"github.com/portcullis-firewall/portcullis/loader"
	"github.com/portcullis-firewall/portcullis/policy"
)

// fakeHost is a fake firewall and the user at it.
type fakeHost struct {
	*firewalltest.Kernel
	t              *testing.T
	session        string
	runDir         string
	variables      map[string]string // of the environment
	stateDir       string            // of the last good policy
	privileges     error
	stdin          string // of the next command
	stdout, stderr string
	daemon         func(argv []string) error // becomes portcullisd
}

func newHost(t *testing.T) *fakeHost {
	return &fakeHost{Kernel: &firewalltest.Kernel{Route: "eth0"}, t: t, runDir: t.TempDir(), stateDir: t.TempDir(),
		daemon: func([]string) error { return errors.New("no other program is started here") }}
}

// env is that of a command at the host.
func (h *fakeHost) env() env {
	return env{
		stdin:      strings.NewReader(h.stdin),
		getenv:     func(name string) string { return h.variables[name] },
		kernel:     h.Kernel,
		privileged: func() error { return h.privileges },
		session:    func() string { return h.session },
		runDir:     h.runDir,
		stateDir:   h.stateDir,
		daemon:     h.daemon,
	}
}

// runs makes the fake filter eth0 with rules, by a policy file of that text, and returns the path of the file.
func (h *fakeHost) runs(text string) string {
	h.t.Helper()
	path := h.writes(text)
	p, err := policy.Load(path)
	if err != nil {
		h.t.Fatal(err)
	}
	p.Interfaces = []string{"eth0"}
	h.Running, h.File = p, path
	return path
}

func (h *fakeHost) writes(text string) string {
	h.t.Helper()
	path := filepath.Join(h.t.TempDir(), "portcullis.yaml")
	if strings.TrimSpace(text) == "" {
		text = "{}\n" // all defaults
	}
	if err := os.WriteFile(path, []byte(text), 0o640); err != nil {
		h.t.Fatal(err)
	}
	return path
}

// anyCode stands for the exit code of a command that looks at the machine of the test.
const anyCode = -1

// types runs a command line and checks how it exits.
func (h *fakeHost) types(code int, args ...string) {
	h.t.Helper()
	var stdout, stderr bytes.Buffer
	e := h.env()
	e.stdout, e.stderr = &stdout, &stderr
	got := run(e, args)
	h.stdout, h.stderr = stdout.String(), stderr.String()
	if got != code && code != anyCode {
		h.t.Fatalf("%q exits with %d, want %d\nstdout: %s\nstderr: %s", args, got, code, h.stdout, h.stderr)
	}
	for line := range strings.Lines(h.stderr) {
		if !strings.HasPrefix(line, "portcullis: ") {
			h.t.Errorf("%q prints %q on stderr, want the prefix of the program", args, line)
		}
	}
	if code == 0 && slices.Contains(args, "json") {
		h.json(new(any))
	}
}

// json reads what the last command printed; it must hold no null.
func (h *fakeHost) json(into any) {
	h.t.Helper()
	if err := json.Unmarshal([]byte(h.stdout), into); err != nil {
		h.t.Fatalf("stdout is not JSON: %v\n%s", err, h.stdout)
	}
	if strings.Contains(h.stdout, "null") {
		h.t.Errorf("there is a null in the JSON:\n%s", h.stdout)
	}
}

func (h *fakeHost) says(stdout ...string) {
	h.t.Helper()
	for _, want := range stdout {
		if !strings.Contains(h.stdout, want) {
			h.t.Errorf("stdout does not hold %q:\n%s", want, h.stdout)
		}
	}
}

func (h *fakeHost) complains(stderr ...string) {
	h.t.Helper()
	for _, want := range stderr {
		if !strings.Contains(h.stderr, want) {
			h.t.Errorf("stderr does not hold %q:\n%s", want, h.stderr)
		}
	}
}

func (h *fakeHost) holds(path, text string) {
	h.t.Helper()
	got, err := os.ReadFile(path)
	if err != nil {
		h.t.Fatal(err)
	}
	if string(got) != text {
		h.t.Errorf("%s holds\n%s\nwant\n%s", path, got, text)
	}
}

func (h *fakeHost) opens(rules ...string) {
	h.t.Helper()
	if got := policy.Texts(h.Running.Open); !slices.Equal(got, rules) {
		h.t.Errorf("open are %q, want %q", got, rules)
	}
}

func flow(protocol, local, remote string, answered bool) loader.Flow {
	return loader.Flow{
		Protocol: protocol,
		Local:    netip.MustParseAddrPort(local),
		Remote:   netip.MustParseAddrPort(remote),
		State:    protocol,
		Answered: answered,
		Assured:  answered,
		Age:      90 * time.Second,
		Expires:  5 * 24 * time.Hour,
	}
}
