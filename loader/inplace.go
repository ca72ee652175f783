// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"

	"github.com/cilium/ebpf"

	"github.com/portcullis-firewall/portcullis/host"
	"github.com/portcullis-firewall/portcullis/loader/hook"
	"github.com/portcullis-firewall/portcullis/loader/pin"
	"github.com/portcullis-firewall/portcullis/maps"
	"github.com/portcullis-firewall/portcullis/policy"
)

// Most changes of a large policy are small: one rule more, or other networks on a list. What the datapath sees in one
// store needs no maps and programs beside those that run: it is whole at each moment, as with a switchover.

// putInPlace puts the new policy in force in the maps of the running filter, and reports whether that could be done: where
// nothing differs but its rules or its block lists, in one store, and where the filter is on its interfaces as it should be.
func (c *change) putInPlace() (done bool, err error) {
	warnings := len(c.report.Warnings)
	defer func() {
		if !done { // or the other way would give them a second time
			c.report.Warnings = c.report.Warnings[:warnings]
		}
	}()
	same, err := c.isSameButContents()
	if !same || err != nil {
		return false, err
	}
	old, err := c.old.set.Rules()
	if err != nil {
		return false, err
	}
	numbered, err := maps.Number(c.options.Policy.Open, old, c.old.set.Capacity())
	if err != nil {
		return false, inPlaceError(err)
	}
	rules := c.newRules(numbered)
	if err := c.old.checkGroups(old, rules); err != nil {
		return false, inPlaceError(err)
	}
	if err := c.old.setInterfaces(old, rules); err != nil {
		return false, err
	}
	swap, err := c.old.set.PlanSwap(rules, old)
	if err != nil {
		return false, inPlaceError(err)
	}
	blocking, err := c.changedBlocking()
	flips := c.options.Policy.WatchOnly != c.old.running.Policy.WatchOnly
	several := blocking != nil && swap.Changes() || flips && (blocking != nil || swap.Changes())
	if err != nil || several { // which were two steps
		return false, err
	}
	if blocking != nil {
		if done, err := c.swapLists(blocking); !done || err != nil {
			return false, err
		}
	}
	if flips {
		if err := c.flip(); err != nil {
			return false, err
		}
	}
	if err := c.swapRules(swap); err != nil {
		return false, err
	}
	c.report.Interfaces, err = c.old.Interfaces()
	return true, err
}

// inPlaceError returns nil for an error that maps of their own help against.
func inPlaceError(err error) error {
	if errors.Is(err, maps.ErrNoRoom) || errors.Is(err, maps.ErrSeveralSteps) {
		return nil
	}
	return err
}

// swapRules puts the rules in force. Live connections that came in by one that goes become flows.
func (c *change) swapRules(swap *maps.Swap) (err error) {
	enter := func() error {
		if !swap.Closes() {
			return nil
		}
		return c.enterLive()
	}
	if err := enter(); err != nil {
		return err
	}
	seeded := c.report.Seeded
	if err := os.Symlink(swap.Text(), c.pins.Swap()); err != nil {
		return fmt.Errorf("record how rules change: %w", err)
	}
	if err := swap.Do(); err != nil {
		return errors.Join(err, c.old.finishSwap())
	}
	if err := c.old.clearSwap(); err != nil {
		return err
	}
	err = enter() // what came in since by a port that is closed now
	c.report.Seeded = seeded
	return err
}

// swapLists puts what is blocked and trusted in force, and reports whether there was room for that. The policy that is
// recorded is another then: it is kept beside the old one until the lists are in force.
func (c *change) swapLists(blocking *maps.Blocking) (done bool, err error) {
	running := *c.old.running
	running.Policy = c.options.Policy
	text, next, err := c.old.set.PlanRunning(&running)
	if err != nil {
		return false, err
	}
	defer next.Close()
	if err := c.old.clearSwap(); err != nil {
		return false, err
	}
	if err := next.Pin(c.pins.SwapRunning()); err != nil {
		return false, err
	}
	if err := os.Symlink(text, c.pins.Swap()); err != nil {
		return false, fmt.Errorf("record how block lists change: %w", err)
	}
	err = c.old.set.PutBlocking(blocking)
	if finish := c.old.finishSwap(); err != nil || finish != nil {
		return false, errors.Join(inPlaceError(err), finish)
	}
	c.old.running = &running
	return true, c.old.set.TidyGate()
}

