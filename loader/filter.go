// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/portcullis-firewall/portcullis/host"
	"github.com/portcullis-firewall/portcullis/loader/lock"
	"github.com/portcullis-firewall/portcullis/maps"
	"github.com/portcullis-firewall/portcullis/policy"
)

// Filter is a running filter, found by its pins.
type Filter struct {
	pins    pins
	set     *maps.Set
	loaded  *tools // when they are first needed: see tools
	running *maps.Running

	policyInode uint64 // see isCurrent
}

// Open finds the filter that runs under a pin path. The error is ErrNotRunning or ErrOtherNamespace when there is
// none for this network namespace.
func Open(pinPath string) (*Filter, error) { return OpenContext(context.Background(), pinPath) }

// OpenContext is Open with a context, whose end cancels waits for another command.
func OpenContext(ctx context.Context, pinPath string) (*Filter, error) {
	p := pins{base: pinPath, ctx: ctx}
	f, settled, err := p.openLocked(lock.Shared, (*maps.Set).OpenAll)
	if err == nil && !settled {
		f, _, err = p.openLocked(lock.Exclusive, (*maps.Set).OpenAll)
	}
	return f, err
}

// OpenToChange is Open for a caller that keeps everybody else from changing the filter: as nobody takes it down, maps can
// be opened when they are first needed, and to open a port needs few.
func OpenToChange(pinPath string) (*Filter, error) {
	return OpenToChangeContext(context.Background(), pinPath)
}

// OpenToChangeContext is OpenToChange with a context, whose end cancels waits for another command.
func OpenToChangeContext(ctx context.Context, pinPath string) (*Filter, error) {
	f, _, err := pins{base: pinPath, ctx: ctx}.openLocked(lock.Exclusive, func(*maps.Set) error { return nil })
	return f, err
}

// openLocked opens the filter under the lock. Among readers nothing can be changed, so they get no filter, and false, where
// first something has to be finished that a killed command, or an older version, has left.
func (p pins) openLocked(mode lock.Mode, prepare func(*maps.Set) error) (f *Filter, settled bool, err error) {
	if _, err := os.Stat(p.root()); errors.Is(err, fs.ErrNotExist) {
		return nil, true, p.notRunning("nothing is pinned at " + p.base)
	} else if err != nil {
		return nil, true, err
	}
	if err := p.checkOwner(); err != nil {
		return nil, true, err
	}
	unlock, err := p.lockAs(mode)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, true, fmt.Errorf("%w (what was pinned at %s was just taken away)", ErrNotRunning, p.base)
	}
	if err != nil {
		return nil, true, err
	}
	defer unlock()
	if mode == lock.Shared && p.isUnsettled() {
		return nil, false, nil
	}
	if f, err = open(p); err != nil {
		return nil, true, err
	}
	if err := prepare(f.set); err != nil {
		f.Close()
		return nil, true, err
	}
	return f, true, nil
}

// isUnsettled reports whether open has something to finish first.
func (p pins) isUnsettled() bool {
	if _, err := os.Stat(p.next()); !errors.Is(err, fs.ErrNotExist) {
		return true
	}
	_, ok := p.otherVersion()
	return ok
}

// open is OpenToChange under the lock.
func open(p pins) (_ *Filter, err error) {
	if err := p.recover(); err != nil {
		return nil, fmt.Errorf("finish what an earlier command began: %w", err)
	}
	if other, ok := p.otherVersion(); ok && number(other.version) < number(Schema) {
		if _, err := os.Stat(p.policy()); err == nil { // our programs run already on what is left there
			if err := p.adopt(other); err != nil {
				return nil, err
			}
		}
	}
	names, err := p.interfaces()
	if err != nil {
		return nil, err
	}
	if _, err := os.Stat(p.policy()); len(names) == 0 || errors.Is(err, fs.ErrNotExist) {
		return nil, p.notRunning("nothing is attached under " + p.base)
	}
	f := &Filter{pins: p, policyInode: inode(p.policy())}
	defer func() {
		if err != nil {
			f.Close()
		}
	}()
	if f.set, err = maps.OpenSet(p.maps(), p.policy()); err != nil {
		return nil, err
	}
	if f.running, err = f.set.Running(); err != nil {
		return nil, err
	}
	cookie, err := host.NetnsCookie()
	if err != nil {
		return nil, err
	}
	if cookie != f.running.Netns {
		if f.dead(names) {
			return nil, fmt.Errorf("%w (what is pinned at %s is left from a network namespace that is gone)", ErrNotRunning, p.base)
		}
		return nil, fmt.Errorf("%w: choose another --pin-path here than %s", ErrOtherNamespace, p.base)
	}
	return f, nil
}

