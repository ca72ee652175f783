// SPDX-License-Identifier: Apache-2.0

package firewall

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"time"

	"github.com/portcullis-firewall/portcullis/firewall/schedule"
	"github.com/portcullis-firewall/portcullis/loader"
	"github.com/portcullis-firewall/portcullis/maps"
	"github.com/portcullis-firewall/portcullis/policy"
	"github.com/portcullis-firewall/portcullis/policy/quote"
)

// Status is what a firewall is and has done.
type Status struct {
	Running    bool                   `json:"running"`
	Enforcing  bool                   `json:"enforcing"` // false: it only watches, and nothing is dropped
	PinPath    string                 `json:"pin_path"`
	Config     string                 `json:"config"`
	BuiltIn    bool                   `json:"built_in"`  // there has been no file yet
	FileGone   bool                   `json:"file_gone"` // the policy comes from it all the same
	Interfaces []loader.Interface     `json:"interfaces"`
	Patterns   []string               `json:"patterns"` // of interfaces that are filtered when they appear
	Settings   policy.Settings        `json:"policy"`
	Rules      []RuleStatus           `json:"rules"`
	Closed     maps.Tally             `json:"closed_rules"` // let in by rules that were closed since
	Lists      []ListStatus           `json:"block_lists"`
	Bans       BansStatus             `json:"bans"`
	Counters   []loader.CounterStatus `json:"counters"`
	Ledger     []loader.Traffic       `json:"ledger"`
	Flows      loader.FlowsStatus     `json:"flows"`
	Warnings   []string               `json:"warnings"`
	Trial      *TrialStatus           `json:"try,omitempty"`

	Policy *policy.Policy `json:"-"`
}

