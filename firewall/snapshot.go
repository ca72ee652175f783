// SPDX-License-Identifier: Apache-2.0

package firewall

import (
	"context"
	"slices"

	"github.com/portcullis-firewall/portcullis/firewall/schedule"
	"github.com/portcullis-firewall/portcullis/host"
	"github.com/portcullis-firewall/portcullis/loader"
	"github.com/portcullis-firewall/portcullis/maps"
	"github.com/portcullis-firewall/portcullis/policy"
)

// snapshot returns what is in force now.
func snapshot(f Filter) (*schedule.Snapshot, error) {
	p, err := f.Policy()
	if err != nil {
		return nil, err
	}
	rules, err := f.Rules()
	if err != nil {
		return nil, err
	}
	s := &schedule.Snapshot{Interfaces: p.Interfaces, Config: f.Config()}
	for _, r := range rules {
		s.Rules = append(s.Rules, schedule.SnapshotRule{ID: r.ID, Rule: r.Rule, Runtime: r.Runtime})
	}
	s.Policy = string(p.CompleteYAML())
	return s, nil
}

// restore puts a snapshot in force again. Rules that were away meanwhile go on counting where they were. Interfaces that
// came later are taken off; those that are gone stay so.
func (fw *Firewall) restore(ctx context.Context, s *schedule.Snapshot) error {
	ctx = fw.waiting(ctx)
	p, err := policy.Parse("the policy from before", []byte(s.Policy))
	if err != nil {
		return err
	}
	o := loader.Options{PinPath: fw.options.PinPath, Mode: loader.ModeAuto, Policy: p, Config: s.Config}
	for _, have := range s.Rules {
		p.Open = append(p.Open, have.Rule)
		o.Former = append(o.Former, maps.Rule{NumberedRule: policy.NumberedRule{ID: have.ID, Rule: have.Rule}, Runtime: have.Runtime})
		if have.Runtime {
			o.Runtime = append(o.Runtime, have.Rule)
		}
	}
	for _, name := range s.Interfaces {
		if _, err := host.Device(name); err == nil {
			o.Interfaces = append(o.Interfaces, name)
		}
	}
	report, err := fw.kernel.Up(ctx, o)
	if err != nil {
		return err
	}
	var added []string
	for _, i := range report.Interfaces {
		if !slices.Contains(s.Interfaces, i.Name) {
			added = append(added, i.Name)
		}
	}
	if len(added) == 0 {
		return nil // to Down, no name means all
	}
	_, err = fw.kernel.Down(ctx, fw.options.PinPath, added)
	return err
}
