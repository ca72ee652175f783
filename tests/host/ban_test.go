// SPDX-License-Identifier: Apache-2.0

package host

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/portcullis-firewall/portcullis/firewall"
	"github.com/portcullis-firewall/portcullis/firewall/bans"
	"github.com/portcullis-firewall/portcullis/host"
	"github.com/portcullis-firewall/portcullis/loader"
	"github.com/portcullis-firewall/portcullis/maps"
	"github.com/portcullis-firewall/portcullis/tests/internal/lab"
)

// banner is the firewall of a lab, with a state directory of its own.
func banner(t testing.TB, l *lab.Lab) *firewall.Firewall {
	return firewall.New(firewall.Options{PinPath: l.PinPath, StateDir: t.TempDir(), Session: func() string { return "" }})
}

func banAddress(t testing.TB, l *lab.Lab, fw *firewall.Firewall, lines ...bans.Line) (report *firewall.BanReport) {
	t.Helper()
	l.Server.Do(t, func() (err error) {
		report, err = fw.Ban(context.Background(), firewall.BanRequest{Bans: lines})
		return err
	})
	return report
}

func unbanAll(t testing.TB, l *lab.Lab, fw *firewall.Firewall) {
	t.Helper()
	l.Server.Do(t, func() error {
		_, err := fw.Unban(context.Background(), firewall.UnbanRequest{All: true})
		return err
	})
}

func oneAddress(addr netip.Addr) bans.Line {
	return bans.Line{Prefix: netip.PrefixFrom(addr, addr.BitLen()), Reason: "test"}
}

// sockets returns how many TCP sockets a host has that talk to an address.
func sockets(t testing.TB, h *lab.Host, remote netip.Addr) (n int) {
	t.Helper()
	h.Do(t, func() error {
		return host.EachSocket(unix.IPPROTO_TCP, func(k *host.Socket) {
			if k.Remote.Addr() == remote && k.State != netlink.TCP_TIME_WAIT {
				n++
			}
		})
	})
	return n
}

// A ban ends everything with its source: connections that came in by an open port, those that this host has made, and what
// begins anew; an unban lets it begin again.
func TestBanCutsConnections(t *testing.T) {
	eachMode(t, func(t *testing.T, l *lab.Lab, mode loader.Mode) {
		fw := banner(t, l)
		l.Server.Echo(t, 7)
		l.Client.Echo(t, 9)
		up(t, l, mode, policyOf(t, "7/tcp", "7/udp"))
		for _, f := range families {
			for _, line := range []bans.Line{oneAddress(f.client), {Prefix: netip.PrefixFrom(f.client, f.client.BitLen()-4).Masked()}} {
				in := mustDial(t, l.Client, "tcp", f.server, 7)
				out := mustDial(t, l.Server, "tcp", f.client, 9)
				mustTalk(t, in, "in")
				mustTalk(t, out, "out")
				report := banAddress(t, l, fw, line)
				if line.Prefix.Contains(f.server) {
					if len(report.Refused) != 1 || report.Banned != 0 {
						t.Fatalf("%s: a network that holds this host: %+v", f.name, report)
					}
					mustTalk(t, in, "again")
					l.Server.Do(t, func() (err error) {
						report, err = fw.Ban(context.Background(), firewall.BanRequest{Bans: []bans.Line{line}, Force: true})
						return err
					})
				}
				if report.Banned != 1 || report.Cut < 2 {
					t.Fatalf("%s: ban of %v: %+v", f.name, line.Prefix, report)
				}
				mustNotTalk(t, in, "in")
				mustNotTalk(t, out, "out")
				if n := sockets(t, l.Server, f.client); n != 0 {
					t.Errorf("%s: the server still has %d sockets", f.name, n)
				}
				mustNotDial(t, l.Client, f.server, 7)
				mustNotDial(t, l.Server, f.client, 9)
				if dropped := counter(t, l, "banned"); dropped == 0 {
					t.Errorf("%s: nothing counts as banned", f.name)
				}
				unbanAll(t, l, fw)
				mustTalk(t, mustDial(t, l.Client, "tcp", f.server, 7), "in")
				mustTalk(t, mustDial(t, l.Server, "tcp", f.client, 9), "out")
			}
		}
	})
}

