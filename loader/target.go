// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"

	"github.com/portcullis-firewall/portcullis/bpf"
	"github.com/portcullis-firewall/portcullis/host"
	"github.com/portcullis-firewall/portcullis/loader/hook"
	"github.com/portcullis-firewall/portcullis/loader/pin"
	"github.com/portcullis-firewall/portcullis/maps"
	"github.com/portcullis-firewall/portcullis/policy"
	"github.com/portcullis-firewall/portcullis/policy/quote"
)

// target is one interface that a change brings to the new policy.
type target struct {
	device          netlink.Link
	constants       *maps.Constants
	egress, ingress *ebpf.Program    // ingress is nil where the program depends on what the device takes
	oldOut, oldIn   *hook.Attachment // nil where nothing of ours runs
	direction       string           // of ingress
	outgrown        bool             // frames may be larger than the buffer that the XDP program takes
	mode            Mode             // asked for; ModeAuto leaves what runs
	group           policy.Group     // of the table of ports
	returns         bool             // in the mode that its predecessor had, and nobody is there to ask for another
}

func (t *target) name() string { return t.device.Attrs().Name }

func (t *target) attachment(p pin.Dir, kind string) *hook.Attachment {
	return &hook.Attachment{Dir: p.Link(t.name()), Interface: t.name(), Index: t.device.Attrs().Index, Kind: kind}
}

func (t *target) close() {
	for _, prog := range []*ebpf.Program{t.egress, t.ingress} {
		if prog != nil {
			prog.Close()
		}
	}
}

