// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"errors"
	"fmt"
	"os"
	"slices"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"

	"github.com/portcullis-firewall/portcullis/bpf"
	"github.com/portcullis-firewall/portcullis/maps"
)

// Directions of a program, as its pin is called. Multi-buffer support is part of the name: a link takes only a
// program with the support that its device was attached with.
const (
	directionOut     = "out"
	directionIn      = "in"
	directionInFrags = "in_frags"
)

// target is one interface that a change brings to the new policy.
type target struct {
	device          netlink.Link
	constants       *maps.Constants
	egress, ingress *ebpf.Program // ingress is nil where the program depends on what the device takes
	oldOut, oldIn   *attachment   // nil where nothing of ours runs
	direction       string        // of ingress
	mode            Mode          // asked for; ModeAuto leaves what runs
}

func (t *target) name() string { return t.device.Attrs().Name }

func (t *target) attachment(p pins, kind string) *attachment {
	return &attachment{p, t.name(), t.device.Attrs().Index, kind}
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
func (c *change) attach() error {
	if err := c.chooseTargets(); err != nil {
		return err
	}
	for _, t := range c.targets {
		if err := c.prepare(t); err != nil {
			return fmt.Errorf("%s: %w", t.name(), err)
		}
	}
	for _, t := range c.targets {
		if err := c.switchEgress(t); err != nil {
			return err
		}
	}
	var err error
	if c.report.Seeded, err = seed(c.set, c.tools, c.constants.Policy, c.constants.HZ); err != nil {
		return err
	}
	for _, t := range c.targets {
		if err := c.switchIngress(t); err != nil {
			return err
		}
	}
	return nil
}

// chooseTargets lists the interfaces that are named, and those of the filter that runs. One that is not there is
// waited for: its directory among the links says that it is to be filtered.
func (c *change) chooseTargets() error {
	filtered, err := c.pins.interfaces()
	if err != nil {
		return err
	}
	for _, name := range c.options.Interfaces {
		dir, known := c.pins.link(name, ""), slices.Contains(filtered, name)
		device, err := device(name)
		if err != nil && (!c.options.Wait || !errors.Is(err, errNoDevice)) {
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
		device, err := device(name)
		if errors.Is(err, errNoDevice) && c.options.Wait {
			continue
		}
		if err != nil {
			c.warn("%s is gone; \"portcullis run\" filters it when it is back, and \"portcullis down %s\" ends that", name, name)
			continue
		}
		c.targets = append(c.targets, &target{device: device, mode: ModeAuto})
	}
	if len(c.options.Interfaces)+len(filtered) == 0 {
		return errors.New("no interface is named to be filtered")
	}
	return nil
}

// prepare loads what can be loaded before anything changes.
func (c *change) prepare(t *target) (err error) {
	if master, err := netlink.LinkByIndex(t.device.Attrs().MasterIndex); err == nil && master.Type() == "bridge" {
		c.warn("%s is a port of the bridge %s: what goes to the bridge's own addresses is filtered on %s",
			t.name(), master.Attrs().Name, master.Attrs().Name)
	}
	constants := c.constants
	constants.Ethernet = hasEthernet(t.device)
	constants.MAC = macOf(t.device)
	t.constants = &constants

	index := t.device.Attrs().Index
	if t.oldOut, err = find(c.pins, t.name(), index, egressKinds); err != nil {
		return err
	}
	if t.oldIn, err = find(c.pins, t.name(), index, ingressKinds); err != nil {
		return err
	}
	if t.egress, err = c.load(t, bpf.FirewallProgPortcullisOut, directionOut); err != nil {
		return err
	}
	if t.oldIn == nil || (t.mode != ModeAuto && t.mode != t.runningMode()) {
		return nil
	}
	program, direction := bpf.FirewallProgPortcullisIn, directionIn
	if t.oldIn.isXDP() {
		program = bpf.FirewallProgPortcullisXdp
		if _, err := os.Stat(c.pinned(t, directionInFrags)); err == nil {
			direction = directionInFrags
		}
	}
	t.direction = direction
	t.ingress, err = c.load(t, program, direction)
	return err
}

// pinned is where the policy in force has a program of the target.
func (c *change) pinned(t *target, direction string) string {
	return program(c.pins.policy(), t.name(), direction)
}

// loadNew loads a program and pins it among those of the new policy.
func (c *change) loadNew(t *target, name, direction string) (*ebpf.Program, error) {
	constants := *t.constants
	constants.MultiBuffer = direction == directionInFrags
	prog, err := c.factory.load(name, &constants)
	if err != nil {
		return nil, err
	}
	path := program(c.pins.next(), t.name(), direction)
	if err = prog.Pin(path); err == nil {
		err = linkConstants{constants.Ethernet, constants.MAC}.record(path)
	}
	if err != nil {
		prog.Close()
		return nil, fmt.Errorf("pin program: %w", err)
	}
	return prog, nil
}

// runningMode is the mode in which the target is filtered now.
func (t *target) runningMode() Mode {
	if !t.oldIn.isXDP() {
		return ModeTC
	}
	return xdpMode(t.device)
}

func (c *change) switchEgress(t *target) error {
	if t.oldOut != nil {
		return c.swap(t.oldOut, t.egress, c.pinned(t, directionOut))
	}
	return c.addFirstSupported(t, t.egress, egressKinds)
}

func (c *change) switchIngress(t *target) (err error) {
	if t.ingress != nil {
		return c.swap(t.oldIn, t.ingress, c.pinned(t, t.direction))
	}
	switch {
	case t.mode == ModeTC:
	case t.oldIn != nil && t.oldIn.isXDP():
		return fmt.Errorf("%s: is filtered in %s mode; the kernel changes between XDP modes only by way of none: run \"portcullis down %s\" first",
			t.name(), t.runningMode(), t.name())
	default:
		if err := checkForeign(t.device); err != nil {
			return err
		}
	}
	switch t.mode {
	case ModeNative:
		if err = c.addXDP(t, kindXDP); err != nil {
			err = fmt.Errorf("%w; where the driver refuses native XDP, --mode tc works", err)
		}
	case ModeGeneric:
		err = c.addXDP(t, kindGeneric)
	case ModeTC:
		err = c.addTC(t)
	default:
		refused := c.addXDP(t, kindXDP)
		if refused == nil {
			break
		}
		if err = c.addTC(t); err == nil {
			c.warn("%s: native XDP is refused, so TC ingress filters: %v", t.name(), refused)
		}
	}
	if err != nil || t.oldIn == nil {
		return err
	}
	// The other kind ran till now: for a moment both filter, and never none.
	return t.oldIn.detach()
}

// addXDP attaches without and then with multi-buffer support: drivers want it for a large MTU, some lose speed by it.
func (c *change) addXDP(t *target, kind string) error {
	var first error
	for _, direction := range []string{directionIn, directionInFrags} {
		prog, err := c.load(t, bpf.FirewallProgPortcullisXdp, direction)
		if err == nil {
			err = c.add(t.attachment(c.pins, kind), prog)
			if err != nil {
				_ = prog.Unpin()
			}
			prog.Close()
		}
		if err == nil || errors.Is(err, link.ErrNotSupported) {
			return err
		}
		if first == nil {
			first = err
		}
	}
	return first
}

func (c *change) addTC(t *target) error {
	prog, err := c.load(t, bpf.FirewallProgPortcullisIn, directionIn)
	if err != nil {
		return fmt.Errorf("%s: %w", t.name(), err)
	}
	defer prog.Close()
	return c.addFirstSupported(t, prog, []string{kindTCXIn, kindClsactIn})
}

// addFirstSupported attaches in the first of the ways that the kernel knows.
func (c *change) addFirstSupported(t *target, prog *ebpf.Program, kinds []string) (err error) {
	for _, kind := range kinds {
		if c.options.NoTCX && (kind == kindTCXIn || kind == kindTCXOut) {
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
func (c *change) add(a *attachment, prog *ebpf.Program) error {
	if err := a.attach(prog); err != nil {
		return err
	}
	c.onUndo(a.detach)
	return nil
}

// swap puts a program in the place of ours that runs, which is pinned at old.
func (c *change) swap(a *attachment, prog *ebpf.Program, old string) error {
	before, err := ebpf.LoadPinnedProgram(old, nil)
	if err != nil {
		return fmt.Errorf("%s: open pinned program: %w", a.iface, err)
	}
	if err := a.update(prog); err != nil {
		before.Close()
		return err
	}
	c.onUndo(func() error {
		defer before.Close()
		return a.update(before)
	})
	return nil
}
