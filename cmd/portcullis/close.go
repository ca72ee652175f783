// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/portcullis-firewall/portcullis/policy"
)

func (a *app) closeCommand() *cobra.Command {
	var runtime, kill, force bool
	cmd := &cobra.Command{
		Use:         "close RULE...",
		Short:       "Take a rule back",
		Annotations: needsFilter,
		Long: `Close what a rule opened, at once, and take the rule out of the policy file; comments stay.
Connections that the rule let in continue unless --kill cuts them.`,
		Example: `  portcullis close http
  portcullis close 22/tcp from 203.0.113.0/24
  portcullis close 5432/tcp --kill`,
		Args:              someRule,
		ValidArgsFunction: a.completeRules,
		RunE: func(_ *cobra.Command, args []string) error {
			rules, err := parseRules(args)
			if err != nil {
				return err
			}
			return a.close(rules, runtime, kill, force)
		},
	}
	cmd.Flags().BoolVar(&runtime, "runtime", false, "do not save: the next \"up\" opens it again")
	cmd.Flags().BoolVar(&kill, "kill", false, "cut the connections that the rule let in")
	cmd.Flags().BoolVar(&force, "force", false, "even if it locks out the ssh session that you are using")
	return cmd
}

type closeView struct {
	Closed  []string `json:"closed"`
	NotOpen []string `json:"not_open"`
	Kept    int      `json:"kept"`
	Killed  int      `json:"killed"`
	Config  string   `json:"config"`
	Saved   []string `json:"saved"` // rules that the file no longer has
	Created bool     `json:"created"`
	StillBy []string `json:"still_open_by"`
}

func (a *app) close(rules []policy.Rule, runtime, kill, force bool) error {
	turn, f, end, err := a.beginChange()
	if err != nil {
		return err
	}
	defer end()
	before := f.Policy()
	after := before
	view := closeView{Config: f.Config(), Saved: []string{}}
	for _, r := range rules {
		if without, _, err := after.WithoutRule(r); err == nil {
			after = without
		}
	}
	if !force {
		if err := a.guardClose(before, after); err != nil {
			return err
		}
	}
	undo := func() error { return nil }
	if !runtime {
		file, err := a.ruleFile(f)
		if err != nil {
			return err
		}
		defer file.released()
		if view.Saved, err = removeFrom(file, rules, before); err != nil {
			return err
		}
		view.Config = file.path
		if file.changed() {
			if err := file.save(); err != nil {
				return err
			}
			undo = file.restore
			view.Created = !file.exists
		}
	}
	report, err := f.CloseRules(rules, kill)
	if err != nil {
		return errors.Join(err, undo())
	}
	if err := forgetTimed(turn, rules); err != nil {
		return err
	}
	if !runtime {
		a.keepLastGood(f)
	}
	view.Closed, view.NotOpen = texts(report.Closed), texts(report.NotOpen)
	view.Kept, view.Killed = report.Kept, report.Killed
	view.StillBy = stillOpen(after, report.Closed)
	return a.print(view, func() { printClose(a, &view, runtime, kill) })
}

// guardClose refuses to close what this session came in by. A session that could not be opened again before is no
// worse off.
func (a *app) guardClose(before, after *policy.Policy) error {
	for _, s := range a.lockedOut(after) {
		if s.survives(before) {
			return fmt.Errorf("this session (%s) could not be opened again: run \"portcullis open %s\" first, or use --force", s, s.rule())
		}
	}
	return nil
}

// removeFrom takes rules out of the text of a file, and returns those that were there. Where others of the file open
// the same ports, that is a mistake, unless the rule is one of the running filter alone.
func removeFrom(file *ruleFile, rules []policy.Rule, running *policy.Policy) ([]string, error) {
	removed := []string{}
	for _, r := range rules {
		err := file.remove(r)
		var covered *policy.CoveredError
		switch {
		case err == nil:
			removed = append(removed, r.String())
		case errors.Is(err, policy.ErrNotOpen):
		case errors.As(err, &covered):
			if _, ok := running.Find(r); !ok {
				return nil, err
			}
		default:
			return nil, err
		}
	}
	return removed, nil
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

func printClose(a *app, v *closeView, runtime, kill bool) {
	for _, r := range v.Closed {
		a.printf("closed %s\n", r)
	}
	for _, r := range v.NotOpen {
		a.printf("not open: %s\n", r)
	}
	if v.Kept > 0 {
		a.printf("%s; --kill would have cut what came in by the rule\n", count(v.Kept, "live connection goes on", "live connections go on"))
	}
	switch {
	case v.Killed > 0:
		a.printf("cut %s\n", count(v.Killed, "connection", "connections"))
	case kill && len(v.Closed) > 0:
		a.printf("no live connection to cut\n")
	}
	switch {
	case v.Created:
		a.printf("%s", createdText(v.Config))
	case len(v.Saved) > 0:
		a.printf("saved to %s\n", v.Config)
	case runtime && len(v.Closed) > 0:
		a.printf("not saved: the next \"portcullis up\" opens what %s says\n", v.Config)
	}
	if len(v.StillBy) > 0 {
		a.warn(fmt.Sprintf("some of it stays open through %s", strings.Join(v.StillBy, "; ")))
	}
}
