// SPDX-License-Identifier: Apache-2.0

package host

import (
	"bytes"
	"io/fs"
	"net"
	"net/netip"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Gateways returns the addresses of the default gateways, with every other one by which the same device is known here: a
// gateway of IPv6 has its link-local address, too.
func Gateways() ([]netip.Addr, error) {
	var out []netip.Addr
	add := func(ip net.IP) {
		if addr, ok := netip.AddrFromSlice(ip); ok && !addr.IsUnspecified() && !slices.Contains(out, addr.Unmap()) {
			out = append(out, addr.Unmap())
		}
	}
	for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
		routes, err := netlink.RouteListFiltered(family, &netlink.Route{Table: unix.RT_TABLE_UNSPEC}, netlink.RT_FILTER_TABLE)
		if err != nil && len(routes) == 0 {
			return nil, err
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
	neighbours, err := netlink.NeighList(0, netlink.FAMILY_ALL)
	if err != nil && len(neighbours) == 0 {
		return out, nil // they are known by the addresses of the routes
	}
	var macs []net.HardwareAddr
	for _, n := range neighbours {
		if addr, ok := netip.AddrFromSlice(n.IP); ok && slices.Contains(out, addr.Unmap()) && len(n.HardwareAddr) > 0 {
			macs = append(macs, n.HardwareAddr)
		}
	}
	for _, n := range neighbours {
		if slices.ContainsFunc(macs, func(mac net.HardwareAddr) bool { return bytes.Equal(mac, n.HardwareAddr) }) {
			add(n.IP)
		}
	}
	return out, nil
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
