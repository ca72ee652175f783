// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/portcullis-firewall/portcullis/bpf"
	"github.com/portcullis-firewall/portcullis/host"
	"github.com/portcullis-firewall/portcullis/loader/hook"
	"github.com/portcullis-firewall/portcullis/loader/lock"
	"github.com/portcullis-firewall/portcullis/loader/pin"
	"github.com/portcullis-firewall/portcullis/maps"
	"github.com/portcullis-firewall/portcullis/policy"
)

// AttachReport is what Attach did.
type AttachReport struct {
	Attached []Interface // that were not filtered till now
	Slow     []Interface // for which no program is loaded: Up filters them, in the mode that they should have
	Warnings []string
}

// Wants reports whether the filter under a pin path is meant for an interface, whether or not that exists, or runs there
// under the name that it had before.
func Wants(pinPath, iface string) bool {
	p := pin.Dir{Base: pinPath}
	patterns, err := p.Patterns()
	return exists(p.Link(iface)) || err == nil && p.Bringing(patterns, iface) != "" || slices.ContainsFunc(renamed(p), func(r rename) bool { return r.to == iface })
}

// Attach puts the running filter on those of its interfaces that have appeared, or were made anew. It takes programs
// that are loaded already, so it is done in milliseconds. An interface comes back in the mode that it had; mode is for
// those that come for the first time. What fails on one interface is reported beside what was done on the others.
// The context bounds the wait for other commands.
func Attach(ctx context.Context, pinPath string, mode Mode) (*AttachReport, error) {
	report, err := attach(ctx, pinPath, mode)
	return report, permissionError(err)
}

func attach(ctx context.Context, pinPath string, mode Mode) (*AttachReport, error) {
	p, err := pin.At(pinPath)
	if err != nil {
		return nil, err
	}
	unlock, err := p.Lock(ctx, lock.Exclusive)
	if err != nil {
		return nil, err
	}
	defer unlock()
	f, err := open(ctx, p)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if err := forgetGone(p); err != nil {
		return nil, err
	}
	_, cannotBring := bring(p) // what it could is to be filtered all the same
	names, err := p.Interfaces()
	if err != nil {
		return nil, err
	}
	c := &change{options: Options{PinPath: pinPath}, pins: p, old: f, set: f.set}
	if c.grouping, err = f.grouping(); err != nil {
		return nil, err
	}
	if c.pages, err = newPages(f.set, p); err != nil {
		return nil, err
	}
	c.load = c.openLoaded
	for _, r := range f.renames {
		c.warn("%s", r)
	}
	var attached []string
	errs := []error{cannotBring}
	report := &AttachReport{}
	for _, name := range names {
		device, err := host.Device(name)
		if errors.Is(err, host.ErrNoDevice) {
			continue
		}
		t := &target{device: device, mode: mode}
		if err == nil {
			var done bool
			if done, err = c.reattach(t); done {
				attached = append(attached, name)
			}
		}
		switch {
		case err == nil:
		case errors.Is(err, unix.ENODEV): // it has just gone: the notice of that, or of its successor, is on its way
		case errors.Is(err, errNotLoaded):
			if t.returns && t.mode == ModeNative {
				t.mode = ModeAuto // Up knows that it was native, and goes over to TC where native XDP is refused now
			}
			report.Slow = append(report.Slow, Interface{Name: name, Mode: t.mode})
		default:
			errs = append(errs, err)
		}
	}
	report.Warnings = c.report.Warnings
	if len(attached) > 0 || len(f.renames) > 0 {
		filtered, err := f.filteredNow()
		if err == nil {
			err = withoutRoom(f.syncInterfaces(filtered))
		}
		errs = append(errs, err)
	}
	if len(attached) > 0 {
		// Only now, when nothing gets in any more: a device that was renamed may carry connections that live.
		t, err := f.tools()
		if err == nil {
			_, err = enterLive(t, f.running.Policy, f.running.HZ)
		}
		errs = append(errs, err)
		interfaces, err := f.Interfaces()
		errs = append(errs, err)
		for _, i := range interfaces {
			if slices.Contains(attached, i.Name) {
				report.Attached = append(report.Attached, i)
			}
		}
	}
	return report, errors.Join(errs...)
}

