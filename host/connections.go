// SPDX-License-Identifier: Apache-2.0

package host

import (
	"errors"
	"fmt"
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

// Arrivals returns the interfaces on which packets of a connection may meet a filter: where the way to the peer leads
// out, where our address is, and the devices above and below these, as a VLAN's, a bond's or a bridge's.
func Arrivals(c Connection) ([]string, error) {
	links, err := netlink.LinkList()
	if err != nil && !errors.Is(err, netlink.ErrDumpInterrupted) {
		return nil, fmt.Errorf("list interfaces: %w", err)
	}
	routes, err := netlink.RouteGet(c.Remote.Addr().AsSlice())
	if err != nil {
		return nil, fmt.Errorf("find the way to %s: %w", c.Remote.Addr(), err)
	}
	found := make(map[int]bool)
	for _, r := range routes {
		found[r.LinkIndex] = true
	}
	addresses, err := netlink.AddrList(nil, netlink.FAMILY_ALL)
	if err != nil && !errors.Is(err, netlink.ErrDumpInterrupted) {
		return nil, fmt.Errorf("list addresses: %w", err)
	}
	for _, a := range addresses {
		if ours, ok := netip.AddrFromSlice(a.IP); ok && ours.Unmap() == c.Local.Addr() {
			found[a.LinkIndex] = true
		}
	}
	for grown := true; grown; {
		grown = false
		for _, l := range links {
			a := l.Attrs()
			related := []int{a.MasterIndex}
			if a.NetNsID < 0 { // else the parent's index is one of another namespace
				related = append(related, a.ParentIndex)
			}
			for _, other := range related {
				if other != 0 && found[a.Index] != found[other] {
					found[a.Index], found[other], grown = true, true, true
				}
			}
		}
	}
	var names []string
	for _, l := range links {
		if found[l.Attrs().Index] {
			names = append(names, l.Attrs().Name)
		}
	}
	return names, nil
}
