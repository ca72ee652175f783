// SPDX-License-Identifier: Apache-2.0

package firewall

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/portcullis-firewall/portcullis/firewall/schedule"
	"github.com/portcullis-firewall/portcullis/policy"
)

// OpenRequest says what to open.
type OpenRequest struct {
	Rules   []policy.Rule
	Runtime bool          // not in the file: until the next Up
	For     time.Duration // as Runtime, and then it closes by itself; 0: it does not
}

// OpenReport is the result of Open.
type OpenReport struct {
	Opened  []string `json:"opened"`
	Already []string `json:"already"`
	Config  string   `json:"config"`
	Saved   []string `json:"saved"` // rules that came new into the file
	Created bool     `json:"created"`

	SecondsLeft int      `json:"seconds_left,omitempty"` // with For
	Warnings    []string `json:"warnings"`
}

// Open lets in what the rules name, and writes them to the policy file.
func (fw *Firewall) Open(ctx context.Context, r OpenRequest) (*OpenReport, error) {
	c, f, err := fw.beginWithFilter(ctx)
	if err != nil {
		return nil, err
	}
	defer c.end()
	defer f.Close()
	runtime := r.Runtime || r.For > 0
	report := &OpenReport{Config: f.Config(), Saved: []string{}, Warnings: []string{}}
	undo, file := func() error { return nil }, &policyFile{}
	if r.For > 0 {
		if undo, err = c.closeLater(ctx, f, r.Rules, r.For); err != nil {
			return nil, err
		}
	}
	if !runtime {
		if file, err = c.writeRules(ctx, f, r.Rules, report); err != nil {
			return nil, err
		}
		undo = file.restore
	}
	opened, err := f.OpenRules(r.Rules, runtime)
	if err != nil {
		return nil, errors.Join(err, undo())
	}
	if !runtime {
		c.recordEdit(file)
		report.Warnings = append(append(report.Warnings, file.warnings()...), fw.keepLastGood(f, file.listsOf(f))...)
	}
	if r.For == 0 {
		report.Warnings = append(report.Warnings, warning(c.forgetTimed(r.Rules))...)
	}
	report.Opened, report.Already = policy.Texts(opened.Opened), policy.Texts(opened.Already)
	report.Warnings = append(report.Warnings, useless(f, r.Rules)...)
	report.Warnings = append(report.Warnings, fw.boundGuests(f, opened.Opened)...)
	for _, rule := range r.Rules {
		if due, ok := c.RuleDue(rule); ok {
			report.SecondsLeft = seconds(due)
		} else if r.For > 0 {
			report.Warnings = append(report.Warnings, fmt.Sprintf("%s is open for good, and stays so", rule))
		}
	}
	return report, nil
}

// longFile is how many bytes a policy file has at least that may hold more than a filter has room for.
const longFile = 256 << 10

// writeRules writes rules to the policy file.
func (c *change) writeRules(ctx context.Context, f Filter, rules []policy.Rule, report *OpenReport) (*policyFile, error) {
	if err := c.lockFile(ctx, c.fw.configToWrite(f)); err != nil {
		return nil, err
	}
	file, err := c.fw.policyFile(f)
	if err != nil {
		return nil, err
	}
	for _, r := range rules {
		added, err := file.insert(r)
		if err != nil {
			return nil, err
		}
		if added || !file.exists {
			report.Saved = append(report.Saved, r.String())
		}
	}
	report.Config, report.Created = file.path, !file.exists
	if len(file.text) > longFile {
		if _, err := parseSource(file.path, file.text, file.lists); err != nil {
			return nil, withRuntimeHint(err)
		}
	}
	if file.exists && !file.changed() {
		return file, nil
	}
	return file, withRuntimeHint(file.save())
}

// closeLater makes rules close by themselves, but for those that are open for good. Undo takes that back.
func (c *change) closeLater(ctx context.Context, f Filter, rules []policy.Rule, period time.Duration) (undo func() error, err error) {
	have, err := f.Rules()
	if err != nil {
		return nil, err
	}
	permanent := make(map[policy.RuleKey]bool)
	for _, h := range have {
		permanent[h.Rule.Key()] = !h.Runtime
	}
	rules = slices.DeleteFunc(slices.Clone(rules), func(r policy.Rule) bool { return permanent[r.Key()] })
	old := slices.Clone(c.Timed)
	undo = func() error {
		c.Timed = old
		return c.save()
	}
	if err := c.startWatchdog(ctx); err != nil {
		return nil, fmt.Errorf("%w: nothing was changed, as nothing would close it", err)
	}
	c.SetDue(rules, schedule.After(period))
	if err := c.save(); err != nil {
		return nil, fmt.Errorf("%w: nothing was changed", err)
	}
	return undo, nil
}

// seconds returns what is left until then, for JSON.
func seconds(i schedule.Instant) int { return int(i.Left().Round(time.Second) / time.Second) }

// CloseRequest says what to close.
type CloseRequest struct {
	Rules   []policy.Rule
	Runtime bool // not in the file: the next Up opens it again
	Kill    bool // cut the connections that came in by it
	Force   bool // also when it locks the user out
}

