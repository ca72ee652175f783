// SPDX-License-Identifier: Apache-2.0

package host

import (
	"fmt"
	"os"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Session is how the user of this process came to this host, as far as the kernel knows. An environment may be another
// session's: that of a terminal multiplexer is the one of who started it.
type Session struct {
	Connections []Connection // that the parents of this process hold in this network namespace
	Elsewhere   bool         // a parent is in another network namespace, so that the user did not come by this one
	Unknown     bool         // of some parent nobody knows what it holds
}

// FindSession asks which TCP connections the parents of this process hold: one of them is that of the user's ssh, whose
// server keeps it open as long as the session lasts.
func FindSession() (*Session, error) {
	byInode := make(map[uint32]Connection)
	err := everySocket(unix.IPPROTO_TCP, func(k *Socket) {
		if k.State != netlink.TCP_LISTEN && k.inode != 0 {
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
			if c, ok := byInode[inode]; ok && !seen[c] {
				seen[c] = true
				s.Connections = append(s.Connections, c)
			}
		}
	}
	return s, nil
}

// Major numbers of pseudo terminals (Documentation/admin-guide/devices.txt).
const firstPTY, lastPTY = 136, 143

// OnPseudoTerminal tells that the terminal of this process is made by a program: sshd, tmux, sudo, a desktop's. The
// machine's own are not.
func OnPseudoTerminal() bool {
	major := unix.Major(uint64(statField(os.Getpid(), statTerminal)))
	return firstPTY <= major && major <= lastPTY
}
