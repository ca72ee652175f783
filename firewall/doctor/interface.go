// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"cmp"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"github.com/portcullis-firewall/portcullis/loader"
	"github.com/portcullis-firewall/portcullis/policy"
	"github.com/portcullis-firewall/portcullis/policy/quote"
)

// device examines one interface.
func (e *examination) device(d *device) {
	e.kind(d)
	// Of a filter that cannot be seen nobody knows which programs are its own, nor in which mode they filter.
	if e.unseen("programs", "what filters "+quote.Name(d.Name), e.FilterErr) {
		return
	}
	e.native(d)
	e.reject(d)
	e.mtu(d)
	e.offloads(d)
	e.channels(d)
	e.stacked(d)
	e.hooks(d)
	e.run(d)
}

// run examines whether what is attached is run.
func (e *examination) run(d *device) {
	switch {
	case d.Mode == "":
	case d.Bypassed && d.Mode == loader.ModeTC:
		e.fail("run", "packets reach this host past the filter: another TC program takes them before it")
	case d.Bypassed:
		e.fail("run", "packets reach this host past the filter: the driver %s does not run the XDP program that is attached", cmp.Or(d.Driver, d.Kind)).
			fix(e.up(d.Name, "--mode", "tc"))
	case e.LookErr != nil:
		e.note("run", "could not watch for packets that bypass the filter: %s", e.LookErr)
	default:
		e.ok("run", "no packet bypassed the filter while doctor watched")
	}
}

func (e *examination) kind(d *device) {
	switch {
	case d.MasterKind == "bridge":
		mend := []string{e.up(d.Master)}
		if d.Mode != "" {
			mend = append(mend, e.portcullis("down", d.Name))
		}
		e.warn("device", "%s is a port of bridge %s: broadcast and multicast for the guests behind it is filtered as if it were for this host; filter %s instead", d.Name, d.Master, d.Master).
			fix(mend...)
	case d.MasterKind == "bond" || d.MasterKind == "team":
		e.warn("device", "%s is a port of %s, which has the addresses and gets the packets of all its ports", d.Name, d.Master).
			fix(e.up(d.Master))
	case d.Kind == "vlan" && d.Parent != "":
		e.note("device", "%s is a VLAN on %s, where XDP can filter it together with all else that comes in there", d.Name, d.Parent).
			fix(e.up(d.Parent))
	case !d.Up:
		e.note("device", "%s is down", d.Name).fix("ip link set dev " + quote.Shell(d.Name) + " up")
	case d.Kind == "device":
		e.ok("device", "driver %s", d.Driver)
	default:
		e.ok("device", "a device of kind %s", d.Kind)
	}
}

// native examines whether the driver takes XDP at all, and at what price.
func (e *examination) native(d *device) {
	gro, changeable := d.on("rx-gro-hw")
	switch {
	case d.Mode == loader.ModeGeneric:
		e.warn("xdp", "generic XDP turns GRO off, so that bulk TCP is slow; TC does not").
			fix(e.up(d.Name, "--mode", "tc"))
	case d.Kind == "veth" && d.Mode == loader.ModeTC:
		e.ok("xdp", "TC filters, which leaves the other end of the veth pair its segmentation offload")
	case d.Kind == "veth":
		e.note("xdp", "native XDP on veth turns off segmentation offload of the other end, and bulk TCP drops to a quarter; TC leaves it on").
			fix(e.up(d.Name, "--mode", "tc"))
	case d.Driver == "vmxnet3" && d.Mode == loader.ModeNative:
		e.warn("xdp", "vmxnet3 stops running the XDP program when the device is set down and up, or its MTU or rings change").
			fix(e.up(d.Name, "--mode", "tc"))
	case d.Driver == "vmxnet3":
		e.note("xdp", "vmxnet3 stops running an XDP program when the device is set down and up, or its MTU or rings change: TC filters")
	case d.Mode == loader.ModeNative:
		e.ok("xdp", "native XDP filters")
	case !d.native() && d.Kind == "device":
		e.note("xdp", "the driver %s has no native XDP: TC filters, which costs more a dropped packet", d.Driver)
	case !d.native():
		e.note("xdp", "a %s has no native XDP: TC filters", d.Kind)
	case d.Driver == "virtio_net" && gro && !changeable: // virtnet_xdp_set, drivers/net/virtio_net.c
		e.note("xdp", "the hypervisor merges segments and has no switch for it, so virtio_net refuses native XDP and TC filters: "+
			"let it offer ctrl_guest_offloads, or turn guest_tso4, guest_tso6 and guest_ufo off there")
	case !d.XDPKnown:
		e.ok("xdp", "the driver %s has native XDP", d.Driver)
	default:
		e.ok("xdp", "the driver takes native XDP")
	}
}