// A ban ends what is routed to a server behind this host too, in both directions, and an unban does not revive it.
func TestBanCutsRoutedConnections(t *testing.T) {
	eachMode(t, func(t *testing.T, l *lab.Lab, mode loader.Mode) {
		fw := banner(t, l)
		inside := l.AddInside(t)
		inside.Echo(t, 7)
		l.Client.Echo(t, 9)
		upWith(t, l, loader.Options{Interfaces: both, Mode: mode, Policy: gateway(t, "drop", "7/tcp on eth0, all on eth1")})
		for i, f := range families {
			in := mustDial(t, l.Client, "tcp", behind[i], 7)
			out := mustDial(t, inside, "tcp", f.client, 9)
			mustTalk(t, in, "in")
			mustTalk(t, out, "out")
			if report := banAddress(t, l, fw, oneAddress(f.client)); report.Banned != 1 || report.Cut != 2 {
				t.Errorf("%s: %+v", f.name, report)
			}
			for _, flow := range flowTable(t, l) {
				if flow.State != maps.FlowKilled && (flow.Remote.Addr() == f.client || flow.Local.Addr() == f.client) {
					t.Errorf("%s: %+v goes on", f.name, flow)
				}
			}
			mustNotTalk(t, in, "in")
			mustNotTalk(t, out, "out")
			unbanAll(t, l, fw)
			mustNotTalk(t, in, "in, after the ban")
			mustNotTalk(t, out, "out, after the ban")
			mustTalk(t, mustDial(t, l.Client, "tcp", behind[i], 7), "in, anew")
		}
	})
}

