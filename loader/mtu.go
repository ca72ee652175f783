// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"errors"
	"fmt"
	"os"

	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
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
	c.warn("%s: the driver refuses native XDP for an MTU of %d; filtering in TC: %v", t.name(), t.device.Attrs().MTU, refused)
	c.retired = append(c.retired, t.oldIn)
	return nil
}

// detachLink detaches an XDP link. Before Linux 6.3 virtio_net refuses to let go of a program under an MTU that it
// would not take one for, and runs it on, while the kernel says that none is attached: so the MTU is lowered for that
// moment. Addresses stay, and packets larger than that are fragmented, or lost as they were before.
func (a *attachment) detachLink(l link.Link) error {
	device, err := netlink.LinkByIndex(a.index)
	if a.kind != kindXDP || err != nil || device.Attrs().MTU <= LinearMTU || !clingsToXDP(driverOf(a.iface)) {
		return l.Detach()
	}
	if err := netlink.LinkSetMTU(device, LinearMTU); err != nil {
		return fmt.Errorf("lower the MTU, without which %s goes on to run the program: %w", driverOf(a.iface), err)
	}
	err = l.Detach()
	if back := netlink.LinkSetMTU(device, device.Attrs().MTU); back != nil {
		err = errors.Join(err, fmt.Errorf("put the MTU back to %d: %w", device.Attrs().MTU, back))
	}
	return err
}

// clingsToXDP reports whether a driver does not let go of a program under a large MTU.
func clingsToXDP(driver string) bool {
	var name unix.Utsname
	var major, minor int
	if driver != "virtio_net" || unix.Uname(&name) != nil {
		return false
	}
	if _, err := fmt.Sscanf(unix.ByteSliceToString(name.Release[:]), "%d.%d", &major, &minor); err != nil {
		return false
	}
	return major < 6 || major == 6 && minor < 3
}
