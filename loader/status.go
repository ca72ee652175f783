// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"errors"
	"fmt"

	"github.com/portcullis-firewall/portcullis/maps"
)

// Status tells what the filter is and has done. Refusals tells what may be wrong with the flow table.
func (f *Filter) Status() (*Status, error) {
	s := &Status{PinPath: f.pins.base, Policy: f.Policy(), Config: f.Config(), Rules: []RuleStatus{}, Counters: []CounterStatus{}, Warnings: []string{}}
	var err error
	if s.Saved, err = f.Saved(); err != nil {
		return nil, err
	}
	if s.Interfaces, err = f.Interfaces(); err != nil {
		return nil, err
	}
	counters, err := f.set.Counters()
	if err != nil {
		return nil, err
	}
	rules, err := f.set.Rules()
	if err != nil {
		return nil, err
	}
	for _, r := range rules {
		s.Rules = append(s.Rules, RuleStatus{r.Rule.String(), counters[maps.RuleReason(r.ID)], r.Runtime})
	}
	for _, reason := range maps.Reasons() {
		s.Counters = append(s.Counters, CounterStatus{reason.Verdict(), reason.String(), counters[reason]})
	}
	if s.Flows, err = f.flowsStatus(counters); err != nil {
		return nil, err
	}
	for _, i := range s.Interfaces {
		switch i.Absence() {
		case absentWaiting:
			s.Warnings = append(s.Warnings, fmt.Sprintf("%s does not exist: \"portcullis run\" filters it when it appears", i.Name))
		case absentGone:
			s.Warnings = append(s.Warnings, fmt.Sprintf("%s is gone: \"portcullis run\" filters it when it is back", i.Name))
		case absentAppeared:
			s.Warnings = append(s.Warnings, fmt.Sprintf("%s has appeared, and is not filtered: run \"portcullis up %s\"", i.Name, i.Name))
		case absentRecreated:
			s.Warnings = append(s.Warnings, fmt.Sprintf("%s was deleted and re-created, and is not filtered: run \"portcullis up %s\"", i.Name, i.Name))
		}
	}
	drift, err := f.Drift()
	if err != nil {
		return nil, err
	}
	if drift.MTU != "" {
		s.Warnings = append(s.Warnings, fmt.Sprintf("%s: MTU raised while filtered; large frames may be lost until you run \"portcullis up %s\"", drift.MTU, drift.MTU))
	}
	return s, nil
}

// Why an interface of the filter is not filtered.
const (
	absentWaiting   = "waiting"      // it has not been there yet
	absentGone      = "gone"         // deleted, or moved to another namespace
	absentAppeared  = "not filtered" // for the first time, without an agent
	absentRecreated = "re-created"   // without an agent
)

// Absence says in a word why an interface is not filtered, and is "" where it is.
func (i Interface) Absence() string {
	if i.Present {
		return ""
	}
	_, err := device(i.Name)
	missing, never := errors.Is(err, errNoDevice), i.Mode == ModeAuto
	switch {
	case missing && never:
		return absentWaiting
	case missing:
		return absentGone
	case never:
		return absentAppeared
	}
	return absentRecreated
}
