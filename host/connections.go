// SPDX-License-Identifier: Apache-2.0

package host

import (
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Connection is one TCP connection of this host.
type Connection struct{ Local, Remote netip.AddrPort }

// Outside reports whether the connection leaves this host; a filter sees no other.
func (c Connection) Outside() bool { return IsOutside(c.Local, c.Remote) }

func (c Connection) String() string { return c.Local.String() + " " + c.Remote.String() }

// Connections returns the TCP connections of this network namespace, those within this host among them.
func Connections() ([]Connection, error) {
	var out []Connection
	err := everySocket(unix.IPPROTO_TCP, func(k *Socket) {
		if k.State != netlink.TCP_LISTEN {
			out = append(out, Connection{k.Local, k.Remote})
		}
	})
	return out, err
}

// ConnectionsAt returns the TCP connections with other hosts that are established at one of the ports.
func ConnectionsAt(ports []uint16) (out []Connection, err error) {
	err = EachSocket(unix.IPPROTO_TCP, func(k *Socket) {
		if k.State == netlink.TCP_ESTABLISHED && slices.Contains(ports, k.Local.Port()) {
			out = append(out, Connection{k.Local, k.Remote})
		}
	})
	return out, err
}