// CloseReport is the result of Close.
type CloseReport struct {
	Closed   []string `json:"closed"`
	NotOpen  []string `json:"not_open"`
	Kept     int      `json:"kept"`
	Killed   int      `json:"killed"`
	Config   string   `json:"config"`
	Saved    []string `json:"saved"` // rules that the file no longer has
	Created  bool     `json:"created"`
	StillBy  []string `json:"still_open_by"`
	Warnings []string `json:"warnings"`
}

// Close takes rules back, in the filter and in the policy file.
func (fw *Firewall) Close(ctx context.Context, r CloseRequest) (*CloseReport, error) {
	c, f, err := fw.beginWithFilter(ctx)
	if err != nil {
		return nil, err
	}
	defer c.end()
	defer f.Close()
	before, err := f.Policy()
	if err != nil {
		return nil, err
	}
	after := before
	for _, rule := range r.Rules {
		if without, _, err := after.WithoutRule(rule); err == nil {
			after = without
		}
	}
	if !r.Force {
		had := before
		for _, rule := range r.Rules {
			if r.Kill { // which cuts a session also where its rule is closed already
				had, _ = had.WithRule(rule)
			}
		}
		if err := fw.user.GuardClose(had, after); err != nil {
			return nil, err
		}
	}
	report := &CloseReport{Config: f.Config(), Saved: []string{}, Warnings: []string{}}
	file := &policyFile{}
	if !r.Runtime {
		if file, err = c.unwriteRules(ctx, f, r.Rules, before, report); err != nil {
			return nil, meantOtherKind(err, before)
		}
	}
	closed, err := f.CloseRules(r.Rules, r.Kill)
	if err != nil {
		return nil, errors.Join(meantOtherKind(err, before), file.restore())
	}
	report.Warnings = append(report.Warnings, warning(c.forgetTimed(r.Rules))...)
	if !r.Runtime {
		c.recordEdit(file)
		report.Warnings = append(append(report.Warnings, file.warnings()...), fw.keepLastGood(f, file.listsOf(f))...)
	}
	if len(closed.Closed) > 0 {
		report.Warnings = append(report.Warnings, fw.user.Unreachable(after)...)
	}
	if slices.ContainsFunc(closed.Closed, func(r policy.Rule) bool { return r.Forward }) {
		report.Warnings = append(report.Warnings, guestTexts(before, after, fw.guests())...)
	}
	report.Closed, report.NotOpen = policy.Texts(closed.Closed), policy.Texts(closed.NotOpen)
	report.Warnings = append(report.Warnings, ofOtherKind(closed.NotOpen, after)...)
	report.Kept, report.Killed = closed.Kept, closed.Killed
	report.StillBy = stillOpen(after, closed.Closed)
	return report, nil
}

// ofOtherKind returns a sentence for each of some rules that are not open but as rules of the other kind.
func ofOtherKind(notOpen []policy.Rule, p *policy.Policy) (warnings []string) {
	for _, r := range notOpen {
		r.Forward = !r.Forward
		have, ok := p.Find(r)
		switch {
		case ok && r.Forward:
			warnings = append(warnings, fmt.Sprintf("%s is a forward rule: \"portcullis close --forward\" closes it", have))
		case ok:
			warnings = append(warnings, fmt.Sprintf("%s is no forward rule: \"portcullis close\" without --forward closes it", have))
		}
	}
	return warnings
}

// meantOtherKind adds to an error about a rule that is not open as written that there is one of the other kind.
func meantOtherKind(err error, p *policy.Policy) error {
	covered := new(policy.CoveredError)
	if !errors.As(err, &covered) {
		return err
	}
	for _, text := range ofOtherKind([]policy.Rule{covered.Rule}, p) {
		err = fmt.Errorf("%w; but %s", err, text)
	}
	return err
}

// unwriteRules takes rules out of the policy file.
func (c *change) unwriteRules(ctx context.Context, f Filter, rules []policy.Rule, running *policy.Policy, report *CloseReport) (*policyFile, error) {
	if err := c.lockFile(ctx, c.fw.configToWrite(f)); err != nil {
		return nil, err
	}
	file, err := c.fw.policyFile(f)
	if err != nil {
		return nil, err
	}
	if report.Saved, err = file.removeRules(rules, running); err != nil {
		return nil, err
	}
	report.Config = file.path
	if !file.changed() {
		return file, nil
	}
	report.Created = !file.exists
	return file, withRuntimeHint(file.save())
}

// stillOpen lists the rules that keep some of what was closed open.
func stillOpen(after *policy.Policy, closed []policy.Rule) []string {
	var by []policy.Rule
	for _, r := range closed {
		by = append(by, after.Overlapping(r)...)
	}
	out := []string{}
	seen := make(map[string]bool)
	for _, text := range policy.Texts(by) {
		if !seen[text] {
			out = append(out, text)
		}
		seen[text] = true
	}
	return out
}
