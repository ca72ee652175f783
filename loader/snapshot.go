// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"fmt"
	"slices"

	"github.com/portcullis-firewall/portcullis/host"
	"github.com/portcullis-firewall/portcullis/maps"
	"github.com/portcullis-firewall/portcullis/policy"
)

// Snapshot is all of what is in force that Up decides, to be put back later.
type Snapshot struct {
	Policy     string         `json:"policy"` // the text of a policy file without rules
	Rules      []SnapshotRule `json:"rules"`
	Interfaces []string       `json:"interfaces"`
	Config     string         `json:"config"`
}

// SnapshotRule is a rule in force with the number under which its packets are counted.
type SnapshotRule struct {
	ID      uint16 `json:"id"`
	Rule    string `json:"rule"`
	Runtime bool   `json:"runtime"`
}

// Snapshot returns what is in force now.
func (f *Filter) Snapshot() (*Snapshot, error) {
	names, err := f.pins.Interfaces()
	if err != nil {
		return nil, err
	}
	rules, err := f.set.Rules()
	if err != nil {
		return nil, err
	}
	p := f.running.Policy.Clone()
	p.Open = nil
	s := &Snapshot{Policy: string(p.YAML()), Interfaces: names, Config: f.running.Config}
	for _, r := range rules {
		s.Rules = append(s.Rules, SnapshotRule{r.ID, r.Rule.String(), r.Runtime})
	}
	return s, nil
}

// forget takes out the rules that were opened for the time being and are among those given.
func (s *Snapshot) forget(rules []policy.Rule) {
	s.Rules = slices.DeleteFunc(s.Rules, func(have SnapshotRule) bool {
		r, err := policy.ParseRule(have.Rule)
		return err == nil && have.Runtime && slices.ContainsFunc(rules, r.Equal)
	})
}

// restore puts the snapshot in force again. Rules that were away meanwhile go on counting where they were. Interfaces
// that came later are taken off; those that are gone stay so.
func (s *Snapshot) restore(pinPath string) error {
	p, err := policy.Parse("the policy from before", []byte(s.Policy))
	if err != nil {
		return err
	}
	o := Options{PinPath: pinPath, Mode: ModeAuto, Policy: p, Config: s.Config}
	for _, have := range s.Rules {
		r, err := policy.ParseRule(have.Rule)
		if err != nil {
			return fmt.Errorf("the policy from before: %w", err)
		}
		p.Open = append(p.Open, r)
		o.Former = append(o.Former, maps.Rule{NumberedRule: policy.NumberedRule{ID: have.ID, Rule: r}, Runtime: have.Runtime})
		if have.Runtime {
			o.Runtime = append(o.Runtime, r)
		}
	}
	for _, name := range s.Interfaces {
		if _, err := host.Device(name); err == nil {
			o.Interfaces = append(o.Interfaces, name)
		}
	}
	report, err := Up(o)
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
	_, err = Down(pinPath, added)
	return err
}
