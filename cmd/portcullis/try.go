// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/portcullis-firewall/portcullis/loader"
	"github.com/portcullis-firewall/portcullis/policy"
)

const defaultTrial = 2 * time.Minute

func (a *app) tryCommand() *cobra.Command {
	timeout := durationFlag{defaultTrial}
	wait := false
	cmd := &cobra.Command{
		Use:         "try FILE",
		Short:       "Put a policy in force, and revert it unless confirmed",
		Annotations: needsRoot,
		Long: `Put the policy of a file in force. Unless "portcullis confirm" follows in time, what was in
force before comes back, even if this terminal, its session or its connection is gone.
The policy file stays as it is until then.

Over ssh, confirm from a new connection: an old one survives any policy, and so proves
nothing. That is also why try only warns if the policy would lock you out.`,
		Example: `  portcullis try new.yaml
  portcullis try new.yaml --timeout 10m --wait`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 1 {
				return usagef("name one policy file: portcullis try FILE")
			}
			return nil
		},
		ValidArgsFunction: func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
			return []string{"yaml", "yml"}, cobra.ShellCompDirectiveFilterFileExt
		},
		RunE: func(_ *cobra.Command, args []string) error {
			if err := a.try(args[0], timeout.Duration); err != nil || !wait {
				return err
			}
			return a.await()
		},
	}
	cmd.Flags().Var(&timeout, "timeout", "wait `TIME` for the confirmation")
	cmd.Flags().BoolVar(&wait, "wait", false, "wait for the outcome, and exit with 1 if it was reverted")
	return cmd
}

// tryView is what try did, in JSON.
type tryView struct {
	File        string             `json:"file"`
	Interfaces  []loader.Interface `json:"interfaces"`
	Rules       []string           `json:"rules"`
	Config      string             `json:"config"` // what confirm writes
	SecondsLeft int                `json:"seconds_left"`
	Warnings    []string           `json:"warnings"`
}

func (a *app) try(file string, timeout time.Duration) error {
	turn, err := a.turnToChange()
	if err != nil {
		return err
	}
	defer turn.Release()
	if file, err = filepath.Abs(file); err != nil {
		return err
	}
	text, err := policy.ReadFile(file)
	if err != nil {
		return fmt.Errorf("read policy: %w", err)
	}
	if err := refuseUntrusted(file, a.invoker()...); err != nil {
		return err
	}
	p, err := policy.Parse(file, text)
	if err != nil {
		return err
	}
	before, err := a.snapshot()
	if err != nil {
		return err
	}
	var filtered []string
	if before != nil {
		filtered = before.Interfaces
	}
	if p.Interfaces, err = a.interfaces(nil, p.Interfaces, filtered); err != nil {
		return err
	}
	turn.Try = &loader.Try{File: file, Text: string(text), Config: a.config, Before: before, Due: loader.After(timeout)}
	report, err := a.putOnTrial(turn, p)
	if err != nil {
		return err
	}
	turn.Try.InForce, turn.Try.Due = true, loader.After(timeout)
	if err := errors.Join(turn.SaveConnections(), turn.Save()); err != nil {
		return errors.Join(err, a.firewall.Revert(turn))
	}
	warnings := report.Warnings
	if s, ok := parseSession(a.session()); ok && !s.survives(p) {
		warnings = append(warnings, fmt.Sprintf("this session (%s) could not be opened again under this policy", s))
	}
	a.warn(warnings...)
	view := tryView{file, list(report.Interfaces), texts(p.Open), a.config, seconds(turn.Try.Due), list(warnings)}
	return a.print(view, func() { a.printTry(turn.Try, report, p) })
}

// snapshot returns what is in force, and nil when nothing runs. The file of what runs counts unless another is named.
func (a *app) snapshot() (*loader.Snapshot, error) {
	f, err := a.firewall.Open(a.pinPath)
	if isNotRunning(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if !a.configGiven && f.Config() != "" {
		a.config = f.Config()
	}
	return f.Snapshot()
}

// putOnTrial puts the policy in force once it is certain that somebody will take it back.
func (a *app) putOnTrial(turn *loader.Turn, p *policy.Policy) (*loader.UpReport, error) {
	// The keeper first: it waits for its turn, and finds what there is when this command has ended or died.
	if err := a.firewall.StartKeeper(turn, a.pinPath); err != nil {
		return nil, fmt.Errorf("%w: nothing was changed, as nothing would put it back", err)
	}
	if err := turn.Save(); err != nil {
		return nil, fmt.Errorf("%w: nothing was changed", err)
	}
	report, err := a.firewall.Up(loader.Options{PinPath: a.pinPath, Interfaces: p.Interfaces, Mode: loader.ModeAuto, Policy: p, Config: a.config})
	if err != nil {
		turn.Try = nil
		return nil, errors.Join(err, turn.Save())
	}
	return report, nil
}

func (a *app) printTry(t *loader.Try, report *loader.UpReport, p *policy.Policy) {
	for _, i := range report.Interfaces {
		a.printf("%s: filtering (%s, egress %s)\n", i.Name, i.IngressText(), i.EgressText())
	}
	a.printf("on trial: %s: %s\n", t.File, openText(p))
	a.printf("at %s, in %s, %s, unless you confirm:\n", clock(t.Due), span(t.Due.Left()), outcome(t))
	if a.session() == "" {
		a.printf("  run \"portcullis confirm\" here, or over ssh from a new connection\n")
	} else {
		a.printf("  open a new ssh session, and run \"portcullis confirm\" there: that this one goes on proves nothing\n")
	}
	a.printf("\"portcullis revert\" does it now\n")
	if t.File == t.Config {
		a.printf("%s is also what the next \"portcullis up\" puts in force\n", t.File)
	}
}

// outcome is what happens when nobody confirms.
func outcome(t *loader.Try) string {
	if t.Before == nil {
		return "the filter goes off again"
	}
	return "what was in force before comes back"
}

// await waits for the end of the trial.
func (a *app) await() error {
	for {
		if err := a.out.Flush(); err != nil {
			return err
		}
		d, err := a.firewall.Deadlines(a.pinPath)
		if err != nil {
			return err
		}
		switch {
		case d.Try != nil:
			time.Sleep(200 * time.Millisecond)
		case d.Ended != nil && !d.Ended.Reverted:
			if a.output != asJSON {
				a.printf("confirmed\n")
			}
			return nil
		default:
			return errors.New("not confirmed in time: what was in force before is in force again")
		}
	}
}
