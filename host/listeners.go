// SPDX-License-Identifier: Apache-2.0

package host

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/portcullis-firewall/portcullis/policy"
)

// Listener is a socket that waits for whoever comes.
type Listener struct {
	Protocol  policy.Protocol
	Local     netip.AddrPort // the unspecified address: all of this host
	Interface int            // the index of the only one that it listens on, or 0
	Processes []string       // as far as they may be seen
	inode     uint32
	uid       uint32 // of who made the socket
}

// Listeners returns the sockets of this network namespace that listen, those of the loopback among them.
func Listeners() ([]Listener, error) {
	var out []Listener
	for _, protocol := range policy.Protocols {
		if !protocolLoaded(protocol) {
			continue // to ask would load it
		}
		found, err := listenersOf(protocol)
		if err != nil {
			return nil, err
		}
		out = append(out, found...)
	}
	nameProcesses(out)
	return out, nil
}

// listenersOf lists those of one protocol, and does not say whose they are.
func listenersOf(protocol policy.Protocol) (out []Listener, err error) {
	for _, family := range []uint8{unix.AF_INET, unix.AF_INET6} {
		found, err := listeners(protocol, family)
		if errors.Is(err, unix.ENOENT) && (protocol == policy.TCP || protocol == policy.UDP) {
			found, err = procListeners(protocol, family)
		}
		if err != nil && !errors.Is(err, unix.ENOENT) {
			return nil, fmt.Errorf("list %s sockets: %w", protocol, err)
		}
		out = append(out, found...)
	}
	return out, nil
}

// nameProcesses fills in which processes hold each listener.
func nameProcesses(list []Listener) {
	if len(list) == 0 {
		return
	}
	owners := socketOwners()
	for i := range list {
		list[i].Processes = owners[list[i].inode]
	}
}

// protocolLoaded reports whether the kernel has a protocol in use.
func protocolLoaded(p policy.Protocol) bool {
	names := map[policy.Protocol]string{policy.SCTP: "SCTP", policy.UDPLite: "UDP-Lite"}
	name, optional := names[p]
	list, err := os.ReadFile("/proc/thread-self/net/protocols")
	return !optional || err == nil && strings.Contains(string(list), "\n"+name+" ")
}

func listeners(protocol policy.Protocol, family uint8) (out []Listener, err error) {
	err = eachDiagSocket(uint8(protocol), family, 1<<netlink.TCP_LISTEN|1<<netlink.TCP_CLOSE, func(k *Socket, iface int) {
		if waits(protocol, k.State, k.Remote.Port(), k.Local.Port()) {
			out = append(out, Listener{Protocol: protocol, Local: k.Local, Interface: iface, inode: k.inode, uid: k.uid})
		}
	})
	return out, err
}

// waits reports whether a socket is a listener: TCP and SCTP have a state for it; a socket of UDP has a port and no peer.
func waits(protocol policy.Protocol, state uint8, remote, local uint16) bool {
	if protocol == policy.UDP || protocol == policy.UDPLite {
		return remote == 0 && local != 0
	}
	return state == netlink.TCP_LISTEN
}

// procListeners is listeners from /proc/net, for kernels without sock_diag.
func procListeners(protocol policy.Protocol, family uint8) (out []Listener, err error) {
	err = eachProcSocket(int(protocol), family, func(k *Socket) {
		if waits(protocol, k.State, k.Remote.Port(), k.Local.Port()) {
			out = append(out, Listener{Protocol: protocol, Local: k.Local, inode: k.inode, uid: k.uid})
		}
	})
	return out, err
}

// socketOwners returns the names of the processes that hold a socket, by its inode, of those that may be looked at.
func socketOwners() map[uint32][]string {
	owners := make(map[uint32][]string)
	processes, _ := filepath.Glob("/proc/[0-9]*/comm")
	for _, comm := range processes {
		name, err := os.ReadFile(comm)
		if err != nil {
			continue
		}
		process := strings.TrimSpace(string(name))
		inodes, _ := socketInodes(filepath.Dir(comm))
		for _, inode := range inodes {
			if have := owners[inode]; !slices.Contains(have, process) {
				owners[inode] = append(have, process)
			}
		}
	}
	return owners
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
