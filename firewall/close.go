// SPDX-License-Identifier: Apache-2.0

package firewall

import (
	"context"
	"errors"

	"github.com/portcullis-firewall/portcullis/policy"
)

// CloseRequest says what to close.
type CloseRequest struct {
	Rules   []policy.Rule
	Runtime bool // not in the file: the next Up opens it again
	Kill    bool // cut the connections that came in by it
	Force   bool // also when it locks the user out
}

// CloseReport tells what Close did.
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
		if err := fw.guardClose(before, after); err != nil {
			return nil, err
		}
	}
	report := &CloseReport{Config: f.Config(), Saved: []string{}, Warnings: []string{}}
	file := &policyFile{}
	if !r.Runtime {
		if file, err = c.unwriteRules(ctx, f, r.Rules, before, report); err != nil {
			return nil, err
		}
	}
	closed, err := f.CloseRules(r.Rules, r.Kill)
	if err != nil {
		return nil, errors.Join(err, file.restore())
	}
	if err := c.forgetTimed(r.Rules); err != nil {
		return nil, err
	}
	if !r.Runtime {
		c.recordEdit(file)
		report.Warnings = append(report.Warnings, fw.keepLastGood(f)...)
	}
	report.Closed, report.NotOpen = texts(closed.Closed), texts(closed.NotOpen)
	report.Kept, report.Killed = closed.Kept, closed.Killed
	report.StillBy = stillOpen(after, closed.Closed)
	return report, nil
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
	return file, file.save()
}

// stillOpen lists the rules that keep some of what was closed open.
func stillOpen(after *policy.Policy, closed []policy.Rule) []string {
	var by []policy.Rule
	for _, r := range closed {
		by = append(by, after.Overlapping(r)...)
	}
	out := []string{}
	seen := make(map[string]bool)
	for _, text := range texts(by) {
		if !seen[text] {
			out = append(out, text)
		}
		seen[text] = true
	}
	return out
}
