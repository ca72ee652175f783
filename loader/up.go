// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"errors"
	"fmt"
	"os"
	"slices"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
	"github.com/cilium/ebpf/link"
	"github.com/cilium/ebpf/rlimit"
	"github.com/vishvananda/netlink"

	"github.com/portcullis-firewall/portcullis/bpf"
	"github.com/portcullis-firewall/portcullis/maps"
)

// change is one run of Up: what is made for it, and how to take back what it did.
type change struct {
	options   Options
	pins      pins
	old       *Filter // nil when nothing ran
	set       *maps.Set
	factory   *factory
	tools     *tools
	constants maps.Constants // of no interface yet
	report    UpReport
	undo      []func() error
}

// Up puts the policy in force on the interfaces, and on those that are filtered already. Either all of it happens or
// nothing: what fails is taken back. Live connections are entered as flows before anything drops.
func Up(o Options) (_ *UpReport, err error) {
	if o.PinPath == "" {
		o.PinPath = PinPath()
	}
	if o.Mode == "" {
		o.Mode = ModeAuto
	}
	_ = rlimit.RemoveMemlock() // only kernels before 5.11 count maps against it
	c := &change{options: o, pins: pins{o.PinPath}}
	if err := c.pins.prepare(); err != nil {
		return nil, err
	}
	unlock, err := c.pins.lock()
	if err != nil {
		return nil, err
	}
	defer unlock()

	c.old, err = open(c.pins)
	if errors.Is(err, ErrNotRunning) {
		if err := c.pins.forget(); err != nil {
			return nil, err
		}
	} else if err != nil {
		return nil, err
	} else {
		defer c.old.Close()
		c.report.Updated = true
	}
	defer c.close()
	defer func() {
		if err != nil {
			err = errors.Join(err, c.rollback())
		}
	}()
	if err := c.build(); err != nil {
		return nil, err
	}
	if err := c.attach(); err != nil {
		return nil, err
	}
	return &c.report, c.commit()
}

// build makes the maps and fills them, beside what runs.
func (c *change) build() error {
	spec, err := bpf.LoadFirewall()
	if err != nil {
		return err
	}
	maps.Resize(spec, c.options.Policy)
	var oldSet *maps.Set
	var oldRules []maps.Rule
	if c.old != nil {
		oldSet = c.old.set
		if oldRules, err = oldSet.Rules(); err != nil {
			return err
		}
	}
	if c.set, err = maps.NewSet(spec, oldSet); err != nil {
		return err
	}
	if max := uint32(c.options.Policy.MaxFlows); max != 0 && max != c.set.FlowCapacity() {
		c.warn("the flow table keeps its size of %d: down and up make it %d", c.set.FlowCapacity(), max)
	}
	numbered, err := maps.Number(c.options.Policy.Open, oldRules, c.set.Capacity())
	if err != nil {
		return err
	}
	rules := make([]maps.Rule, len(numbered))
	for i, n := range numbered {
		rules[i].NumberedRule = n
	}
	if err := c.set.PutRules(rules, oldRules); err != nil {
		return err
	}
	local, err := localPrefixes()
	if err != nil {
		return err
	}
	if err := c.set.PutLocal(local); err != nil {
		return err
	}
	c.factory = &factory{spec, c.set, btf.NewCache()}
	if c.tools, err = c.factory.tools(); err != nil {
		return err
	}
	running := maps.Running{Policy: c.options.Policy, Config: c.options.Config, Forwarding: forwards()}
	if c.old != nil {
		running.HZ = c.old.running.HZ
	} else if running.HZ, err = measureHZ(c.tools.clock); err != nil {
		return err
	}
	if running.Netns, err = netnsCookie(); err != nil {
		return err
	}
	if err := c.set.PutRunning(&running); err != nil {
		return err
	}
	c.constants = maps.Constants{
		Policy:     c.options.Policy,
		HZ:         running.HZ,
		Forwarding: running.Forwarding,
		TestClock:  c.options.TestClock,
	}
	if err := os.RemoveAll(c.pins.next()); err != nil {
		return err
	}
	if err := os.Mkdir(c.pins.next(), 0o700); err != nil {
		return err
	}
	c.onUndo(func() error { return os.RemoveAll(c.pins.next()) })
	if err := c.set.Pin(c.pins.next(), maps.Policy); err != nil {
		return err
	}
	if c.old == nil {
		// Before anything runs on them: should this command die, the next one finds what its programs use.
		if err := c.set.Pin(c.pins.maps(), maps.State); err != nil {
			return err
		}
	}
	return c.tools.pin(c.pins.next())
}

