// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"os"
	"slices"
	"time"

	"github.com/portcullis-firewall/portcullis/maps"
)

// Sample is what can be read of a filter in a few milliseconds, whatever the size of its tables.
type Sample struct {
	Interfaces []Interface
	Ledger     []Traffic
	Counters   []CounterStatus
	Rules      []RuleStatus
	BlockLists []maps.BlockListInForce
	BanReasons []maps.BanReason
	Watching   bool      // nothing is dropped
	Entries    int       // places of the flow table that are taken, by dead flows, too
	MaxFlows   uint32    // the most that it keeps
	Since      time.Time // when the policy was put in force
	RulesID    uint64    // the same as long as the rules are
}

// Sample reads a sample. The rules of the one before, which may be nil, are used again if they are still in force.
func (f *Filter) Sample(before *Sample) (*Sample, error) {
	if err := f.refresh(); err != nil {
		return nil, err
	}
	s := &Sample{}
	if err := f.sampleRules(s, before); err != nil {
		return nil, err
	}
	below := uint32(0)
	for i := range s.Rules {
		below = max(below, uint32(s.Rules[i].ID)+1)
	}
	counted, err := f.set.LedgerBelow(below)
	if err != nil {
		return nil, err
	}
	for i := range s.Rules {
		r := &s.Rules[i]
		tally := counted.Rule(r.ID)
		r.Packets, r.Bytes = tally.Packets, tally.Bytes
	}
	if s.Ledger, err = f.ledger(counted); err != nil {
		return nil, err
	}
	if s.Interfaces, err = f.Interfaces(); err != nil {
		return nil, err
	}
	for _, reason := range maps.Reasons() {
		tally := counted.Total(reason)
		s.Counters = append(s.Counters, CounterStatus{reason.Verdict(), reason.String(), tally.Packets, tally.Bytes})
	}
	if s.Watching, err = f.set.Watching(); err != nil {
		return nil, err
	}
	if s.BlockLists, err = f.BlockLists(); err != nil {
		return nil, err
	}
	if s.BanReasons, err = f.BanReasons(); err != nil {
		return nil, err
	}
	if s.Entries, s.MaxFlows, err = f.set.TableUse(); err != nil {
		return nil, err
	}
	if info, err := os.Stat(f.pins.Policy()); err == nil {
		s.Since = info.ModTime()
	}
	return s, nil
}

// sampleRules reads the rules, or takes those of the sample before: to read ten thousand takes longer than all else.
func (f *Filter) sampleRules(s, before *Sample) (err error) {
	if s.RulesID, err = f.set.RulesID(); err != nil {
		return err
	}
	if before != nil && before.RulesID == s.RulesID && before.RulesID != 0 {
		s.Rules = slices.Clone(before.Rules)
		return nil
	}
	rules, err := f.set.Rules()
	if err != nil {
		return err
	}
	for _, r := range rules {
		s.Rules = append(s.Rules, ruleStatus(r, &maps.Ledger{}))
	}
	return nil
}

func ruleStatus(r maps.Rule, counted *maps.Ledger) RuleStatus {
	tally := counted.Rule(r.ID)
	return RuleStatus{r.Rule.String(), tally.Packets, r.Runtime, tally.Bytes, r.Rule, r.ID}
}

// CountFlowStates returns how many flows are alive in each state. It walks through the whole table.
func (f *Filter) CountFlowStates() (map[string]int, error) {
	now, err := f.now()
	if err != nil {
		return nil, err
	}
	return f.set.CountFlowStates(now)
}
