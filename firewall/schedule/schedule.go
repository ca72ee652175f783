// SPDX-License-Identifier: Apache-2.0

// Package schedule holds what will happen by itself to a filter: a policy on trial is put back, a rule that is open for
// a time closes. It says what is due and when, keeps that where a reboot forgets it, and starts the watchdog, the process
// that waits for it. What has to be done then is for package firewall.
package schedule

import (
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/portcullis-firewall/portcullis/policy"
)

// Instant is a time since boot, with the time that the machine was suspended: no clock that is set moves it.
type Instant time.Duration

// Now returns the present.
func Now() Instant {
	var ts unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts) // which no kernel refuses
	return Instant(ts.Nano())
}

// After returns the instant in d from now.
func After(d time.Duration) Instant { return Now() + Instant(d) }

// Left returns the time until then; it is negative when that has passed.
func (i Instant) Left() time.Duration { return time.Duration(i - Now()) }

// Schedule is what will happen by itself to a filter, and what last has.
type Schedule struct {
	Boot  string      `json:"boot"`
	Netns uint64      `json:"netns"` // cookie
	Trial *Trial      `json:"try,omitempty"`
	Timed []TimedRule `json:"timed,omitempty"`
	Ended *EndedTrial `json:"ended,omitempty"`
}

// Trial is a policy that is put back when nobody confirms it.
type Trial struct {
	File    string    `json:"file"`
	Text    string    `json:"text"`     // of the file, as it was put in force
	Config  string    `json:"config"`   // the file that a confirmation writes
	Before  *Snapshot `json:"before"`   // nil when nothing ran
	InForce bool      `json:"in_force"` // false while it is being put in force, or when that was cut off
	Due     Instant   `json:"due"`
}

// Snapshot is all that is to be put back when a trial ends.
type Snapshot struct {
	Policy     string         `json:"policy"` // the text of a policy file without rules
	Rules      []SnapshotRule `json:"rules"`
	Interfaces []string       `json:"interfaces"`
	Config     string         `json:"config"`
}

// SnapshotRule is a rule in force with the number under which its packets are counted.
type SnapshotRule struct {
	ID      uint16      `json:"id"`
	Rule    policy.Rule `json:"rule"`
	Runtime bool        `json:"runtime"`
}

// TimedRule is a rule that is open for the time being, until then.
type TimedRule struct {
	Rule policy.Rule `json:"rule"`
	Due  Instant     `json:"due"`
}

// EndedTrial is what became of the last trial.
type EndedTrial struct {
	File     string  `json:"file"`
	Reverted bool    `json:"reverted"` // or else it was confirmed
	At       Instant `json:"at"`
}

// Next returns when something is due first.
func (s *Schedule) Next() (first Instant, ok bool) {
	var all []Instant
	if s.Trial != nil {
		all = append(all, s.Trial.Due)
	}
	for _, r := range s.Timed {
		all = append(all, r.Due)
	}
	if len(all) == 0 {
		return 0, false
	}
	return slices.Min(all), true
}

// Overdue reports whether something should have happened already.
func (s *Schedule) Overdue() bool {
	first, ok := s.Next()
	return ok && first.Left() <= 0
}

// DueRules returns the rules whose time is up.
func (s *Schedule) DueRules() (due []policy.Rule) {
	for _, timed := range s.Timed {
		if timed.Due.Left() <= 0 {
			due = append(due, timed.Rule)
		}
	}
	return due
}

// RuleDue returns when a rule closes by itself.
func (s *Schedule) RuleDue(r policy.Rule) (due Instant, ok bool) {
	for _, t := range s.Timed {
		if t.Rule.Equal(r) {
			return t.Due, true
		}
	}
	return 0, false
}

// SetDue makes rules close by themselves.
func (s *Schedule) SetDue(rules []policy.Rule, due Instant) {
	s.ForgetRules(rules)
	for _, r := range rules {
		s.Timed = append(s.Timed, TimedRule{r, due})
	}
}

// ForgetRules leaves rules as they are, for good.
func (s *Schedule) ForgetRules(rules []policy.Rule) {
	index := policy.IndexRules(rules)
	s.Timed = slices.DeleteFunc(s.Timed, func(t TimedRule) bool {
		_, ok := index[t.Rule.Key()]
		return ok
	})
}

// ForgetRuntime takes out the rules that were opened for the time being and are among those given.
func (s *Snapshot) ForgetRuntime(rules []policy.Rule) {
	index := policy.IndexRules(rules)
	s.Rules = slices.DeleteFunc(s.Rules, func(have SnapshotRule) bool {
		_, ok := index[have.Rule.Key()]
		return ok && have.Runtime
	})
}
