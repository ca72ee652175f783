// SPDX-License-Identifier: Apache-2.0

package host

import (
	"bytes"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/portcullis-firewall/portcullis/policy"
)

const sshPort = 22

// SSHPorts returns the TCP ports on which an sshd listens, in order. Where systemd listens for it, the listener is not
// called sshd, so whoever listens on port 22 counts too. Anybody can call a process sshd: elsewhere only root's counts.
func SSHPorts() ([]uint16, error) {
	found, err := listenersOf(policy.TCP)
	if err != nil {
		return nil, err
	}
	found = slices.DeleteFunc(found, func(l Listener) bool { return l.Local.Addr().IsLoopback() })
	nameProcesses(found)
	var ports []uint16
	for _, l := range found {
		if l.Local.Port() == sshPort || l.uid == 0 && slices.Contains(l.Processes, "sshd") {
			ports = append(ports, l.Local.Port())
		}
	}
	slices.Sort(ports)
	return slices.Compact(ports), nil
}

// SSHSessions returns the connections to an sshd over which somebody has logged in, of those whose remote end is among the
// addresses. Who only tries to log in has a connection, too, and no session. Where not every process may be looked at, any
// connection to an sshd counts.
func SSHSessions(among func(netip.Addr) bool) ([]Connection, error) {
	byInode, err := establishedFrom(among)
	if err != nil || len(byInode) == 0 {
		return nil, err
	}
	// To read of a process waits for it where it is in the middle of getting memory, which may be long.
	done := make(chan map[Connection]bool, 1)
	go func() { done <- sessionsOf(byInode) }()
	select {
	case sessions := <-done:
		var out []Connection
		for _, c := range byInode {
			if sessions[c] {
				out = append(out, c)
			}
		}
		return out, nil
	case <-time.After(longestLook):
		return atSSHPorts(byInode)
	}
}

// longestLook is how long processes are looked at. Then any connection to an sshd counts.
const longestLook = 2 * time.Second

func atSSHPorts(byInode map[uint32]Connection) (out []Connection, err error) {
	ports, err := SSHPorts()
	for _, c := range byInode {
		if slices.Contains(ports, c.Local.Port()) {
			out = append(out, c)
		}
	}
	return out, err
}

// sessionsOf looks at every process.
func sessionsOf(byInode map[uint32]Connection) map[Connection]bool {
	sessions, known := make(map[Connection]bool), make(map[Connection]bool)
	processes, _ := filepath.Glob("/proc/[0-9]*")
	blind := !seesEveryProcess()
	for _, process := range processes {
		title, err := os.ReadFile(process + "/cmdline")
		loggedIn := isLoggedIn(string(bytes.TrimRight(title, "\x00 ")))
		if err != nil || !loggedIn && !blind {
			continue
		}
		inodes, _ := socketInodes(process)
		for _, inode := range inodes {
			if c, ok := byInode[inode]; ok {
				known[c] = true
				sessions[c] = sessions[c] || loggedIn
			}
		}
	}
	for c := range recordedSessions(processes) {
		sessions[c] = true
	}
	if blind {
		hidden, err := atSSHPorts(byInode)
		for _, c := range hidden {
			sessions[c] = sessions[c] || err == nil && !known[c]
		}
	}
	return sessions
}

// initialPIDs is the inode of the first PID namespace (PROC_PID_INIT_INO in linux/proc_ns.h).
const initialPIDs = "pid:[4026531836]"

// seesEveryProcess reports whether this process may look at all that there are.
func seesEveryProcess() bool {
	namespace, err := os.Readlink("/proc/self/ns/pid")
	if err != nil || namespace != initialPIDs {
		return false
	}
	_, err = os.ReadDir("/proc/1/fd")
	return err == nil
}

// establishedFrom returns the connections with other hosts at some addresses, by their inodes.
func establishedFrom(among func(netip.Addr) bool) (map[uint32]Connection, error) {
	byInode := make(map[uint32]Connection)
	err := EachSocket(unix.IPPROTO_TCP, func(k *Socket) {
		if k.State == netlink.TCP_ESTABLISHED && k.inode != 0 && among(k.Remote.Addr()) {
			byInode[k.inode] = Connection{k.Local, k.Remote}
		}
	})
	return byInode, err
}

// isLoggedIn reports whether a process is an sshd that calls itself after a session: "sshd: root@pts/0", and "sshd-session:
// root@notty" from OpenSSH 9.8 on. Before that, it is "sshd: root [priv]" and the like.
func isLoggedIn(title string) bool {
	name, who, ok := strings.Cut(title, ": ")
	return ok && (name == "sshd" || name == "sshd-session") && strings.Contains(who, "@") && !strings.HasSuffix(who, "]")
}

// recordedSessions returns the connections that stand in $SSH_CONNECTION of any process, as every ssh server says it to
// what it starts.
func recordedSessions(processes []string) map[Connection]bool {
	told := make(map[Connection]bool)
	for _, process := range processes {
		environ, err := os.ReadFile(process + "/environ")
		if err != nil {
			continue
		}
		for variable := range bytes.SplitSeq(environ, []byte{0}) {
			if value, ok := bytes.CutPrefix(variable, []byte("SSH_CONNECTION=")); ok {
				if c, ok := parseSSHConnection(string(value)); ok {
					told[c] = true
				}
			}
		}
	}
	return told
}

// parseSSHConnection reads $SSH_CONNECTION: the client's address and port, and the server's.
func parseSSHConnection(text string) (c Connection, ok bool) {
	fields := strings.Fields(text)
	if len(fields) != 4 {
		return c, false
	}
	var ends [2]netip.AddrPort
	for i := range ends {
		addr, err := netip.ParseAddr(fields[2*i])
		if err != nil {
			return c, false
		}
		port, err := strconv.ParseUint(fields[2*i+1], 10, 16)
		if err != nil {
			return c, false
		}
		ends[i] = netip.AddrPortFrom(addr.WithZone("").Unmap(), uint16(port))
	}
	return Connection{Local: ends[1], Remote: ends[0]}, true
}