// reattach filters an interface, and reports whether it had to.
func (c *change) reattach(t *target) (done bool, err error) {
	before := c.pins.Attachment(t.name(), hook.Egress)
	c.options.NoTCX = before != nil && before.Kind == hook.ClsactOut
	if mode, known := c.modeToReturn(t.name()); known {
		t.mode, t.returns = mode, true
	}
	index := t.device.Attrs().Index
	if t.oldOut, err = hook.Find(c.pins.Link(t.name()), t.name(), index, hook.Egress); err != nil {
		return false, err
	}
	if t.oldIn, err = hook.Find(c.pins.Link(t.name()), t.name(), index, hook.Ingress); err != nil {
		return false, err
	}
	t.group = c.grouping.of(t.name())
	if t.oldOut != nil && c.old.isElsewhere(t.name(), t.group) {
		return false, fmt.Errorf("%s: %w", t.name(), errNotLoaded)
	}
	if t.oldOut != nil && t.oldIn != nil {
		return false, nil
	}
	// Ingress first: what matters now is that nobody gets in.
	if t.oldIn == nil {
		err := c.addIngress(t)
		if errors.Is(err, ErrForeignProgram) && (t.mode == ModeAuto || t.returns && t.mode == ModeNative) {
			// Nobody is there to be asked, and an open host is worse than a slower filter.
			c.warn("%v", err)
			t.mode = ModeTC
			err = c.addIngress(t)
		}
		if err != nil {
			return false, err
		}
	}
	if t.oldOut == nil {
		egress, err := c.load(t, bpf.FirewallProgPortcullisOut, pin.Out)
		if err != nil {
			return false, err
		}
		defer egress.Close()
		if err := c.addFirstSupported(t, egress, hook.Egress); err != nil {
			return false, err
		}
	}
	// Where the pin of a clsact filter was removed, the filter is still there, and would go on with this policy forever.
	return true, hook.RemoveLeftovers(c.pins.Link(t.name()), t.name(), index)
}

// introduce makes a device known to a program that is loaded for many, and was pinned for one that had its name before.
func (c *change) introduce(t *target, loaded pin.Constants, program string) error {
	if !loaded.Many {
		return nil
	}
	loaded.MAC, loaded.RunSlot, loaded.MTU = host.MAC(t.device), maps.RunSlot(t.device.Attrs().Index), t.device.Attrs().MTU
	if err := c.old.set.PutDevice(t.device.Attrs().Index, loaded.MAC); err != nil {
		return err
	}
	return loaded.Record(program)
}

// errNotLoaded: no program that is loaded fits the device.
var errNotLoaded = errors.New("no program is loaded for it")

// openLoaded opens a program of the policy in force that fits a target: its own, from the last time that it was there,
// or one that is kept ready, which then becomes its own.
func (c *change) openLoaded(t *target, name, direction string) (*ebpf.Program, error) {
	own := c.pinned(t, direction)
	ethernet := host.HasEthernet(t.device)
	if prog, err := ebpf.LoadPinnedProgram(own, nil); err == nil {
		loaded, err := pin.LoadedWith(own)
		if err == nil && loaded.Ethernet == ethernet && c.old.isFor(loaded, t.name(), t.group) && prog.Type() == programType(name) {
			if loaded.RunSlot == 0 || loaded.Many {
				_, err = c.assignPage(t)
			}
			if err == nil {
				err = c.introduce(t, loaded, own)
			}
			if err != nil {
				prog.Close()
				return nil, err
			}
			return prog, nil
		}
		prog.Close()
	}
	// Where the device wanted multi-buffer support, those that are kept ready have none.
	_, err := os.Stat(c.pinned(t, pin.InFrags))
	if direction == pin.InFrags || err == nil && name == bpf.FirewallProgPortcullisXdp {
		return nil, fmt.Errorf("%s: %w", t.name(), errNotLoaded)
	}
	prog, err := ebpf.LoadPinnedProgram(preloaded(c.pins.Policy(), ethernet, class(c.old.running.Policy, t.name(), t.group), name), nil)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", t.name(), errNotLoaded)
	}
	_ = os.Remove(own)
	page, err := c.assignPage(t)
	if err == nil {
		err = hook.PinProgram(prog, own)
	}
	if err == nil {
		settings := settingsKey(settingsFor(c.old.running.Policy, t.name()))
		err = pin.Constants{Ethernet: ethernet, MTU: t.device.Attrs().MTU, Table: maps.TablePin(t.group), Settings: settings, Page: page}.Record(own)
	}
	if err != nil {
		prog.Close()
		return nil, fmt.Errorf("%s: %w", t.name(), err)
	}
	return prog, nil
}

