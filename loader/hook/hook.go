// SPDX-License-Identifier: Apache-2.0

// Package hook attaches programs to the hooks of an interface: XDP, TCX, and clsact where the kernel has no TCX. What is
// attached is known by a pin, whose path the caller chooses, so that a later process finds it again.
package hook

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/portcullis-firewall/portcullis/bpf"
)

// Kinds of attachment, as their pins are called.
const (
	XDP        = "xdp"
	XDPGeneric = "xdp_generic"
	TCXIn      = "tcx_in"
	TCXOut     = "tcx_out"
	ClsactIn   = "clsact_in"
	ClsactOut  = "clsact_out"
)

// Ingress and Egress list the kinds of each direction, the preferred ones first.
var (
	Ingress = []string{XDP, XDPGeneric, TCXIn, ClsactIn}
	Egress  = []string{TCXOut, ClsactOut}
)

// Attachment is a program at one hook of one interface.
type Attachment struct {
	Dir       string // where the interface's links are pinned
	Interface string
	Index     int // of the interface; 0 when it is gone
	Kind      string
}

// Path returns the path of the attachment's pin.
func (a *Attachment) Path() string { return filepath.Join(a.Dir, a.Kind) }

// IsXDP reports whether the program runs in XDP, in the driver or behind it.
func (a *Attachment) IsXDP() bool { return a.Kind == XDP || a.Kind == XDPGeneric }

// IsEgress reports whether the program sees what goes out.
func (a *Attachment) IsEgress() bool { return slices.Contains(Egress, a.Kind) }

// IsClsact reports whether the program is a filter of a clsact qdisc, which no link holds.
func (a *Attachment) IsClsact() bool { return a.Kind == ClsactIn || a.Kind == ClsactOut }

// Find returns what is attached to an interface by one of the kinds, and nil when nothing is. The pin of an interface
// that has gone, or has come back as another one, stays until it has a successor: it shows how the interface was
// filtered.
func Find(dir, iface string, index int, kinds []string) (*Attachment, error) {
	for _, kind := range kinds {
		a := &Attachment{dir, iface, index, kind}
		if pinned, alive, err := a.state(); err != nil || pinned && alive {
			return a, err
		}
	}
	return nil, nil
}

// state reports whether the attachment is pinned, and alive.
func (a *Attachment) state() (pinned, alive bool, err error) {
	if _, err := os.Stat(a.Path()); err != nil {
		return false, false, nil
	}
	alive, err = a.Alive()
	return true, alive, err
}

// Alive reports whether the attachment still is on the interface of its index.
func (a *Attachment) Alive() (bool, error) {
	if a.IsClsact() {
		return a.filterExists()
	}
	index, err := a.DeviceIndex()
	return err == nil && index == a.Index, err
}

// DeviceIndex returns the index of the device that the attachment's link is on: 0 where that is gone, and for a filter
// of a clsact qdisc, which has no link.
func (a *Attachment) DeviceIndex() (int, error) {
	if a.IsClsact() {
		return 0, nil
	}
	info, err := a.linkInfo()
	if err != nil {
		return 0, err
	}
	if x := info.XDP(); x != nil {
		return int(x.Ifindex), nil
	}
	if t := info.TCX(); t != nil {
		return int(t.Ifindex), nil
	}
	return 0, fmt.Errorf("%s: the link pinned at %s is of another type", a.Interface, a.Path())
}

func (a *Attachment) open() (link.Link, error) {
	fd, err := bpf.OpenPinned(a.Path())
	if err != nil {
		return nil, fmt.Errorf("%s: open pinned link: %w", a.Interface, err)
	}
	l, err := link.NewFromFD(fd)
	if err != nil {
		return nil, fmt.Errorf("%s: open pinned link %s: %w", a.Interface, a.Path(), err)
	}
	return l, nil
}

func (a *Attachment) linkInfo() (*link.Info, error) {
	l, err := a.open()
	if err != nil {
		return nil, err
	}
	defer l.Close()
	info, err := l.Info()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", a.Interface, err)
	}
	return info, nil
}

// ProgramID returns the id of the program that runs there.
func (a *Attachment) ProgramID() (ebpf.ProgramID, error) {
	if !a.IsClsact() {
		info, err := a.linkInfo()
		if err != nil {
			return 0, err
		}
		return info.Program, nil
	}
	prog, err := ebpf.LoadPinnedProgram(a.Path(), nil)
	if err != nil {
		return 0, fmt.Errorf("%s: open pinned program: %w", a.Interface, err)
	}
	defer prog.Close()
	return IDOf(prog)
}