// attach brings every interface to the new programs. Egress first, so that no connection that begins meanwhile is
// missed; then the flows of those that live already; then ingress, which drops.
func (c *change) attach() error {
	names, err := c.pins.interfaces()
	if err != nil {
		return err
	}
	var devices []netlink.Link
	for _, name := range c.options.Interfaces {
		l, err := device(name)
		if err != nil {
			return err
		}
		devices = append(devices, l)
	}
	for _, name := range names {
		if slices.Contains(c.options.Interfaces, name) {
			continue
		}
		l, err := device(name)
		if err != nil {
			c.warn("%s is gone, and is no longer filtered", name)
			if err := os.RemoveAll(c.pins.link(name, "")); err != nil {
				return err
			}
			continue
		}
		devices = append(devices, l)
	}
	if len(devices) == 0 {
		return errors.New("no interface is named to be filtered")
	}
	for _, l := range devices {
		if err := c.egress(l); err != nil {
			return err
		}
	}
	if c.report.Seeded, err = seed(c.set, c.tools.clock, c.constants.Policy, c.constants.HZ); err != nil {
		return err
	}
	for _, l := range devices {
		if err := c.ingress(l); err != nil {
			return err
		}
	}
	return nil
}

func (c *change) constantsOf(l netlink.Link) *maps.Constants {
	constants := c.constants
	constants.Ethernet = hasEthernet(l)
	copy(constants.MAC[:], l.Attrs().HardwareAddr)
	return &constants
}

func (c *change) egress(l netlink.Link) error {
	name, index := l.Attrs().Name, l.Attrs().Index
	prog, err := c.factory.load(bpf.FirewallProgPortcullisOut, c.constantsOf(l))
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	defer prog.Close()
	current, err := find(c.pins, name, index, egressKinds)
	if err != nil {
		return err
	}
	if current != nil {
		return c.swap(current, prog, "out")
	}
	for _, kind := range egressKinds {
		if kind == kindTCXOut && c.options.NoTCX {
			continue
		}
		err = c.add(&attachment{c.pins, name, index, kind}, prog, 0, "out")
		if !errors.Is(err, link.ErrNotSupported) {
			break
		}
	}
	return err
}

func (c *change) ingress(l netlink.Link) error {
	name, index := l.Attrs().Name, l.Attrs().Index
	current, err := find(c.pins, name, index, ingressKinds)
	if err != nil {
		return err
	}
	mode := c.options.Mode
	if current != nil && (mode == ModeAuto || mode == currentMode(current, l)) {
		return c.swapIngress(current, l)
	}
	if current == nil || current.kind != kindXDP {
		if mode != ModeTC {
			if err := checkForeign(l); err != nil {
				return err
			}
		}
	} else if mode != ModeTC {
		return fmt.Errorf("%s: is filtered in %s mode; the kernel changes between XDP modes only by way of none: run \"portcullis down %s\" first", name, currentMode(current, l), name)
	}

	switch mode {
	case ModeNative:
		err = c.addXDP(l, link.XDPDriverMode)
		if err != nil && !errors.Is(err, ErrForeignProgram) {
			err = fmt.Errorf("%w; the driver may refuse native XDP: --mode tc works everywhere", err)
		}
	case ModeGeneric:
		err = c.addXDP(l, link.XDPGenericMode)
	case ModeTC:
		err = c.addTC(l)
	default:
		refused := c.addXDP(l, link.XDPDriverMode)
		if refused == nil {
			break
		}
		if err = c.addTC(l); err == nil {
			c.warn("%s: native XDP is refused, so TC ingress filters: %v", name, refused)
		}
	}
	if err != nil || current == nil {
		return err
	}
	// The other kind runs already: for a moment both filter, and never none.
	return current.detach()
}

