// SPDX-License-Identifier: Apache-2.0

package hook

import (
	"errors"
	"fmt"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// ErrForeignProgram is returned where another XDP program holds the interface.
var ErrForeignProgram = errors.New("another XDP program is attached")

// LinearMTU is the largest MTU with which a frame still fits one page for every driver: ena's and mlx5's limit;
// virtio_net and veth take a few bytes more. A driver that asks for less says so when it refuses.
const LinearMTU = 3498

func (a *Attachment) attachXDP(prog *ebpf.Program) (link.Link, error) {
	flags := link.XDPDriverMode
	if a.Kind == XDPGeneric {
		flags = link.XDPGenericMode
	}
	return link.AttachXDP(link.XDPOptions{Program: prog, Interface: a.Index, Flags: flags})
}

// CheckForeign refuses an interface on which somebody else's XDP program sits, once it is known that none of ours does.
// It asks anew: what was learnt before that may be of a device that has gone since, with our own program on it.
func CheckForeign(known netlink.Link) error {
	name := known.Attrs().Name
	l, err := netlink.LinkByIndex(known.Attrs().Index)
	if errors.As(err, new(netlink.LinkNotFoundError)) {
		return fmt.Errorf("%s: %w", name, unix.ENODEV)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	xdp := l.Attrs().Xdp
	if xdp == nil || !xdp.Attached {
		return nil
	}
	what := fmt.Sprintf("program %d", xdp.ProgId)
	if name := programName(xdp.ProgId); name != "" {
		what = fmt.Sprintf("%q, program %d", name, xdp.ProgId)
	}
	return fmt.Errorf("%s: %w: %s; take it off, or filter behind it with --mode tc", name, ErrForeignProgram, what)
}

// IsGeneric reports whether the kernel runs the XDP program of a device behind the driver.
func IsGeneric(device netlink.Link) bool {
	xdp := device.Attrs().Xdp
	return xdp != nil && xdp.AttachMode == nl.XDP_ATTACHED_SKB
}

// detachLink detaches a link. Before Linux 6.3 virtio_net refuses to let go of an XDP program under an MTU that it would
// not take one for, and runs it on, while the kernel says that none is attached: so the MTU is lowered for that moment.
// Addresses stay, and packets larger than that are fragmented, or lost as they were before.
func (a *Attachment) detachLink(l link.Link) error {
	device, err := netlink.LinkByIndex(a.Index)
	if a.Kind != XDP || err != nil || device.Attrs().MTU <= LinearMTU || !clingsToXDP(Driver(a.Interface)) {
		return l.Detach()
	}
	if err := netlink.LinkSetMTU(device, LinearMTU); err != nil {
		return fmt.Errorf("lower the MTU, without which %s goes on to run the program: %w", Driver(a.Interface), err)
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

// Driver returns the driver of an interface, as ethtool -i names it, or "".
func Driver(name string) string {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return ""
	}
	defer unix.Close(fd)
	info, err := unix.IoctlGetEthtoolDrvinfo(fd, name)
	if err != nil {
		return ""
	}
	return unix.ByteSliceToString(info.Driver[:])
}
