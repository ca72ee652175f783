// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/cilium/ebpf"

	"github.com/portcullis-firewall/portcullis/host"
)

// The policy in force is pinned in policy/, one that is being applied in next/. A command that dies in between leaves
// both. The next one asks the gates which of them is in force, or, where none stand, which programs run.

// promote makes next/ the policy in force, and what was that the spare.
func (p pins) promote() error {
	state, err := os.ReadDir(p.nextState())
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for _, pin := range state {
		if err := os.Rename(filepath.Join(p.nextState(), pin.Name()), filepath.Join(p.maps(), pin.Name())); err != nil {
			return err
		}
	}
	if err := os.RemoveAll(p.nextState()); err != nil {
		return err
	}
	if _, err := os.Stat(p.policy()); err == nil {
		if err := os.RemoveAll(p.spare()); err != nil {
			return err
		}
		if err := os.Rename(p.policy(), p.spare()); err != nil {
			return err
		}
	}
	return os.Rename(p.next(), p.policy())
}

// recover finishes or takes back what a killed command left half done. The lock is held.
func (p pins) recover() error {
	if _, err := os.Stat(p.next()); errors.Is(err, fs.ErrNotExist) {
		return nil
	} else if err != nil {
		return err
	}
	whole, err := p.dropHalves()
	if err != nil {
		return err
	}
	forward, err := p.isForward(whole)
	if err != nil {
		return err
	}
	dir := p.policy()
	if forward {
		dir = p.next()
	}
	for _, a := range whole {
		if err := p.settle(a, dir); err != nil {
			return err
		}
	}
	if err := os.RemoveAll(p.gates()); err != nil {
		return err
	}
	if forward {
		return p.promote()
	}
	return os.RemoveAll(p.next())
}

// dropHalves takes off what is attached in one direction only, for half a filter is none, and returns the rest.
func (p pins) dropHalves() (whole []*attachment, err error) {
	names, err := p.interfaces()
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		in, out := p.allPinned(name, ingressKinds), p.allPinned(name, egressKinds)
		both := append(out, in...)
		if len(in) > 0 && len(out) > 0 {
			whole = append(whole, both...)
			continue
		}
		if len(both) == 0 {
			continue // it is waited for
		}
		for _, a := range both {
			if err := a.detach(); err != nil {
				return nil, err
			}
		}
		_ = os.Remove(p.link(name, ""))
	}
	return whole, nil
}

// isForward tells whether the policy in next/ is in force.
func (p pins) isForward(attached []*attachment) (bool, error) {
	g, err := openGates(p)
	if err != nil {
		return false, err
	}
	if g != nil {
		defer g.Close()
		return g.isTurned()
	}
	for _, a := range attached {
		next, err := p.programOf(p.next(), a)
		if err != nil {
			return false, err
		}
		if next == nil {
			continue
		}
		defer next.Close()
		running, err := a.programID()
		if err != nil {
			return false, err
		}
		if id, err := idOf(next); err == nil && id == running {
			return true, nil
		}
	}
	return false, nil
}

// settle makes an attachment run the program that dir has for it. One for which it has none was to be replaced by
// another kind.
func (p pins) settle(a *attachment, dir string) error {
	if alive, err := a.alive(); err != nil || !alive || a.index == 0 {
		return err // its interface is gone
	}
	prog, err := p.programOf(dir, a)
	if err != nil {
		return err
	}
	if prog == nil {
		return a.detach()
	}
	defer prog.Close()
	return a.update(prog)
}

// programOf opens the program that dir has for an attachment, or returns nil.
func (p pins) programOf(dir string, a *attachment) (*ebpf.Program, error) {
	directions, kind := []string{directionIn, directionInFrags}, ebpf.SchedCLS
	if slices.Contains(egressKinds, a.kind) {
		directions = []string{directionOut}
	}
	if a.isXDP() {
		kind = ebpf.XDP
	}
	for _, direction := range directions {
		prog, err := ebpf.LoadPinnedProgram(program(dir, a.iface, direction), nil)
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

// allPinned returns the attachments whose pins are there, without asking whether their interface is. There are two
// while one kind takes the place of another.
func (p pins) allPinned(iface string, kinds []string) (all []*attachment) {
	for _, kind := range kinds {
		a := &attachment{pins: p, iface: iface, kind: kind}
		if _, err := os.Stat(a.path()); err != nil {
			continue
		}
		if l, err := host.Device(iface); err == nil {
			a.index = l.Attrs().Index
		}
		all = append(all, a)
	}
	return all
}

// pinned is allPinned where there is but one kind.
func (p pins) pinned(iface string, kinds []string) *attachment {
	if all := p.allPinned(iface, kinds); len(all) > 0 {
		return all[0]
	}
	return nil
}

// forget takes away what is left of a filter that no longer runs.
func (p pins) forget() error {
	if err := os.RemoveAll(p.root()); err != nil {
		return err
	}
	return p.prepare()
}
