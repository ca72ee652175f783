// SPDX-License-Identifier: Apache-2.0

package host

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/portcullis-firewall/portcullis/loader"
	"github.com/portcullis-firewall/portcullis/policy"
	"github.com/portcullis-firewall/portcullis/tests/internal/lab"
)

// knocks tries a closed port of the server all the time, until the function that it returns is called. An answer of any
// kind fails the test.
func knocks(t *testing.T, l *lab.Lab, port int) (end func()) {
	t.Helper()
	var over atomic.Bool
	done := make(chan int)
	go func() {
		tries := 0
		for ; !over.Load(); tries++ {
			c, err := dial(l.Client, "tcp", lab.ServerV4, port, 20*time.Millisecond)
			if err == nil {
				c.Close()
			}
			if err == nil || errors.Is(err, unix.ECONNREFUSED) {
				t.Errorf("port %d answers at the try %d: %v", port, tries+1, err)
				break
			}
		}
		done <- tries
	}()
	return func() {
		t.Helper()
		over.Store(true)
		if <-done == 0 {
			t.Error("nobody knocked")
		}
	}
}

// mustCarryLargeFrames sends frames of 8000 bytes and more both ways.
func mustCarryLargeFrames(t *testing.T, l *lab.Lab, port int) {
	t.Helper()
	for _, f := range families {
		for from, to := range map[*lab.Host]string{l.Client: f.server.String(), l.Server: f.client.String()} {
			from.Run(t, "ping", "-n", "-c1", "-W3", "-M", "do", "-s", "8000", to)
		}
		mustTalk(t, mustDial(t, l.Client, "tcp", f.server, port), strings.Repeat("long ", 10000))
	}
}

// mustBeNative fails unless the server's eth0 is in native XDP mode, or in TC mode where virtio-net knows no
// multi-buffer XDP, which it has since Linux 6.3.
func mustBeNative(t *testing.T, l *lab.Lab) {
	t.Helper()
	got := status(t, l).Interfaces[0]
	t.Logf("%s, egress %s", got.Mode, got.Egress)
	if got.Mode != loader.ModeNative && (os.Getenv(lab.Devices) == "" || got.Egress != "clsact") {
		t.Errorf("after the MTU was raised the filter is in %s mode", got.Mode)
	}
}

// mustBeForLargeFrames raises the client's MTU, too, and sends large frames. On veth that is not possible: it held the
// other end's MTU down when the first program came, and does so until there is none.
func mustBeForLargeFrames(t *testing.T, l *lab.Lab, port int) {
	t.Helper()
	if os.Getenv(lab.Devices) != "" {
		l.Client.IP(t, "link", "set", "eth0", "mtu", "9000")
		mustCarryLargeFrames(t, l, port)
		return
	}
	if programs, err := filepath.Glob(filepath.Join(l.PinPath, "*/policy/prog_eth0_in_frags")); err != nil || len(programs) != 1 {
		t.Errorf("no multi-buffer program filters: %v, %v", programs, err)
	}
	mustTalk(t, mustDial(t, l.Client, "tcp", lab.ServerV4, port), "hello")
}

// At boot the filter is there before the network is configured, and then the MTU is raised.
func TestMTURaisedUnderTheFilter(t *testing.T) {
	l := lab.New(t)
	l.Server.Echo(t, 7)
	l.Server.Echo(t, 9)
	l.Client.Echo(t, 8)
	up(t, l, loader.ModeAuto, policyOf(t, "7/tcp"))
	if got := status(t, l).Interfaces[0].Mode; got != loader.ModeNative {
		t.Fatalf("auto gives %s: the test shows nothing", got)
	}
	out := mustDial(t, l.Server, "tcp", lab.ClientV4, 8)
	mustTalk(t, out, "before")
	end := knocks(t, l, 9)
	l.Server.IP(t, "link", "set", "eth0", "mtu", "9000")
	up(t, l, loader.ModeAuto, policyOf(t, "7/tcp"))
	mustBeNative(t, l)
	mustBeForLargeFrames(t, l, 7)
	mustTalk(t, out, "after")
	// From here on everything goes on as before.
	up(t, l, loader.ModeAuto, policyOf(t, "7/tcp", "10/tcp"))
	mustBeNative(t, l)
	mustBeForLargeFrames(t, l, 7)
	end()
	down(t, l)
	mustBeClean(t, l)
}

func TestTheAgentFollowsTheMTU(t *testing.T) {
	l := lab.New(t)
	l.Server.Echo(t, 7)
	l.Server.Echo(t, 9)
	a := newAgent(t, l, "interfaces: [eth0]\nopen: [7/tcp]\n")
	a.runs()
	end := knocks(t, l, 9)
	l.Server.IP(t, "link", "set", "eth0", "mtu", "9000")
	a.waitsFor("program for large frames", func() bool { return strings.Contains(a.logged(), "eth0: MTU raised to") })
	mustBeNative(t, l)
	mustBeForLargeFrames(t, l, 7)
	end()
	if n := strings.Count(a.logged(), "eth0: MTU raised to"); n != 1 {
		t.Errorf("the agent loaded programs %d times", n)
	}
}

// Generic XDP takes frames of any size.
func TestMTURaisedUnderGenericXDP(t *testing.T) {
	l := lab.New(t)
	l.Server.Echo(t, 9)
	up(t, l, loader.ModeGeneric, policy.Default())
	end := knocks(t, l, 9)
	for _, h := range []*lab.Host{l.Server, l.Client} {
		h.IP(t, "link", "set", "eth0", "mtu", "9000")
	}
	up(t, l, loader.ModeAuto, policyOf(t, "7/tcp"))
	if got := status(t, l).Interfaces[0].Mode; got != loader.ModeGeneric {
		t.Errorf("generic XDP, which takes any frame, became %s", got)
	}
	l.Server.Echo(t, 7)
	mustCarryLargeFrames(t, l, 7)
	end()
}
