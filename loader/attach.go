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
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// Kinds of attachment, as their pins are called.
const (
	kindXDP       = "xdp"
	kindGeneric   = "xdp_generic"
	kindTCXIn     = "tcx_in"
	kindTCXOut    = "tcx_out"
	kindClsactIn  = "clsact_in"
	kindClsactOut = "clsact_out"
)

var (
	ingressKinds = []string{kindXDP, kindGeneric, kindTCXIn, kindClsactIn}
	egressKinds  = []string{kindTCXOut, kindClsactOut}
)

// attachment is a program at one hook of one interface.
type attachment struct {
	pins  pins
	iface string
	index int
	kind  string
}

func (a *attachment) path() string { return a.pins.link(a.iface, a.kind) }

func (a *attachment) isXDP() bool { return a.kind == kindXDP || a.kind == kindGeneric }

// find returns what is attached to an interface in one direction, and nil when nothing is. The pin of an interface that
// has gone, or has come back as another one, stays until it has a successor: it tells how the interface was filtered.
func find(p pins, iface string, index int, kinds []string) (*attachment, error) {
	for _, kind := range kinds {
		a := &attachment{p, iface, index, kind}
		if pinned, alive, err := a.state(); err != nil || pinned && alive {
			return a, err
		}
	}
	return nil, nil
}

// state tells whether the attachment is pinned, and alive.
func (a *attachment) state() (pinned, alive bool, err error) {
	if _, err := os.Stat(a.path()); err != nil {
		return false, false, nil
	}
	alive, err = a.alive()
	return true, alive, err
}

// alive tells whether the attachment still is on the interface of this index.
func (a *attachment) alive() (bool, error) {
	switch a.kind {
	case kindClsactIn, kindClsactOut:
		return a.filterExists()
	}
	l, err := link.LoadPinnedLink(a.path(), nil)
	if err != nil {
		return false, fmt.Errorf("%s: open pinned link: %w", a.iface, err)
	}
	defer l.Close()
	info, err := l.Info()
	if err != nil {
		return false, fmt.Errorf("%s: %w", a.iface, err)
	}
	if x := info.XDP(); x != nil {
		return int(x.Ifindex) == a.index, nil
	}
	if t := info.TCX(); t != nil {
		return int(t.Ifindex) == a.index, nil
	}
	return false, fmt.Errorf("%s: the link pinned at %s is of another type", a.iface, a.path())
}

// programID returns the id of the program that runs there.
func (a *attachment) programID() (ebpf.ProgramID, error) {
	switch a.kind {
	case kindClsactIn, kindClsactOut:
		prog, err := ebpf.LoadPinnedProgram(a.path(), nil)
		if err != nil {
			return 0, err
		}
		defer prog.Close()
		return idOf(prog)
	}
	l, err := link.LoadPinnedLink(a.path(), nil)
	if err != nil {
		return 0, err
	}
	defer l.Close()
	info, err := l.Info()
	if err != nil {
		return 0, err
	}
	return info.Program, nil
}

func idOf(prog *ebpf.Program) (ebpf.ProgramID, error) {
	info, err := prog.Info()
	if err != nil {
		return 0, err
	}
	id, _ := info.ID()
	return id, nil
}

// update puts another program in the place of the running one, between two packets.
func (a *attachment) update(prog *ebpf.Program) error {
	switch a.kind {
	case kindClsactIn, kindClsactOut:
		return a.attach(prog)
	}
	l, err := link.LoadPinnedLink(a.path(), nil)
	if err != nil {
		return fmt.Errorf("%s: open pinned link: %w", a.iface, err)
	}
	defer l.Close()
	if err := l.Update(prog); err != nil {
		return fmt.Errorf("%s: replace the program: %w", a.iface, err)
	}
	return nil
}

