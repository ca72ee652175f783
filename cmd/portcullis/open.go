// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/portcullis-firewall/portcullis/loader"
	"github.com/portcullis-firewall/portcullis/policy"
)

func (a *app) openCommand() *cobra.Command {
	runtime, period := false, durationFlag{}
	cmd := &cobra.Command{
		Use:         "open RULE...",
		Short:       "Let in what a rule names, now and permanently",
		Annotations: needsFilter,
		Long: `Open ports in the running filter, at once, and save the rules to the policy file; its
comments stay. What is open already stays open.`,
		Example: `  portcullis open http https
  portcullis open 22/tcp from 203.0.113.0/24,2001:db8::/32
  portcullis open 60000-61000/udp --runtime      not in the file: until the next "up"
  portcullis open 8080/tcp --for 1h              not in the file, and closes by itself`,
		Args:              someRule,
		ValidArgsFunction: completeServices,
		RunE: func(_ *cobra.Command, args []string) error {
			rules, err := parseRules(args)
			if err != nil {
				return err
			}
			return a.open(rules, runtime, period.Duration)
		},
	}
	cmd.Flags().BoolVar(&runtime, "runtime", false, "do not save: the next \"up\" closes it again")
	cmd.Flags().Var(&period, "for", "like --runtime, and close it after `TIME`; live connections continue")
	return cmd
}

func someRule(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return usagef("no rule named: see %q", cmd.CommandPath()+" --help")
	}
	return nil
}

// parseRules reads the rules of a command line.
func parseRules(args []string) ([]policy.Rule, error) {
	rules, err := policy.ParseRules(args)
	if err != nil {
		return nil, usageError{err}
	}
	return rules, nil
}

type openView struct {
	Opened  []string `json:"opened"`
	Already []string `json:"already"`
	Config  string   `json:"config"`
	Saved   []string `json:"saved"` // rules that came new into the file
	Created bool     `json:"created"`

	SecondsLeft int `json:"seconds_left,omitempty"` // with --for
}

func (a *app) open(rules []policy.Rule, runtime bool, period time.Duration) error {
	turn, f, end, err := a.beginChange()
	if err != nil {
		return err
	}
	defer end()
	view := openView{Config: f.Config(), Saved: []string{}}
	undo := func() error { return nil }
	if period > 0 {
		runtime = true
		if undo, err = a.closeLater(turn, f, rules, period); err != nil {
			return err
		}
	}
	if !runtime {
		file, err := a.ruleFile(f)
		if err != nil {
			return err
		}
		defer file.released()
		for _, r := range rules {
			added, err := file.insert(r)
			if err != nil {
				return err
			}
			if added || !file.exists {
				view.Saved = append(view.Saved, r.String())
			}
		}
		view.Config, view.Created = file.path, !file.exists
		if file.changed() || !file.exists {
			if err := file.save(); err != nil {
				return err
			}
			undo = file.restore
		}
	}
	report, err := a.openRules(f, rules, runtime)
	if err != nil {
		return errors.Join(err, undo())
	}
	if !runtime {
		a.keepLastGood(f)
	}
	if period == 0 {
		if err := forgetTimed(turn, rules); err != nil {
			return err
		}
	}
	view.Opened, view.Already = texts(report.Opened), texts(report.Already)
	if slices.ContainsFunc(rules, func(r policy.Rule) bool { return !r.Anyone() }) {
		inForce := f.Policy()
		for _, r := range rules {
			if text := inForce.CoveringText(r); text != "" {
				a.warn(text)
			}
		}
	}
	for _, r := range rules {
		if due, ok := turn.RuleDue(r); ok {
			view.SecondsLeft = seconds(due)
		} else if period > 0 {
			a.warn(fmt.Sprintf("%s is open for good, and stays so", r))
		}
	}
	a.warn(a.openedInVain(f, rules, view.Config)...)
	return a.print(view, func() { printOpen(a, &view, runtime) })
}

// closeLater makes rules close by themselves, but for those that are open for good. Undo takes that back.
func (a *app) closeLater(turn *loader.Turn, f filter, rules []policy.Rule, period time.Duration) (undo func() error, err error) {
	s, err := f.Snapshot()
	if err != nil {
		return nil, err
	}
	forGood := make(map[policy.RuleKey]bool)
	for _, have := range s.Rules {
		forGood[have.Rule.Key()] = !have.Runtime
	}
	rules = slices.DeleteFunc(slices.Clone(rules), func(r policy.Rule) bool { return forGood[r.Key()] })
	old := slices.Clone(turn.Timed)
	undo = func() error {
		turn.Timed = old
		return turn.Save()
	}
	if err := a.firewall.StartKeeper(turn, a.pinPath); err != nil {
		return nil, fmt.Errorf("%w: nothing was changed, as nothing would close it", err)
	}
	turn.SetDue(rules, loader.After(period))
	if err := turn.Save(); err != nil {
		return nil, fmt.Errorf("%w: nothing was changed", err)
	}
	return undo, nil
}

// openRules opens rules in the running filter, which is made anew where its maps have no room for them.
func (a *app) openRules(f filter, rules []policy.Rule, runtime bool) (*loader.OpenReport, error) {
	report, err := f.OpenRules(rules, runtime)
	if !errors.Is(err, loader.ErrNoRoom) {
		return report, err
	}
	report = &loader.OpenReport{}
	p := f.Policy()
	notSaved, err := f.RuntimeRules()
	if err != nil {
		return nil, err
	}
	for _, r := range rules {
		if have, ok := p.Find(r); ok {
			report.Already = append(report.Already, have)
			continue
		}
		p, _ = p.WithRule(r)
		report.Opened = append(report.Opened, r)
		if runtime {
			notSaved = append(notSaved, r)
		}
	}
	// The interfaces that are filtered already stay so, each in its mode; none needs to be named.
	up, err := a.firewall.Up(loader.Options{PinPath: a.pinPath, Mode: loader.ModeAuto, Policy: p, Runtime: notSaved, Config: f.Config()})
	if err != nil {
		return nil, fmt.Errorf("make room for the rules: %w", err)
	}
	a.warn(up.Warnings...)
	return report, nil
}

func printOpen(a *app, v *openView, runtime bool) {
	for _, r := range v.Opened {
		a.printf("opened %s\n", r)
	}
	for _, r := range v.Already {
		a.printf("already open: %s\n", r)
	}
	switch {
	case v.Created:
		a.printf("%s", createdText(v.Config))
	case len(v.Saved) > 0:
		a.printf("saved to %s\n", v.Config)
	case v.SecondsLeft > 0:
		left := time.Duration(v.SecondsLeft) * time.Second
		a.printf("not saved: closes at %s, in %s, and live connections go on\n", clock(loader.After(left)), span(left))
	case runtime && len(v.Opened) > 0:
		a.printf("not saved: the next \"portcullis up\" ends it\n")
	}
}

// createdText tells of a file that was not there before.
func createdText(path string) string {
	return fmt.Sprintf("saved to %s, a new file: what is open now stays open at the next \"portcullis up\"\n", path)
}