// change takes the lock for a change to the filter, which may be another one by now than when f was opened.
func (f *Filter) change() (unlock func(), err error) {
	if unlock, err = f.pins.lock(); err != nil {
		return nil, err
	}
	if f.isCurrent() {
		return unlock, nil
	}
	now, err := open(f.pins)
	if err != nil {
		unlock()
		return nil, err
	}
	f.Close()
	*f = *now
	return unlock, nil
}

// isCurrent tells that no other policy has been put in force since the filter was opened, nor one half.
func (f *Filter) isCurrent() bool {
	_, err := os.Stat(f.pins.next())
	return errors.Is(err, fs.ErrNotExist) && f.policyInode == inode(f.pins.policy())
}

// inode returns that of a directory, or 0. Each policy has a directory of its own, and bpffs uses no number twice.
func inode(path string) uint64 {
	var st unix.Stat_t
	if unix.Stat(path, &st) != nil {
		return 0
	}
	return st.Ino
}

// dead tells that every link has lost its interface, as when its network namespace is gone.
func (f *Filter) dead(names []string) bool {
	for _, name := range names {
		for _, kinds := range [][]string{ingressKinds, egressKinds} {
			a := f.pins.pinned(name, kinds)
			if a == nil {
				continue
			}
			a.index = 0 // what a link without interface says
			if gone, err := a.alive(); err != nil || !gone && a.kind != kindClsactIn && a.kind != kindClsactOut {
				return false
			}
		}
	}
	return true
}

// Close lets go of the filter, which runs on.
func (f *Filter) Close() error {
	if f.loaded != nil {
		f.loaded.Close()
	}
	if f.set != nil {
		return f.set.Close()
	}
	return nil
}

// tools opens the programs that no interface runs. Most commands need none of them.
func (f *Filter) tools() (_ *tools, err error) {
	if f.loaded == nil {
		f.loaded, err = openTools(f.pins.policy())
	}
	return f.loaded, err
}

// now asks the datapath's clock (jiffies).
func (f *Filter) now() (uint64, error) {
	t, err := f.tools()
	if err != nil {
		return 0, err
	}
	return jiffies(t.clock)
}

// Config returns the path of the file that the policy came from.
func (f *Filter) Config() string { return f.running.Config }

// Policy returns the policy in force: its rules are those open at this moment, its interfaces the filtered ones.
func (f *Filter) Policy() (*policy.Policy, error) {
	p := f.running.Policy.Clone()
	var err error
	if p.Interfaces, err = f.pins.interfaces(); err != nil {
		return nil, err
	}
	rules, err := f.set.Rules()
	if err != nil {
		return nil, err
	}
	for _, r := range rules {
		p.Open = append(p.Open, r.Rule)
	}
	p.Open = policy.SpellRules(p.Open)
	return p, nil
}

// Rules returns the rules in force, each with the number under which its packets are counted.
func (f *Filter) Rules() ([]maps.Rule, error) { return f.set.Rules() }

// RuntimeRules returns the rules in force that are not in the file.
func (f *Filter) RuntimeRules() (out []policy.Rule, err error) {
	rules, err := f.set.Rules()
	for _, r := range rules {
		if r.Runtime {
			out = append(out, r.Rule)
		}
	}
	return policy.SpellRules(out), err
}

