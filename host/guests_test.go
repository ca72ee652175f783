// SPDX-License-Identifier: Apache-2.0

package host

import (
	"net"
	"slices"
	"testing"
	"testing/fstest"

	"github.com/vishvananda/netlink"
)

func TestManagers(t *testing.T) {
	for device, want := range map[string]string{"docker0": "Docker", "br-0123456789ab": "Docker", "br-lan": "", "br0": "", "virbr0": "libvirt",
		"podman1": "Podman", "cni0": "Kubernetes", "lxcbr0": "LXC", "cali0123456789a": "Calico", "eth0": ""} {
		if got := managerOf(device); got != want {
			t.Errorf("%s: %q, want %q", device, got, want)
		}
	}
}

func TestForwards(t *testing.T) {
	for name, want := range map[string]bool{
		"proc/sys/net/ipv4/conf/all/forwarding":      true,
		"proc/sys/net/ipv6/conf/all/forwarding":      true,
		"proc/sys/net/ipv4/conf/eth0.10/forwarding":  true,
		"proc/sys/net/ipv6/conf/eth0/forwarding":     true,
		"proc/sys/net/ipv4/conf/default/forwarding":  false, // nobody has it yet
		"proc/sys/net/ipv4/conf/eth0/mc_forwarding":  false,
		"proc/sys/net/ipv4/conf/eth0/bc_forwarding":  false,
		"proc/sys/net/ipv6/conf/eth0/accept_dad":     false,
		"proc/sys/net/ipv4/conf/all/proxy_arp_pvlan": false,
	} {
		tree := fstest.MapFS{"proc/sys/net/ipv4/conf/lo/forwarding": {Data: []byte("0\n")}, name: {Data: []byte("1\n")}}
		if got := Forwards(tree); got != want {
			t.Errorf("%s: %t, want %t", name, got, want)
		}
	}
}

// device is a link of a kind as the kernel would list it.
func device(index int, kind, name string, change func(*netlink.LinkAttrs)) netlink.Link {
	a := netlink.NewLinkAttrs()
	a.Index, a.Name = index, name
	if change != nil {
		change(&a)
	}
	switch kind {
	case "bridge":
		return &netlink.Bridge{LinkAttrs: a}
	case "veth":
		return &netlink.Veth{LinkAttrs: a}
	case "tuntap":
		return &netlink.Tuntap{LinkAttrs: a}
	case "bond":
		return &netlink.Bond{LinkAttrs: a}
	case "vlan":
		return &netlink.Vlan{LinkAttrs: a}
	case "macvlan":
		return &netlink.Macvlan{LinkAttrs: a}
	case "macvtap":
		return &netlink.Macvtap{Macvlan: netlink.Macvlan{LinkAttrs: a}}
	case "ipvlan":
		return &netlink.IPVlan{LinkAttrs: a}
	}
	return &netlink.Device{LinkAttrs: a}
}

func portOf(master int, elsewhere bool) func(*netlink.LinkAttrs) {
	return func(a *netlink.LinkAttrs) {
		if a.MasterIndex = master; elsewhere {
			a.NetNsID = 3
		}
	}
}

// on is for a device that stands on another of this host.
func on(parent int) func(*netlink.LinkAttrs) {
	return func(a *netlink.LinkAttrs) { a.ParentIndex = parent }
}

func TestGuests(t *testing.T) {
	bridge := device(1, "bridge", "br5", nil)
	for _, c := range []struct {
		what  string
		ports []netlink.Link
		want  int
	}{
		{"no ports", nil, 0},
		{"a container", []netlink.Link{device(2, "veth", "veth1", portOf(1, true))}, 1},
		{"a virtual machine", []netlink.Link{device(2, "tuntap", "vnet0", portOf(1, false))}, 1},
		{"a veth within this host", []netlink.Link{device(2, "veth", "veth1", portOf(1, false))}, 0},
		{"a container beside an uplink", []netlink.Link{device(2, "veth", "veth1", portOf(1, true)), device(3, "device", "eth0", portOf(1, false))}, 0},
		{"a container of another bridge", []netlink.Link{device(2, "veth", "veth1", portOf(9, true))}, 0},
	} {
		if got := guestsAmong(append([]netlink.Link{bridge}, c.ports...)); len(got) != c.want {
			t.Errorf("%s: %v", c.what, got)
		}
	}
	if got := guestsAmong([]netlink.Link{device(1, "bridge", "docker0", nil), device(2, "veth", "eth0", portOf(0, true))}); len(got) != 1 || got[0].String() != "docker0 (Docker)" {
		t.Errorf("got %v", got)
	}
}

