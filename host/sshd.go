// SPDX-License-Identifier: Apache-2.0

package host

import (
	"errors"
	"fmt"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

const sshPort = 22

// SSHPorts returns the TCP ports on which an sshd listens, in order. Where systemd listens for it, the listener is not
// called sshd, so whoever listens on port 22 counts too.
func SSHPorts() ([]uint16, error) {
	byInode := make(map[uint32]uint16)
	var ports []uint16
	for _, family := range []uint8{unix.AF_INET, unix.AF_INET6} {
		sockets, err := netlink.SocketDiagTCP(family)
		if err != nil && !errors.Is(err, netlink.ErrDumpInterrupted) && !errors.Is(err, unix.ENOENT) {
			return nil, fmt.Errorf("list sockets: %w", err)
		}
		for _, s := range sockets {
			if s.State != netlink.TCP_LISTEN || s.ID.Source.IsLoopback() {
				continue
			}
			byInode[s.INode] = s.ID.SourcePort
			if s.ID.SourcePort == sshPort {
				ports = append(ports, sshPort)
			}
		}
	}
	for inode, processes := range socketOwners() {
		if port, ok := byInode[inode]; ok && slices.Contains(processes, "sshd") {
			ports = append(ports, port)
		}
	}
	slices.Sort(ports)
	return slices.Compact(ports), nil
}
