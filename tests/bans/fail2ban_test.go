// SPDX-License-Identifier: Apache-2.0

// Package bans tests bans by other programs: Debian's fail2ban and CrowdSec, as they are.
package bans

import (
	"encoding/json"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/portcullis-firewall/portcullis/tests/internal/lab"
)

const patience = 30 * time.Second

// server is a host with a filter and an open port, at which a program bans.
type server struct {
	*lab.Lab
	t       *testing.T
	program string
	dir     string
}

func newServer(t *testing.T) *server {
	lab.RequireRoot(t)
	s := &server{Lab: lab.New(t), t: t, program: lab.Program(t), dir: t.TempDir()}
	// Its journal is not to be this machine's.
	s.must(os.MkdirAll(s.State(), 0o700))
	s.must(os.WriteFile(filepath.Join(s.State(), "state-directory"), []byte(filepath.Join(s.dir, "state")+"\n"), 0o600))
	s.write("policy.yaml", "interfaces: [eth0]\nopen: [2222/tcp]\n")
	s.Server.Echo(t, 2222)
	s.portcullis("up", "--mode", "tc", "--force", "--config", s.path("policy.yaml"))
	return s
}

func (s *server) must(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
}

func (s *server) path(name string) string { return filepath.Join(s.dir, name) }

func (s *server) write(name, text string) {
	s.t.Helper()
	s.must(os.MkdirAll(filepath.Dir(s.path(name)), 0o755))
	s.must(os.WriteFile(s.path(name), []byte(text), 0o644))
}

// command runs a program at the server, for which portcullis is the one that is tested, and its filter the server's.
func (s *server) command(name string, args ...string) *exec.Cmd {
	cmd := s.Server.Command(name, args...)
	cmd.Env = append(os.Environ(), "PORTCULLIS_PIN_PATH="+s.PinPath, "PATH="+filepath.Dir(s.program)+":"+os.Getenv("PATH"), "SSH_CONNECTION=")
	return cmd
}

func (s *server) portcullis(args ...string) string {
	s.t.Helper()
	cmd := s.command(s.program, args...)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		s.t.Fatalf("portcullis %q: %v\n%s%s", args, err, out, stderr.String())
	}
	return string(out)
}

// bans returns the bans in force: the address and the reason of each.
func (s *server) bans() map[string]string {
	s.t.Helper()
	var list struct {
		Bans []struct {
			Address, Reason string
			Left            *int `json:"left_seconds"`
		}
	}
	s.must(json.Unmarshal([]byte(s.portcullis("bans", "-o", "json")), &list))
	out := make(map[string]string)
	for _, b := range list.Bans {
		out[b.Address] = b.Reason
		if b.Left == nil {
			out[b.Address] += ", for ever"
		}
	}
	return out
}

// await waits until the bans are these: address, reason and so on.
func (s *server) await(want ...string) {
	s.t.Helper()
	wanted := make(map[string]string)
	for i := 0; i < len(want); i += 2 {
		wanted[want[i]] = want[i+1]
	}
	for end := time.Now().Add(patience); ; time.Sleep(50 * time.Millisecond) {
		have := s.bans()
		if fmt.Sprint(have) == fmt.Sprint(wanted) {
			return
		}
		if time.Now().After(end) {
			s.t.Fatalf("banned are %v, want %v", have, wanted)
		}
	}
}

func (s *server) dial(timeout time.Duration) (c net.Conn, err error) {
	err = s.Client.Try(func() (err error) {
		c, err = net.DialTimeout("tcp", netip.AddrPortFrom(lab.ServerV4, 2222).String(), timeout)
		return err
	})
	return c, err
}

func (s *server) opens() net.Conn {
	s.t.Helper()
	c, err := s.dial(5 * time.Second)
	s.must(err)
	s.t.Cleanup(func() { c.Close() })
	s.must(talks(c, 5*time.Second))
	return c
}

func talks(c net.Conn, timeout time.Duration) error {
	c.SetDeadline(time.Now().Add(timeout))
	if _, err := c.Write([]byte("x")); err != nil {
		return err
	}
	_, err := c.Read(make([]byte, 1))
	return err
}

func (s *server) isShutOut(open net.Conn) {
	s.t.Helper()
	if talks(open, 300*time.Millisecond) == nil {
		s.t.Error("the connection that was open goes on")
	}
	if c, err := s.dial(300 * time.Millisecond); err == nil {
		c.Close()
		s.t.Error("there is another connection")
	}
}

