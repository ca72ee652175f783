// SPDX-License-Identifier: Apache-2.0

package pin

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/cilium/ebpf"

	"github.com/portcullis-firewall/portcullis/host"
	"github.com/portcullis-firewall/portcullis/loader/hook"
)

// The policy in force is pinned in policy/, one that is being applied in next/. A command that dies in between leaves
// both. The next one asks the switch which of them is in force, or, where there is none, which programs run.

// Promote makes next/ the policy in force, and keeps what was that on standby.
func (d Dir) Promote() error {
	state, err := os.ReadDir(d.NextState())
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for _, pin := range state {
		if err := os.Rename(filepath.Join(d.NextState(), pin.Name()), filepath.Join(d.Maps(), pin.Name())); err != nil {
			return err
		}
	}
	if err := os.RemoveAll(d.NextState()); err != nil {
		return err
	}
	if _, err := os.Stat(d.Policy()); err == nil {
		if err := os.RemoveAll(d.Standby()); err != nil {
			return err
		}
		if err := os.Rename(d.Policy(), d.Standby()); err != nil {
			return err
		}
	}
	return os.Rename(d.Next(), d.Policy())
}

// NeedsRecovery reports whether a command was killed while it changed what is pinned, or somebody has removed the links.
func (d Dir) NeedsRecovery() (bool, error) {
	unlinked, err := d.unlinked()
	if len(unlinked) > 0 || err != nil || d.lacksLinks() {
		return err == nil, err
	}
	_, err = os.Stat(d.Next())
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

// Recover finishes or takes back what a killed command has left half done. The lock is held for a change.
func (d Dir) Recover() error {
	if err := d.restoreLinks(); err != nil {
		return err
	}
	if needed, err := d.NeedsRecovery(); err != nil || !needed {
		return err
	}
	whole, err := d.dropHalves()
	if err != nil {
		return err
	}
	forward, err := d.isForward(whole)
	if err != nil {
		return err
	}
	dir := d.Policy()
	if forward {
		dir = d.Next()
	}
	for _, a := range whole {
		if err := settle(a, dir, whole); err != nil {
			return err
		}
	}
	if err := os.RemoveAll(d.Switchover()); err != nil {
		return err
	}
	if forward {
		return d.Promote()
	}
	return os.RemoveAll(d.Next())
}

// lacksLinks reports whether there is a policy in force, and no directory of links. A command leaves that at no time.
func (d Dir) lacksLinks() bool {
	if _, err := os.Stat(d.Policy()); err != nil {
		return false
	}
	_, err := os.Stat(d.Links())
	return errors.Is(err, fs.ErrNotExist)
}

// unlinked returns the interfaces that the policy in force has programs for, and that have no directory among the links:
// whoever takes an interface off removes its programs first, so somebody else has removed that.
func (d Dir) unlinked() ([]string, error) {
	names, err := d.ProgrammedInterfaces()
	return slices.DeleteFunc(names, func(name string) bool {
		_, err := os.Lstat(d.Link(name))
		return !errors.Is(err, fs.ErrNotExist)
	}), err
}

// restoreLinks records anew which interfaces are to be filtered, where somebody has removed their links. What is lost is
// by which pattern they came, in which mode they were to be filtered, and the patterns themselves.
func (d Dir) restoreLinks() error {
	names, err := d.unlinked()
	if err != nil {
		return err
	}
	if d.lacksLinks() {
		names = append(names, "") // their directory, also where there are none
	}
	for _, name := range names {
		if err := os.MkdirAll(d.Link(name), 0o700); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return nil
}

// dropHalves takes off what is attached in one direction only, for half a filter is none, and returns the rest.
func (d Dir) dropHalves() (whole []*hook.Attachment, err error) {
	names, err := d.Interfaces()
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		in, out := d.Attachments(name, hook.Ingress), d.Attachments(name, hook.Egress)
		both := append(out, in...)
		if len(in) > 0 && len(out) > 0 {
			whole = append(whole, both...)
			continue
		}
		if len(both) == 0 {
			continue // it is waited for
		}
		for _, a := range both {
			if err := a.Detach(); err != nil {
				return nil, err
			}
		}
		if _, err := os.Lstat(Program(d.Policy(), name, In)); err == nil {
			continue // it was filtered by the policy in force, and is to be again
		}
		_ = os.RemoveAll(d.Link(name))
	}
	return whole, nil
}

// isForward reports whether the policy in next/ is in force.
func (d Dir) isForward(attached []*hook.Attachment) (bool, error) {
	switchMap, err := ebpf.LoadPinnedMap(d.Switch(), nil)
	if err == nil {
		defer switchMap.Close()
		return IsSwitched(switchMap)
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return false, fmt.Errorf("open pinned map switch: %w", err)
	}
	for _, a := range attached {
		next, err := ProgramOf(d.Next(), a)
		if err != nil {
			return false, err
		}
		if next == nil {
			continue
		}
		defer next.Close()
		running, err := a.ProgramID()
		if err != nil {
			return false, err
		}
		if id, err := hook.IDOf(next); err == nil && id == running {
			return true, nil
		}
	}
	return false, nil
}

// IsSwitched reports whether a switch has put the new policy in force.
func IsSwitched(switchMap *ebpf.Map) (bool, error) {
	var value uint32
	if err := switchMap.Lookup(uint32(0), &value); err != nil {
		return false, fmt.Errorf("ask which policy is in force: %w", err)
	}
	return value != 0, nil
}

// settle makes an attachment run the program that dir has for it. One for which it has none is taken off, as it was to
// be replaced by another kind, or its interface was not filtered before.
func settle(a *hook.Attachment, dir string, all []*hook.Attachment) error {
	if alive, err := a.Alive(); err != nil || !alive || a.Index == 0 {
		return err // its interface is gone
	}
	prog, err := ProgramOf(dir, a)
	if err != nil {
		return err
	}
	if prog != nil {
		defer prog.Close()
		return a.Update(prog)
	}
	if isOnlyUnpinned(a, dir, all) {
		return nil // what it runs may drop everything from now on, until Up: rather that than an open host
	}
	return a.Detach()
}

// isOnlyUnpinned reports whether dir has a program for the other direction of an attachment's interface, and none for
// this one by any kind: then somebody has removed its pin.
func isOnlyUnpinned(a *hook.Attachment, dir string, all []*hook.Attachment) bool {
	other := false
	for _, b := range all {
		if b.Interface != a.Interface || b.Kind == a.Kind {
			continue
		}
		prog, err := ProgramOf(dir, b)
		if err != nil || prog == nil {
			continue
		}
		prog.Close()
		if b.IsEgress() == a.IsEgress() {
			return false
		}
		other = true
	}
	return other
}

// ProgramOf opens the program that the directory of a policy has for an attachment, or returns nil.
func ProgramOf(dir string, a *hook.Attachment) (*ebpf.Program, error) {
	directions, kind := []string{In, InFrags}, ebpf.SchedCLS
	if a.IsEgress() {
		directions = []string{Out}
	}
	if a.IsXDP() {
		kind = ebpf.XDP
	}
	for _, direction := range directions {
		prog, err := ebpf.LoadPinnedProgram(Program(dir, a.Interface, direction), nil)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			continue
		case err != nil || prog.Type() == kind:
			return prog, err
		}
		prog.Close()
	}
	return nil, nil
}

// Attachments returns the attachments whose pins are there, without asking whether their interface is. There are two
// while one kind takes the place of another.
func (d Dir) Attachments(iface string, kinds []string) (all []*hook.Attachment) {
	dir := d.Link(iface)
	for _, kind := range kinds {
		a := &hook.Attachment{Dir: dir, Interface: iface, Kind: kind}
		if _, err := os.Stat(a.Path()); err == nil {
			all = append(all, a)
		}
	}
	if len(all) > 0 {
		index := host.DeviceIndex(iface)
		for _, a := range all {
			a.Index = index
		}
	}
	return all
}

// Attachment returns the one of Attachments where there is but one kind, or nil.
func (d Dir) Attachment(iface string, kinds []string) *hook.Attachment {
	if all := d.Attachments(iface, kinds); len(all) > 0 {
		return all[0]
	}
	return nil
}
