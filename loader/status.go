// SPDX-License-Identifier: Apache-2.0

package loader

import (
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
		if !i.Present {
			s.Warnings = append(s.Warnings, fmt.Sprintf("%s is not there or was made anew, and is not filtered: \"portcullis run\" does that when it appears, \"portcullis up %s\" now", i.Name, i.Name))
		}
	}
	drift, err := f.Drift()
	if err != nil {
		return nil, err
	}
	if drift.MTU != "" {
		s.Warnings = append(s.Warnings, fmt.Sprintf("the MTU of %s was raised under the filter, and its driver may lose large frames: \"portcullis up %s\" loads a program that takes them, as \"portcullis run\" does by itself", drift.MTU, drift.MTU))
	}
	return s, nil
}