func TestFail2ban(t *testing.T) {
	lab.NeedProgram(t, "fail2ban-server")
	s := newServer(t)
	action, err := os.ReadFile("../../packaging/fail2ban/portcullis.conf")
	s.must(err)
	s.write("fail2ban/action.d/portcullis.conf", string(action))
	s.write("fail2ban/filter.d/app.conf", "[Definition]\nfailregex = failed login from <HOST>$\n")
	s.write("fail2ban/jail.conf", fmt.Sprintf(`[DEFAULT]
backend = polling
usedns = no
findtime = 10m
maxretry = 3
bantime = 1h
logpath = %s
filter = app
action = portcullis
ignoreself = false

[app]
enabled = true

[strict]
enabled = true
maxretry = 1
bantime = -1
logpath = %s
`, s.path("app.log"), s.path("strict.log")))
	s.write("fail2ban/fail2ban.conf", fmt.Sprintf(`[Definition]
loglevel = INFO
logtarget = %s
syslogsocket = auto
socket = %s
pidfile = %s
dbfile = %s
dbpurgeage = 1d
dbmaxmatches = 10
`, s.path("fail2ban.log"), s.path("socket"), s.path("pid"), s.path("db")))
	s.write("app.log", "")
	s.write("strict.log", "")
	t.Cleanup(func() {
		if t.Failed() {
			text, _ := os.ReadFile(s.path("fail2ban.log"))
			t.Logf("fail2ban says\n%s", text)
		}
	})
	client := func(args ...string) {
		t.Helper()
		out, err := s.command("fail2ban-client", append([]string{"-c", s.path("fail2ban"), "-s", s.path("socket")}, args...)...).CombinedOutput()
		if err != nil {
			t.Fatalf("fail2ban-client %q: %v\n%s", args, err, out)
		}
	}
	start := func() (stop func()) {
		t.Helper()
		cmd := s.command("fail2ban-server", "-c", s.path("fail2ban"), "-s", s.path("socket"), "-p", s.path("pid"), "-f", "start")
		s.must(cmd.Start())
		done := make(chan error, 1)
		go func() { done <- cmd.Wait() }()
		stopped := false
		stop = func() {
			if stopped {
				return
			}
			stopped = true
			cmd.Process.Signal(os.Interrupt)
			select {
			case <-done:
			case <-time.After(patience):
				cmd.Process.Kill()
				<-done
			}
		}
		t.Cleanup(stop)
		for end := time.Now().Add(patience); ; time.Sleep(100 * time.Millisecond) {
			if s.command("fail2ban-client", "-c", s.path("fail2ban"), "-s", s.path("socket"), "status", "app").Run() == nil {
				return stop
			}
			if time.Now().After(end) {
				t.Fatal("fail2ban does not start")
			}
		}
	}
	fails := func(file string, address string) {
		t.Helper()
		f, err := os.OpenFile(s.path(file), os.O_APPEND|os.O_WRONLY, 0)
		s.must(err)
		defer f.Close()
		fmt.Fprintf(f, "%s failed login from %s\n", time.Now().Format("2006-01-02 15:04:05"), address)
	}

	stop := start()
	peer, own := lab.ClientV4.String(), "198.51.100.77"
	s.portcullis("ban", own, "--reason", "by hand")
	open := s.opens()
	for range 3 {
		s.must(talks(open, 5*time.Second))
		fails("app.log", peer)
	}
	s.await(own, "by hand, for ever", peer, "app")
	s.isShutOut(open)
	fails("strict.log", "2001:db8:77::7")
	s.await(own, "by hand, for ever", peer, "app", "2001:db8:77::7", "strict, for ever")

	// The filter is taken off and comes again.
	s.portcullis("down")
	s.portcullis("up", "--mode", "tc", "--force", "--config", s.path("policy.yaml"))
	s.await(own, "by hand, for ever", peer, "app", "2001:db8:77::7", "strict, for ever")
	s.isShutOut(open)

	// fail2ban takes its bans along, and brings them again.
	stop()
	s.await(own, "by hand, for ever")
	s.opens()
	start()
	s.await(own, "by hand, for ever", peer, "app", "2001:db8:77::7", "strict, for ever")
	s.isShutOut(open)

	// No jail ends another one's ban.
	s.portcullis("ban", peer, "--reason", "by hand")
	client("set", "app", "unbanip", peer)
	client("set", "strict", "unbanip", "2001:db8:77::7")
	s.await(own, "by hand, for ever", peer, "by hand, for ever")
	s.portcullis("unban", peer)
	s.opens()
	for range 3 {
		fails("app.log", peer)
	}
	s.await(own, "by hand, for ever", peer, "app")
	client("set", "app", "unbanip", peer)
	s.await(own, "by hand, for ever")
	s.opens()
}
