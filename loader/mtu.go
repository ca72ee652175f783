// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"errors"
	"os"

	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"github.com/portcullis-firewall/portcullis/bpf"
	"github.com/portcullis-firewall/portcullis/loader/hook"
	"github.com/portcullis-firewall/portcullis/loader/pin"
)

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
