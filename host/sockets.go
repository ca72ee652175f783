// SPDX-License-Identifier: Apache-2.0

package host

import (
	"net"
	"net/netip"

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

// everySocket calls each for every socket of one protocol. The socket is valid until each returns.
func everySocket(protocol int, each func(*Socket)) error {
	const everyState = 0xfff
	for _, family := range []uint8{unix.AF_INET, unix.AF_INET6} {
		err := eachDiagSocket(uint8(protocol), family, everyState, func(k *Socket, _ int) { each(k) })
		if err == nil {
			continue
		}
		if err := eachProcSocket(protocol, family, each); err != nil {
			return err
		}
	}
	return nil
}