func programType(name string) ebpf.ProgramType {
	if name == bpf.FirewallProgPortcullisXdp {
		return ebpf.XDP
	}
	return ebpf.SchedCLS
}

// It takes the verifier a tenth of a second and more to take a program, in which an interface that has just appeared
// would be open. So programs are kept ready for those that are waited for. They know no MAC of their own and ask the
// device for each frame; Up makes better ones later, see HostChanges.

var preloadedPrograms = []string{bpf.FirewallProgPortcullisOut, bpf.FirewallProgPortcullisXdp, bpf.FirewallProgPortcullisIn}

func preloaded(dir string, ethernet bool, class, name string) string {
	link := "ip"
	if ethernet {
		link = "ethernet"
	}
	return filepath.Join(dir, "preload_"+link+class+"_"+name)
}

// Prepare loads one such program, if one is missing that an interface which is waited for may need, and reports whether
// it did. One at a time: an interface that appears meanwhile waits for no more than that.
func Prepare(ctx context.Context, pinPath string) (loaded bool, err error) {
	loaded, err = prepare(ctx, pinPath)
	return loaded, permissionError(err)
}

func prepare(ctx context.Context, pinPath string) (loaded bool, err error) {
	p, err := pin.At(pinPath)
	if err != nil {
		return false, err
	}
	unlock, err := p.Lock(ctx, lock.Exclusive)
	if err != nil {
		return false, err
	}
	defer unlock()
	f, err := open(ctx, p)
	if err != nil {
		return false, err
	}
	defer f.Close()
	names, err := f.awaited()
	if err != nil {
		return false, err
	}
	grouping, err := f.grouping()
	if err != nil {
		return false, err
	}
	for _, iface := range names {
		g := grouping.of(iface)
		for _, ethernet := range []bool{true, false} {
			for _, name := range preloadedPrograms {
				path := preloaded(p.Policy(), ethernet, class(f.running.Policy, iface, g), name)
				if _, err := os.Stat(path); err == nil {
					continue
				}
				return true, f.preload(path, iface, g, ethernet, name)
			}
		}
	}
	return false, nil
}

// grouping returns which interfaces share a table by the rules in force.
func (f *Filter) grouping() (grouping, error) {
	rules, err := f.set.RulesOnInterfaces()
	return groupingOf(rules), err
}

// awaited returns names of interfaces that are waited for and have no programs of their own, and of those that patterns may
// bring, one at least for each group that there is a table for.
func (f *Filter) awaited() (names []string, err error) {
	linked, err := f.pins.Linked()
	if err != nil {
		return nil, err
	}
	grouping, err := f.grouping()
	if err != nil {
		return nil, err
	}
	tables := f.set.Groups()
	for _, name := range grouping.expected(linked) {
		if !slices.Contains(tables, grouping.of(name)) {
			continue // Up makes it
		}
		_, err := os.Stat(pin.Program(f.pins.Policy(), name, pin.Out))
		if _, missing := host.Device(name); errors.Is(missing, host.ErrNoDevice) && err != nil {
			names = append(names, name)
		}
	}
	return names, nil
}

func (f *Filter) preload(path, iface string, g policy.Group, ethernet bool, name string) error {
	spec, err := bpf.LoadFirewall()
	if err != nil {
		return err
	}
	if err := f.set.Measure(spec); err != nil {
		return err
	}
	features, err := f.set.Features()
	if err != nil {
		return err
	}
	prog, err := newFactory(spec, f.set).load(name, &maps.Constants{
		Policy:   settingsFor(f.running.Policy, iface),
		HZ:       f.running.HZ,
		Ethernet: ethernet,
		Features: features,
	}, g, "")
	if err != nil {
		return err
	}
	defer prog.Close()
	return hook.PinProgram(prog, path)
}