// Bans outlive a change of the policy, an interface that is let go of, and a filter that is taken off: the journal has them
// before the next one is attached.
func TestBansAreKept(t *testing.T) {
	lab.RequireRoot(t)
	l := lab.New(t)
	l.Server.Echo(t, 7)
	file := t.TempDir() + "/policy.yaml"
	if err := os.WriteFile(file, []byte("interfaces: [eth0]\nopen: [7/tcp]\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	state := t.TempDir()
	fw := firewall.New(firewall.Options{PinPath: l.PinPath, StateDir: state, Config: file, ConfigGiven: true, Session: func() string { return "" }})
	put := func() (report *firewall.UpReport) {
		l.Server.Do(t, func() (err error) {
			report, err = fw.Up(context.Background(), firewall.UpRequest{Mode: loader.ModeTC, Force: true})
			return err
		})
		return report
	}
	put()
	line := oneAddress(lab.ClientV4)
	line.For = time.Hour
	short := bans.Line{Prefix: netip.MustParsePrefix("198.51.100.0/24"), For: time.Second}
	banAddress(t, l, fw, line, short)
	mustNotDial(t, l.Client, lab.ServerV4, 7)
	put()
	mustNotDial(t, l.Client, lab.ServerV4, 7)
	time.Sleep(time.Second)
	down(t, l)
	mustDial(t, l.Client, "tcp", lab.ServerV4, 7)
	if report := put(); report.Bans != 1 {
		t.Errorf("%d bans are in force again, %q", report.Bans, report.Warnings)
	}
	mustNotDial(t, l.Client, lab.ServerV4, 7)
	with(t, l, func(f *loader.Filter) error {
		for b, err := range f.Bans() {
			if err != nil {
				return err
			}
			if left := time.Until(b.Until); left < 59*time.Minute || left > time.Hour || b.Reason != "test" {
				t.Errorf("it is %+v", b)
			}
		}
		return nil
	})
	unbanAll(t, l, fw)
	mustDial(t, l.Client, "tcp", lab.ServerV4, 7)
}

// timed is the kernel of a firewall, which takes down when bans come into the filter.
type timed struct {
	firewall.HostKernel
	put *time.Time
}

type timedFilter struct {
	firewall.Filter
	put *time.Time
}

func (k timed) OpenToChange(ctx context.Context, pinPath string) (firewall.Filter, error) {
	f, err := k.HostKernel.OpenToChange(ctx, pinPath)
	if err != nil {
		return nil, err
	}
	return timedFilter{f, k.put}, nil
}

func (f timedFilter) PutCountedBans(list []maps.Ban) (int, error) {
	if f.put.IsZero() { // the first of two times
		*f.put = time.Now()
	}
	return f.Filter.PutCountedBans(list)
}

// TestBanLatency: from the ban to the last packet of a running stream.
func TestBanLatency(t *testing.T) {
	lab.RequireRoot(t)
	const bansToTry = 200
	l := lab.New(t)
	var put time.Time
	fw := firewall.New(firewall.Options{PinPath: l.PinPath, StateDir: t.TempDir(), Session: func() string { return "" }, Kernel: timed{put: &put}})
	up(t, l, loader.ModeTC, policyOf(t, "9/tcp"))
	var received atomic.Int64 // the time of the last bytes
	var bytes atomic.Uint64
	sink(t, l.Server, lab.ServerV4, 9, func(n int) {
		received.Store(time.Now().UnixNano())
		bytes.Add(uint64(n))
	})
	var toLast, fromMap, whole []time.Duration
	start := time.Now()
	for range bansToTry {
		c := mustDial(t, l.Client, "tcp", lab.ServerV4, 9)
		stop := make(chan struct{})
		go func() {
			defer close(stop)
			b := make([]byte, 64<<10)
			for {
				if _, err := c.Write(b); err != nil {
					return
				}
			}
		}()
		before := bytes.Load()
		for bytes.Load() < before+1<<20 {
			time.Sleep(time.Millisecond)
		}
		var begun, done time.Time
		l.Server.Do(t, func() error {
			put = time.Time{}
			begun = time.Now()
			report, err := fw.Ban(context.Background(), firewall.BanRequest{Bans: []bans.Line{oneAddress(lab.ClientV4)}})
			done = time.Now()
			if err == nil && report.Cut < 1 {
				t.Errorf("it cuts %d connections", report.Cut)
			}
			return err
		})
		if n := sockets(t, l.Server, lab.ClientV4); n != 0 {
			t.Fatalf("%d sockets are left", n)
		}
		time.Sleep(20 * time.Millisecond) // who has read something says so
		last, got := received.Load(), bytes.Load()
		time.Sleep(5 * time.Millisecond)
		if bytes.Load() != got {
			t.Error("something comes after the ban")
		}
		toLast = append(toLast, max(time.Unix(0, last).Sub(begun), 0))
		fromMap = append(fromMap, max(time.Unix(0, last).Sub(put), 0))
		whole = append(whole, done.Sub(begun))
		c.Close()
		<-stop
		unbanAll(t, l, fw)
	}
	rate := float64(bytes.Load()) * 8 / time.Since(start).Seconds() / 1e9
	t.Logf("%d bans of a stream at %.2f Gb/s, pauses included; until its last bytes: from the write to the map p50 %v, p99 %v; from the call p50 %v, p99 %v; the whole call p50 %v, p99 %v",
		bansToTry, rate, percentile(fromMap, 50), percentile(fromMap, 99), percentile(toLast, 50), percentile(toLast, 99), percentile(whole, 50), percentile(whole, 99))
}

// sink reads whatever comes to a TCP port of a host until the test ends, and tells of it.
func sink(t testing.TB, h *lab.Host, addr netip.Addr, port int, each func(n int)) {
	t.Helper()
	h.Do(t, func() error {
		ln, err := net.Listen("tcp", netip.AddrPortFrom(addr, uint16(port)).String())
		if err != nil {
			return err
		}
		t.Cleanup(func() { ln.Close() })
		go func() {
			for {
				c, err := ln.Accept()
				if err != nil {
					return
				}
				go func() {
					defer c.Close()
					b := make([]byte, 64<<10)
					for {
						n, err := c.Read(b)
						if err != nil {
							return
						}
						each(n)
					}
				}()
			}
		}()
		return nil
	})
}

func percentile(all []time.Duration, p int) time.Duration {
	all = slices.Sorted(slices.Values(all))
	return all[(len(all)-1)*p/100].Round(time.Microsecond)
}

// A million bans in bulk, and a few of them singly, end no other connection.
func TestAMillionBans(t *testing.T) {
	lab.RequireRoot(t)
	if testing.Short() || lab.Emulated() {
		t.Skip("takes 200 MB")
	}
	l := lab.New(t)
	fw := banner(t, l)
	l.Server.Echo(t, 7)
	up(t, l, loader.ModeTC, policyOf(t, "7/tcp"))
	c := mustDial(t, l.Client, "tcp", lab.ServerV4, 7)
	lines := make([]bans.Line, 1_000_000)
	for i := range lines {
		addr := netip.AddrFrom4([4]byte{11 + byte(i>>20), byte(i >> 12), byte(i >> 4), byte(i << 4)})
		lines[i] = bans.Line{Prefix: netip.PrefixFrom(addr, 32), For: time.Hour, Reason: "many"}
	}
	start := time.Now()
	const atOnce = 1 << 17
	for chunk := range slices.Chunk(lines, atOnce) {
		if report := banAddress(t, l, fw, chunk...); report.Banned != len(chunk) || report.Cut != 0 || len(report.Warnings) > 0 {
			t.Fatalf("got %+v", report)
		}
	}
	t.Logf("a million bans, guarded, in force and written down: %v", time.Since(start))
	mustTalk(t, c, "still here")
	start = time.Now()
	n := 0
	with(t, l, func(f *loader.Filter) error {
		for _, err := range f.Bans() {
			if err != nil {
				return err
			}
			n++
		}
		return nil
	})
	t.Logf("%d listed in %v", n, time.Since(start))
	if n != len(lines) {
		t.Errorf("there are %d bans", n)
	}
	start = time.Now()
	if report := banAddress(t, l, fw, oneAddress(lab.ClientV4)); report.Cut != 1 {
		t.Errorf("got %+v", report)
	}
	t.Logf("one more: %v", time.Since(start))
	mustNotTalk(t, c, "gone")
	down(t, l)
	state := fw.Journal()
	start = time.Now()
	held := 0
	if damaged, err := state.Load(time.Now(), func(maps.Ban) error { held++; return nil }); err != nil || damaged > 0 || held != len(lines)+1 {
		t.Errorf("the journal holds %d, %d lines damaged, %v", held, damaged, err)
	}
	t.Logf("the journal is read in %v", time.Since(start))
}

// Who has logged in by ssh is not banned without --force; who only has a connection is.
func TestBanOfSSHSessions(t *testing.T) {
	lab.RequireRoot(t)
	l := lab.New(t)
	fw := banner(t, l)
	l.Server.Echo(t, 22)
	up(t, l, loader.ModeTC, policyOf(t, "22/tcp"))
	c := mustDial(t, l.Client, "tcp", lab.ServerV4, 22)
	mustTalk(t, c, "x")
	// As a shell that sshd has started.
	local, remote := c.RemoteAddr().String(), c.LocalAddr().String()
	variable := fmt.Sprintf("SSH_CONNECTION=%s %s", strings.ReplaceAll(remote, ":", " "), strings.ReplaceAll(local, ":", " "))
	shell := l.Server.Command("sleep", "60")
	shell.Env = append(os.Environ(), variable)
	if err := shell.Start(); err != nil {
		t.Fatal(err)
	}
	ended := false
	end := func() {
		if !ended {
			ended = true
			shell.Process.Kill()
			shell.Wait()
		}
	}
	defer end()
	for end := time.Now().Add(5 * time.Second); time.Now().Before(end); time.Sleep(time.Millisecond) {
		if environ, _ := os.ReadFile(fmt.Sprintf("/proc/%d/environ", shell.Process.Pid)); strings.Contains(string(environ), variable) {
			break
		}
	}
	if report := banAddress(t, l, fw, oneAddress(lab.ClientV4)); len(report.Refused) != 1 ||
		!strings.Contains(report.Refused[0].Err.Error(), "192.0.2.2 is the source of an ssh session in use, to port 22") {
		t.Fatalf("got %+v", report)
	}
	mustTalk(t, c, "y")
	end()
	if report := banAddress(t, l, fw, oneAddress(lab.ClientV4)); report.Banned != 1 || report.Cut != 1 {
		t.Fatalf("got %+v", report)
	}
	mustNotTalk(t, c, "z")
}
