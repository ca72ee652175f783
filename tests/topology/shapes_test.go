// SPDX-License-Identifier: Apache-2.0

package topology

import (
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/portcullis-firewall/portcullis/tests/internal/frame"
)

var shapes = slices.Concat(plainShapes, bridgeShapes, macvlanShapes("bridge"), macvlanShapes("private"), macvlanShapes("vepa"),
	macvlanShapes("source"), passthruShapes, vxlanShapes, vlanShapes, ipvlanShapes("l2"), ipvlanShapes("l3"), ipvlanShapes("l3s"),
	bondShapes("active-backup"), bondShapes("balance-rr"), bondShapes("balance-xor"), bondShapes("balance-alb"),
	bondShapes("802.3ad"), teamShapes)

// The row of docs/netfilter-differences.md that frames to MAC addresses meet.
var sharedMAC = &difference{
	row:       "to a guest that shares the MAC address of the filtered interface: ipvlan, macvlan in `passthru` or `source` mode",
	netfilter: "the guest", ours: "nobody",
}

func text(m frame.MAC) string { return net.HardwareAddr(m[:]).String() }

var plainShapes = []shape{{
	name: "plain", native: true,
	make: func(t *testing.T, s *stage) { s.second(t) },
	probes: []probe{
		{name: "to its MAC", mac: eth0MAC, network: link, to: theHost},
		{name: "to the other device's MAC", mac: eth1MAC, network: link, to: theHost},
		{name: "to nobody's MAC", mac: nobodyMAC, network: link, to: theHost},
		{name: "to the broadcast MAC", mac: frame.Broadcast, network: link, to: theHost},
	},
}}

// makeBridge makes a bridge of eth0 with the host's addresses, and a guest behind another port.
func makeBridge(t *testing.T, s *stage) {
	t.Helper()
	s.server(t, `link add br0 address %s type bridge forward_delay 0
		link set br0 up
		addr flush dev eth0
		link set eth0 master br0
		link add tap0 address %s type veth peer name eth0 address %s netns %s
		link set tap0 master br0
		link set tap0 up`, text(bridgeMAC), text(eth1MAC), text(guestMAC), s.guest.Name)
	address(t, s.Server, "br0", link, theHost)
	address(t, s.guest, "eth0", link, theGuest)
	s.guest.Sysctl(t, "ipv4/conf/eth0/rp_filter", "0")
	time.Sleep(100 * time.Millisecond) // till the ports forward
}

var bridgeProbes = []probe{
	{name: "to the bridge's MAC", mac: bridgeMAC, network: link, to: theHost},
	{name: "to the port's MAC", mac: eth0MAC, network: link, to: theHost},
	{name: "to the other port's MAC", mac: eth1MAC, network: link, to: theHost},
	{name: "to the guest's MAC", mac: guestMAC, network: link, to: theGuest},
	{name: "to the guest's MAC and the host's address", mac: guestMAC, network: link, to: theHost},
	{name: "to nobody's MAC", mac: nobodyMAC, network: link, to: theHost},
}

var bridgeShapes = []shape{
	{name: "port of a bridge", native: true, make: makeBridge, probes: bridgeProbes},
	{name: "bridge", on: "br0", make: makeBridge, probes: bridgeProbes},
	{name: "bridge with a macvlan", on: "br0",
		make: func(t *testing.T, s *stage) {
			makeBridge(t, s)
			s.server(t, "link add mv0 link br0 address %s type macvlan mode bridge", text(childMAC))
			address(t, s.Server, "mv0", onTop, theHost)
		},
		probes: append(slices.Clone(bridgeProbes), probe{name: "to the child's MAC", mac: childMAC, network: onTop, to: theHost}),
	},
}

var childProbes = []probe{
	{name: "to its MAC", mac: eth0MAC, network: link, to: theHost},
	{name: "to the child's MAC", mac: childMAC, network: onTop, to: theHost},
	{name: "to its MAC and the child's address", mac: eth0MAC, network: onTop, to: theHost},
	{name: "to the child's MAC and its address", mac: childMAC, network: link, to: theHost},
	{name: "to nobody's MAC", mac: nobodyMAC, network: onTop, to: theHost},
}

var guestProbes = []probe{
	{name: "to its MAC", mac: eth0MAC, network: link, to: theHost},
	{name: "to the guest's MAC", mac: childMAC, network: onTop, to: theGuest},
	{name: "to nobody's MAC", mac: nobodyMAC, network: onTop, to: theGuest},
}

// makeChild puts a macvlan on eth0, here or in the guest.
func makeChild(mode string, elsewhere bool) func(*testing.T, *stage) {
	return func(t *testing.T, s *stage) {
		t.Helper()
		s.server(t, "link add mv0 link eth0 address %s type macvlan mode %s", text(childMAC), mode)
		if mode == "source" {
			s.server(t, "link set mv0 type macvlan macaddr add %s", text(clientMAC))
		}
		if elsewhere {
			s.server(t, "link set mv0 netns %s", s.guest.Name)
			address(t, s.guest, "mv0", onTop, theGuest)
			return
		}
		address(t, s.Server, "mv0", onTop, theHost)
	}
}

