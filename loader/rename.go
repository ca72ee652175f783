// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"

	"github.com/portcullis-firewall/portcullis/host"
	"github.com/portcullis-firewall/portcullis/loader/hook"
	"github.com/portcullis-firewall/portcullis/loader/pin"
	"github.com/portcullis-firewall/portcullis/maps"
	"github.com/portcullis-firewall/portcullis/policy/quote"
)

// Programs run on a device, and their pins are found by its name. When somebody renames the device, the pins follow it.
// Otherwise it would seem to be gone, and the next device of its old name would take its pins over, and with them the
// filter away. A name that somebody has named still belongs to the filter, like that of any interface which is gone. One
// that the device has had since does not: whoever renames a device again and again would leave many, and the next device
// of such a name gets no filter that nobody has asked for.

// rename is a filtered interface that has another name than its pins.
type rename struct {
	from, to string
	device   netlink.Link
	kinds    []string // of the attachments
	brought  bool     // by a pattern, so that nobody waits for the old name
	named    string   // how the device was named; "": by the old name, or by a pattern
}

// isWaitedFor reports whether the old name still belongs to the filter.
func (r rename) isWaitedFor() bool { return !r.brought && r.named == "" }

func (r rename) String() string {
	if !r.isWaitedFor() {
		return fmt.Sprintf("%s is called %s now, and stays filtered under that name", r.from, r.to)
	}
	return fmt.Sprintf("%s is called %s now, and stays filtered under that name; %s is waited for, which \"portcullis down %s\" ends",
		r.from, r.to, r.from, quote.Shell(r.from))
}

// Renamed returns a sentence for each interface that was renamed since the last command. Whoever opens the filter next is not told
// again.
func (f *Filter) Renamed() (sentences []string) {
	for _, r := range f.renames {
		sentences = append(sentences, r.String())
	}
	return sentences
}

// renamed returns the interfaces that have another name than their pins.
func renamed(p pin.Dir) (list []rename) {
	names, err := p.Interfaces()
	if err != nil {
		return nil // which whoever opens the filter reports
	}
	for _, name := range names {
		for _, a := range p.Attachments(name, slices.Concat(hook.Ingress, hook.Egress)) {
			device := deviceOf(p, a)
			if device == nil {
				continue
			}
			to := device.Attrs().Name
			if i := slices.IndexFunc(list, func(r rename) bool { return r.from == name && r.to == to }); i >= 0 {
				list[i].kinds = append(list[i].kinds, a.Kind)
			} else {
				list = append(list, rename{name, to, device, []string{a.Kind}, p.Pattern(name) != "", p.RenamedFrom(name)})
			}
		}
	}
	return list
}

// deviceOf returns the device that an attachment is on where this is not the one that it is pinned for, else nil.
func deviceOf(p pin.Dir, a *hook.Attachment) netlink.Link {
	index, err := a.DeviceIndex()
	if err != nil || index == 0 && !a.IsClsact() || index == a.Index && index != 0 {
		return nil
	}
	var devices []netlink.Link
	if a.IsClsact() {
		if runs, err := a.IsOnHost(nil); a.Index != 0 && (runs || err != nil) { // a shared program runs elsewhere, too
			return nil
		}
		devices = clsactDevices(p, a)
	} else if device, err := netlink.LinkByIndex(index); err == nil {
		devices = []netlink.Link{device}
	}
	for _, device := range devices {
		// Another network namespace may have a device of the same number.
		there := hook.Attachment{Dir: a.Dir, Interface: a.Interface, Index: device.Attrs().Index, Kind: a.Kind}
		if here, err := there.IsOnHost(device); err == nil && here {
			return device
		}
	}
	return nil
}

// clsactDevices returns the devices that a filter of clsact may be on. No link says which, so the
// record of the program's constants narrows them down.
func clsactDevices(p pin.Dir, a *hook.Attachment) []netlink.Link {
	direction := pin.In
	if a.IsEgress() {
		direction = pin.Out
	}
	loaded, err := pin.LoadedWith(pin.Program(p.Policy(), a.Interface, direction))
	all, listed := host.CompleteList(netlink.LinkList)
	if listed != nil && !errors.Is(listed, netlink.ErrDumpInterrupted) {
		return nil
	}
	id, noProgram := a.ProgramID()
	return slices.DeleteFunc(all, func(l netlink.Link) bool {
		if l.Attrs().Index == a.Index || err == nil && loaded.RunSlot != 0 && loaded.RunSlot != maps.RunSlot(l.Attrs().Index) {
			return true
		}
		// A program that is kept ready is shared: the device may have it by pins of its own.
		own := hook.Attachment{Dir: p.Link(l.Attrs().Name), Interface: l.Attrs().Name, Index: l.Attrs().Index, Kind: a.Kind}
		has, err := own.ProgramID()
		return noProgram != nil || err == nil && has == id
	})
}

