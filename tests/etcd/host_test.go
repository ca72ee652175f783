// SPDX-License-Identifier: Apache-2.0

package etcd_test

import (
	"bytes"
	"encoding/json"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/portcullis-firewall/portcullis/firewall/fleet"
	"github.com/portcullis-firewall/portcullis/tests/internal/etcdcluster"
	"github.com/portcullis-firewall/portcullis/tests/internal/lab"
)

// lines is what a program says.
type lines struct {
	mu   sync.Mutex
	text bytes.Buffer
}

// Write implements [io.Writer].
func (l *lines) Write(text []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(text)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// A host with the datapath, in a cluster that holds everybody to the roles: published by the command, in force, back on a
// member that is left, and with a policy under which no probe succeeds gone again.
func TestRealHost(t *testing.T) {
	c := etcdcluster.Start(t, 3)
	roles(t, c, "publisher", "ops")
	roles(t, c, "host", "web", "h1")
	roles(t, c, "enable")
	l := lab.New(t)
	c.Join(t, l.Server.Name, "etcd0", 101)
	l.Server.Echo(t, 8080)
	l.Client.Echo(t, 7777)

	program, dir := lab.ProgramWithDaemon(t), t.TempDir()
	key, policy, settings := filepath.Join(dir, "fleet.key"), filepath.Join(dir, "policy.yaml"), filepath.Join(dir, "web.yaml")
	write := func(path, text string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(settings, "probes: ['connect 192.0.2.2:7777']\nwithin: 4s\n")
	ops := c.User(t, "ops")
	run := func(args ...string) (string, error) {
		out, err := exec.Command(program, append(args, "--ca", ops.CA, "--certificate", ops.Certificate, "--private", ops.Key)...).CombinedOutput()
		return string(out), err
	}
	publish := func(text string, more ...string) (string, error) {
		write(policy, text)
		return run(append([]string{"fleet", "publish", "--to", c.URL(), "--key", key, "--group", "web", "--settings", settings, "--yes", policy}, more...)...)
	}
	if out, err := exec.Command(program, "fleet", "keygen", "--out", key).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if out, err := publish("interfaces: [eth0]\nopen: [8080/tcp]\n", "--waves", "none"); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}

	own := c.User(t, "h1")
	write(filepath.Join(dir, "fleet.yaml"), "from: "+c.URL()+"\nkey: fleet.pub\ngroup: web\nname: h1\nca: "+own.CA+"\ncertificate: "+own.Certificate+"\nprivate: "+own.Key+"\n")
	agent := l.Server.Command(program, "--config", filepath.Join(dir, "portcullis.yaml"), "run", "--fleet", filepath.Join(dir, "fleet.yaml"))
	agent.Env = append(os.Environ(), "PORTCULLIS_PIN_PATH="+l.PinPath, "STATE_DIRECTORY="+dir, "SSH_CONNECTION=", "NOTIFY_SOCKET=")
	said := &lines{}
	agent.Stderr = said
	if err := agent.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = agent.Process.Signal(unix.SIGKILL)
		_ = agent.Wait()
		if t.Failed() {
			t.Logf("the agent said:\n%s", said)
		}
	})
	store := etcdcluster.Open(t, c.URL(), ops)
	status := func() (s fleet.Status) {
		if object, err := store.Get(t.Context(), fleet.StatusKey("h1")); err == nil {
			if err := json.Unmarshal(object.Value, &s); err != nil {
				t.Fatal(err)
			}
		}
		return s
	}
	until := func(what string, condition func(fleet.Status) bool) {
		t.Helper()
		for deadline := time.Now().Add(2 * time.Minute); !condition(status()); time.Sleep(50 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("not %s: %+v", what, status())
			}
		}
	}
	inForce := func(serial uint64) func(fleet.Status) bool {
		return func(s fleet.Status) bool { return s.Serial == serial && s.State == fleet.StateInForce }
	}
	reaches := func(port string) bool {
		return l.Client.Try(func() error {
			conn, err := net.DialTimeout("tcp", net.JoinHostPort(lab.ServerV4.String(), port), time.Second)
			if err == nil {
				conn.Close()
			}
			return err
		}) == nil
	}
	until("in force", inForce(1))
	if !reaches("8080") {
		t.Error("the policy is in force, and its port is closed")
	}
	if _, err := store.Get(t.Context(), fleet.PresenceKey("h1")); err != nil {
		t.Errorf("the host is not present: %v", err)
	}

	// Published in waves while a member is away, and followed by the command.
	c.Members[0].Kill()
	if out, err := publish("interfaces: [eth0]\nopen: [8080/tcp, 9090/tcp]\n"); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	until("in force while a member is away", inForce(2))
	out, err := publish("interfaces: [eth0]\nopen: [9090/tcp]\nblock: [192.0.2.2]\n")
	if err == nil || !strings.Contains(out, "h1") {
		t.Errorf("a policy that cuts the probe off: %v\n%s", err, out)
	}
	until("reverted", func(s fleet.Status) bool { return s.State == fleet.StateReverted && s.Serial == 2 && s.Tried == 3 })
	if !reaches("8080") {
		t.Error("the host is lost")
	}
	if out, err := run("fleet", "status", "--from", c.URL(), "--key", fleet.PublicPath(key)); err != nil || !strings.Contains(out, "h1") || !strings.Contains(out, "reverted") {
		t.Errorf("the status is %v\n%s", err, out)
	}
}
