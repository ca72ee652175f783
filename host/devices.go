// SPDX-License-Identifier: Apache-2.0

package host

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/portcullis-firewall/portcullis/policy"
)

// NetnsCookie returns the cookie of the network namespace; unlike its inode, it is never used again.
func NetnsCookie() (uint64, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, err
	}
	defer unix.Close(fd)
	cookie, err := unix.GetsockoptUint64(fd, unix.SOL_SOCKET, unix.SO_NETNS_COOKIE)
	if err != nil {
		return 0, fmt.Errorf("identify the network namespace: %w", err)
	}
	return cookie, nil
}

// DefaultInterface returns the interface of the default route, IPv4's before IPv6's, that of the lowest metric.
func DefaultInterface() (string, error) {
	for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
		routes, err := completeRoutes(family, &netlink.Route{Dst: nil}, netlink.RT_FILTER_DST)
		if err != nil && !errors.Is(err, netlink.ErrDumpInterrupted) {
			continue
		}
		slices.SortStableFunc(routes, func(a, b netlink.Route) int { return a.Priority - b.Priority })
		for _, r := range routes {
			index := r.LinkIndex
			if index == 0 && len(r.MultiPath) > 0 {
				index = r.MultiPath[0].LinkIndex
			}
			if l, err := netlink.LinkByIndex(index); err == nil && l.Attrs().Flags&net.FlagLoopback == 0 {
				return l.Attrs().Name, nil
			}
		}
	}
	return "", fmt.Errorf("there is no default route to tell which interface to filter: name it, as in \"portcullis up eth0\" (%s)", interfacesHere())
}

func interfacesHere() string {
	links, err := completeLinks()
	if err != nil && len(links) == 0 {
		return "no interfaces can be listed"
	}
	var names []string
	for _, l := range links {
		if l.Attrs().Flags&net.FlagLoopback == 0 {
			names = append(names, l.Attrs().Name)
		}
	}
	if len(names) == 0 {
		return "found: the loopback only"
	}
	return "found: " + strings.Join(names, ", ")
}

// ErrNoDevice is returned for an interface that does not exist.
var ErrNoDevice = errors.New("there is no such interface")

// Device returns an interface that can be filtered.
func Device(name string) (netlink.Link, error) {
	l, err := netlink.LinkByName(name)
	if err != nil {
		var missing netlink.LinkNotFoundError
		if errors.As(err, &missing) {
			return nil, fmt.Errorf("%s: %w (%s)", name, ErrNoDevice, interfacesHere())
		}
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	if l.Attrs().Flags&net.FlagLoopback != 0 {
		return nil, fmt.Errorf("%s: the loopback interface is not filtered: what this host sends to itself always passes", name)
	}
	return l, nil
}

// DeviceIndex returns the index of an interface, or 0 for none. It takes a fifth of the time that [Device] takes.
func DeviceIndex(name string) int {
	request, err := unix.NewIfreq(name)
	if err != nil { // an alternative name, which is too long for it
		l, err := netlink.LinkByName(name)
		if err != nil {
			return 0
		}
		return l.Attrs().Index
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0
	}
	defer unix.Close(fd)
	if unix.IoctlIfreq(fd, unix.SIOCGIFINDEX, request) != nil {
		return 0
	}
	return int(request.Uint32())
}

// Matching returns names with the interfaces that are there now in the place of patterns.
func Matching(names []string) (out []string, err error) {
	if !slices.ContainsFunc(names, policy.IsPattern) {
		return names, nil
	}
	links, err := completeLinks()
	if err != nil && !errors.Is(err, netlink.ErrDumpInterrupted) {
		return nil, fmt.Errorf("list interfaces: %w", err)
	}
	for _, name := range names {
		if !policy.IsPattern(name) {
			out = append(out, name)
		}
	}
	for _, l := range links {
		name := l.Attrs().Name
		if l.Attrs().Flags&net.FlagLoopback == 0 && policy.MatchAnyInterface(names, name) && !slices.Contains(out, name) {
			out = append(out, name)
		}
	}
	return out, nil
}

// HasEthernet reports whether frames of the device begin with an Ethernet header.
func HasEthernet(l netlink.Link) bool {
	return l.Attrs().EncapType == "ether"
}

// MAC returns the address of a device; all zero where it has none.
func MAC(l netlink.Link) (mac [6]byte) {
	copy(mac[:], l.Attrs().HardwareAddr)
	return mac
}

// Addresses returns the addresses of this host, but for those of the loopback.
func Addresses() (out []netip.Addr, err error) {
	list, err := completeAddresses(nil)
	if err != nil && !errors.Is(err, netlink.ErrDumpInterrupted) {
		return nil, fmt.Errorf("list addresses: %w", err)
	}
	for _, a := range list {
		if addr, ok := netip.AddrFromSlice(a.IP); ok && !addr.IsLoopback() {
			out = append(out, addr.Unmap())
		}
	}
	return out, nil
}

// LocalPrefixes returns what the kernel delivers to this host: the local routes of the table local and of VRFs, and those
// for addresses that others may have, too, which are broadcast and anycast. A routing rule decides which packets ask any
// other table: the datapath asks the kernel about them.
func LocalPrefixes() (own, shared []netip.Prefix, err error) {
	tables, err := localTables()
	if err != nil {
		return nil, nil, err
	}
	for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
		routes, err := completeRoutes(family, &netlink.Route{Table: unix.RT_TABLE_UNSPEC}, netlink.RT_FILTER_TABLE)
		if err != nil && !errors.Is(err, netlink.ErrDumpInterrupted) {
			return nil, nil, fmt.Errorf("list local routes: %w", err)
		}
		for _, r := range routes {
			if !isLocalType(r.Type) || !slices.Contains(tables, r.Table) {
				continue
			}
			addr, ok := netip.AddrFromSlice(r.Dst.IP)
			if !ok {
				continue
			}
			if family == netlink.FAMILY_V4 {
				addr = addr.Unmap()
			}
			bits, _ := r.Dst.Mask.Size()
			p := netip.PrefixFrom(addr, bits).Masked()
			if r.Type == unix.RTN_LOCAL {
				own = append(own, p)
			} else {
				shared = append(shared, p)
			}
		}
	}
	return own, shared, nil
}

