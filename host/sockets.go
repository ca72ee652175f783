// SPDX-License-Identifier: Apache-2.0

package host

import (
	"errors"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Socket is a socket of this host.
type Socket struct {
	Local, Remote netip.AddrPort
	State         uint8  // of enum TCP_* in include/net/tcp_states.h
	inode         uint32 // 0 before it is accepted
	uid           uint32 // of who made it
}

// AddrPort returns the end of a connection; an IPv4 address that is mapped into IPv6 is IPv4.
func AddrPort(ip net.IP, port uint16) netip.AddrPort {
	addr, _ := netip.AddrFromSlice(ip)
	return netip.AddrPortFrom(addr.Unmap(), port)
}

// IsOutside reports whether a connection leaves this host.
func IsOutside(local, remote netip.AddrPort) bool {
	return remote.IsValid() && remote.Port() != 0 && !remote.Addr().IsUnspecified() && !remote.Addr().IsLoopback() &&
		!local.Addr().IsLoopback() && local.Addr() != remote.Addr()
}

// EachSocket calls each for every connected socket of one protocol that talks to another host. One that listens has
// no remote end.
func EachSocket(protocol int, each func(*Socket)) error {
	return everySocket(protocol, func(k *Socket) {
		if IsOutside(k.Local, k.Remote) {
			each(k)
		}
	})
}

// everySocket calls each for every socket of one protocol.
func everySocket(protocol int, each func(*Socket)) error {
	list := netlink.SocketDiagTCP
	if protocol == unix.IPPROTO_UDP {
		list = netlink.SocketDiagUDP
	}
	for _, family := range []uint8{unix.AF_INET, unix.AF_INET6} {
		sockets, err := list(family)
		if err != nil && !errors.Is(err, netlink.ErrDumpInterrupted) {
			if err := eachProcSocket(protocol, family, each); err != nil {
				return err
			}
			continue
		}
		for _, s := range sockets {
			each(&Socket{AddrPort(s.ID.Source, s.ID.SourcePort), AddrPort(s.ID.Destination, s.ID.DestinationPort), s.State, s.INode, s.UID})
		}
	}
	return nil
}
