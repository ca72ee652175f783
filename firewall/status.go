// SPDX-License-Identifier: Apache-2.0

package firewall

import (
	"context"
	"errors"
	"io/fs"
	"slices"
	"time"

	"github.com/portcullis-firewall/portcullis/firewall/schedule"
	"github.com/portcullis-firewall/portcullis/loader"
	"github.com/portcullis-firewall/portcullis/policy"
)

// Status is what a firewall is and has done.
type Status struct {
	Running    bool                   `json:"running"`
	PinPath    string                 `json:"pin_path"`
	Config     string                 `json:"config"`
	BuiltIn    bool                   `json:"built_in"`  // there has been no file yet
	FileGone   bool                   `json:"file_gone"` // the policy comes from it all the same
	Interfaces []loader.Interface     `json:"interfaces"`
	Settings   policy.Settings        `json:"policy"`
	Rules      []RuleStatus           `json:"rules"`
	Counters   []loader.CounterStatus `json:"counters"`
	Flows      loader.FlowsStatus     `json:"flows"`
	Warnings   []string               `json:"warnings"`
	Trial      *TrialStatus           `json:"try,omitempty"`

	Policy *policy.Policy `json:"-"`
}

// RuleStatus is a rule in force, and when it closes by itself.
type RuleStatus struct {
	loader.RuleStatus
	SecondsLeft int `json:"seconds_left,omitempty"`
}

// TrialStatus is a policy that goes again when nobody confirms it.
type TrialStatus struct {
	File        string `json:"file"`
	SecondsLeft int    `json:"seconds_left"`

	Left    string `json:"-"` // for people
	Outcome string `json:"-"` // what happens when nobody confirms it
}

// Status returns what the firewall is and has done, and warns of what is not as it should be.
func (fw *Firewall) Status(ctx context.Context) (*Status, error) {
	scheduled, failed, err := fw.schedule(ctx)
	if err != nil {
		return nil, err
	}
	f, err := fw.View(ctx)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	s, err := f.Status()
	if err != nil {
		return nil, err
	}
	past, err := f.Bypassed(ctx, loader.LookTime)
	if err != nil && !errors.Is(err, fs.ErrPermission) { // in a container without CAP_NET_RAW, as doctor tells
		return nil, err
	}
	for _, i := range past {
		s.Warnings = append(s.Warnings, i.BypassText())
	}
	if failed != nil {
		s.Warnings = append(s.Warnings, failed.Error())
	}
	if r := s.Refusals(); r.Packets > 0 {
		s.Warnings = append(s.Warnings, r.String())
	}
	file := fw.compare(s)
	if scheduled.Trial == nil {
		s.Warnings = append(s.Warnings, file.warnings()...)
	}
	s.Warnings = slices.Concat(s.Warnings, fw.cutOff(s.Policy, s.Config), fw.unfiltered(s.Policy.Interfaces, file.unfiltered))
	status := &Status{
		Running:    true,
		PinPath:    s.PinPath,
		Config:     s.Config,
		BuiltIn:    file.builtIn,
		FileGone:   file.gone,
		Interfaces: list(s.Interfaces),
		Settings:   s.Policy.Settings(),
		Rules:      ruleStatus(s.Rules, scheduled),
		Counters:   list(s.Counters),
		Flows:      s.Flows,
		Warnings:   list(s.Warnings),
		Policy:     s.Policy,
	}
	if t := scheduled.Trial; t != nil {
		status.Trial = &TrialStatus{t.File, seconds(t.Due), Span(t.Due.Left()), outcomeOf(t)}
	}
	return status, nil
}

func ruleStatus(rules []loader.RuleStatus, s *schedule.Schedule) []RuleStatus {
	out := make([]RuleStatus, len(rules))
	for i, status := range rules {
		out[i].RuleStatus = status
		r, err := policy.ParseRule(status.Rule)
		if due, timed := s.RuleDue(r); err == nil && timed && status.Runtime {
			out[i].SecondsLeft = seconds(due)
		}
	}
	return out
}

// inspectTime is how long Inspect looks at an interface on which nothing comes in.
const inspectTime = 2 * time.Second

// Inspection is what the doctor asks of a filter that runs.
type Inspection struct {
	Running  *loader.Status     // with what is to be said of the policy file among the warnings
	Bypassed []loader.Interface // past whose programs packets come
	LookErr  error              // why nobody could look
}

// Inspect looks closely at a filter that runs.
func (fw *Firewall) Inspect(ctx context.Context) (*Inspection, error) {
	f, err := fw.View(ctx)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	in := &Inspection{}
	if in.Running, err = f.Status(); err != nil {
		return nil, err
	}
	in.Running.Warnings = append(in.Running.Warnings, fw.compare(in.Running).drift...)
	in.Bypassed, in.LookErr = f.Bypassed(ctx, inspectTime)
	return in, nil
}