// LocalAddresses returns a function that reports whether the kernel delivers to this host what is sent to an address.
func LocalAddresses() (func(netip.Addr) bool, error) {
	own, shared, err := LocalPrefixes()
	if err != nil {
		return nil, err
	}
	local := slices.Concat(own, shared)
	return func(addr netip.Addr) bool {
		return slices.ContainsFunc(local, func(p netip.Prefix) bool { return p.Contains(addr) })
	}, nil
}

func isLocalType(route int) bool {
	return route == unix.RTN_LOCAL || route == unix.RTN_BROADCAST || route == unix.RTN_ANYCAST
}

// localTables are the routing tables whose local routes hold for all that comes in.
func localTables() ([]int, error) {
	links, err := completeLinks()
	if err != nil && !errors.Is(err, netlink.ErrDumpInterrupted) {
		return nil, fmt.Errorf("list VRFs: %w", err)
	}
	tables := []int{unix.RT_TABLE_LOCAL}
	for _, l := range links {
		if vrf, ok := l.(*netlink.Vrf); ok {
			tables = append(tables, int(vrf.Table))
		}
	}
	return tables, nil
}

const (
	mostLists = 10          // that are asked for until one is complete
	listTime  = time.Second // and for how long: a router's routes may never stand still
)

// CompleteList returns what list does. While the host changes, a list may lack entries that were there all the time: it is
// asked for again then, a few times. The last one comes with [netlink.ErrDumpInterrupted] if none was complete.
func CompleteList[T any](list func() ([]T, error)) (entries []T, err error) {
	start := time.Now()
	for range mostLists {
		entries, err = list()
		if !errors.Is(err, netlink.ErrDumpInterrupted) || time.Since(start) > listTime {
			break
		}
	}
	return entries, err
}

func completeLinks() ([]netlink.Link, error) { return CompleteList(netlink.LinkList) }

func completeAddresses(l netlink.Link) ([]netlink.Addr, error) {
	return CompleteList(func() ([]netlink.Addr, error) { return netlink.AddrList(l, netlink.FAMILY_ALL) })
}

func completeRoutes(family int, filter *netlink.Route, mask uint64) ([]netlink.Route, error) {
	return CompleteList(func() ([]netlink.Route, error) { return netlink.RouteListFiltered(family, filter, mask) })
}

func completeNeighbours(link, family int) ([]netlink.Neigh, error) {
	return CompleteList(func() ([]netlink.Neigh, error) { return netlink.NeighList(link, family) })
}