// attach brings every interface to the new programs. All that replace others are loaded and pinned before the first
// one does: a command that dies on the way has left what the next one needs to end it. Egress goes first, so that no
// connection that begins meanwhile is missed; then the flows of those that live already; then ingress, which drops.
func (c *change) attach() (err error) {
	for _, t := range c.targets {
		if err := c.prepare(t); err != nil {
			return fmt.Errorf("%s: %w", t.name(), err)
		}
	}
	c.warnOfTopology(c.targets)
	if err := c.beginWatching(); err != nil {
		return err
	}
	for _, t := range c.targets {
		switch {
		case t.oldOut == nil:
			err = c.addFirstSupported(t, t.egress, hook.Egress)
		case c.isOlder(t.oldOut):
			err = c.swap(t.oldOut, t.egress)
		}
		if err != nil {
			return err
		}
	}
	if err := c.putRelays(); err != nil {
		return err
	}
	if c.report.Seeded, err = c.seed(); err != nil {
		return err
	}
	if c.switchover != nil {
		if err := c.switchover.turn(true); err != nil {
			return err
		}
		// A connection may have come in since by a port that is closed now.
		if _, err := c.seed(); err != nil {
			return err
		}
	}
	for _, t := range c.targets {
		switch {
		case t.ingress == nil:
			err = c.addIngress(t)
		case c.isOlder(t.oldIn):
			err = c.swap(t.oldIn, t.ingress)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// seed enters the flows of an older version, as it left them, then every other connection that is alive.
func (c *change) seed() (established int, err error) {
	if err := c.inherit(); err != nil {
		return 0, err
	}
	return enterLive(c.tools, c.constants.Policy, c.constants.HZ)
}

// chooseTargets lists the interfaces that are named, and those of the filter that runs. One that is not there is
// waited for: its directory among the links says that it is to be filtered.
func (c *change) chooseTargets() error {
	filtered, err := c.pins.Interfaces()
	if err != nil {
		return err
	}
	if c.older != nil {
		more, err := c.older.Interfaces()
		if err != nil {
			return err
		}
		filtered = append(filtered, more...)
	}
	for _, name := range c.options.Interfaces {
		if c.options.Filtered && !slices.Contains(filtered, name) {
			continue
		}
		if policy.IsPattern(name) {
			if err := c.addPattern(name); err != nil {
				return err
			}
			continue
		}
		dir, known := c.pins.Link(name), slices.Contains(filtered, name)
		device, err := host.Device(name)
		if err != nil && (!c.options.Wait || !errors.Is(err, host.ErrNoDevice)) {
			return err
		}
		if !known {
			if err := os.MkdirAll(dir, 0o700); err != nil {
				return err
			}
			c.onUndo(func() error { return os.Remove(dir) })
		}
		if err == nil {
			c.targets = append(c.targets, &target{device: device, mode: c.options.Mode})
		}
	}
	for _, name := range filtered {
		if slices.Contains(c.options.Interfaces, name) {
			continue
		}
		device, err := host.Device(name)
		if errors.Is(err, host.ErrNoDevice) && (c.options.Wait || c.pins.Pattern(name) != "") {
			continue
		}
		if err != nil {
			c.warn("%s is gone; %s when it is back, and \"portcullis down %s\" ends that", name, c.laterText("it", "is"), quote.Shell(name))
			continue
		}
		c.targets = append(c.targets, &target{device: device, mode: ModeAuto})
	}
	if err := c.bringTargets(); err != nil {
		return err
	}
	linked, err := c.pins.Linked()
	if err == nil && len(linked)+len(filtered) == 0 {
		err = errors.New("no interface is named to be filtered")
	}
	return err
}

// warnOfTopology warns of what targets are connected with.
func (c *change) warnOfTopology(targets []*target) {
	names := make([]string, len(targets))
	for i, t := range targets {
		names[i] = t.name()
		index := t.device.Attrs().MasterIndex
		if index == 0 {
			continue
		}
		if master, err := netlink.LinkByIndex(index); err == nil && master.Type() == "bridge" {
			c.warn("%s is a port of bridge %s: broadcast and multicast for the guests behind it is filtered as if it were for this host; filter %s instead: \"portcullis up %s\", then \"portcullis down %s\"",
				t.name(), master.Attrs().Name, master.Attrs().Name, quote.Shell(master.Attrs().Name), quote.Shell(t.name()))
		}
	}
	c.report.Warnings = append(c.report.Warnings, host.Topology(names)...)
}

// prepare loads what can be loaded before anything changes.
func (c *change) prepare(t *target) (err error) {
	t.group = c.grouping.of(t.name())
	constants := c.constants
	constants.Policy = settingsFor(c.options.Policy, t.name())
	constants.Ethernet = host.HasEthernet(t.device)
	constants.MAC = host.MAC(t.device)
	constants.RunSlot = maps.RunSlot(t.device.Attrs().Index)
	constants.ManyDevices = len(c.targets) > mostOwnPrograms
	if constants.ManyDevices {
		constants.Page, err = c.assignPage(t)
	} else {
		constants.Page, err = c.pages.of(t.name())
	}
	if err != nil {
		return err
	}
	t.constants = &constants
	if err := c.set.PutDevice(t.device.Attrs().Index, constants.MAC); err != nil {
		return err
	}

	if t.oldOut, err = c.find(t, hook.Egress); err != nil {
		return err
	}
	if t.oldIn, err = c.find(t, hook.Ingress); err != nil {
		return err
	}
	if t.egress, err = c.load(t, bpf.FirewallProgPortcullisOut, pin.Out); err != nil {
		return err
	}
	if t.oldIn == nil && t.mode == ModeAuto {
		t.mode, t.returns = c.modeToReturn(t.name())
	}
	if t.oldIn != nil && t.mode == ModeAuto {
		if why := c.distrust(t); why != "" {
			c.warn("%s: %s, so TC ingress filters", t.name(), why)
			t.mode = ModeTC
		}
	}
	if t.oldIn == nil || (t.mode != ModeAuto && t.mode != t.runningMode()) {
		return nil
	}
	name, direction := bpf.FirewallProgPortcullisIn, pin.In
	if t.oldIn.IsXDP() {
		name = bpf.FirewallProgPortcullisXdp
		if _, err := os.Stat(pin.Program(c.pinsOf(t.oldIn).Policy(), t.name(), pin.InFrags)); err == nil {
			direction = pin.InFrags
		}
	}
	if t.outgrown = t.outgrows(direction); t.outgrown {
		return nil
	}
	t.direction = direction
	t.ingress, err = c.load(t, name, direction)
	return err
}

// pinned is where the policy in force has a program of the target.
func (c *change) pinned(t *target, direction string) string {
	return pin.Program(c.pins.Policy(), t.name(), direction)
}

// loadNew loads a program and pins it among those of the new policy.
func (c *change) loadNew(t *target, name, direction string) (*ebpf.Program, error) {
	constants := *t.constants
	constants.MultiBuffer = direction == pin.InFrags
	path := pin.Program(c.pins.Next(), t.name(), direction)
	prog, err := c.factory.loadOnce(name, &constants, t.group, filepath.Base(path))
	if err != nil {
		return nil, err
	}
	if direction == pin.Out && !c.factory.holds(prog) {
		err = holdMaps(prog, c.set, t.group)
	}
	if err == nil {
		err = hook.PinProgram(prog, path)
	}
	if err == nil {
		err = pin.Constants{
			Ethernet: constants.Ethernet,
			MAC:      constants.MAC,
			RunSlot:  constants.RunSlot,
			MTU:      t.device.Attrs().MTU,
			Table:    maps.TablePin(t.group),
			Settings: settingsKey(constants.Policy),
			Page:     constants.Page,
			Many:     constants.ManyDevices,
		}.Record(path)
	}
	if err != nil {
		prog.Close()
		return nil, err
	}
	return prog, nil
}

// runningMode is the mode in which the target is filtered now.
func (t *target) runningMode() Mode {
	if !t.oldIn.IsXDP() {
		return ModeTC
	}
	return xdpMode(t.device)
}

// putRelays puts a relay in front of every program that is replaced.
func (c *change) putRelays() error {
	var relays []relay
	for _, t := range c.targets {
		if t.oldOut != nil && !c.isOlder(t.oldOut) {
			relays = append(relays, relay{Attachment: t.oldOut, direction: pin.Out, new: t.egress})
		}
		if t.ingress != nil && !c.isOlder(t.oldIn) {
			relays = append(relays, relay{Attachment: t.oldIn, direction: t.direction, new: t.ingress})
		}
	}
	if len(relays) == 0 {
		return nil
	}
	s, err := newSwitchover(c.pins)
	if err != nil {
		return err
	}
	c.switchover = s
	c.onUndo(func() error {
		if err := s.turn(false); err != nil {
			return err
		}
		return s.end()
	})
	for _, r := range relays {
		if err := s.add(r, c.factory.spec.Programs[r.section()]); err != nil {
			return err
		}
	}
	return nil
}

// modeToReturn returns the mode for an interface on which nothing of ours is: the one that was asked for, or else that
// of its predecessor. Known is false for an interface that was never there.
func (c *change) modeToReturn(name string) (mode Mode, known bool) {
	pins := []pin.Dir{c.pins}
	if c.older != nil {
		pins = append(pins, *c.older)
	}
	for _, p := range pins {
		if mode, err := ParseMode(p.Mode(name)); err == nil {
			return mode, true
		}
		if mode, err := ParseMode(p.Mode(p.Pattern(name))); err == nil && p.Pattern(name) != "" {
			return mode, true
		}
		if a := p.Attachment(name, hook.Ingress); a != nil {
			return modeOf(a), true
		}
	}
	return ModeAuto, false
}

// modeOf returns the mode for a device whose predecessor had an attachment. Its driver may be another one.
func modeOf(a *hook.Attachment) Mode {
	switch a.Kind {
	case hook.XDP:
		return ModeAuto
	case hook.XDPGeneric:
		return ModeGeneric
	}
	return ModeTC
}

// recordModes keeps the modes that were asked for, so that they outlive the interfaces.
func (c *change) recordModes() error {
	modes := make(map[string]Mode)
	for _, name := range c.options.Interfaces {
		if _, err := os.Stat(c.pins.Link(name)); err != nil {
			continue // it was to be left out
		}
		modes[name] = c.options.Mode
		if !c.maintains { // it is named by this name now, be it there or not
			if err := c.pins.SetRenamedFrom(name, ""); err != nil {
				return err
			}
		}
	}
	for _, t := range c.targets {
		modes[t.name()] = t.mode // TC, where the driver is not to be trusted
		if !c.maintains && slices.Contains(c.options.Interfaces, t.name()) {
			if err := c.pins.SetPattern(t.name(), ""); err != nil {
				return err
			}
		}
	}
	for name, mode := range modes {
		if mode == ModeAuto {
			continue
		}
		if err := c.pins.SetMode(name, string(mode)); err != nil {
			return err
		}
	}
	return nil
}

// addFirstSupported attaches in the first of the ways that the kernel knows.
func (c *change) addFirstSupported(t *target, prog *ebpf.Program, kinds []string) (err error) {
	for _, kind := range kinds {
		if c.options.NoTCX && (kind == hook.TCXIn || kind == hook.TCXOut) {
			continue
		}
		err = c.add(t.attachment(c.pins, kind), prog)
		if !errors.Is(err, link.ErrNotSupported) {
			break
		}
	}
	return err
}

// add attaches a program where none of ours runs.
func (c *change) add(a *hook.Attachment, prog *ebpf.Program) error {
	if err := a.Attach(prog); err != nil {
		return err
	}
	c.onUndo(a.Detach)
	return nil
}