// Saved returns the policy in force without the rules that are not in the file.
func (f *Filter) Saved() (*policy.Policy, error) {
	if !f.isCurrent() {
		now, err := OpenContext(f.pins.context(), f.pins.base)
		if err != nil {
			return nil, err
		}
		f.Close()
		*f = *now
	}
	p := f.running.Policy.Clone()
	var err error
	if p.Interfaces, err = f.pins.interfaces(); err != nil {
		return nil, err
	}
	rules, err := f.set.Rules()
	if err != nil {
		return nil, err
	}
	for _, r := range rules {
		if !r.Runtime {
			p.Open = append(p.Open, r.Rule)
		}
	}
	p.Open = policy.SpellRules(p.Open)
	return p, nil
}

// Counters returns the packets by reason and rule, without the rest that Status asks for.
func (f *Filter) Counters() (map[maps.Reason]uint64, error) { return f.set.Counters() }

// Interfaces lists the filtered interfaces.
func (f *Filter) Interfaces() ([]Interface, error) {
	names, err := f.pins.interfaces()
	if err != nil {
		return nil, err
	}
	out := []Interface{}
	for _, name := range names {
		i := Interface{Name: name, Mode: ModeAuto}
		in, eg := f.pins.pinned(name, ingressKinds), f.pins.pinned(name, egressKinds)
		switch {
		case in == nil: // it was not there yet
		case in.kind == kindXDP:
			i.Mode = ModeNative
		case in.kind == kindGeneric:
			i.Mode = ModeGeneric
		default:
			i.Mode = ModeTC
		}
		switch {
		case eg == nil:
		case eg.kind == kindClsactOut:
			i.Egress = "clsact"
		default:
			i.Egress = "tcx"
		}
		if l, err := host.Device(name); err == nil && in != nil && eg != nil {
			inAlive, err := in.alive()
			if err != nil {
				return nil, err
			}
			egAlive, err := eg.alive()
			if err != nil {
				return nil, err
			}
			i.Present = inAlive && egAlive
			if in.isXDP() {
				i.Mode = xdpMode(l)
			}
		}
		out = append(out, i)
	}
	return out, nil
}

// flowsStatus counts the flows, and takes the rest from the counters.
func (f *Filter) flowsStatus(counters map[maps.Reason]uint64) (s FlowsStatus, err error) {
	now, err := f.now()
	if err != nil {
		return s, err
	}
	flows, err := f.set.CountFlows(now)
	if err != nil {
		return s, err
	}
	most, err := f.set.MaxFlows()
	return FlowsStatus{
		Assured:  flows.Assured,
		Answered: flows.Answered,
		Pending:  flows.Pending,
		Max:      most,
		Full:     counters[maps.FlowsFull],
		Evicted:  counters[maps.FlowsEvicted],
	}, err
}

// Down takes the filter off the interfaces, or off all when none is named.
func Down(pinPath string, interfaces []string) (*DownReport, error) {
	return DownContext(context.Background(), pinPath, interfaces)
}

// DownContext is Down with a context, whose end cancels the wait for another command.
func DownContext(ctx context.Context, pinPath string, interfaces []string) (*DownReport, error) {
	f, err := OpenContext(ctx, pinPath)
	if errors.Is(err, ErrOlderSchema) || errors.Is(err, ErrNewerSchema) {
		return downOther(pins{base: pinPath, ctx: ctx}, interfaces)
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	unlock, err := f.change()
	if err != nil {
		return nil, err
	}
	defer unlock()
	names, err := f.pins.interfaces()
	if err != nil {
		return nil, err
	}
	if len(interfaces) == 0 {
		interfaces = names
	}
	for _, name := range interfaces {
		if !slices.Contains(names, name) {
			return nil, fmt.Errorf("%s: %w: filtered are %s", name, ErrNotFiltered, strings.Join(names, ", "))
		}
	}
	report := newDownReport(interfaces, names)
	for _, name := range interfaces {
		for _, kinds := range [][]string{ingressKinds, egressKinds} {
			if a := f.pins.pinned(name, kinds); a != nil {
				if err := a.detach(); err != nil {
					return nil, err
				}
			}
		}
		if err := os.RemoveAll(f.pins.link(name, "")); err != nil {
			return nil, err
		}
	}
	if len(report.Remaining) == 0 {
		return report, f.pins.remove()
	}
	return report, nil
}
