// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

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
	processes, _ := filepath.Glob("/proc/[0-9]*/comm")
	for _, comm := range processes {
		name, err := os.ReadFile(comm)
		if err != nil || strings.TrimSpace(string(name)) != "sshd" {
			continue
		}
		inodes, _ := socketInodes(filepath.Dir(comm))
		for _, inode := range inodes {
			if port, ok := byInode[inode]; ok {
				ports = append(ports, port)
			}
		}
	}
	slices.Sort(ports)
	return slices.Compact(ports), nil
}

// socketInodes lists the sockets that a process holds; process is its directory in /proc.
func socketInodes(process string) ([]uint32, error) {
	dir := filepath.Join(process, "fd")
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var inodes []uint32
	for _, e := range entries {
		target, err := os.Readlink(filepath.Join(dir, e.Name()))
		if err != nil {
			continue
		}
		inode, ok := strings.CutPrefix(target, "socket:[")
		if !ok {
			continue
		}
		if number, err := strconv.ParseUint(strings.TrimSuffix(inode, "]"), 10, 32); err == nil {
			inodes = append(inodes, uint32(number))
		}
	}
	return inodes, nil
}