// reject examines whether who is refused under "input: reject" hears of it: see way_back in bpf/reject.h.
func (e *examination) reject(d *device) {
	blind, changeable := e.rejectsBlindly(d)
	switch {
	case !e.rejects(d):
	case blind && changeable:
		e.warn("reject", "the card takes VLAN tags off before native XDP sees them, and who is refused by a frame without one gets no answer").
			fix("ethtool -K " + quote.Shell(d.Name) + " rxvlan off")
	case blind:
		e.warn("reject", "the card takes VLAN tags off before native XDP sees them, and who is refused by a frame without one gets no answer; TC answers").
			fix(e.up(d.Name, "--mode", "tc"))
	case d.Kind == "veth" && d.Mode == loader.ModeNative: // auto takes TC there
		e.warn("reject", "what native XDP answers on a veth gets to the other end only if that has GRO on (\"ethtool -K DEVICE gro on\" there), or an XDP program; TC answers in any case").
			fix(e.up(d.Name, "--mode", "tc"))
	default:
		e.ok("reject", "who is refused is told")
	}
}

func (e *examination) rejects(d *device) bool {
	return e.Policy != nil && e.Policy.InputOf(d.Name) == policy.Reject
}

// rejectsBlindly reports whether native XDP refuses without knowing in which VLAN, and whether the card can be told to
// leave the tags.
func (e *examination) rejectsBlindly(d *device) (blind, changeable bool) {
	native := d.Mode == loader.ModeNative || d.Mode == "" && d.native() && d.Kind != "veth"
	stripped, changeable := d.on("rx-vlan-hw-parse")
	return e.rejects(d) && native && stripped && e.hasVLANs(d), changeable
}

// hasVLANs reports whether a device knows of a VLAN: one that stands on it, or number 0, which the kernel adds to each
// device that filters tags once it has loaded what makes VLANs (vlan_device_event in net/8021q/vlan.c).
func (e *examination) hasVLANs(d *device) bool {
	_, err := fs.Stat(e.files, "proc/net/vlan")
	filters, _ := d.on("rx-vlan-filter")
	return err == nil && filters || slices.ContainsFunc(d.Stacked, func(s stacked) bool { return s.Kind == "vlan" })
}

func (e *examination) mtu(d *device) {
	switch {
	case d.MTU <= loader.LinearMTU:
		e.ok("mtu", "a frame of %d bytes fits one page", d.MTU)
	case !d.native() || d.Mode != "":
		e.ok("mtu", "%d", d.MTU)
	case !d.XDPKnown || d.XDP&xdpFrags != 0:
		e.ok("mtu", "%d takes multi-buffer XDP, which the driver is asked for", d.MTU)
	default:
		e.warn("mtu", "with an MTU of %d the driver refuses native XDP, since a frame does not fit one page: TC filters", d.MTU).
			fix(fmt.Sprintf("ip link set dev %s mtu %d", quote.Shell(d.Name), loader.LinearMTU))
	}
}

// offloads examines what keeps drivers from native XDP.
func (e *examination) offloads(d *device) {
	lro, changeable := d.on("rx-lro")
	switch {
	case !lro:
		e.ok("lro", "large receive offload is off")
	case d.Kind == "bond" || d.Kind == "team":
		e.ok("lro", "does not matter: a %s shows it whatever its ports do", d.Kind)
	case d.Driver == "vmxnet3" && d.Mode != loader.ModeNative:
		e.ok("lro", "does not matter: TC filters on vmxnet3")
	case d.Mode == loader.ModeNative:
		e.ok("lro", "the driver filters in native XDP beside it")
	case changeable:
		e.warn("lro", "drivers refuse native XDP with large receive offload, and TC would filter").fix("ethtool -K " + quote.Shell(d.Name) + " lro off")
	default:
		e.warn("lro", "large receive offload is on and cannot be turned off, so the driver refuses native XDP and TC filters")
	}
	gro, changeable := d.on("rx-gro-hw")
	switch {
	case !gro || !d.native() || d.Mode == loader.ModeNative:
		e.ok("gro-hw", "nothing is merged before XDP")
	case d.Driver == "virtio_net":
		e.ok("gro-hw", "virtio_net turns its own off, where it can")
	case changeable:
		e.warn("gro-hw", "drivers refuse native XDP with GRO in hardware, and TC would filter").fix("ethtool -K " + quote.Shell(d.Name) + " rx-gro-hw off")
	default:
		e.warn("gro-hw", "GRO in hardware is on and cannot be turned off, so the driver refuses native XDP and TC filters")
	}
}

