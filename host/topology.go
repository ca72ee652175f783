// SPDX-License-Identifier: Apache-2.0

package host

import (
	"bytes"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Topology returns warnings about devices that a filter on the given interfaces may get in the way of, a sentence each.
func Topology(interfaces []string) (sentences []string) {
	links, err := completeLinks()
	if err != nil && len(links) == 0 {
		return nil
	}
	say := func(format string, args ...any) { sentences = append(sentences, fmt.Sprintf(format, args...)) }
	for _, l := range links {
		if macs := foreignMACs(l, links); len(macs) > 0 && slices.Contains(interfaces, l.Attrs().Name) {
			say("%s also receives for %s, probably a macvlan in another namespace: its broadcast and multicast is filtered by this policy; open what it needs, such as 67/udp",
				l.Attrs().Name, strings.Join(macs, ", "))
		}
	}
	named := strings.Join(interfaces, ", ")
	for _, other := range asymmetric(interfaces, links) {
		say("%s is not filtered, and packets leave by it from an address of %s: their answers, if they come in by %s, are dropped; filter %s too",
			other, named, named, other)
	}
	return sentences
}

// foreignMACs returns the unicast MACs that an interface takes frames for and that no device has here.
func foreignMACs(l netlink.Link, links []netlink.Link) (macs []string) {
	entries, err := completeNeighbours(l.Attrs().Index, unix.AF_BRIDGE)
	if err != nil && len(entries) == 0 {
		return nil
	}
	for _, e := range entries {
		if e.LinkIndex != l.Attrs().Index || e.Flags&netlink.NTF_SELF == 0 || len(e.HardwareAddr) != 6 || e.HardwareAddr[0]&1 != 0 {
			continue
		}
		known := slices.ContainsFunc(links, func(l netlink.Link) bool {
			return l.Attrs().HardwareAddr.String() == e.HardwareAddr.String()
		})
		if !known && !slices.Contains(macs, e.HardwareAddr.String()) {
			macs = append(macs, e.HardwareAddr.String())
		}
	}
	return macs
}

// asymmetric returns the interfaces that are not filtered and that a route sends packets by from an address of one that is.
func asymmetric(interfaces []string, links []netlink.Link) (names []string) {
	filtered, nameOf := make(map[string]bool), make(map[int]string)
	for _, l := range links {
		nameOf[l.Attrs().Index] = l.Attrs().Name
		if !slices.Contains(interfaces, l.Attrs().Name) {
			continue
		}
		addrs, _ := completeAddresses(l)
		for _, a := range addrs {
			filtered[a.IP.String()] = true
		}
	}
	add := func(index int) {
		name := nameOf[index]
		if name != "" && name != "lo" && !slices.Contains(interfaces, name) && !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
		routes, err := completeRoutes(family, &netlink.Route{Table: unix.RT_TABLE_MAIN}, netlink.RT_FILTER_TABLE)
		if err != nil && len(routes) == 0 {
			continue
		}
		for _, r := range routes {
			if r.Src != nil && filtered[r.Src.String()] {
				add(r.LinkIndex)
			}
			mixed := slices.ContainsFunc(r.MultiPath, func(hop *netlink.NexthopInfo) bool {
				return slices.Contains(interfaces, nameOf[hop.LinkIndex])
			})
			for _, hop := range r.MultiPath {
				if mixed {
					add(hop.LinkIndex)
				}
			}
		}
	}
	return names
}

// Gateways returns the addresses of the default gateways, and apart from them every other one that has the MAC address of
// one: a gateway of IPv6 has its link-local address, too.
func Gateways() (gateways, sameMAC []netip.Addr, err error) {
	add := func(ip net.IP) {
		if addr, ok := netip.AddrFromSlice(ip); ok && !addr.IsUnspecified() && !slices.Contains(gateways, addr.Unmap()) {
			gateways = append(gateways, addr.Unmap())
		}
	}
	for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
		routes, err := completeRoutes(family, &netlink.Route{Table: unix.RT_TABLE_UNSPEC}, netlink.RT_FILTER_TABLE)
		if err != nil && len(routes) == 0 {
			return nil, nil, err
		}
		for _, r := range routes {
			if !isDefault(r.Dst) {
				continue
			}
			add(r.Gw)
			if via, ok := r.Via.(*netlink.Via); ok {
				add(via.Addr)
			}
			for _, hop := range r.MultiPath {
				add(hop.Gw)
				if via, ok := hop.Via.(*netlink.Via); ok {
					add(via.Addr)
				}
			}
		}
	}
	neighbours, err := completeNeighbours(0, netlink.FAMILY_ALL)
	if err != nil && len(neighbours) == 0 {
		return gateways, nil, nil // they are known by the addresses of the routes
	}
	var macs []net.HardwareAddr
	for _, n := range neighbours {
		if addr, ok := netip.AddrFromSlice(n.IP); ok && slices.Contains(gateways, addr.Unmap()) && len(n.HardwareAddr) > 0 {
			macs = append(macs, n.HardwareAddr)
		}
	}
	for _, n := range neighbours {
		addr, ok := netip.AddrFromSlice(n.IP)
		if addr = addr.Unmap(); !ok || addr.IsUnspecified() || slices.Contains(gateways, addr) || slices.Contains(sameMAC, addr) {
			continue
		}
		if slices.ContainsFunc(macs, func(mac net.HardwareAddr) bool { return bytes.Equal(mac, n.HardwareAddr) }) {
			sameMAC = append(sameMAC, addr)
		}
	}
	return gateways, sameMAC, nil
}

// isDefault reports whether a route leads everywhere.
func isDefault(to *net.IPNet) bool {
	if to == nil {
		return true
	}
	ones, _ := to.Mask.Size()
	return ones == 0
}

// resolverFiles are where the addresses of resolvers stand: the second one has those that systemd-resolved asks.
var resolverFiles = []string{"etc/resolv.conf", "run/systemd/resolve/resolv.conf"}

// Resolvers returns the addresses of the resolvers that this host asks. Where files is nil, this host's are read.
func Resolvers(files fs.FS) []netip.Addr {
	if files == nil {
		files = Files
	}
	var out []netip.Addr
	for _, name := range resolverFiles {
		text, err := ReadFile(files, name)
		if err != nil {
			continue // then none stands there
		}
		for line := range strings.Lines(string(text)) {
			fields := strings.Fields(line)
			if len(fields) < 2 || fields[0] != "nameserver" {
				continue
			}
			addr, err := netip.ParseAddr(fields[1])
			if addr = addr.WithZone("").Unmap(); err == nil && !slices.Contains(out, addr) {
				out = append(out, addr)
			}
		}
	}
	return out
}
