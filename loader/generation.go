// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"errors"
	"io/fs"
	"os"
	"slices"

	"github.com/cilium/ebpf"
)

// The policy in force is pinned in policy/, one that is being applied in next/. A command that dies in between leaves
// both; the next one finds out by the programs' ids which of them runs.

// promote makes next/ the policy in force.
func (p pins) promote() error {
	if err := os.RemoveAll(p.policy()); err != nil {
		return err
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
	names, err := p.interfaces()
	if err != nil {
		return err
	}
	forward := false
	var behind []func() error
	for _, name := range names {
		in, out := p.pinned(name, ingressKinds), p.pinned(name, egressKinds)
		if in == nil && out == nil {
			continue // it is waited for
		}
		if in == nil || out == nil {
			// Its attachment was under way, and half a filter is none.
			for _, a := range []*attachment{in, out} {
				if a != nil {
					if err := a.detach(); err != nil {
						return err
					}
				}
			}
			_ = os.Remove(p.link(name, ""))
			continue
		}
		for _, a := range []*attachment{out, in} {
			next, err := p.nextProgram(a)
			if err != nil {
				return err
			}
			if next == nil {
				continue // killed before it was loaded, so before anything changed
			}
			defer next.Close()
			running, err := a.programID()
			if err != nil {
				return err
			}
			if id, err := idOf(next); err == nil && id == running {
				forward = true
			} else {
				behind = append(behind, func() error { return a.update(next) })
			}
		}
	}
	if !forward {
		return os.RemoveAll(p.next())
	}
	for _, update := range behind {
		if err := update(); err != nil {
			return err
		}
	}
	return p.promote()
}

// nextProgram opens the program that next/ has for an attachment, or returns nil.
func (p pins) nextProgram(a *attachment) (*ebpf.Program, error) {
	directions := []string{directionIn, directionInFrags}
	if slices.Contains(egressKinds, a.kind) {
		directions = []string{directionOut}
	}
	for _, direction := range directions {
		prog, err := ebpf.LoadPinnedProgram(program(p.next(), a.iface, direction), nil)
		if err == nil || !errors.Is(err, fs.ErrNotExist) {
			return prog, err
		}
	}
	return nil, nil
}

// pinned returns the attachment whose pin is there, without asking whether its interface is.
func (p pins) pinned(iface string, kinds []string) *attachment {
	for _, kind := range kinds {
		a := &attachment{pins: p, iface: iface, kind: kind}
		if _, err := os.Stat(a.path()); err == nil {
			if l, err := device(iface); err == nil {
				a.index = l.Attrs().Index
			}
			return a
		}
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