// movedSuffix ends the name of a pin that is on its way: two interfaces may have changed names with each other.
const movedSuffix = "_moved"

// followRenames moves the pins of renamed interfaces to their new names. The lock is held for a change.
func followRenames(p pin.Dir) ([]rename, error) {
	if err := endMoves(p); err != nil {
		return nil, err
	}
	list := renamed(p)
	for _, r := range list {
		if err := r.begin(p); err != nil {
			return nil, fmt.Errorf("follow %s to its new name %s: %w", r.from, r.to, err)
		}
	}
	if len(list) == 0 {
		return nil, nil
	}
	if err := endMoves(p); err != nil {
		return nil, err
	}
	for _, r := range list {
		if err := r.end(p); err != nil {
			return nil, fmt.Errorf("forget former names of %s: %w", r.to, err)
		}
	}
	return list, forgetGone(p) // nobody waits for the old name of what a pattern has brought
}

// begin moves the programs, then the links: as long as these are there, there is something to move.
func (r rename) begin(p pin.Dir) error {
	isNamed := exists(p.Link(r.to)) && p.RenamedFrom(r.to) == ""
	if err := os.MkdirAll(p.Link(r.to), 0o700); err != nil {
		return err
	}
	if !isNamed && !r.brought {
		if err := p.SetRenamedFrom(r.to, r.asNamed()); err != nil {
			return err
		}
	}
	for _, dir := range []string{p.Policy(), p.Next()} {
		for _, direction := range []string{pin.Out, pin.In, pin.InFrags} {
			from, to := pin.Program(dir, r.from, direction), pin.Program(dir, r.to, direction)
			for _, suffix := range []string{pin.ConstantsSuffix, ""} {
				if err := os.Rename(from+suffix, to+suffix+movedSuffix); err != nil && !errors.Is(err, fs.ErrNotExist) {
					return err
				}
			}
		}
	}
	for _, kind := range r.kinds {
		if err := os.Rename(filepath.Join(p.Link(r.from), kind), filepath.Join(p.Link(r.to), kind+movedSuffix)); err != nil {
			return err
		}
	}
	if pattern := p.Pattern(r.from); pattern != "" {
		if err := p.SetPattern(r.to, pattern); err != nil {
			return err
		}
	}
	if mode := p.Mode(r.from); mode != "" && p.Mode(r.to) == "" {
		return p.SetMode(r.to, mode)
	}
	return nil
}

// asNamed returns how the device was named.
func (r rename) asNamed() string { return cmp.Or(r.named, r.from) }

// end forgets the names that nobody has named: the old one, unless another device has it by now, and those of devices that were
// named alike and are gone.
func (r rename) end(p pin.Dir) error {
	if !r.isWaitedFor() && !r.brought && len(p.Attachments(r.from, slices.Concat(hook.Ingress, hook.Egress))) == 0 {
		if err := forget(p, r.from); err != nil {
			return err
		}
	}
	names, err := p.Interfaces()
	if err != nil {
		return err
	}
	for _, name := range names {
		if name == r.to || p.RenamedFrom(name) != r.asNamed() {
			continue
		}
		if _, err := host.Device(name); !errors.Is(err, host.ErrNoDevice) {
			continue
		}
		if err := forget(p, name); err != nil {
			return err
		}
	}
	return nil
}

// endMoves gives the pins that are on their way their names, also those of a command that was killed.
func endMoves(p pin.Dir) error {
	for _, dir := range []string{p.Policy(), p.Next(), filepath.Join(p.Links(), "*")} {
		moved, err := filepath.Glob(filepath.Join(dir, "*"+movedSuffix))
		if err != nil {
			return err
		}
		for _, path := range moved {
			if err := os.Rename(path, strings.TrimSuffix(path, movedSuffix)); err != nil {
				return err
			}
		}
	}
	return nil
}
