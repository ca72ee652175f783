// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"io/fs"
	"testing"

	"github.com/safchain/ethtool"

	"github.com/portcullis-firewall/portcullis/loader"
	"github.com/portcullis-firewall/portcullis/policy"
)

// on changes the device.
func on(change func(*device)) func(*situation) {
	return func(s *situation) { change(s.device) }
}

// feature turns an offload on.
func feature(name string, changeable bool) func(*situation) {
	return on(func(d *device) {
		d.Features = map[string]ethtool.FeatureState{name: {Active: true, Available: changeable}}
	})
}

// of makes it a device of another kind.
func of(kind, driver string) func(*situation) {
	return on(func(d *device) { d.Kind, d.Driver = kind, driver })
}

// veth is a situation in which eth0 is a veth.
func veth(from func() *situation) func() *situation {
	return func() *situation {
		s := from()
		of("veth", "veth")(s)
		return s
	}
}

// rejecting is a situation in which input is rejected on eth0, and on no other.
func rejecting(from func() *situation) func() *situation {
	return func() *situation {
		s := from()
		p := policy.Default()
		p.InputOn = map[string]policy.Verdict{"eth0": policy.Reject}
		s.options.Policy = p
		if s.options.Running != nil {
			s.options.Running.Policy = p
		}
		return s
	}
}

var (
	vlanOnTop   = on(func(d *device) { d.Stacked = []stacked{{"eth0.10", "vlan"}} })
	filtersTags = on(func(d *device) {
		d.Features = map[string]ethtool.FeatureState{"rx-vlan-hw-parse": {Active: true, Available: true}, "rx-vlan-filter": {Active: true}}
	})
)

func both(a, b func(*situation)) func(*situation) {
	return func(s *situation) { a(s); b(s) }
}

// hooked attaches what it is given, and nothing else.
func hooked(mode loader.Mode, hooks ...loader.Hook) func(*situation) {
	return on(func(d *device) { d.Mode, d.Hooks = mode, hooks })
}

