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

// Network is what this host knows of its own interfaces and addresses at a moment.
type Network struct {
	links   []netlink.Link
	devices map[netip.Addr][]int // that have an address
}

// ReadNetwork returns the network of this host as it is now.
func ReadNetwork() (*Network, error) {
	n := &Network{devices: make(map[netip.Addr][]int)}
	var err error
	if n.links, err = completeLinks(); err != nil && !errors.Is(err, netlink.ErrDumpInterrupted) {
		return nil, fmt.Errorf("list interfaces: %w", err)
	}
	addresses, err := completeAddresses(nil)
	if err != nil && !errors.Is(err, netlink.ErrDumpInterrupted) {
		return nil, fmt.Errorf("list addresses: %w", err)
	}
	for _, a := range addresses {
		if addr, ok := netip.AddrFromSlice(a.IP); ok {
			n.devices[addr.Unmap()] = append(n.devices[addr.Unmap()], a.LinkIndex)
		}
	}
	return n, nil
}

// Arrivals returns the interfaces on which packets of a connection may meet a filter.
func Arrivals(c Connection) ([]string, error) {
	n, err := ReadNetwork()
	if err != nil {
		return nil, err
	}
	return n.Arrivals(c)
}

// Arrivals returns the interfaces on which packets of a connection may meet a filter: where the way to the peer leads out,
// and where our address is, since a peer on another network may come to that; the devices that these stand on, as a
// VLAN's, a bond's or a bridge's; and those that they are ports of. What else stands on these sees other packets.
func (n *Network) Arrivals(c Connection) ([]string, error) {
	routes, err := wayTo(c)
	if err != nil {
		return nil, err
	}
	return n.stackOf(append(routes, n.devices[c.Local.Addr()]...)), nil
}

// Way returns the interfaces on which packets of a connection most likely meet a filter: those of Arrivals without that of
// our address, if it is another.
func (n *Network) Way(c Connection) ([]string, error) {
	routes, err := wayTo(c)
	return n.stackOf(routes), err
}

// wayTo returns the index of the interface by which packets leave for the peer of a connection.
func wayTo(c Connection) (indices []int, err error) {
	routes, err := netlink.RouteGetWithOptions(c.Remote.Addr().AsSlice(), &netlink.RouteGetOptions{SrcAddr: c.Local.Addr().AsSlice()})
	if err != nil { // our address may be gone
		routes, err = netlink.RouteGet(c.Remote.Addr().AsSlice())
	}
	if err != nil {
		return nil, fmt.Errorf("find the way to %s: %w", c.Remote.Addr(), err)
	}
	for _, r := range routes {
		indices = append(indices, r.LinkIndex)
	}
	return indices, nil
}

// stackOf returns the names of devices, of what they stand on, and of what they are ports of.
func (n *Network) stackOf(indices []int) (names []string) {
	found := make(map[int]bool)
	for _, index := range indices {
		n.below(index, found)
		for up := n.link(index); up != nil && !found[up.Attrs().MasterIndex]; up = n.link(up.Attrs().MasterIndex) {
			found[up.Attrs().Index] = true
		}
	}
	for _, l := range n.links {
		if found[l.Attrs().Index] {
			names = append(names, l.Attrs().Name)
		}
	}
	return names
}

// below finds a device and all that it stands on: its parent or its ports, and so on.
func (n *Network) below(index int, found map[int]bool) {
	l := n.link(index)
	if l == nil || found[index] {
		return
	}
	found[index] = true
	// Of a veth the parent is its other end, and in another namespace the number is that of another device.
	if a := l.Attrs(); l.Type() != "veth" && a.NetNsID < 0 && a.ParentIndex != 0 {
		n.below(a.ParentIndex, found)
	}
	if l.Type() == "vrf" {
		return // its ports have addresses of their own
	}
	for _, port := range n.links {
		if port.Attrs().MasterIndex == index {
			n.below(port.Attrs().Index, found)
		}
	}
}

func (n *Network) link(index int) netlink.Link {
	i := slices.IndexFunc(n.links, func(l netlink.Link) bool { return index != 0 && l.Attrs().Index == index })
	if i < 0 {
		return nil
	}
	return n.links[i]
}

// Route is how packets of a peer most likely come to this host.
type Route struct {
	Local      netip.Addr // the address that this host answers from
	Interfaces []string   // that on which the way to the peer leads out, then those that this stands on or is a port of
	Own        bool       // the peer is this host
	Here       bool       // what is sent there ends here: it is this host's address, or its broadcast or group
}

// RouteTo returns how packets of a peer most likely come to this host.
func RouteTo(peer netip.Addr) (r Route, err error) {
	n, err := ReadNetwork()
	if err != nil {
		return r, err
	}
	routes, err := netlink.RouteGet(peer.AsSlice())
	if err != nil {
		return r, fmt.Errorf("find the way to %s: %w", peer, err)
	}
	for _, way := range routes {
		if local, ok := netip.AddrFromSlice(way.Src); ok && !r.Local.IsValid() {
			r.Local = local.Unmap()
		}
		r.Here = r.Here || isLocalType(way.Type) || way.Type == unix.RTN_MULTICAST
		if l := n.link(way.LinkIndex); l != nil {
			r.Interfaces = append(r.Interfaces, l.Attrs().Name)
		}
		for _, name := range n.stackOf([]int{way.LinkIndex}) {
			if !slices.Contains(r.Interfaces, name) {
				r.Interfaces = append(r.Interfaces, name)
			}
		}
	}
	r.Own = len(n.devices[peer]) > 0
	return r, nil
}

// AddressesOn returns the addresses of an interface.
func AddressesOn(iface string) (out []netip.Addr, err error) {
	n, err := ReadNetwork()
	if err != nil {
		return nil, err
	}
	for addr, devices := range n.devices {
		for _, index := range devices {
			if l := n.link(index); l != nil && l.Attrs().Name == iface {
				out = append(out, addr)
			}
		}
	}
	slices.SortFunc(out, netip.Addr.Compare)
	return out, nil
}