// RuleStatus is a rule in force, and when it closes by itself.
type RuleStatus struct {
	loader.RuleStatus
	Forward     bool `json:"forward"` // about what is routed
	SecondsLeft int  `json:"seconds_left,omitempty"`
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
	running := fw.hasAgent()
	for _, i := range s.Interfaces {
		if text := i.AwaitedText(running); text != "" {
			s.Warnings = append(s.Warnings, text)
		}
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
	banned, err := bansStatus(f, s.Counters)
	if err != nil {
		return nil, err
	}
	file := fw.compare(s)
	if scheduled.Trial == nil {
		s.Warnings = append(s.Warnings, file.warnings()...)
	}
	s.Warnings = slices.Concat(s.Warnings, fw.unfiltered(s.Interfaces, file.unfiltered), fw.unwritten(s.Policy))
	status := &Status{
		Running:    true,
		Enforcing:  !s.Policy.WatchOnly,
		PinPath:    s.PinPath,
		Config:     s.Config,
		BuiltIn:    file.builtIn,
		FileGone:   file.gone,
		Interfaces: list(s.Interfaces),
		Patterns:   list(s.Patterns),
		Settings:   s.Policy.Settings(),
		Rules:      ruleStatus(s.Rules, scheduled),
		Closed:     s.Closed,
		Lists:      fw.listStatus(s),
		Bans:       banned,
		Counters:   list(s.Counters),
		Ledger:     list(s.Ledger),
		Flows:      s.Flows,
		Warnings:   list(s.Warnings),
		Policy:     s.Policy,
	}
	if t := scheduled.Trial; t != nil {
		status.Trial = &TrialStatus{t.File, seconds(t.Due), schedule.Span(t.Due.Left()), outcomeOf(t)}
	}
	return status, nil
}

func ruleStatus(rules []loader.RuleStatus, s *schedule.Schedule) []RuleStatus {
	out := make([]RuleStatus, len(rules))
	for i, status := range rules {
		out[i].RuleStatus, out[i].Forward = status, status.Meaning.Forward
		if !status.Runtime {
			continue
		}
		if due, timed := s.RuleDue(status.Meaning); timed {
			out[i].SecondsLeft = seconds(due)
		}
	}
	return out
}

// checkTime is for how long CheckLedger counts.
const checkTime = time.Second

// CheckLedger holds what the ledger counts for a moment against what the devices count.
func (fw *Firewall) CheckLedger(ctx context.Context) ([]loader.LedgerCheck, error) {
	f, err := fw.View(ctx)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return f.CheckLedger(ctx, checkTime)
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
	in.Running.Warnings = slices.Concat(in.Running.Warnings, fw.compare(in.Running).differences, fw.unwritten(in.Running.Policy))
	in.Bypassed, in.LookErr = f.Bypassed(ctx, inspectTime)
	return in, nil
}

// comparison is how the policy file of a running filter stands to what is in force.
type comparison struct {
	builtIn     bool     // there has been no file yet
	gone        bool     // the file that was put in force
	differences []string // sentences
	unfiltered  []string // interfaces that the file names
}

func (fw *Firewall) compare(s *loader.Status) (c comparison) {
	source, err := fw.readDespiteLists(s.Config)
	if errors.Is(err, fs.ErrNotExist) {
		c.builtIn = s.Config == DefaultConfig && fw.isBuiltIn(s.Saved)
		c.gone = !c.builtIn
		return c
	}
	c.differences = mistakesIn(source, err)
	if err != nil {
		return c
	}
	file := source.policy
	if len(file.Interfaces) > 0 { // or the default route tells, and what was named on the command line
		for _, name := range s.Saved.Interfaces {
			if !policy.MatchAnyInterface(file.Interfaces, name) {
				c.differences = append(c.differences, fmt.Sprintf("%s is filtered, but the policy file does not name it: after a reboot it is open; \"portcullis save\" adds it", name))
			}
		}
		for _, name := range file.Interfaces {
			if !policy.MatchAnyInterface(s.Saved.Interfaces, name) {
				c.unfiltered = append(c.unfiltered, name)
			}
		}
	}
	file.Interfaces = s.Saved.Interfaces
	const ways = "\"portcullis apply\" applies the file, \"portcullis save\" overwrites it"
	c.differences = slices.Concat(c.differences, listWarnings(file), fw.overdue(file))
	for _, line := range skippedLines(file) {
		c.differences = append(c.differences, line+"; the line is left out")
	}
	paths, rules := changedLists(s.Saved, file)
	blocking, keys := changedBlocking(s.Saved, file)
	paths = union(paths, blocking)
	if len(paths) > 0 {
		c.differences = append(c.differences, fmt.Sprintf("%s differs from what is in force: \"portcullis apply\" applies it", strings.Join(paths, " or ")))
	}
	changes := slices.DeleteFunc(policy.Diff(s.Saved, file), func(d policy.Change) bool {
		return rules[d.Key+" "+cmp.Or(d.Old, d.New)] || keys[d.Key]
	})
	switch len(changes) {
	case 0:
	case 1:
		c.differences = append(c.differences, fmt.Sprintf("%s differs from what is in force (%s): %s", s.Config, changes[0], ways))
	default:
		c.differences = append(c.differences, fmt.Sprintf("%s differs from what is in force in %d places: \"portcullis diff\" shows them, %s", s.Config, len(changes), ways))
	}
	return c
}

// mistakesIn says in a sentence what is no longer good of a policy file that was put in force, or of its lists.
func mistakesIn(source *source, err error) []string {
	switch {
	case err != nil:
		return []string{fmt.Sprintf("the policy file is no longer good, and the next \"portcullis up\" will refuse it: %s", oneLine(err))}
	case source.mistakes != nil:
		return []string{fmt.Sprintf("%s; the list stays as it was: mend it, then run \"portcullis apply\"", oneLine(source.mistakes))}
	}
	return nil
}

// Mistakes says what is no longer good of the policy file of a filter that runs, and of its lists. Where there is no file
// any more it says nothing.
func (fw *Firewall) Mistakes(f Filter) []string {
	source, err := fw.readDespiteLists(fw.configOf(f))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return mistakesIn(source, err)
}

// warnings are what status says of it.
func (c *comparison) warnings() []string {
	out := slices.Clone(c.differences)
	for _, name := range c.unfiltered {
		out = append(out, fmt.Sprintf("the policy file names %s, which is not filtered: \"portcullis up %s\"", name, quote.Shell(name)))
	}
	return out
}
