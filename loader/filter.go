// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/portcullis-firewall/portcullis/host"
	"github.com/portcullis-firewall/portcullis/loader/hook"
	"github.com/portcullis-firewall/portcullis/loader/lock"
	"github.com/portcullis-firewall/portcullis/loader/pin"
	"github.com/portcullis-firewall/portcullis/maps"
	"github.com/portcullis-firewall/portcullis/policy"
)

// Filter is a running filter, found by its pins.
type Filter struct {
	ctx     context.Context // of whoever opened it: how long to wait for others
	pins    pin.Dir
	set     *maps.Set
	loaded  *tools // when they are first needed: see tools
	running *maps.Running

	renames     []rename // that were followed when it was opened
	policyInode uint64   // see isCurrent
}

// Open returns the filter that runs under a pin path. The error is ErrNotRunning or ErrOtherNamespace when there is none
// for this network namespace. The context bounds the filter's waits for other commands. Readers do not wait for each other.
func Open(ctx context.Context, pinPath string) (*Filter, error) {
	f, err := openLocked(ctx, pinPath, (*maps.Set).OpenAll)
	return f, permissionError(err)
}

// OpenToChange is Open for a command that keeps others from changing the filter: as nobody takes it down,
// maps can be opened when they are first needed, and to open a port needs few.
func OpenToChange(ctx context.Context, pinPath string) (*Filter, error) {
	f, err := openLocked(ctx, pinPath, func(*maps.Set) error { return nil })
	return f, permissionError(err)
}