func (e *examination) channels(d *device) {
	c, most := d.Channels, d.Channels.Max
	halved := (d.Driver == "ena" || d.Driver == "gve") && c.Kind == "combined" // they want a second queue for each with XDP
	if halved {
		most /= 2
	}
	set := func(n int) string { return fmt.Sprintf("ethtool -L %s %s %d", quote.Shell(d.Name), c.Kind, n) }
	switch {
	case c.Max == 0:
		e.ok("channels", "the driver reports none")
	case d.Kind == "veth" && d.Mode == "": // and native is what up tries
		e.ok("channels", "%d, which counts in native XDP alone; under TC the CPU that sends decides", c.Now)
	case d.Kind != "device" && (d.Kind != "veth" || d.Mode != loader.ModeNative):
		e.ok("channels", "does not matter: the CPU that sends decides")
	case halved && c.Now == 1 && c.Max == 1 && d.Mode != loader.ModeNative:
		e.note("channels", "%s refuses native XDP with a single channel, and TC filters", d.Driver)
	case halved && c.Now > most && d.Mode != loader.ModeNative:
		e.warn("channels", "with more than half of its %d channels in use, %s refuses native XDP, and TC filters", c.Max, d.Driver).fix(set(max(most, 1)))
	case c.Now < most && c.Now < d.CPUs:
		e.warn("channels", "%d of %d CPUs decide on all packets, while the device has channels for %d", c.Now, d.CPUs, most).
			fix(set(min(most, d.CPUs)))
	default:
		e.ok("channels", "%d, for %d CPUs", c.Now, d.CPUs)
	}
}

// stacked examines the devices that get their packets from this one.
func (e *examination) stacked(d *device) {
	var vlans, macvlans []string
	for _, s := range d.Stacked {
		switch s.Kind {
		case "vlan":
			vlans = append(vlans, s.Name)
		case "macvlan", "macvtap":
			macvlans = append(macvlans, s.Name)
		}
	}
	names := quote.Names(vlans)
	stripped, changeable := d.on("rx-vlan-hw-parse")
	blind, _ := e.rejectsBlindly(d) // which is said already
	switch {
	case len(vlans) == 0:
		e.ok("vlan", "there is no VLAN on it")
	case stripped && !blind && d.Mode != loader.ModeTC && changeable:
		e.note("vlan", "what comes in for %s is filtered here, by the same rules; the card takes the tags off first, so that the log shows none", names).
			fix("ethtool -K " + quote.Shell(d.Name) + " rxvlan off")
	default:
		e.ok("vlan", "what comes in for %s is filtered here, by the same rules", names)
	}
	if len(macvlans) > 0 {
		e.ok("macvlan", "what comes in for %s is filtered here, whatever its MAC address", quote.Names(macvlans))
	}
}

// hooks examines the programs of others.
func (e *examination) hooks(d *device) {
	if e.unseen("programs", "XDP and TC programs of others", d.HooksErr) {
		return
	}
	if d.HooksErr != nil {
		e.note("programs", "%s", d.HooksErr)
		return
	}
	quiet := len(e.checks)
	before := map[bool]*loader.Hook{} // what runs before ours, in and out
	for i := range d.Hooks {
		h := &d.Hooks[i]
		out := strings.HasSuffix(h.Kind, "_out")
		switch first := before[out]; {
		case h.Ours && first != nil && first.Kind == "xdp":
			e.note("programs", "%s runs before portcullis: what it takes does not get here", nameOf(first))
		case h.Ours && first != nil:
			e.warn("programs", "%s runs before portcullis, and may end the way of a packet there, unfiltered", nameOf(first)).
				fix(e.portcullis("down", d.Name), e.upAgain(d.Name))
		case h.Ours:
		case h.Kind == "xdp" && d.Mode == "":
			e.fail("programs", "%s has the XDP hook, so that \"up\" is refused: filter behind it, or take it off with \"ip link set dev %s xdp off\"", nameOf(h), quote.Shell(d.Name)).
				fix(e.up(d.Name, "--mode", "tc"))
		default:
			before[out] = h
		}
	}
	if d.Sockets > 0 {
		e.note("programs", "%d AF_XDP sockets take packets here: what they send begins no flow, so that replies to it need an open port", d.Sockets)
	}
	if len(e.checks) == quiet {
		e.ok("programs", "none of others stands before portcullis")
	}
}

// nameOf names a program, and who has it.
func nameOf(h *loader.Hook) string {
	text := map[string]string{"xdp": "the XDP program", "tcx_in": "the TCX program", "tcx_out": "the TCX program",
		"clsact_in": "the TC filter", "clsact_out": "the TC filter"}[h.Kind]
	if h.Name != "" {
		text += fmt.Sprintf(" \"%s\"", quote.Name(h.Name))
	}
	if h.Program != 0 {
		text += fmt.Sprintf(" (id %d)", h.Program)
	}
	if len(h.Holders) > 0 {
		text += " of " + quote.Names(h.Holders)
	}
	return text
}