func currentMode(a *attachment, l netlink.Link) Mode {
	if a.kind != kindXDP {
		return ModeTC
	}
	return xdpMode(l)
}

// addXDP attaches without and then with multi-buffer support: drivers want it for a large MTU, some lose speed by it.
func (c *change) addXDP(l netlink.Link, flags link.XDPAttachFlags) error {
	a := &attachment{c.pins, l.Attrs().Name, l.Attrs().Index, kindXDP}
	constants := c.constantsOf(l)
	var first error
	for _, constants.MultiBuffer = range []bool{false, true} {
		prog, err := c.factory.load(bpf.FirewallProgPortcullisXdp, constants)
		if err == nil {
			err = c.add(a, prog, flags, "in")
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

func (c *change) addTC(l netlink.Link) (err error) {
	prog, err := c.factory.load(bpf.FirewallProgPortcullisIn, c.constantsOf(l))
	if err != nil {
		return err
	}
	defer prog.Close()
	for _, kind := range []string{kindTCXIn, kindClsactIn} {
		if kind == kindTCXIn && c.options.NoTCX {
			continue
		}
		err = c.add(&attachment{c.pins, l.Attrs().Name, l.Attrs().Index, kind}, prog, 0, "in")
		if !errors.Is(err, link.ErrNotSupported) {
			break
		}
	}
	return err
}

func (c *change) swapIngress(current *attachment, l netlink.Link) error {
	if current.kind != kindXDP {
		prog, err := c.factory.load(bpf.FirewallProgPortcullisIn, c.constantsOf(l))
		if err != nil {
			return err
		}
		defer prog.Close()
		return c.swap(current, prog, "in")
	}
	constants := c.constantsOf(l)
	var err error
	// A link takes only a program with the multi-buffer support that the device needs.
	for _, constants.MultiBuffer = range []bool{false, true} {
		var prog *ebpf.Program
		if prog, err = c.factory.load(bpf.FirewallProgPortcullisXdp, constants); err != nil {
			return err
		}
		err = c.swap(current, prog, "in")
		prog.Close()
		if err == nil {
			return nil
		}
	}
	return err
}

// add attaches a program where none of ours runs.
func (c *change) add(a *attachment, prog *ebpf.Program, flags link.XDPAttachFlags, direction string) error {
	if err := replacePin(program(c.pins.next(), a.iface, direction), prog.Pin); err != nil {
		return err
	}
	if err := a.attach(prog, flags); err != nil {
		return err
	}
	c.onUndo(a.detach)
	return nil
}

// swap puts a program in the place of ours that runs.
func (c *change) swap(a *attachment, prog *ebpf.Program, direction string) error {
	before, err := ebpf.LoadPinnedProgram(program(c.pins.policy(), a.iface, direction), nil)
	if err != nil {
		return fmt.Errorf("%s: open pinned program: %w", a.iface, err)
	}
	if err := replacePin(program(c.pins.next(), a.iface, direction), prog.Pin); err != nil {
		before.Close()
		return err
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

// commit makes the new policy the one that later commands find.
func (c *change) commit() error {
	c.undo = nil // from here on the new policy stands; a later command finishes what is cut off
	if err := c.set.Pin(c.pins.maps(), maps.State); err != nil {
		return err
	}
	if err := c.pins.promote(); err != nil {
		return err
	}
	f, err := open(c.pins)
	if err != nil {
		return err
	}
	defer f.Close()
	c.report.Interfaces, err = f.Interfaces()
	return err
}

func (c *change) onUndo(step func() error) { c.undo = append(c.undo, step) }

func (c *change) rollback() error {
	var errs []error
	for _, step := range slices.Backward(c.undo) {
		errs = append(errs, step())
	}
	if c.undo != nil && c.old == nil {
		errs = append(errs, c.pins.remove())
	}
	return errors.Join(errs...)
}

func (c *change) warn(format string, args ...any) {
	c.report.Warnings = append(c.report.Warnings, fmt.Sprintf(format, args...))
}

func (c *change) close() {
	if c.set != nil {
		c.set.Close()
	}
	if c.tools != nil {
		c.tools.Close()
	}
}