// finishSwap ends or takes back a change that was made in place, also one of which somebody was killed. The lock is held
// for a change.
func (f *Filter) finishSwap() error {
	text, err := os.Readlink(f.pins.Swap())
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil {
		err = f.set.FinishSwap(text, func() (*ebpf.Map, error) { return ebpf.LoadPinnedMap(f.pins.SwapRunning(), nil) })
	}
	if err != nil {
		return fmt.Errorf("finish a change that an earlier command began: %w", err)
	}
	return f.clearSwap()
}

// clearSwap takes away what is kept of a change that is made in place.
func (f *Filter) clearSwap() error {
	for _, path := range []string{f.pins.Swap(), f.pins.SwapRunning()} { // the mark first
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// changedBlocking returns what the new policy blocks and trusts, or nil where that is in force.
func (c *change) changedBlocking() (*maps.Blocking, error) {
	return c.blockingOfPolicy(c.old.set.Ruleset)
}

// isSameButContents reports whether the running filter differs from what the options ask for by rules and by what is blocked
// and trusted, at most: everything that programs are loaded with is as it should be, and they are where they should be.
func (c *change) isSameButContents() (bool, error) {
	o := &c.options
	if c.old == nil || c.maintains || o.Look || o.Blocking != nil || len(o.LetGo)+len(o.Former) > 0 || o.Config != c.old.Config() ||
		len(c.old.renames) > 0 || !sameSettings(o.Policy, c.old.running.Policy) || !exists(objectDir(c.pins.Policy())) {
		return false, nil
	}
	most, err := c.old.set.MaxFlows()
	if err != nil || int(most) != o.Policy.FlowLimit() { // of which Up warns
		return false, err
	}
	named, err := c.pins.Linked()
	if err != nil {
		return false, err
	}
	for _, name := range o.Interfaces {
		if o.Filtered && !slices.Contains(named, name) {
			continue
		}
		if !slices.Contains(named, name) || c.pins.IsBrought(name) || o.Mode != ModeAuto && c.pins.Mode(name) != string(o.Mode) {
			return false, nil
		}
	}
	if more, err := c.bringsMore(); more || err != nil {
		return false, err
	}
	var present []*target
	for _, name := range named {
		if policy.IsPattern(name) {
			continue
		}
		device, err := host.Device(name)
		if errors.Is(err, host.ErrNoDevice) && (o.Wait || c.pins.Pattern(name) != "") {
			continue
		}
		if err != nil {
			return false, nil // which Up warns of
		}
		t := &target{device: device}
		if ok, err := c.isAsItShouldBe(t); !ok || err != nil {
			return false, err
		}
		present = append(present, t)
	}
	if len(present) == 0 || len(missing(c.pins)) > 0 { // checkGroups looks for the tables
		return false, nil
	}
	c.warnOfPatterns(present)
	c.warnOfTopology(present)
	return true, nil
}

// isAsItShouldBe reports whether the programs of a target are attached, and are those that Up would load.
func (c *change) isAsItShouldBe(t *target) (_ bool, err error) {
	if t.oldOut, err = c.find(t, hook.Egress); err != nil {
		return false, err
	}
	if t.oldIn, err = c.find(t, hook.Ingress); err != nil {
		return false, err
	}
	if t.oldIn == nil || t.oldOut == nil || c.distrust(t) != "" {
		return false, nil
	}
	directions := []string{pin.Out, pin.In}
	if !exists(c.pinned(t, pin.In)) {
		directions[1] = pin.InFrags
	}
	if t.outgrows(directions[1]) {
		return false, nil
	}
	attrs := t.device.Attrs()
	for _, direction := range directions {
		loaded, err := pin.LoadedWith(c.pinned(t, direction))
		if err != nil || loaded.Ethernet != host.HasEthernet(t.device) || loaded.MAC != host.MAC(t.device) ||
			loaded.RunSlot != maps.RunSlot(attrs.Index) || loaded.Settings != settingsKey(settingsFor(c.options.Policy, t.name())) {
			return false, nil
		}
	}
	return true, nil
}

// sameSettings reports whether two policies differ by their interfaces, rules and lists, and by whether they are enforced, at
// most.
func sameSettings(a, b *policy.Policy) bool {
	plain := func(p *policy.Policy) *policy.Policy {
		q := *p
		q.Interfaces, q.Open, q.Lists, q.Block, q.Trust, q.WatchOnly = nil, nil, nil, nil, nil, false
		return &q
	}
	return plain(a).Equal(plain(b))
}
