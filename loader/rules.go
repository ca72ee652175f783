// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"errors"
	"slices"

	"github.com/portcullis-firewall/portcullis/maps"
	"github.com/portcullis-firewall/portcullis/policy"
)

// OpenRules opens rules in the running filter, all of them or none. Runtime marks them as not being in the file.
func (f *Filter) OpenRules(rules []policy.Rule, runtime bool) (*OpenReport, error) {
	unlock, err := f.change()
	if err != nil {
		return nil, err
	}
	defer unlock()
	current, err := f.set.Rules()
	if err != nil {
		return nil, err
	}
	report := &OpenReport{}
	next := slices.Clone(current)
	var added []policy.Rule
	for _, r := range rules {
		i := slices.IndexFunc(next, func(have maps.Rule) bool { return have.Rule.Equal(r) })
		if i >= 0 {
			report.Already = append(report.Already, next[i].Rule)
			next[i].Runtime = next[i].Runtime && runtime
			continue
		}
		if !slices.ContainsFunc(added, r.Equal) {
			added = append(added, r)
		}
	}
	numbered, err := maps.Number(added, current, f.set.Capacity())
	if err != nil {
		return nil, err
	}
	for _, n := range numbered {
		next = append(next, maps.Rule{NumberedRule: n, Runtime: runtime})
	}
	report.Opened = added
	return report, f.set.PutRules(next, current, current)
}

// CloseRules closes rules in the running filter, all of them or none. Their live connections go on, as flows; with
// kill they are cut. The error is a *policy.CoveredError when other rules open the same ports.
func (f *Filter) CloseRules(rules []policy.Rule, kill bool) (*CloseReport, error) {
	unlock, err := f.change()
	if err != nil {
		return nil, err
	}
	defer unlock()
	current, err := f.set.Rules()
	if err != nil {
		return nil, err
	}
	report := &CloseReport{}
	after := &policy.Policy{}
	for _, r := range current {
		after.Open = append(after.Open, r.Rule)
	}
	for _, r := range rules {
		without, removed, err := after.WithoutRule(r)
		if errors.Is(err, policy.ErrNotOpen) {
			report.NotOpen = append(report.NotOpen, r)
			continue
		}
		if err != nil {
			return nil, err
		}
		after = without
		report.Closed = append(report.Closed, removed)
	}
	if len(report.Closed) == 0 {
		return report, nil
	}
	next := slices.DeleteFunc(slices.Clone(current), func(r maps.Rule) bool {
		return slices.ContainsFunc(report.Closed, r.Rule.Equal)
	})
	// A connection is concerned when a closed rule let it in and none that is left does.
	concerned := func(flow *maps.Flow) bool {
		protocol, port, peer := policy.Protocol(flow.Protocol), flow.Local.Port(), flow.Remote.Addr()
		allows := func(r policy.Rule) bool { return r.Allows(protocol, port, peer) }
		return slices.ContainsFunc(report.Closed, allows) && !slices.ContainsFunc(after.Open, allows)
	}
	if kill {
		if err := f.set.PutRules(next, current, current); err != nil {
			return nil, err
		}
		report.Killed, err = f.kill(concerned)
		return report, err
	}
	live, err := f.liveFlows(concerned)
	if err != nil {
		return nil, err
	}
	if err := f.enter(live); err != nil {
		return nil, err
	}
	report.Kept = countEstablished(live)
	return report, f.set.PutRules(next, current, current)
}