func macvlanShapes(mode string) []shape {
	return []shape{
		{name: "macvlan, " + mode, native: true, make: makeChild(mode, false), probes: childProbes},
		{name: "macvlan in a guest, " + mode, native: true, make: makeChild(mode, true), probes: guestProbes},
		{name: "on the macvlan, " + mode, on: "mv0", make: makeChild(mode, false), probes: []probe{childProbes[1], childProbes[4]}},
	}
}

// makePassthru puts a macvlan in passthru mode on a device, which gives it its MAC.
func makePassthru(t *testing.T, s *stage, below string) {
	t.Helper()
	s.server(t, "addr flush dev eth0\nlink add mv0 link %s type macvlan mode passthru", below)
	address(t, s.Server, "mv0", onTop, theHost)
}

var passthruProbes = []probe{
	{name: "to its MAC", mac: eth0MAC, network: onTop, to: theHost},
	{name: "to nobody's MAC", mac: nobodyMAC, network: onTop, to: theHost},
}

var passthruShapes = []shape{
	{name: "macvlan, passthru", native: true, probes: passthruProbes,
		make: func(t *testing.T, s *stage) { makePassthru(t, s, "eth0") }},
	{name: "on the macvlan, passthru", on: "mv0", probes: passthruProbes,
		make: func(t *testing.T, s *stage) { makePassthru(t, s, "eth0") }},
	{name: "macvlan on another device, passthru", native: true,
		make: func(t *testing.T, s *stage) {
			s.second(t)
			s.server(t, "link add mv0 link eth1 type macvlan mode passthru")
			address(t, s.Server, "mv0", onTop, theHost)
			makeBridgeOn(t, s)
		},
		probes: []probe{
			{name: "to the guest's MAC", mac: guestMAC, network: link, to: theGuest},
			{name: "to nobody's MAC", mac: nobodyMAC, network: link, to: theHost},
		},
	},
	{name: "macvlan in a guest, passthru", native: true,
		make: func(t *testing.T, s *stage) {
			s.server(t, "link add mv0 link eth0 type macvlan mode passthru\nlink set mv0 netns %s", s.guest.Name)
			address(t, s.guest, "mv0", onTop, theGuest)
		},
		probes: []probe{
			{name: "to the MAC of both", mac: eth0MAC, network: onTop, to: theGuest, differs: sharedMAC},
			{name: "to nobody's MAC", mac: nobodyMAC, network: onTop, to: theGuest},
		},
	},
}

// makeBridgeOn bridges a guest to eth0, and leaves the host without addresses there.
func makeBridgeOn(t *testing.T, s *stage) {
	t.Helper()
	s.server(t, `link add br0 address %s type bridge forward_delay 0
		link set br0 up
		addr flush dev eth0
		link set eth0 master br0
		link add tap0 type veth peer name eth0 address %s netns %s
		link set tap0 master br0
		link set tap0 up`, text(bridgeMAC), text(guestMAC), s.guest.Name)
	address(t, s.guest, "eth0", link, theGuest)
	s.guest.Sysctl(t, "ipv4/conf/eth0/rp_filter", "0")
	time.Sleep(100 * time.Millisecond)
}

// inVXLAN wraps a frame in a packet of VXLAN 7 to the host.
func inVXLAN(inner []byte) []byte {
	return frame.Build(frame.Ethernet{Dst: eth0MAC, Src: clientMAC},
		frame.IPv4{Src: netip.MustParseAddr("192.0.2.2"), Dst: netip.MustParseAddr("192.0.2.1")},
		frame.UDP{SrcPort: 5000, DstPort: 4789}, frame.Raw{8, 0, 0, 0, 0, 0, 7, 0}, frame.Raw(inner))
}

var vxlanShapes = []shape{{
	name: "VXLAN", on: "vxlan0",
	make: func(t *testing.T, s *stage) {
		s.server(t, `link add vxlan0 address %s type vxlan id 7 dstport 4789 local 192.0.2.1 remote 192.0.2.2 dev eth0
			link set vxlan0 up
			link add mv0 link vxlan0 address %s type macvlan mode bridge`, text(bridgeMAC), text(childMAC))
		address(t, s.Server, "mv0", onTop, theHost)
		address(t, s.Server, "vxlan0", onTop, theClient+10)
	},
	probes: []probe{
		{name: "to its MAC", mac: bridgeMAC, network: onTop, to: theHost, around: inVXLAN},
		{name: "to its child's MAC", mac: childMAC, network: onTop, to: theHost, around: inVXLAN},
		{name: "to nobody's MAC", mac: nobodyMAC, network: onTop, to: theHost, around: inVXLAN},
	},
}}
