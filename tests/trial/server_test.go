// SPDX-License-Identifier: Apache-2.0

package trial

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/portcullis-firewall/portcullis/firewall"
	"github.com/portcullis-firewall/portcullis/firewall/schedule"
	"github.com/portcullis-firewall/portcullis/loader"
	"github.com/portcullis-firewall/portcullis/tests/internal/lab"
)

// patience is how long a test waits for what has to happen, after the time at which it should.
const patience = 30 * time.Second

// server is the host that is filtered, with files for it and a client.
type server struct {
	*lab.Lab
	t       *testing.T
	program string
	dir     string
}

func newServer(t *testing.T) *server {
	s := &server{lab.New(t), t, lab.Program(t), t.TempDir()}
	for _, port := range []int{7, 9, 10} {
		s.Server.Echo(s.t, port)
	}
	s.write("old.yaml", "interfaces: [eth0]\nopen: [7/tcp, 9/tcp]\n")
	s.write("new.yaml", "interfaces: [eth0]\nicmp: drop\nopen: [10/tcp, 7/tcp]\n")
	return s
}

func (s *server) path(name string) string { return filepath.Join(s.dir, name) }

func (s *server) write(name, text string) {
	s.t.Helper()
	if err := os.WriteFile(s.path(name), []byte(text), 0o644); err != nil {
		s.t.Fatal(err)
	}
}

// command is one at the server, as if nobody had come over ssh.
func (s *server) command(args ...string) *exec.Cmd {
	return s.prepare(s.Server.Command(s.program, args...))
}

func (s *server) prepare(cmd *exec.Cmd) *exec.Cmd {
	cmd.Dir = s.dir
	cmd.Env = append(os.Environ(), loader.PinPathVariable+"="+s.PinPath, "SSH_CONNECTION=")
	return cmd
}

// alone is a command without a parent that it could see, as a login at the machine has none that came from outside.
func (s *server) alone(args ...string) *exec.Cmd {
	return s.prepare(s.Server.Command("unshare", append([]string{"--pid", "--fork", "--kill-child", "--mount-proc", s.program}, args...)...))
}

// onTerminal runs a command alone on a pseudo terminal.
func (s *server) onTerminal(args ...string) (string, error) {
	s.t.Helper()
	master, tty := terminal(s.t)
	cmd := s.alone(args...)
	lead(cmd, tty)
	var out bytes.Buffer
	read := make(chan struct{})
	go func() {
		io.Copy(&out, master)
		close(read)
	}()
	err := cmd.Run()
	tty.Close()
	<-read
	return out.String(), err
}

// terminal opens a pseudo terminal: master is the end of who made it, tty that of the programs on it.
func terminal(t *testing.T) (master, tty *os.File) {
	t.Helper()
	fd, err := unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	master = os.NewFile(uintptr(fd), "/dev/ptmx")
	t.Cleanup(func() { master.Close() })
	if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	number, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	if tty, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|unix.O_NOCTTY, 0); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { tty.Close() })
	return master, tty
}

// lead makes a command the leader of a session on a terminal.
func lead(cmd *exec.Cmd, tty *os.File) {
	cmd.Stdin, cmd.Stdout, cmd.Stderr = tty, tty, tty
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
}

func (s *server) run(args ...string) string {
	s.t.Helper()
	out, err := s.command(args...).CombinedOutput()
	if err != nil {
		s.t.Fatalf("portcullis %q: %v\n%s", args, err, out)
	}
	return string(out)
}

// refuses runs what has to fail, and say why.
func (s *server) refuses(why string, args ...string) {
	s.t.Helper()
	out, err := s.command(args...).CombinedOutput()
	if err == nil || !strings.Contains(string(out), why) {
		s.t.Fatalf("portcullis %q: want a refusal with %q, got %v\n%s", args, why, err, out)
	}
}

// store is where the server keeps what is to happen.
func (s *server) store() schedule.Store { return schedule.NewStore(schedule.Dir, s.PinPath) }

// schedule reads what is to happen, and leaves it at that: a command would do what is overdue.
func (s *server) schedule() (d *schedule.Schedule) {
	s.t.Helper()
	s.Server.Do(s.t, func() (err error) {
		d, err = s.store().Read()
		return err
	})
	return d
}