// attach attaches and pins.
func (a *attachment) attach(prog *ebpf.Program) error {
	if err := os.MkdirAll(filepath.Dir(a.path()), 0o700); err != nil {
		return err
	}
	var l link.Link
	var err error
	switch a.kind {
	case kindXDP:
		l, err = link.AttachXDP(link.XDPOptions{Program: prog, Interface: a.index, Flags: link.XDPDriverMode})
	case kindGeneric:
		l, err = link.AttachXDP(link.XDPOptions{Program: prog, Interface: a.index, Flags: link.XDPGenericMode})
	case kindTCXIn:
		l, err = link.AttachTCX(link.TCXOptions{Program: prog, Interface: a.index, Attach: ebpf.AttachTCXIngress, Anchor: link.Head()})
	case kindTCXOut:
		l, err = link.AttachTCX(link.TCXOptions{Program: prog, Interface: a.index, Attach: ebpf.AttachTCXEgress, Anchor: link.Head()})
	default:
		if err := a.replaceFilter(prog); err != nil {
			return err
		}
		return a.pin(func(path string) error { return pinProgram(prog, path) })
	}
	if err != nil {
		if _, missing := netlink.LinkByIndex(a.index); errors.As(missing, new(netlink.LinkNotFoundError)) {
			err = unix.ENODEV // which for XDP the kernel calls EINVAL
		}
		return fmt.Errorf("%s: attach %s: %w", a.iface, a.kind, err)
	}
	defer l.Close()
	return a.pin(l.Pin)
}

// pin records the attachment in the place of what is left of those to an interface of the same name that has gone.
func (a *attachment) pin(pin func(path string) error) error {
	if err := replacePin(a.path(), pin); err != nil {
		return fmt.Errorf("%s: pin %s: %w", a.iface, a.kind, err)
	}
	kinds := ingressKinds
	if slices.Contains(egressKinds, a.kind) {
		kinds = egressKinds
	}
	for _, kind := range kinds {
		other := &attachment{a.pins, a.iface, a.index, kind}
		if pinned, alive, err := other.state(); err == nil && pinned && !alive {
			_ = os.Remove(other.path()) // or it stays as it is: the interface is filtered
		}
	}
	return nil
}

// detach takes the program off and its pin away.
func (a *attachment) detach() error {
	switch a.kind {
	case kindClsactIn, kindClsactOut:
		if err := a.deleteFilter(); err != nil {
			return err
		}
	default:
		l, err := link.LoadPinnedLink(a.path(), nil)
		if err != nil {
			return fmt.Errorf("%s: open pinned link: %w", a.iface, err)
		}
		defer l.Close()
		// The link itself, lest somebody who holds it open keeps the filter on. It may have died with its interface.
		if err := a.detachLink(l); err != nil && !errors.Is(err, unix.ENOLINK) && !errors.Is(err, ebpf.ErrNotSupported) {
			return fmt.Errorf("%s: detach: %w", a.iface, err)
		}
	}
	if err := os.Remove(a.path()); err != nil {
		return fmt.Errorf("%s: unpin: %w", a.iface, err)
	}
	return nil
}

// checkForeign refuses an interface on which somebody else's XDP program sits, once it is known that none of ours does.
// It asks anew: what was learnt before that may be of a device that has gone since, with our own program on it.
func checkForeign(known netlink.Link) error {
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
	if prog, err := ebpf.NewProgramFromID(ebpf.ProgramID(xdp.ProgId)); err == nil {
		if info, err := prog.Info(); err == nil && info.Name != "" {
			what = fmt.Sprintf("%q, program %d", info.Name, xdp.ProgId)
		}
		prog.Close()
	}
	return fmt.Errorf("%s: %w: %s; take it off, or filter behind it with --mode tc", name, ErrForeignProgram, what)
}

// xdpMode tells in which mode the kernel runs the XDP program of a device.
func xdpMode(l netlink.Link) Mode {
	if xdp := l.Attrs().Xdp; xdp != nil && xdp.AttachMode == nl.XDP_ATTACHED_SKB {
		return ModeGeneric
	}
	return ModeNative
}