// What stands on a filtered interface meets the filter there.
func TestCovers(t *testing.T) {
	eth0, eth1 := device(1, "device", "eth0", portOf(5, false)), device(2, "device", "eth1", portOf(5, false))
	vlan, macvlan := device(3, "vlan", "eth0.10", on(1)), device(9, "macvlan", "mv0", on(1))
	foreign := device(4, "vlan", "v10", func(a *netlink.LinkAttrs) { a.ParentIndex, a.NetNsID = 1, 2 })
	bond := device(5, "bond", "bond0", nil)
	br := device(6, "bridge", "br0", nil)
	uplink, guest := device(7, "device", "eth2", portOf(6, false)), device(8, "veth", "veth1", portOf(6, true))
	s := stack{[]netlink.Link{eth0, eth1, vlan, foreign, bond, br, uplink, guest, macvlan}, map[int]netlink.Link{}, nil}
	for _, l := range s.links {
		s.byIndex[l.Attrs().Index] = l
	}
	for _, c := range []struct {
		filtered []string
		device   netlink.Link
		want     bool
	}{
		{[]string{"eth0"}, eth0, true},
		{[]string{"eth1"}, eth0, false},
		{[]string{"eth0"}, vlan, true},
		{[]string{"eth1"}, vlan, false},
		{[]string{"eth0"}, macvlan, true},
		{[]string{"eth1"}, macvlan, false},
		{[]string{"eth0"}, foreign, false},
		{[]string{"eth0"}, bond, false},
		{[]string{"eth0", "eth1"}, bond, true},
		{[]string{"bond0"}, bond, true},
		{[]string{"eth2"}, br, true},
		{[]string{"eth0"}, br, false},
	} {
		s.filtered = c.filtered
		if got := s.covers(c.device, len(s.links), true); got != c.want {
			t.Errorf("a filter on %v covers %s: %t, want %t", c.filtered, c.device.Attrs().Name, got, c.want)
		}
	}
}

// What is routed from a guest has met no filter, though one is on the uplink of its bridge.
func TestBehind(t *testing.T) {
	links := []netlink.Link{
		device(1, "device", "eth0", nil),
		device(2, "vlan", "eth0.10", on(1)),
		device(3, "device", "eth1", nil),
		device(4, "bridge", "br0", nil), device(5, "device", "eth2", portOf(4, false)), device(6, "veth", "veth1", portOf(4, true)),
		device(7, "bridge", "docker0", nil), device(8, "veth", "veth2", portOf(7, true)),
		device(9, "bond", "bond0", nil), device(10, "device", "eth3", portOf(9, false)),
		device(11, "device", "lo", func(a *netlink.LinkAttrs) { a.Flags = net.FlagLoopback }),
		// A guest's macvlan of the same card hands them frames past native XDP there.
		device(12, "macvlan", "mv0", on(1)), device(13, "ipvlan", "ipv0", on(1)), device(14, "macvtap", "mt0", on(1)),
		device(15, "vlan", "mv0.20", on(12)), device(16, "macvlan", "mv1", on(1)), device(17, "vlan", "mv1.20", on(16)),
	}
	want := []Behind{
		{1, "eth0", true, false}, {2, "eth0.10", true, false}, {3, "eth1", false, false}, {4, "br0", false, false},
		{7, "docker0", false, true}, {9, "bond0", true, false},
		{12, "mv0", false, false}, {13, "ipv0", false, false}, {14, "mt0", false, false}, {15, "mv0.20", false, false},
		{16, "mv1", true, false}, {17, "mv1.20", true, false},
	}
	if got := behindAmong(links, []string{"eth0", "eth2", "eth3", "mv1"}); !slices.Equal(got, want) {
		t.Errorf("got  %v\nwant %v", got, want)
	}
}
