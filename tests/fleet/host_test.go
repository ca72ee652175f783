// SPDX-License-Identifier: Apache-2.0

// Package fleet tests hosts of a fleet as they are: agents in network namespaces, each with the datapath, and a store.
package fleet

import (
	"bytes"
	"context"
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

	"golang.org/x/sys/unix"

	"github.com/portcullis-firewall/portcullis/firewall/fleet"
	"github.com/portcullis-firewall/portcullis/firewall/fleet/publish"
	"github.com/portcullis-firewall/portcullis/firewall/fleet/store"
	"github.com/portcullis-firewall/portcullis/loader"
	"github.com/portcullis-firewall/portcullis/policy"
	"github.com/portcullis-firewall/portcullis/tests/internal/lab"
)

// patience is how long a test waits for what has to happen: a machine may be busy.
const patience = 3 * time.Minute

// group is a group of hosts, and who publishes for it.
type group struct {
	t       *testing.T
	program string
	root    string // the folder of the store
	key     *fleet.PrivateKey
	keyFile string
	*publish.Fleet
}

func newGroup(t *testing.T) *group {
	t.Helper()
	lab.RequireRoot(t)
	key, err := fleet.GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	g := &group{t: t, program: lab.ProgramWithDaemon(t), root: t.TempDir(), key: key, keyFile: filepath.Join(t.TempDir(), "fleet.key")}
	if err := key.Save(g.keyFile); err != nil {
		t.Fatal(err)
	}
	g.Fleet = &publish.Fleet{Store: store.NewDir(g.root), Keys: []fleet.PublicKey{key.Public()}}
	return g
}

// source writes a policy file with settings, which may be "".
func (g *group) source(policyText, settings string) *publish.Source {
	g.t.Helper()
	dir := g.t.TempDir()
	file, settingsFile := filepath.Join(dir, "policy.yaml"), ""
	err := errors.Join(os.WriteFile(file, []byte(policyText), 0o644), os.WriteFile(filepath.Join(dir, "office.txt"), []byte("192.0.2.2\n"), 0o644))
	if settings != "" {
		settingsFile = filepath.Join(dir, "web.yaml")
		err = errors.Join(err, os.WriteFile(settingsFile, []byte(settings), 0o644))
	}
	if err != nil {
		g.t.Fatal(err)
	}
	s, err := publish.ReadSource(file, settingsFile)
	if err != nil {
		g.t.Fatal(err)
	}
	return s
}

// publishes makes a policy that of all hosts at once.
func (g *group) publishes(policyText, settings string) *publish.Report {
	g.t.Helper()
	r, err := g.Publish(g.t.Context(), g.source(policyText, settings), publish.Request{Group: "web", Key: g.key})
	if err != nil {
		g.t.Fatal(err)
	}
	return r
}

// host is an agent that takes part.
type host struct {
	t     *testing.T
	g     *group
	name  string
	at    *lab.Host
	pin   string
	dir   string // its policy file, and what it keeps
	agent *exec.Cmd
	ended chan struct{}
	mu    sync.Mutex
	log   bytes.Buffer
}

// joins makes a host at a place, whose fleet.yaml has more lines.
func (g *group) joins(name string, at *lab.Host, pin string, more ...string) *host {
	g.t.Helper()
	h := &host{t: g.t, g: g, name: name, at: at, pin: pin, dir: g.t.TempDir()}
	if err := os.Mkdir(filepath.Dir(h.file()), 0o755); err != nil {
		g.t.Fatal(err)
	}
	h.configures("dir:"+g.root, more...)
	h.g.t.Cleanup(func() {
		if g.t.Failed() {
			g.t.Logf("the log of %s:\n%s", name, h.logged())
		}
	})
	return h
}

func (h *host) file() string      { return filepath.Join(h.dir, "etc", "portcullis.yaml") }
func (h *host) fleetFile() string { return filepath.Join(h.dir, "fleet.yaml") }

func (h *host) configures(from string, more ...string) {
	h.t.Helper()
	text := fmt.Sprintf("from: %q\nkey: %s\ngroup: web\nname: %s\n%s", from, fleet.PublicPath(h.g.keyFile), h.name, strings.Join(more, "\n"))
	if err := os.WriteFile(h.fleetFile(), []byte(text), 0o644); err != nil {
		h.t.Fatal(err)
	}
}

// Write takes what the agent logs.
func (h *host) Write(text []byte) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.log.Write(text)
}

func (h *host) logged() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.log.String()
}

