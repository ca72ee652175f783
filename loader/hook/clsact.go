// SPDX-License-Identifier: Apache-2.0

package hook

import (
	"errors"
	"fmt"
	"os"

	"github.com/cilium/ebpf"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Before TCX (Linux 6.6) a TC program hangs in a clsact qdisc as a filter. Ours is known by its handle and priority.
const (
	filterHandle   = 0x706f7274 // "port"
	filterPriority = 1
	filterName     = "portcullis"
)

func (a *Attachment) parent() uint32 {
	if a.Kind == ClsactIn {
		return netlink.HANDLE_MIN_INGRESS
	}
	return netlink.HANDLE_MIN_EGRESS
}

func (a *Attachment) filter() *netlink.BpfFilter {
	return &netlink.BpfFilter{
		FilterAttrs: netlink.FilterAttrs{
			LinkIndex: a.Index,
			Parent:    a.parent(),
			Handle:    filterHandle,
			Protocol:  unix.ETH_P_ALL,
			Priority:  filterPriority,
		},
		Name:         filterName,
		DirectAction: true,
	}
}

func clsact(index int) netlink.Qdisc {
	return &netlink.GenericQdisc{
		QdiscAttrs: netlink.QdiscAttrs{
			LinkIndex: index,
			Handle:    netlink.MakeHandle(0xffff, 0),
			Parent:    netlink.HANDLE_CLSACT,
		},
		QdiscType: "clsact",
	}
}

// filters lists the filters on the attachment's side of the qdisc.
func (a *Attachment) filters() ([]netlink.Filter, error) {
	l, err := netlink.LinkByIndex(a.Index)
	if err != nil {
		return nil, nil // the interface is gone, and its filters with it
	}
	list, err := netlink.FilterList(l, a.parent())
	if err != nil && !errors.Is(err, netlink.ErrDumpInterrupted) && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
		return nil, fmt.Errorf("%s: list filters: %w", a.Interface, err)
	}
	return list, nil
}

func (a *Attachment) filterExists() (bool, error) {
	list, err := a.filters()
	for _, f := range list {
		if f.Attrs().Handle == filterHandle && f.Attrs().Priority == filterPriority {
			return true, nil
		}
	}
	return false, err
}

// filterRuns reports whether our filter is there and runs a program.
func (a *Attachment) filterRuns(id ebpf.ProgramID) (bool, error) {
	list, err := a.filters()
	for _, f := range list {
		b, ok := f.(*netlink.BpfFilter)
		if ok && b.Attrs().Handle == filterHandle && b.Attrs().Priority == filterPriority && ebpf.ProgramID(b.Id) == id {
			return true, nil
		}
	}
	return false, err
}

func (a *Attachment) replaceFilter(prog *ebpf.Program) error {
	if err := netlink.QdiscAdd(clsact(a.Index)); err != nil && !errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("%s: add clsact: %w", a.Interface, err)
	}
	f := a.filter()
	f.Fd = prog.FD()
	if err := netlink.FilterReplace(f); err != nil {
		return fmt.Errorf("%s: attach %s: %w", a.Interface, a.Kind, err)
	}
	return nil
}

// deleteFilter takes our filter out, and the qdisc when nobody else uses it.
func (a *Attachment) deleteFilter() error {
	if exists, err := a.filterExists(); err != nil || !exists {
		return err
	}
	if err := netlink.FilterDel(a.filter()); err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("%s: detach: %w", a.Interface, err)
	}
	for _, kind := range []string{ClsactIn, ClsactOut} {
		other := *a
		other.Kind = kind
		if list, err := other.filters(); err != nil || len(list) > 0 {
			return err
		}
	}
	if err := netlink.QdiscDel(clsact(a.Index)); err != nil && !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.EINVAL) {
		return fmt.Errorf("%s: remove clsact: %w", a.Interface, err)
	}
	return nil
}

// RemoveLeftovers takes our filters off an interface whose pins are gone: without them no link shows that they are there.
func RemoveLeftovers(dir, iface string, index int) error {
	for _, kind := range []string{ClsactIn, ClsactOut} {
		a := &Attachment{dir, iface, index, kind}
		if _, err := os.Stat(a.Path()); err == nil {
			continue
		}
		if err := a.deleteFilter(); err != nil {
			return err
		}
	}
	return nil
}