// IDOf returns the id of a program.
func IDOf(prog *ebpf.Program) (ebpf.ProgramID, error) {
	info, err := prog.Info()
	if err != nil {
		return 0, err
	}
	id, _ := info.ID()
	return id, nil
}

// IsOnHost reports whether the attachment's program is at its hook of a device in this network namespace, and not on a
// device of the same number in another one.
func (a *Attachment) IsOnHost(device netlink.Link) (bool, error) {
	id, err := a.ProgramID()
	if err != nil {
		return false, err
	}
	switch {
	case a.IsXDP():
		xdp := device.Attrs().Xdp
		return xdp != nil && xdp.Attached && ebpf.ProgramID(xdp.ProgId) == id, nil
	case a.IsClsact():
		return a.filterRuns(id)
	}
	ids, err := a.tcxPrograms()
	return slices.Contains(ids, id), err
}

// Update puts another program in the place of the running one, between two packets.
func (a *Attachment) Update(prog *ebpf.Program) error {
	if a.IsClsact() {
		return a.Attach(prog)
	}
	l, err := a.open()
	if err != nil {
		return err
	}
	defer l.Close()
	if err := l.Update(prog); err != nil {
		return fmt.Errorf("%s: replace the program: %w", a.Interface, err)
	}
	return nil
}

// Attach attaches a program and pins the attachment.
func (a *Attachment) Attach(prog *ebpf.Program) error {
	if err := os.MkdirAll(a.Dir, 0o700); err != nil {
		return err
	}
	if a.IsClsact() {
		if err := a.replaceFilter(prog); err != nil {
			return err
		}
		return a.pin(func(path string) error { return PinProgram(prog, path) })
	}
	attach := a.attachTCX
	if a.IsXDP() {
		attach = a.attachXDP
	}
	l, err := attach(prog)
	if err != nil {
		if _, missing := netlink.LinkByIndex(a.Index); errors.As(missing, new(netlink.LinkNotFoundError)) {
			err = unix.ENODEV // which for XDP the kernel calls EINVAL
		}
		return fmt.Errorf("%s: attach %s: %w", a.Interface, a.Kind, err)
	}
	defer l.Close()
	return a.pin(l.Pin)
}

// pin records the attachment in the place of what is left of those to an interface of the same name that has gone.
func (a *Attachment) pin(pin func(path string) error) error {
	if err := replacePin(a.Path(), pin); err != nil {
		return fmt.Errorf("%s: pin %s: %w", a.Interface, a.Kind, err)
	}
	kinds := Ingress
	if a.IsEgress() {
		kinds = Egress
	}
	for _, kind := range kinds {
		other := &Attachment{a.Dir, a.Interface, a.Index, kind}
		if pinned, alive, err := other.state(); err == nil && pinned && !alive {
			_ = os.Remove(other.Path()) // or it stays as it is: the interface is filtered
		}
	}
	return nil
}

// replacePin puts a pin at a path, in the place of what is there.
func replacePin(path string, pin func(string) error) error {
	next := path + "_next"
	_ = os.Remove(next)
	if err := pin(next); err != nil {
		return err
	}
	return os.Rename(next, path)
}

// PinProgram pins a program beside the pins that it has: a Program moves its own.
func PinProgram(prog *ebpf.Program, path string) error {
	clone, err := prog.Clone()
	if err != nil {
		return err
	}
	defer clone.Close()
	if err := clone.Pin(path); err != nil {
		return fmt.Errorf("pin program: %w", err)
	}
	return nil
}

// Detach takes the program off, and its pin away.
func (a *Attachment) Detach() error {
	if a.IsClsact() {
		if err := a.deleteFilter(); err != nil {
			return err
		}
	} else {
		l, err := a.open()
		if err != nil {
			return err
		}
		defer l.Close()
		// The link itself: somebody who holds it open would keep the filter on. It may have died with its interface.
		if err := a.detachLink(l); err != nil && !errors.Is(err, unix.ENOLINK) && !errors.Is(err, ebpf.ErrNotSupported) {
			return fmt.Errorf("%s: detach: %w", a.Interface, err)
		}
	}
	if err := os.Remove(a.Path()); err != nil {
		return fmt.Errorf("%s: unpin: %w", a.Interface, err)
	}
	return nil
}
