// SPDX-License-Identifier: Apache-2.0

// Package lab makes hosts for tests: network namespaces joined by a veth pair, or by two interfaces of this machine,
// with addresses from the documentation prefixes.
package lab

import (
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/portcullis-firewall/portcullis/firewall/schedule"
)

// Addresses of the two hosts.
var (
	ServerV4 = netip.MustParseAddr("192.0.2.1")
	ClientV4 = netip.MustParseAddr("192.0.2.2")
	ServerV6 = netip.MustParseAddr("2001:db8::1")
	ClientV6 = netip.MustParseAddr("2001:db8::2")
)

// Lab is a server that is to be protected and a client outside, each with an interface eth0.
type Lab struct {
	Server, Client *Host
	PinPath        string // of this lab alone
}

// Addresses behind the server, on its interface eth1 and of the inside host.
var (
	RouterV4 = netip.MustParseAddr("198.51.100.1")
	InsideV4 = netip.MustParseAddr("198.51.100.2")
	RouterV6 = netip.MustParseAddr("2001:db8:1::1")
	InsideV6 = netip.MustParseAddr("2001:db8:1::2")
)

// AddInside makes the server a router for a third host, which stands behind its interface eth1.
func (l *Lab) AddInside(t testing.TB) *Host {
	t.Helper()
	inside := &Host{strings.TrimSuffix(l.Server.Name, "server") + "inside"}
	run(t, "ip", "netns", "add", inside.Name)
	t.Cleanup(func() { exec.Command("ip", "netns", "del", inside.Name).Run() })
	l.Server.IP(t, "link", "add", "name", "eth1", "type", "veth", "peer", "name", "eth0", "netns", inside.Name)
	l.Server.setUp(t, "eth1", RouterV4, RouterV6)
	inside.setUp(t, "eth0", InsideV4, InsideV6)
	inside.IP(t, "route", "add", "default", "via", RouterV4.String())
	inside.IP(t, "route", "add", "default", "via", RouterV6.String())
	l.Client.IP(t, "route", "add", "198.51.100.0/24", "via", ServerV4.String())
	l.Client.IP(t, "route", "add", "2001:db8:1::/64", "via", ServerV6.String())
	l.Server.Sysctl(t, "ipv4/conf/all/forwarding", "1")
	l.Server.Sysctl(t, "ipv6/conf/all/forwarding", "1")
	return inside
}

// The main thread does not die with a goroutine. One that has entered a namespace there would keep that alive, so it is
// kept for the main goroutine.
func init() { runtime.LockOSThread() }

// Host is one network namespace.
type Host struct {
	Name string // of the namespace, below /run/netns
}

var count atomic.Int32

// RequireRoot skips the test without root.
func RequireRoot(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root, to make network namespaces and load programs")
	}
}

// New makes a lab that lasts as long as the test.
func New(t testing.TB) *Lab {
	t.Helper()
	RequireRoot(t)
	id := fmt.Sprintf("pc%d-%d", os.Getpid(), count.Add(1))
	l := &Lab{
		Server:  &Host{id + "-server"},
		Client:  &Host{id + "-client"},
		PinPath: "/sys/fs/bpf/" + id,
	}
	t.Cleanup(func() {
		os.RemoveAll(l.PinPath)
		os.Remove(filepath.Join(l.State(), "record.json")) // which ends a watchdog
		os.RemoveAll(l.State())
	})
	for _, h := range []*Host{l.Server, l.Client} {
		run(t, "ip", "netns", "add", h.Name)
		t.Cleanup(func() { exec.Command("ip", "netns", "del", h.Name).Run() })
	}
	l.join(t)
	l.Server.setUp(t, "eth0", ServerV4, ServerV6)
	l.Client.setUp(t, "eth0", ClientV4, ClientV6)
	return l
}

// State is the directory of what will happen by itself in the lab.
func (l *Lab) State() string { return filepath.Join(schedule.Dir, url.PathEscape(l.PinPath)) }

func (h *Host) setUp(t testing.TB, dev string, v4, v6 netip.Addr) {
	t.Helper()
	h.IP(t, "link", "set", "lo", "up")
	h.IP(t, "link", "set", dev, "up")
	h.IP(t, "addr", "add", v4.String()+"/24", "dev", dev)
	h.IP(t, "addr", "add", v6.String()+"/64", "dev", dev, "nodad")
}

// IP runs ip in the host.
func (h *Host) IP(t testing.TB, args ...string) string {
	t.Helper()
	return run(t, "ip", append([]string{"-n", h.Name}, args...)...)
}

// Command prepares a command in the host. The mount namespace stays, and with it the bpf filesystem.
func (h *Host) Command(name string, args ...string) *exec.Cmd {
	return exec.Command("nsenter", append([]string{"--net=" + h.path(), name}, args...)...)
}

// Run runs a command in the host and returns what it printed. A command that fails ends the test.
func (h *Host) Run(t testing.TB, name string, args ...string) string {
	t.Helper()
	out, err := h.Command(name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

func (h *Host) path() string { return filepath.Join("/run/netns", h.Name) }

// Do runs work inside the host. Sockets that it makes stay there. The thread is not used again.
func (h *Host) Do(t testing.TB, work func() error) {
	t.Helper()
	if err := h.Try(work); err != nil {
		t.Fatal(err)
	}
}

// Try is Do that returns the error.
func (h *Host) Try(work func() error) error {
	done := make(chan error, 2)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread dies with the goroutine
		// Whoever ends the test in here ends this goroutine alone. Where there is a result, nobody reads this one.
		defer func() { done <- errors.New("the work was ended: Fatal and Skip belong outside") }()
		fd, err := unix.Open(h.path(), unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			done <- err
			return
		}
		defer unix.Close(fd)
		if err := unix.Setns(fd, unix.CLONE_NEWNET); err != nil {
			done <- err
			return
		}
		done <- work()
	}()
	return <-done
}

// Sysctl sets a value below /proc/sys/net in the host.
func (h *Host) Sysctl(t testing.TB, key, value string) {
	t.Helper()
	h.Do(t, func() error {
		return os.WriteFile("/proc/sys/net/"+key, []byte(value), 0)
	})
}

func run(t testing.TB, name string, args ...string) string {
	t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

// AddHost makes one more host, with nothing but a loopback.
func (l *Lab) AddHost(t testing.TB, name string) *Host {
	t.Helper()
	h := &Host{strings.TrimSuffix(l.Server.Name, "server") + name}
	run(t, "ip", "netns", "add", h.Name)
	t.Cleanup(func() { exec.Command("ip", "netns", "del", h.Name).Run() })
	h.IP(t, "link", "set", "lo", "up")
	return h
}

// Emulated reports whether this machine's processor is emulated, so that what it takes a time for says little.
func Emulated() bool {
	text, err := os.ReadFile("/proc/cpuinfo")
	return err == nil && strings.Contains(string(text), "QEMU TCG CPU")
}
