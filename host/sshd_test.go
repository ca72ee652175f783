// SPDX-License-Identifier: Apache-2.0

package host

import (
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

const lookVariable = "PORTCULLIS_TEST_LOOK"

// Root without CAP_SYS_PTRACE, as in the service, may list the descriptors of a process and not read them: it has to know
// that it does not see whose connections there are.
func TestRootWithoutPtraceIsBlind(t *testing.T) {
	if parent := os.Getenv(lookVariable); parent != "" {
		if _, err := os.ReadDir(parent + "/fd"); err != nil {
			t.Fatal(err)
		}
		fmt.Print("sees: ", mayLookAt(parent))
		return
	}
	if os.Geteuid() != 0 {
		t.Skip("only root can drop a capability and stay root")
	}
	look := func(drop bool) string {
		out := make(chan string)
		go func() {
			runtime.LockOSThread() // and the thread ends with the function
			if drop {
				if err := unix.Prctl(unix.PR_CAPBSET_DROP, unix.CAP_SYS_PTRACE, 0, 0, 0); err != nil {
					out <- err.Error()
					return
				}
			}
			cmd := exec.Command(os.Args[0], "-test.run=^TestRootWithoutPtraceIsBlind$")
			cmd.Env = append(os.Environ(), fmt.Sprintf("%s=/proc/%d", lookVariable, os.Getpid()))
			text, err := cmd.CombinedOutput()
			if err != nil {
				text = fmt.Append(text, err)
			}
			out <- string(text)
		}()
		return <-out
	}
	for drop, want := range map[bool]string{false: "sees: true", true: "sees: false"} {
		if got := look(drop); !strings.HasPrefix(got, want) {
			t.Errorf("CAP_SYS_PTRACE dropped: %t: it says %q, want %q", drop, got, want)
		}
	}
}

// Of what nobody can look at, connections that came in to root's sshd count as sessions, by its configuration. What a user has, or root
// has begun, does not.
func TestWhoseConnectionsAreSessions(t *testing.T) {
	const user = 1000
	at := netip.MustParseAddrPort
	from := func(port int) netip.AddrPort {
		return netip.AddrPortFrom(netip.MustParseAddr("203.0.113.9"), uint16(port))
	}
	l := &logins{byInode: make(map[uint32]Connection), configured: ConfiguredSSHPorts(fstest.MapFS{
		"etc/ssh/sshd_config":             {Data: []byte("Port 22\nport=3333\n#Port 4444\nListenAddress 192.0.2.2\n")},
		"etc/ssh/sshd_config.d/mine.conf": {Data: []byte("  ListenAddress [::]:2222\n")},
	})}
	if want := []uint16{2222, 22, 3333}; !slices.Equal(l.configured, want) {
		t.Errorf("the configuration names ports %v, want %v", l.configured, want)
	}
	for _, k := range []Socket{
		{Local: at("[::]:2222"), State: netlink.TCP_LISTEN},
		{Local: at("0.0.0.0:3333"), State: netlink.TCP_LISTEN, uid: user},
		{Local: at("0.0.0.0:8080"), State: netlink.TCP_LISTEN},
		{Local: at("192.0.2.2:8080"), Remote: from(7), State: netlink.TCP_ESTABLISHED, inode: 1<<32 - 7},
		{Local: at("192.0.2.2:2222"), Remote: from(1), State: netlink.TCP_ESTABLISHED, inode: 1<<32 - 1},
		{Local: at("192.0.2.2:2222"), Remote: from(2), State: netlink.TCP_ESTABLISHED, inode: 1<<32 - 2, uid: user},
		{Local: at("192.0.2.2:3333"), Remote: from(3), State: netlink.TCP_ESTABLISHED, inode: 1<<32 - 3, uid: user},
		{Local: at("192.0.2.2:40000"), Remote: from(4), State: netlink.TCP_ESTABLISHED, inode: 1<<32 - 4},
		{Local: at("192.0.2.2:40001"), Remote: from(5), State: netlink.TCP_ESTABLISHED, inode: 1<<32 - 5, uid: user},
		{Local: at("192.0.2.2:2222"), Remote: at("198.51.100.1:6"), State: netlink.TCP_ESTABLISHED, inode: 1<<32 - 6},
	} {
		l.add(&k, func(addr netip.Addr) bool { return addr == from(1).Addr() })
	}
	session := Connection{at("192.0.2.2:2222"), from(1)}
	check := func(what string, got map[Connection]bool) {
		t.Helper()
		for c, is := range got {
			if is != (c == session) {
				t.Errorf("%s: %s is a session: %t", what, c, is)
			}
		}
		if !got[session] {
			t.Errorf("%s: %s is no session", what, session)
		}
	}
	check("nobody can look", l.sessions(true))
	if seen := l.sessions(false); len(seen) > 0 {
		t.Errorf("every process can be looked at, and none has %v", seen)
	}
	// Anybody can write anything in his environment.
	recorded, found := make(map[Connection]bool), make(map[Connection]bool)
	for _, c := range l.byInode {
		if c.Local.Port() != 8080 { // nobody says that of it
			recorded[c] = true
		}
	}
	l.addRecorded(found, recorded)
	check("recorded", found)
}

// A service that may not look at processes finds root's sshd at the ports of its configuration, and nobody else's listener.
func TestPortsOfAnSSHDNobodyCanLookAt(t *testing.T) {
	at := func(port, uid int, processes ...string) Listener {
		return Listener{Local: netip.AddrPortFrom(netip.IPv4Unspecified(), uint16(port)), uid: uint32(uid), Processes: processes}
	}
	listeners := []Listener{at(2222, 0), at(2222, 0), at(3333, 1000), at(8080, 0), at(4444, 0, "sshd"), at(5555, 1000, "sshd"), at(22, 1000)}
	if got, want := sshPortsAmong(listeners, []uint16{2222, 3333}), []uint16{22, 2222, 4444}; !slices.Equal(got, want) {
		t.Errorf("blind, it finds %v, want %v", got, want)
	}
	if got, want := sshPortsAmong(listeners, nil), []uint16{22, 4444}; !slices.Equal(got, want) {
		t.Errorf("it finds %v, want %v", got, want)
	}
}
