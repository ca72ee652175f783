// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"errors"
	"os"

	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"github.com/portcullis-firewall/portcullis/bpf"
)

// LinearMTU is the largest MTU with which a frame still fits one page for every driver: ena's and mlx5's limit;
// virtio_net and veth take a few bytes more. A driver that asks for less says so when it refuses.
const LinearMTU = 3498

// outgrows reports whether frames may be larger than the buffer that the target's XDP program takes. Drivers refuse
// such a program when it is attached, but virtio_net lets the MTU be raised under it, and then loses large frames.
func (t *target) outgrows(direction string) bool {
	return t.oldIn.kind == kindXDP && direction == directionIn && t.device.Attrs().MTU > LinearMTU
}

// swapOutgrown puts a multi-buffer program in the place of one that frames have outgrown, between two packets. A driver
// that takes none may still take a plain one for this MTU, as where pages are large; else TC filters.
func (c *change) swapOutgrown(t *target) error {
	var refused error
	for _, direction := range []string{directionInFrags, directionIn} {
		prog, err := c.load(t, bpf.FirewallProgPortcullisXdp, direction)
		if err == nil {
			if err = c.swap(t.oldIn, prog); err != nil {
				_ = os.Remove(program(c.pins.next(), t.name(), direction))
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
	c.warn("%s: native XDP is refused for its MTU of %d, so TC ingress filters: %v", t.name(), t.device.Attrs().MTU, refused)
	c.retired = append(c.retired, t.oldIn)
	return nil
}