func (h *host) command(args ...string) *exec.Cmd {
	return h.within(h.at.Command(h.g.program, append([]string{"--config", h.file()}, args...)...))
}

func (h *host) within(cmd *exec.Cmd) *exec.Cmd {
	cmd.Env = append(os.Environ(), "PORTCULLIS_PIN_PATH="+h.pin, "STATE_DIRECTORY="+h.dir, "SSH_CONNECTION=", "NOTIFY_SOCKET=")
	return cmd
}

// types runs a command at the host, which has to succeed.
func (h *host) types(args ...string) string {
	h.t.Helper()
	out, err := h.command(args...).CombinedOutput()
	if err != nil {
		h.t.Fatalf("%s: portcullis %s: %v\n%s", h.name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

// starts starts the agent.
func (h *host) starts() {
	h.t.Helper()
	h.startsAs(h.command("run", "--fleet", h.fleetFile()))
}

// startsConfined starts the agent as a service that may not write the policy file.
func (h *host) startsConfined() {
	h.t.Helper()
	const confined = `mount --bind "$0" "$0" && mount -o remount,ro,bind "$0" && exec "$@"`
	h.startsAs(h.within(h.at.Command("unshare", "--mount", "--propagation", "private", "sh", "-c", confined, filepath.Dir(h.file()),
		h.g.program, "--config", h.file(), "run", "--fleet", h.fleetFile())))
}

func (h *host) startsAs(agent *exec.Cmd) {
	h.t.Helper()
	agent.Stderr = h
	if err := agent.Start(); err != nil {
		h.t.Fatal(err)
	}
	ended := make(chan struct{})
	h.agent, h.ended = agent, ended
	go func() {
		_ = agent.Wait()
		close(ended)
	}()
	h.t.Cleanup(func() {
		_ = agent.Process.Kill()
		<-ended
	})
}

// ends ends the agent by a signal.
func (h *host) ends(signal unix.Signal) {
	h.t.Helper()
	_ = h.agent.Process.Signal(signal)
	select {
	case <-h.ended:
	case <-time.After(patience):
		h.t.Fatalf("the agent of %s does not end", h.name)
	}
}

func (h *host) waitsFor(what string, condition func() bool) {
	h.t.Helper()
	for end := time.Now().Add(patience); !condition(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(end) {
			h.t.Fatalf("%s: no %s; it says %+v", h.name, what, h.says())
		}
	}
}

// says returns what the host says of itself.
func (h *host) says() fleet.Status {
	object, err := h.g.Store.Get(context.Background(), fleet.StatusKey(h.name))
	if err != nil {
		return fleet.Status{}
	}
	s, err := fleet.ParseStatus(h.name, object.Value)
	if err != nil {
		h.t.Fatal(err)
	}
	return *s
}

// runs waits until a bundle is in force.
func (h *host) runs(serial uint64) {
	h.t.Helper()
	h.waitsFor(fmt.Sprintf("bundle %d in force", serial), func() bool {
		s := h.says()
		return s.Serial == serial && s.State == fleet.StateInForce
	})
}

// complains waits until the host says why a bundle is not in force.
func (h *host) complains(state fleet.State, text string) {
	h.t.Helper()
	h.waitsFor(fmt.Sprintf("state %q with %q", state, text), func() bool {
		s := h.says()
		return s.State == state && strings.Contains(s.Problem, text)
	})
	h.waitsFor("line of the log with "+text, func() bool { return strings.Contains(h.logged(), text) })
}

// open returns the rules in force, or nil where nothing is.
func (h *host) open() (rules []string) {
	h.t.Helper()
	h.at.Do(h.t, func() error {
		f, err := loader.Open(context.Background(), h.pin)
		if errors.Is(err, loader.ErrNotRunning) {
			return nil
		}
		if err != nil {
			return err
		}
		defer f.Close()
		p, err := f.Policy()
		if err == nil {
			rules = append([]string{}, policy.Texts(p.Open)...)
			slices.Sort(rules)
		}
		return err
	})
	return rules
}

func (h *host) opens(rules ...string) {
	h.t.Helper()
	if got := h.open(); !slices.Equal(got, rules) {
		h.t.Errorf("%s opens %q, want %q", h.name, got, rules)
	}
}

// reaches reports whether a port of the lab's server answers the client.
func reaches(l *lab.Lab, port int) bool {
	return l.Client.Try(func() error {
		c, err := net.DialTimeout("tcp", fmt.Sprintf("%s:%d", lab.ServerV4, port), 500*time.Millisecond)
		if err == nil {
			c.Close()
		}
		return err
	}) == nil
}
