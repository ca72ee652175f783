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

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// SSHSessions returns the connections to an sshd over which somebody has logged in, of those whose remote end is among the
// addresses. Who only tries to log in has a connection, too, and no session. Where nobody may look whose a connection is,
// it counts as a session.
func SSHSessions(among func(netip.Addr) bool) ([]Connection, error) {
	byInode, err := establishedFrom(among)
	if err != nil || len(byInode) == 0 {
		return nil, err
	}
	ports, err := SSHPorts()
	if err != nil {
		return nil, err
	}
	found := make(map[Connection]bool) // whether somebody may have logged in
	seen := make(map[Connection]bool)  // who holds it
	processes, _ := filepath.Glob("/proc/[0-9]*")
	for _, process := range processes {
		inodes, err := socketInodes(process)
		if err != nil {
			continue
		}
		title, asked := "", false
		for _, inode := range inodes {
			c, ok := byInode[inode]
			if !ok {
				continue
			}
			if !asked {
				text, _ := os.ReadFile(process + "/cmdline")
				title, asked = string(bytes.TrimRight(text, "\x00 ")), true
			}
			seen[c] = true
			found[c] = found[c] || isLoggedIn(title)
		}
	}
	told := recordedSessions(processes)
	still, err := establishedFrom(among) // what has ended meanwhile was nobody's
	if err != nil {
		return nil, err
	}
	var out []Connection
	for inode, c := range byInode {
		hidden := slices.Contains(ports, c.Local.Port()) && !seen[c] && still[inode] == c
		if found[c] || told[c] || hidden {
			out = append(out, c)
		}
	}
	return out, nil
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