func TestInterface(t *testing.T) {
	const up, again = "portcullis up ", "portcullis down eth0\nportcullis up eth0"
	ourXDP, ourOut := loader.Hook{Kind: "xdp", Ours: true}, loader.Hook{Kind: "tcx_out", Ours: true}
	runAll(t, []testcase{
		{"port of a bridge", stopped, on(func(d *device) { d.Master, d.MasterKind = "br0", "bridge" }), "device", Warn, "filter br0 instead", up + "br0"},
		{"filtered port of a bridge", well, on(func(d *device) { d.Master, d.MasterKind = "br0", "bridge" }), "device", Warn, "filter br0 instead", "portcullis up br0\nportcullis down eth0"},
		{"port of a bond", well, on(func(d *device) { d.Master, d.MasterKind = "bond0", "bond" }), "device", Warn, "port of bond0", "portcullis up bond0"},
		{"VLAN", well, on(func(d *device) { d.Kind, d.Parent = "vlan", "eth9" }), "device", Note, "VLAN on eth9", "portcullis up eth9"},
		{"down", well, on(func(d *device) { d.Up = false }), "device", Note, "is down", "ip link set dev eth0 up"},
		{"generic", well, on(func(d *device) { d.Mode = loader.ModeGeneric }), "xdp", Warn, "GRO", "portcullis up eth0 --mode tc"},
		{"veth", stopped, of("veth", "veth"), "xdp", Note, "segmentation offload", up + "eth0 --mode tc"},
		{"veth in native mode", well, of("veth", "veth"), "xdp", Note, "segmentation offload", "portcullis up eth0 --mode tc"},
		{"veth in TC mode", well, on(func(d *device) { d.Kind, d.Mode = "veth", loader.ModeTC }), "xdp", OK, "TC filters", ""},
		{"driver without", stopped, on(func(d *device) { d.Driver, d.XDP = "e1000", 0 }), "xdp", Note, "e1000 has no native XDP", ""},
		{"bridge", stopped, on(func(d *device) { d.Kind, d.XDP = "bridge", 0 }), "xdp", Note, "bridge has no native XDP", ""},
		{"driver known", stopped, on(func(d *device) { d.XDPKnown, d.XDP = false, 0 }), "xdp", OK, "ixgbe has native XDP", ""},
		{"driver unknown", stopped, on(func(d *device) { d.Driver, d.XDPKnown, d.XDP = "r8169", false, 0 }), "xdp", Note, "r8169 has no native XDP", ""},
		{"virtio", stopped, both(feature("rx-gro-hw", false), of("device", "virtio_net")), "xdp", Note, "ctrl_guest_offloads", ""},
		{"virtio with a switch", stopped, both(feature("rx-gro-hw", true), of("device", "virtio_net")), "xdp", OK, "", ""},
		{"forgetful", stopped, of("device", "vmxnet3"), "xdp", Note, "TC filters", ""},
		{"forgetful in native mode", well, of("device", "vmxnet3"), "xdp", Warn, "down and up", "portcullis up eth0 --mode tc"},
		{"forgotten", well, on(func(d *device) { d.Bypassed = true }), "run", Fail, "the driver ixgbe does not run", "portcullis up eth0 --mode tc"},
		{"overtaken", well, on(func(d *device) { d.Bypassed, d.Mode = true, loader.ModeTC }), "run", Fail, "another TC program", ""},
		{"run", well, func(*situation) {}, "run", OK, "no packet", ""},
		{"unlooked", well, func(s *situation) { s.options.LookErr = fs.ErrPermission }, "run", Note, "could not watch", ""},
		{"refused on a veth", rejecting(veth(well)), on(func(*device) {}), "reject", Warn, "GRO on", "portcullis up eth0 --mode tc"},
		{"refused on a veth by TC", rejecting(veth(well)), on(func(d *device) { d.Mode = loader.ModeTC }), "reject", OK, "is told", ""},
		{"refused on a veth before up", rejecting(veth(stopped)), on(func(*device) {}), "reject", OK, "is told", ""},
		{"refused beside VLANs", rejecting(well), both(feature("rx-vlan-hw-parse", true), vlanOnTop), "reject", Warn, "takes VLAN tags off", "ethtool -K eth0 rxvlan off"},
		{"refused beside VLANs, fixed", rejecting(stopped), both(feature("rx-vlan-hw-parse", false), vlanOnTop), "reject", Warn, "TC answers", "portcullis up eth0 --mode tc"},
		{"refused by TC beside VLANs", rejecting(well), both(both(feature("rx-vlan-hw-parse", true), vlanOnTop), on(func(d *device) { d.Mode = loader.ModeTC })), "reject", OK, "is told", ""},
		{"refused beside VLANs with tags", rejecting(well), vlanOnTop, "reject", OK, "is told", ""},
		{"refused beside no VLANs", rejecting(well), filtersTags, "reject", OK, "is told", ""},
		{"refused where there may be VLANs", rejecting(well), both(filtersTags, func(s *situation) { s.files["proc/net/vlan/config"] = "VLAN Dev name\n" }),
			"reject", Warn, "takes VLAN tags off", "ethtool -K eth0 rxvlan off"},
		{"large", stopped, on(func(d *device) { d.MTU = 9000 }), "mtu", Warn, "MTU of 9000", "ip link set dev eth0 mtu 3498"},
		{"large with frags", stopped, on(func(d *device) { d.MTU, d.XDP = 9000, xdpBasic|xdpFrags }), "mtu", OK, "multi-buffer", ""},
		{"largest", stopped, on(func(d *device) { d.MTU = 3498 }), "mtu", OK, "fits one page", ""},
		{"large and filtered", well, on(func(d *device) { d.MTU = 9000 }), "mtu", OK, "9000", ""},
		{"on", stopped, feature("rx-lro", true), "lro", Warn, "large receive offload", "ethtool -K eth0 lro off"},
		{"fixed", stopped, feature("rx-lro", false), "lro", Warn, "cannot be turned off", ""},
		{"on a bond", stopped, both(feature("rx-lro", false), of("bond", "bonding")), "lro", OK, "whatever its ports do", ""},
		{"on and filtered", well, feature("rx-lro", true), "lro", OK, "beside it", ""},
		{"on", stopped, feature("rx-gro-hw", true), "gro-hw", Warn, "GRO in hardware", "ethtool -K eth0 rx-gro-hw off"},
		{"fixed", stopped, feature("rx-gro-hw", false), "gro-hw", Warn, "cannot be turned off", ""},
		{"on and filtered", well, feature("rx-gro-hw", true), "gro-hw", OK, "nothing is merged", ""},
		{"few", well, on(func(d *device) { d.Channels = channels{"combined", 1, 16} }), "channels", Warn, "1 of 8 CPUs", "ethtool -L eth0 combined 8"},
		{"few of few", well, on(func(d *device) { d.Channels = channels{"rx", 1, 4} }), "channels", Warn, "1 of 8 CPUs", "ethtool -L eth0 rx 4"},
		{"more than half of ena's", stopped, on(func(d *device) { d.Driver = "ena" }), "channels", Warn, "ena refuses", "ethtool -L eth0 combined 4"},
		{"half of ena's", stopped, on(func(d *device) { d.Driver, d.Channels = "ena", channels{"combined", 4, 8} }), "channels", OK, "4, for 8", ""},
		{"one of ena's", stopped, on(func(d *device) { d.Driver, d.Channels = "ena", channels{"combined", 1, 1} }), "channels", Note, "a single channel", ""},
		{"few of a veth", veth(well), on(func(d *device) { d.Channels = channels{"rx", 1, 8} }), "channels", Warn, "1 of 8 CPUs", "ethtool -L eth0 rx 8"},
		{"few of a veth before up", veth(stopped), on(func(d *device) { d.Channels = channels{"rx", 1, 8} }), "channels", OK, "counts in native XDP alone", ""},
		{"few of a tap in native mode", well, both(of("tuntap", "tun"), on(func(d *device) { d.Channels = channels{"rx", 1, 8} })), "channels", OK, "does not matter", ""},
		{"enough", well, on(func(d *device) { d.Channels = channels{"combined", 8, 16} }), "channels", OK, "8, for 8", ""},
		{"untold", well, on(func(d *device) { d.Channels = channels{} }), "channels", OK, "reports none", ""},
		{"few of a tap", stopped, both(of("tuntap", "tun"), on(func(d *device) { d.Channels = channels{"rx", 1, 8} })), "channels", OK, "does not matter", ""},
		{"stripped", well, both(feature("rx-vlan-hw-parse", true), on(func(d *device) { d.Stacked = []stacked{{"eth0.10", "vlan"}, {"eth0.20", "vlan"}} })),
			"vlan", Note, "eth0.10, eth0.20", "ethtool -K eth0 rxvlan off"},
		{"kept", well, on(func(d *device) { d.Stacked = []stacked{{"eth0.10", "vlan"}} }), "vlan", OK, "eth0.10", ""},
		{"on top", well, on(func(d *device) { d.Stacked = []stacked{{"mv0", "macvlan"}, {"mv1", "macvtap"}} }), "macvlan", OK, "mv0, mv1 is filtered here", ""},
		{"XDP", stopped, hooked("", loader.Hook{Kind: "xdp", Program: 12, Name: "balancer", Holders: []string{"lbd"}}),
			"programs", Fail, `the XDP program "balancer" (id 12) of lbd has the XDP hook`, up + "eth0 --mode tc"},
		{"XDP before TC", well, hooked(loader.ModeTC, loader.Hook{Kind: "xdp", Program: 12}, loader.Hook{Kind: "tcx_in", Ours: true}, ourOut),
			"programs", Note, "the XDP program (id 12) runs before", ""},
		{"TCX before", well, hooked(loader.ModeNative, ourXDP, loader.Hook{Kind: "tcx_out", Program: 3, Name: "cil_to"}, ourOut),
			"programs", Warn, `the TCX program "cil_to" (id 3) runs before`, again},
		{"TCX after", well, hooked(loader.ModeNative, ourXDP, loader.Hook{Kind: "tcx_in", Program: 4}, ourOut, loader.Hook{Kind: "clsact_out", Name: "u32"}),
			"programs", OK, "", ""},
		{"TCX before clsact", well, hooked(loader.ModeNative, ourXDP, loader.Hook{Kind: "tcx_out", Program: 3}, loader.Hook{Kind: "clsact_out", Ours: true}),
			"programs", Warn, "(id 3) runs before", again},
		{"hostile names", stopped, hooked("", loader.Hook{Kind: "xdp", Program: 12, Name: "\x1b[2J", Holders: []string{"a\nb"}}),
			"programs", Fail, `the XDP program "\x1b[2J" (id 12) of a\nb has the XDP hook`, up + "eth0 --mode tc"},
		{"AF_XDP", well, on(func(d *device) { d.Sockets = 2 }), "programs", Note, "2 AF_XDP sockets", ""},
		{"unseen", well, on(func(d *device) { d.HooksErr = fs.ErrPermission }), "programs", Note, "not seen without root", "sudo portcullis doctor"},
	})
}
