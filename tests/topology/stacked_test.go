// SPDX-License-Identifier: Apache-2.0

package topology

import (
	"testing"
	"time"

	"github.com/portcullis-firewall/portcullis/tests/internal/frame"
)

// What the kernel of this machine may not have, and those of tests/vm do.

func tagged(tags ...frame.Layer) []frame.Layer { return tags }

var (
	vlan10 = tagged(frame.VLAN{ID: 10})
	qinq   = tagged(frame.VLAN{ID: 5, Service: true}, frame.VLAN{ID: 10})
)

// makeVLAN makes the VLAN 10 of eth0, with a MAC of its own or that of eth0.
func makeVLAN(mac frame.MAC) func(*testing.T, *stage) {
	return func(t *testing.T, s *stage) {
		t.Helper()
		s.server(t, "link add link eth0 name vlan10 address %s type vlan id 10", text(mac))
		address(t, s.Server, "vlan10", onTop, theHost)
	}
}

func makeQinQ(t *testing.T, s *stage) {
	t.Helper()
	s.server(t, `link add link eth0 name vlan5 type vlan proto 802.1ad id 5
		link set vlan5 up
		link add link vlan5 name vlan10 address %s type vlan id 10`, text(childMAC))
	address(t, s.Server, "vlan10", onTop, theHost)
}

func vlanProbes(tags []frame.Layer) []probe {
	return []probe{
		{name: "tagged, to the parent's MAC", tags: tags, mac: eth0MAC, network: onTop, to: theHost},
		{name: "tagged, to the VLAN's MAC", tags: tags, mac: childMAC, network: onTop, to: theHost},
		{name: "tagged, to nobody's MAC", tags: tags, mac: nobodyMAC, network: onTop, to: theHost},
		{name: "untagged, to the VLAN's MAC", mac: childMAC, network: link, to: theHost},
		{name: "untagged, to the parent's MAC", mac: eth0MAC, network: link, to: theHost},
	}
}

var vlanShapes = []shape{
	{name: "VLAN with a MAC of its own", native: true, make: makeVLAN(childMAC), probes: vlanProbes(vlan10)},
	{name: "VLAN with its parent's MAC", native: true, make: makeVLAN(eth0MAC), probes: vlanProbes(vlan10)},
	{name: "on the VLAN", on: "vlan10", make: makeVLAN(childMAC), probes: vlanProbes(vlan10)[:3]},
	{name: "QinQ", native: true, make: makeQinQ, probes: vlanProbes(qinq)},
	{name: "on the inner VLAN of QinQ", on: "vlan10", make: makeQinQ, probes: vlanProbes(qinq)[:3]},
	{name: "VLAN of a guest", native: true,
		make: func(t *testing.T, s *stage) {
			s.server(t, "link add link eth0 name vlan10 address %s type vlan id 10\nlink set vlan10 netns %s", text(childMAC), s.guest.Name)
			address(t, s.guest, "vlan10", onTop, theGuest)
		},
		probes: []probe{
			{name: "tagged, to the guest's MAC", tags: vlan10, mac: childMAC, network: onTop, to: theGuest},
			{name: "untagged, to its MAC", mac: eth0MAC, network: link, to: theHost},
		},
	},
	{name: "macvlan on a VLAN, passthru", native: true,
		make: func(t *testing.T, s *stage) {
			makeVLAN(childMAC)(t, s)
			s.server(t, "addr flush dev vlan10\nlink add mv0 link vlan10 type macvlan mode passthru")
			address(t, s.Server, "mv0", onTop, theHost)
		},
		probes: vlanProbes(vlan10)[:3],
	},
}

func makeIPVLAN(mode string, elsewhere bool) func(*testing.T, *stage) {
	return func(t *testing.T, s *stage) {
		t.Helper()
		s.server(t, "link add ipv0 link eth0 type ipvlan mode %s", mode)
		if elsewhere {
			s.server(t, "link set ipv0 netns %s", s.guest.Name)
			address(t, s.guest, "ipv0", onTop, theGuest)
			return
		}
		address(t, s.Server, "ipv0", onTop, theHost)
	}
}

func ipvlanShapes(mode string) []shape {
	toGuest := probe{name: "to the MAC of both", mac: eth0MAC, network: onTop, to: theGuest}
	if mode != "l3s" { // which passes INPUT of the host
		toGuest.differs = sharedMAC
	}
	own := probe{name: "to its MAC", mac: eth0MAC, network: link, to: theHost}
	return []shape{
		{name: "ipvlan, " + mode, native: true, make: makeIPVLAN(mode, false), probes: []probe{own,
			{name: "to its MAC and the child's address", mac: eth0MAC, network: onTop, to: theHost},
			{name: "to nobody's MAC", mac: nobodyMAC, network: onTop, to: theHost},
		}},
		{name: "ipvlan in a guest, " + mode, native: true, make: makeIPVLAN(mode, true), probes: []probe{own, toGuest,
			{name: "to nobody's MAC", mac: nobodyMAC, network: onTop, to: theGuest},
		}},
	}
}

// makePorts makes one device of eth0 and eth1.
func makePorts(name, kind string) func(*testing.T, *stage) {
	return func(t *testing.T, s *stage) {
		t.Helper()
		s.second(t)
		s.server(t, `link add %[1]s type %[2]s
			addr flush dev eth0
			link set eth0 down
			link set eth1 down
			link set eth0 master %[1]s
			link set eth1 master %[1]s
			link set eth0 up
			link set eth1 up`, name, kind)
		address(t, s.Server, name, link, theHost)
		s.Server.Sysctl(t, "ipv4/conf/"+name+"/rp_filter", "0")
		time.Sleep(1500 * time.Millisecond) // till the ports are active
	}
}

// portProbes go over both wires to the MACs of both ports, as they were made; which of them a bond changes is its own.
func portProbes() (probes []probe) {
	for _, wire := range []string{"eth0", "eth1"} {
		for _, to := range []struct {
			name string
			mac  frame.MAC
		}{{"the first port's", eth0MAC}, {"the second port's", eth1MAC}, {"nobody's", nobodyMAC}} {
			probes = append(probes, probe{name: "over " + wire + " to " + to.name + " MAC", wire: wire, mac: to.mac, network: link, to: theHost})
		}
	}
	return probes
}

func bondShapes(mode string) []shape {
	made := makePorts("bond0", "bond mode "+mode+" miimon 50")
	return []shape{
		{name: "bond, " + mode, on: "bond0", make: made, probes: portProbes()},
		// The other port is not filtered: only what comes over the first wire is compared.
		{name: "port of a bond, " + mode, native: true, make: made, probes: portProbes()[:3]},
	}
}

var teamShapes = []shape{{name: "team", on: "team0", make: makePorts("team0", "team"), probes: portProbes()}}
