// SPDX-License-Identifier: Apache-2.0

package host

import (
	"bytes"
	"fmt"
	"iter"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Session is how the user of this process came to this host, as far as the kernel knows. An environment may be another
// session's: that of a terminal multiplexer is the one of who started it.
type Session struct {
	Connections []Connection // that came in to this network namespace, and that the parents of this process hold
	Outgoing    []Connection // that the parents of this process have made themselves
	Elsewhere   bool         // a parent is in another network namespace, so that the user did not come by this one
	Unknown     bool         // of some parent nobody knows what it holds
}

// FindSession asks which TCP connections came in to a listener and are held by parents of this process: one of them is
// that of the user's ssh, whose server keeps it open as long as the session lasts. A connection that a parent has opened
// itself tells nothing of whether this host can be reached.
func FindSession() (*Session, error) {
	byInode := make(map[uint32]Connection)
	var listening []netip.AddrPort
	err := everySocket(unix.IPPROTO_TCP, func(k *Socket) {
		switch {
		case k.State == netlink.TCP_LISTEN:
			listening = append(listening, k.Local)
		case k.inode != 0:
			byInode[k.inode] = Connection{k.Local, k.Remote}
		}
	})
	if err != nil {
		return nil, err
	}
	here, err := os.Readlink("/proc/self/ns/net")
	if err != nil {
		return nil, err
	}
	s := &Session{}
	seen := make(map[Connection]bool)
	for pid := range Ancestors() {
		process := fmt.Sprintf("/proc/%d", pid)
		there, err := os.Readlink(process + "/ns/net")
		if err == nil && there != here {
			s.Elsewhere = true
			break
		}
		inodes, err := socketInodes(process)
		s.Unknown = s.Unknown || err != nil
		for _, inode := range inodes {
			c, ok := byInode[inode]
			if !ok || seen[c] {
				continue
			}
			seen[c] = true
			if c.cameInTo(listening) {
				s.Connections = append(s.Connections, c)
			} else {
				s.Outgoing = append(s.Outgoing, c)
			}
		}
	}
	return s, nil
}

// cameInTo reports whether a connection came in to one of the listeners.
func (c Connection) cameInTo(listening []netip.AddrPort) bool {
	return slices.ContainsFunc(listening, func(l netip.AddrPort) bool {
		return l.Port() == c.Local.Port() && (l.Addr().IsUnspecified() || l.Addr() == c.Local.Addr())
	})
}

// Major numbers of pseudo terminals (Documentation/admin-guide/devices.txt).
const firstPTY, lastPTY = 136, 143

// OnPseudoTerminal reports whether the terminal of this process is made by a program such as sshd, tmux, sudo or a
// desktop, and is not the machine's own.
func OnPseudoTerminal() bool {
	major := unix.Major(uint64(statField(os.Getpid(), statTerminal)))
	return firstPTY <= major && major <= lastPTY
}

// Ancestors returns the process ids of this process's parent, its parent and so on, as far as they can be seen.
func Ancestors() iter.Seq[int] {
	return func(yield func(int) bool) {
		for pid := os.Getppid(); pid > 0 && yield(pid); pid = parentOf(pid) {
		}
	}
}

// Fields of /proc/PID/stat behind the name (proc_pid_stat(5)).
const (
	statParent   = 1
	statTerminal = 4
)

// statField returns one field of /proc/PID/stat, or 0 where there is none.
func statField(pid, field int) int {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0
	}
	// The name, in parentheses, may hold anything.
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	if len(fields) <= field {
		return 0
	}
	number, _ := strconv.Atoi(fields[field])
	return number
}

// parentOf returns the parent of a process, or 0.
func parentOf(pid int) int { return statField(pid, statParent) }