func openLocked(ctx context.Context, pinPath string, prepare func(*maps.Set) error) (*Filter, error) {
	p, err := pin.At(pinPath)
	if err != nil {
		return nil, err
	}
	if _, err := os.Stat(p.Root()); errors.Is(err, fs.ErrNotExist) {
		return nil, p.NotRunning("nothing is pinned at " + pinPath)
	} else if err != nil {
		return nil, err
	}
	if err := p.CheckOwner(); err != nil {
		return nil, err
	}
	f, unlock, err := openShared(ctx, p)
	if err != nil {
		return nil, err
	}
	defer unlock()
	if err := prepare(f.set); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// openShared opens a filter under a lock that readers share, or, if a command was killed that has to be cleared up
// after, under one that excludes them.
func openShared(ctx context.Context, p pin.Dir) (f *Filter, unlock func(), err error) {
	mode := lock.Shared
	for {
		unlock, err := p.Lock(ctx, mode)
		if errors.Is(err, fs.ErrNotExist) {
			return nil, nil, fmt.Errorf("%w (what was pinned at %s was just taken away)", ErrNotRunning, p.Base)
		}
		if err != nil {
			return nil, nil, err
		}
		if mode == lock.Exclusive {
			if f, err = open(ctx, p); err != nil {
				unlock()
			}
			return f, unlock, err
		}
		unfinished, err := isUnfinished(p)
		if err == nil && !unfinished {
			if f, err = openFinished(ctx, p); err == nil {
				return f, unlock, nil
			}
		}
		unlock()
		if err != nil {
			return nil, nil, err
		}
		mode = lock.Exclusive
	}
}

// isUnfinished reports whether a killed command has left something to finish or to take back, or an interface was renamed.
func isUnfinished(p pin.Dir) (bool, error) {
	needed, err := p.NeedsRecovery()
	if needed || err != nil {
		return needed, err
	}
	_, ok := halfAdopted(p)
	return ok || exists(p.Swap()) || len(renamed(p)) > 0, nil
}

// halfAdopted returns the pins of an older version on which our programs run already.
func halfAdopted(p pin.Dir) (older pin.Dir, ok bool) {
	if older, ok = p.OtherVersion(); !ok || !older.IsOlder() {
		return older, false
	}
	_, err := os.Stat(p.Policy())
	return older, err == nil
}

// open finishes what a killed command has begun, follows interfaces that were renamed, and opens the filter. The lock is
// held for a change.
func open(ctx context.Context, p pin.Dir) (_ *Filter, err error) {
	renames, err := followRenames(p)
	if err != nil {
		return nil, err
	}
	if err := p.Recover(); err != nil {
		return nil, fmt.Errorf("finish what an earlier command began: %w", err)
	}
	if older, ok := halfAdopted(p); ok {
		if err := p.Adopt(older); err != nil {
			return nil, err
		}
	}
	f, err := openFinished(ctx, p)
	if err != nil {
		return nil, err
	}
	if err := f.finishSwap(); err != nil {
		f.Close()
		return nil, err
	}
	f.renames = renames
	return f, nil
}

// openFinished opens a filter that no command is at work on. The lock is held.
func openFinished(ctx context.Context, p pin.Dir) (_ *Filter, err error) {
	names, err := p.Linked()
	if err != nil {
		return nil, err
	}
	if _, err := os.Stat(p.Policy()); len(names) == 0 || errors.Is(err, fs.ErrNotExist) {
		if isAttached(p, names) {
			return nil, damaged(p)
		}
		return nil, p.NotRunning("nothing is attached under " + p.Base)
	}
	f := &Filter{ctx: ctx, pins: p, policyInode: inode(p.Policy())}
	defer func() {
		if err != nil {
			f.Close()
		}
	}()
	if f.set, err = maps.OpenSet(p.Maps(), p.Policy(), findLost(p)); err != nil {
		return nil, err
	}
	if f.running, err = f.set.Running(); err != nil {
		return nil, err
	}
	if f.running.Policy.WatchOnly, err = f.set.Watching(); err != nil {
		return nil, err
	}
	cookie, err := host.NetnsCookie()
	if err != nil {
		return nil, err
	}
	if cookie != f.running.Netns {
		if f.dead(names) {
			return nil, fmt.Errorf("%w (what is pinned at %s is left from a network namespace that is gone)", ErrNotRunning, p.Base)
		}
		return nil, fmt.Errorf("%w: choose another --pin-path here than %s", ErrOtherNamespace, p.Base)
	}
	return f, nil
}

// change takes the lock for a change to the filter, which may be another one by now than when f was opened.
func (f *Filter) change() (unlock func(), err error) {
	if unlock, err = f.pins.Lock(f.ctx, lock.Exclusive); err != nil {
		return nil, err
	}
	if f.isCurrent() {
		return unlock, nil
	}
	now, err := open(f.ctx, f.pins)
	if err != nil {
		unlock()
		return nil, err
	}
	f.Close()
	*f = *now
	return unlock, nil
}

// isCurrent reports whether no other policy has been put in force since the filter was opened, nor one half.
func (f *Filter) isCurrent() bool {
	_, err := os.Stat(f.pins.Next())
	return errors.Is(err, fs.ErrNotExist) && !exists(f.pins.Swap()) && f.policyInode == inode(f.pins.Policy())
}

// inode returns that of a directory, or 0. Each policy has a directory of its own, and bpffs uses no number twice.
func inode(path string) uint64 {
	var st unix.Stat_t
	if unix.Stat(path, &st) != nil {
		return 0
	}
	return st.Ino
}

// dead reports whether every link has lost its interface, as when its network namespace is gone.
func (f *Filter) dead(names []string) bool {
	for _, name := range names {
		for _, kinds := range [][]string{hook.Ingress, hook.Egress} {
			a := f.pins.Attachment(name, kinds)
			if a == nil {
				continue
			}
			a.Index = 0 // what a link without interface says
			if gone, err := a.Alive(); err != nil || !gone && !a.IsClsact() {
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
		f.loaded, err = openTools(f.pins.Policy())
		if errors.Is(err, fs.ErrNotExist) {
			f.loaded, err = f.loadTools()
		}
	}
	return f.loaded, err
}

// now returns the time of the datapath's clock (jiffies).
func (f *Filter) now() (uint64, error) {
	t, err := f.tools()
	if err != nil {
		return 0, err
	}
	return jiffies(t.clock)
}

// Config returns the path of the file that the policy came from.
func (f *Filter) Config() string { return f.running.Config }

// Policy returns the policy in force: its rules are those open at this moment, its interfaces and patterns those that were
// named.
func (f *Filter) Policy() (*policy.Policy, error) {
	p, err := f.settings()
	if err != nil {
		return nil, err
	}
	if p.Interfaces, err = f.pins.Named(); err != nil {
		return nil, err
	}
	rules, err := f.set.Rules()
	if err != nil {
		return nil, err
	}
	p.Open = slices.Grow(p.Open, len(rules))
	for _, r := range rules {
		p.Open = append(p.Open, r.Rule)
	}
	p.Open = policy.SpellRules(p.Open)
	return p, nil
}

// settings returns the policy in force without its rules and interfaces. Whether it is enforced is what the datapath goes
// by, and not what was recorded: so a flip is one store.
func (f *Filter) settings() (p *policy.Policy, err error) {
	p = f.running.Policy.Clone()
	p.WatchOnly, err = f.set.Watching()
	return p, err
}

// Watching reports whether the filter only watches: what would be dropped passes.
func (f *Filter) Watching() (bool, error) { return f.set.Watching() }

// Rules returns the rules in force, each with the number under which its packets are counted.
func (f *Filter) Rules() ([]maps.Rule, error) { return f.set.Rules() }

// RuntimeRules returns the rules in force that are not in the file.
func (f *Filter) RuntimeRules() (out []policy.Rule, err error) {
	rules, err := f.set.RuntimeRules()
	for _, r := range rules {
		out = append(out, r.Rule)
	}
	return policy.SpellRules(out), err
}

// Saved returns the policy in force without the rules that are not in the file.
func (f *Filter) Saved() (*policy.Policy, error) {
	if err := f.refresh(); err != nil {
		return nil, err
	}
	return f.saved()
}

// refresh makes f the filter that runs now, where another policy has been put in force since it was opened.
func (f *Filter) refresh() error {
	if f.isCurrent() {
		return nil
	}
	now, err := Open(f.ctx, f.pins.Base)
	if err != nil {
		return err
	}
	f.Close()
	*f = *now
	return nil
}

func (f *Filter) saved() (*policy.Policy, error) {
	p, err := f.settings()
	if err != nil {
		return nil, err
	}
	if p.Interfaces, err = f.pins.Named(); err != nil {
		return nil, err
	}
	rules, err := f.set.Rules()
	if err != nil {
		return nil, err
	}
	p.Open = slices.Grow(p.Open, len(rules))
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

// Named returns the interfaces and patterns that are to be filtered, as they were named.
func (f *Filter) Named() ([]string, error) { return f.pins.Named() }

// Interfaces returns the filtered interfaces, also those that do not exist.
func (f *Filter) Interfaces() ([]Interface, error) {
	names, err := f.pins.Interfaces()
	if err != nil {
		return nil, err
	}
	out := []Interface{}
	for _, name := range names {
		i := Interface{Name: name, Mode: ModeAuto, Pattern: f.pins.Pattern(name)}
		in, eg := f.pins.Attachment(name, hook.Ingress), f.pins.Attachment(name, hook.Egress)
		switch {
		case in == nil: // it was not there yet
		case in.Kind == hook.XDP:
			i.Mode = ModeNative
		case in.Kind == hook.XDPGeneric:
			i.Mode = ModeGeneric
		default:
			i.Mode = ModeTC
		}
		switch {
		case eg == nil:
		case eg.Kind == hook.ClsactOut:
			i.Egress = "clsact"
		default:
			i.Egress = "tcx"
		}
		if l, err := host.Device(name); err == nil && in != nil && eg != nil {
			inAlive, err := in.Alive()
			if err != nil {
				return nil, err
			}
			egAlive, err := eg.Alive()
			if err != nil {
				return nil, err
			}
			i.Present = inAlive && egAlive
			if in.IsXDP() {
				i.Mode = xdpMode(l)
			}
		}
		out = append(out, i)
	}
	return out, nil
}
