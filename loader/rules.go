// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"errors"
	"slices"

	"github.com/portcullis-firewall/portcullis/loader/seed"
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
	var fixed []maps.Rule // open already, and no longer for the time being
	for _, r := range rules {
		i := slices.IndexFunc(current, func(have maps.Rule) bool { return have.Rule.Equal(r) })
		switch {
		case i >= 0:
			report.Already = append(report.Already, current[i].Rule)
			if current[i].Runtime && !runtime {
				current[i].Runtime = false
				fixed = append(fixed, current[i])
			}
		case !slices.ContainsFunc(report.Opened, r.Equal):
			report.Opened = append(report.Opened, r)
		}
	}
	numbered, err := maps.Number(report.Opened, current, f.set.Capacity())
	if err != nil {
		return nil, err
	}
	added := make([]maps.Rule, len(numbered))
	for i, n := range numbered {
		added[i] = maps.Rule{NumberedRule: n, Runtime: runtime}
	}
	for _, r := range fixed {
		if err := f.set.PutRule(r); err != nil {
			return nil, err
		}
	}
	if slices.ContainsFunc(report.Opened, func(r policy.Rule) bool { return !r.Anyone() }) {
		return report, f.set.PutRules(append(slices.Clone(current), added...), current, current)
	}
	return report, f.set.AddRules(added)
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
	live, err := f.keepLive(concerned)
	if err != nil {
		return nil, err
	}
	report.Kept = seed.CountEstablished(live)
	if err := f.set.PutRules(next, current, current); err != nil {
		return nil, err
	}
	// A connection may have come in since, by the port that is closed now.
	_, err = f.keepLive(concerned)
	return report, err
}

// keepLive enters the live connections that are concerned as flows, and returns them.
func (f *Filter) keepLive(concerned func(*maps.Flow) bool) ([]maps.Flow, error) {
	live, err := f.liveFlows(concerned)
	if err != nil {
		return nil, err
	}
	return live, f.enter(live)
}
