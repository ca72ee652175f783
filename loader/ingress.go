// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"errors"
	"fmt"
	"os"

	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"github.com/portcullis-firewall/portcullis/bpf"
	"github.com/portcullis-firewall/portcullis/loader/hook"
	"github.com/portcullis-firewall/portcullis/loader/pin"
	"github.com/portcullis-firewall/portcullis/policy/quote"
)

// addIngress attaches where none of ours runs, or one of another kind, which goes in the end: for a moment both
// filter, and never none.
func (c *change) addIngress(t *target) (err error) {
	switch {
	case t.outgrown:
		return c.swapOutgrown(t)
	case t.mode == ModeTC:
	case t.oldIn != nil && t.oldIn.IsXDP():
		return fmt.Errorf("%s is in %s mode; the kernel cannot switch straight to %s: use --mode tc, or \"portcullis down %s\" first (opens the host)",
			t.name(), t.runningMode(), t.mode, quote.Shell(t.name()))
	default:
		if err := hook.CheckForeign(t.device); err != nil {
			return err
		}
	}
	if t.oldIn != nil {
		if err := c.beginHandover(); err != nil {
			return err
		}
	}
	switch t.mode {
	case ModeNative:
		err = c.addXDP(t, hook.XDP)
		switch {
		case err == nil || errors.Is(err, unix.ENODEV) || errors.Is(err, errNotLoaded):
		case t.returns: // an open host is worse than a slower filter
			refused := err
			if err = c.addTC(t); err == nil {
				c.warn("%s", t.refusal(refused))
			}
		default:
			err = fmt.Errorf("%w; where the driver refuses native XDP, --mode tc works", err)
		}
	case ModeGeneric:
		err = c.addXDP(t, hook.XDPGeneric)
	case ModeTC:
		err = c.addTC(t)
	default:
		if why := c.distrustDriver(t); why != "" {
			if err = c.addTC(t); err == nil {
				c.warn("%s: %s, so TC ingress filters", t.name(), why)
			}
			break
		}
		refused := c.addXDP(t, hook.XDP)
		if refused == nil || errors.Is(refused, unix.ENODEV) { // gone is not refused
			err = refused
			break
		}
		if err = c.addTC(t); err == nil {
			c.warn("%s", t.refusal(refused))
		}
	}
	if err == nil && t.oldIn != nil {
		c.retired = append(c.retired, t.oldIn)
	}
	return err
}

// refusal returns the warning that TC filters because native XDP was refused. For kinds of devices that never have it,
// the kernel's error says nothing more.
func (t *target) refusal(err error) string {
	if kind := t.device.Type(); errors.Is(err, unix.EOPNOTSUPP) && kind != "device" {
		return fmt.Sprintf("%s: a %s has no native XDP; filtering in TC", t.name(), kind)
	}
	return fmt.Sprintf("%s: the driver refuses native XDP; filtering in TC: %v", t.name(), err)
}

// addXDP attaches without and then with multi-buffer support: drivers want it for a large MTU, some lose speed by it.
func (c *change) addXDP(t *target, kind string) error {
	var first error
	for _, direction := range []string{pin.In, pin.InFrags} {
		prog, err := c.load(t, bpf.FirewallProgPortcullisXdp, direction)
		if err == nil {
			err = c.add(t.attachment(c.pins, kind), prog)
			if err != nil && !errors.Is(err, unix.ENODEV) { // another one takes its place
				_ = os.Remove(pin.Program(c.pins.Next(), t.name(), direction))
				_ = prog.Unpin()
			}
			prog.Close()
		}
		if err == nil || errors.Is(err, link.ErrNotSupported) || errors.Is(err, unix.ENODEV) {
			return err
		}
		if first == nil {
			first = err
		}
	}
	return first
}

func (c *change) addTC(t *target) error {
	prog, err := c.load(t, bpf.FirewallProgPortcullisIn, pin.In)
	if err != nil {
		return fmt.Errorf("%s: %w", t.name(), err)
	}
	defer prog.Close()
	return c.addFirstSupported(t, prog, []string{hook.TCXIn, hook.ClsactIn})
}

// outgrows reports whether frames may be larger than the buffer that the target's XDP program takes. Drivers refuse
// such a program when it is attached, but virtio_net lets the MTU be raised under it, and then loses large frames.
func (t *target) outgrows(direction string) bool {
	return t.oldIn.Kind == hook.XDP && direction == pin.In && t.device.Attrs().MTU > hook.LinearMTU
}

// swapOutgrown puts a multi-buffer program in the place of one that frames have outgrown, between two packets. A driver
// that takes none may still take a plain one for this MTU, as where pages are large; else TC filters.
func (c *change) swapOutgrown(t *target) error {
	var refused error
	for _, direction := range []string{pin.InFrags, pin.In} {
		prog, err := c.load(t, bpf.FirewallProgPortcullisXdp, direction)
		if err == nil {
			if err = c.swap(t.oldIn, prog); err != nil {
				_ = os.Remove(pin.Program(c.pins.Next(), t.name(), direction))
				_ = prog.Unpin()
			}
			prog.Close()
		}
		if err == nil || errors.Is(err, unix.ENODEV) {
			return err
		}
		if refused == nil || errors.Is(refused, link.ErrNotSupported) {
			refused = err
		}
	}
	if err := c.addTC(t); err != nil {
		return err
	}
	c.warn("%s: the driver refuses native XDP for an MTU of %d; filtering in TC: %v", t.name(), t.device.Attrs().MTU, refused)
	c.retired = append(c.retired, t.oldIn)
	return nil
}