// makeDue lets the time of a trial, or of rules, be up now.
func (s *server) makeDue(rules ...string) {
	s.t.Helper()
	s.Server.Do(s.t, func() error {
		unlock, err := s.store().Lock(context.Background())
		if err != nil {
			return err
		}
		defer unlock()
		d, err := s.store().Read()
		if err != nil {
			return err
		}
		if len(rules) == 0 {
			d.Trial.Due = schedule.Now()
		}
		for i := range d.Timed {
			if slices.Contains(rules, d.Timed[i].Rule.String()) {
				d.Timed[i].Due = schedule.Now()
			}
		}
		return s.store().Save(d)
	})
}

// awaitNothing waits until nothing is to happen any more, and nobody waits for it.
func (s *server) awaitNothing() {
	s.t.Helper()
	s.await(func(d *schedule.Schedule) bool { return d.Trial == nil && len(d.Timed) == 0 && len(s.watchdogs()) == 0 })
}

func (s *server) await(so func(*schedule.Schedule) bool) {
	s.t.Helper()
	for end := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		d := s.schedule()
		if so(d) {
			return
		}
		if time.Now().After(end) {
			s.t.Fatalf("still to happen: %+v, by the watchdogs %v", d, s.watchdogs())
		}
	}
}

// watchdogs lists the processes that wait for what is to happen at this server.
func (s *server) watchdogs() (pids []int) {
	files, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, file := range files {
		text, _ := os.ReadFile(file)
		args := strings.Split(string(text), "\x00")
		if slices.Contains(args, firewall.WatchdogCommand) && slices.Contains(args, s.PinPath) {
			pid, _ := strconv.Atoi(strings.Split(file, "/")[2])
			pids = append(pids, pid)
		}
	}
	return pids
}

// killWatchdog kills the watchdog, of which there is one.
func (s *server) killWatchdog() {
	s.t.Helper()
	pids := s.watchdogs()
	if len(pids) != 1 {
		s.t.Fatalf("the watchdogs are %v, want one", pids)
	}
	if err := unix.Kill(pids[0], unix.SIGKILL); err != nil {
		s.t.Fatal(err)
	}
	// Its files are closed, and its lock is gone, when the last of its threads is a zombie at the latest.
	for {
		process := fmt.Sprintf("/proc/%d", pids[0])
		threads, _ := os.ReadDir(process + "/task")
		stat, err := os.ReadFile(process + "/stat")
		if err != nil || len(threads) < 2 && strings.Contains(string(stat), ") Z ") {
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func (s *server) dial(port int, timeout time.Duration) (c net.Conn, err error) {
	err = s.Client.Try(func() (err error) {
		c, err = net.DialTimeout("tcp", fmt.Sprintf("%s:%d", lab.ServerV4, port), timeout)
		return err
	})
	return c, err
}

func (s *server) opens(port int) net.Conn {
	s.t.Helper()
	c, err := s.dial(port, 3*time.Second)
	if err != nil {
		s.t.Fatalf("port %d: %v", port, err)
	}
	s.t.Cleanup(func() { c.Close() })
	return c
}

func (s *server) closed(port int) {
	s.t.Helper()
	if c, err := s.dial(port, 400*time.Millisecond); err == nil {
		c.Close()
		s.t.Fatalf("port %d is open", port)
	}
}

// lives tells that a connection goes on.
func (s *server) lives(c net.Conn) {
	s.t.Helper()
	c.SetDeadline(time.Now().Add(3 * time.Second))
	_, err := c.Write([]byte("x"))
	if err == nil {
		_, err = io.ReadFull(c, make([]byte, 1))
	}
	if err != nil {
		s.t.Fatalf("the connection to %s: %v", c.RemoteAddr(), err)
	}
}

// ready makes the server run the old policy, with all that there can be, and a live connection.
func (s *server) ready() (before state, live net.Conn) {
	s.t.Helper()
	s.Server.IP(s.t, "link", "add", "eth1", "type", "veth", "peer", "name", "eth2")
	s.Server.IP(s.t, "link", "set", "eth1", "up")
	s.run("up", "--config", "old.yaml")
	s.run("open", "1000-2000/udp from 192.0.2.0/24", "--runtime")
	for range 3 {
		s.opens(9)
	}
	live = s.opens(9)
	s.lives(live)
	s.closed(10)
	before = s.status()
	if before.packets["9/tcp"] < 4 {
		s.t.Fatalf("packets by rule: %v", before.packets)
	}
	return before, live
}

// onTrial tells that the new policy is in force.
func (s *server) onTrial() {
	s.t.Helper()
	s.opens(10)
	s.closed(9)
}
