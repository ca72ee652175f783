// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"errors"
	"fmt"
	"slices"

	"github.com/portcullis-firewall/portcullis/loader/seed"
	"github.com/portcullis-firewall/portcullis/maps"
	"github.com/portcullis-firewall/portcullis/policy"
)

// OpenRules opens rules in the running filter, all of them or none. Runtime marks them as not being in the file. Where
// the running maps have no room for them, the filter gets others.
func (f *Filter) OpenRules(rules []policy.Rule, runtime bool) (*OpenReport, error) {
	report, next, err := f.openRules(rules, runtime)
	if errors.Is(err, ErrNoRoom) {
		err = f.putAnew(next)
	}
	return report, err
}

// openRules is OpenRules for the running maps. next is the rules that there are to be, if they have no room for them.
func (f *Filter) openRules(rules []policy.Rule, runtime bool) (report *OpenReport, next []maps.Rule, err error) {
	unlock, err := f.change()
	if err != nil {
		return nil, nil, err
	}
	defer unlock()
	current, err := f.set.Rules()
	if err != nil {
		return nil, nil, err
	}
	report = &OpenReport{}
	index := make(map[policy.RuleKey]int, len(current)) // of current, and -1 for what is opened now
	for i, have := range current {
		index[have.Rule.Key()] = i
	}
	next = slices.Clone(current)
	var changed []maps.Rule // open already, and no longer for the time being
	restricted := false
	for _, r := range rules {
		key := r.Key()
		i, open := index[key]
		switch {
		case open && i >= 0:
			report.Already = append(report.Already, current[i].Rule)
			if next[i].Runtime && !runtime {
				next[i].Runtime = false
				changed = append(changed, next[i])
			}
		case !open:
			index[key] = -1
			report.Opened = append(report.Opened, r)
			restricted = restricted || r.Forward || !r.Unconditional()
		}
	}
	for _, r := range report.Opened {
		next = append(next, maps.Rule{NumberedRule: policy.NumberedRule{Rule: r}, Runtime: runtime})
	}
	if err := f.checkGroups(current, next); err != nil {
		return report, next, err
	}
	numbered, err := maps.Number(report.Opened, current, f.set.Capacity())
	if err != nil {
		return report, next, err
	}
	added := next[len(current):]
	for i, n := range numbered {
		added[i].ID = n.ID
	}
	if restricted {
		if err := f.setInterfaces(current, next); err != nil {
			return report, next, err
		}
		return report, next, f.set.PutRules(next, current, current)
	}
	return report, next, f.set.AddRules(added, changed...)
}

// putAnew puts rules in force in maps of their own. No packet meets half of them, as with a new policy.
func (f *Filter) putAnew(rules []maps.Rule) error {
	if err := f.renew(rules, nil); err != nil {
		return fmt.Errorf("make room for the rules: %w", err)
	}
	return nil
}

// renew puts rules, and block lists unless they are to stay, in force in maps of their own.
func (f *Filter) renew(rules []maps.Rule, blocking *maps.Blocking) error {
	p, err := f.settings()
	if err != nil {
		return err
	}
	o := Options{PinPath: f.pins.Base, Mode: ModeAuto, Policy: p, Config: f.running.Config, Running: true, Blocking: blocking}
	for _, r := range rules {
		p.Open = append(p.Open, r.Rule)
		if r.Runtime {
			o.Runtime = append(o.Runtime, r.Rule)
		}
	}
	if err := maps.CheckCapacity(p); err != nil {
		return err
	}
	if _, err := Up(f.ctx, o); err != nil {
		return err
	}
	now, err := OpenToChange(f.ctx, f.pins.Base)
	if err != nil {
		return err
	}
	f.Close()
	*f = *now
	return nil
}

// CloseRules closes rules in the running filter, all of them or none. Their live connections go on, as flows; with
// kill they are cut, those of rules that are not open included. The error is a *policy.CoveredError when other rules open
// the same ports. Where the running maps have no room for what it takes, the filter gets others.
func (f *Filter) CloseRules(rules []policy.Rule, kill bool) (*CloseReport, error) {
	report, next, concerned, err := f.closeRules(rules, kill)
	if !errors.Is(err, ErrNoRoom) {
		return report, err
	}
	if err := f.putAnew(next); err != nil {
		return nil, err
	}
	unlock, err := f.change()
	if err != nil {
		return nil, err
	}
	defer unlock()
	return report, f.afterClose(report, concerned, kill)
}

// closeRules is CloseRules in the running maps. next is the rules that are left, if there is no room for that.
func (f *Filter) closeRules(rules []policy.Rule, kill bool) (report *CloseReport, next []maps.Rule, concerned concerns, err error) {
	unlock, err := f.change()
	if err != nil {
		return nil, nil, nil, err
	}
	defer unlock()
	current, err := f.set.Rules()
	if err != nil {
		return nil, nil, nil, err
	}
	before := &policy.Policy{}
	runtime := make(map[policy.RuleKey]bool)
	for _, r := range current {
		before.Open = append(before.Open, r.Rule)
		if r.Runtime {
			runtime[r.Rule.Key()] = true
		}
	}
	after, closed, notOpen, err := before.WithoutRules(rules)
	if err != nil {
		return nil, nil, nil, err
	}
	report = &CloseReport{Closed: closed, NotOpen: notOpen}
	by := closed
	if kill { // also what came in before a rule was closed that is not there any more
		by = slices.Concat(closed, notOpen)
	}
	if concerned, err = f.onlyBy(by, after.Open); err != nil {
		return nil, nil, nil, err
	}
	if len(closed) == 0 {
		if kill {
			report.Killed, err = f.kill(concerned)
		}
		return report, nil, nil, err
	}
	for _, r := range after.Open {
		next = append(next, maps.Rule{NumberedRule: policy.NumberedRule{Rule: r}, Runtime: len(runtime) > 0 && runtime[r.Key()]})
	}
	if !kill {
		live, err := f.keepLive(concerned)
		if err != nil {
			return nil, nil, nil, err
		}
		report.Kept = live.Established()
	}
	if err := f.checkGroups(current, next); err != nil {
		return report, next, concerned, err
	}
	numbered, err := maps.Number(after.Open, current, f.set.Capacity())
	if err != nil {
		return report, next, concerned, err
	}
	for i, n := range numbered {
		next[i].ID = n.ID
	}
	if err := f.setInterfaces(current, next); err != nil {
		return report, next, concerned, err
	}
	if err := f.set.PutRules(next, current, current); err != nil {
		return report, next, concerned, err
	}
	return report, nil, nil, f.afterClose(report, concerned, kill)
}

// afterClose cuts the connections of rules that are closed, or keeps those that came in until they were.
func (f *Filter) afterClose(report *CloseReport, concerned concerns, kill bool) (err error) {
	if kill {
		report.Killed, err = f.kill(concerned)
		return err
	}
	_, err = f.keepLive(concerned)
	return err
}

// keepLive enters the live connections that are concerned as flows, and returns them.
func (f *Filter) keepLive(concerned concerns) (*seed.Connections, error) {
	live, err := f.liveFlows(concerned)
	if err != nil {
		return nil, err
	}
	return live, f.enter(live.Flows)
}
