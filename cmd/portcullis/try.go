// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"os/signal"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/portcullis-firewall/portcullis/firewall"
	"github.com/portcullis-firewall/portcullis/firewall/agent"
	"github.com/portcullis-firewall/portcullis/firewall/schedule"
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
		RunE: func(cmd *cobra.Command, args []string) error {
			err := a.try(cmd.Context(), firewall.TryRequest{File: args[0], Timeout: timeout.Duration})
			if err != nil || !wait {
				return err
			}
			return a.await(cmd.Context())
		},
	}
	cmd.Flags().Var(&timeout, "timeout", "wait `TIME` for the confirmation")
	cmd.Flags().BoolVar(&wait, "wait", false, "wait for the outcome, and exit with 1 if it was reverted")
	return cmd
}

func (a *app) try(ctx context.Context, r firewall.TryRequest) error {
	if err := a.privileged(); err != nil {
		return err
	}
	report, err := a.firewall.Try(ctx, r)
	if err != nil {
		return err
	}
	a.warn(report.Warnings...)
	return a.print(report, func() { a.printTry(report) })
}

func (a *app) printTry(r *firewall.TryReport) {
	for _, i := range r.Interfaces {
		a.printf("%s\n", filteringText(i))
	}
	a.printf("on trial: %s: %s\n", r.File, openText(r.Policy))
	left := r.Trial.Due.Left()
	a.printf("unless you confirm by %s, in %s, %s\n", clock(left), schedule.Span(left), r.Outcome())
	if a.session() == "" {
		a.printf("to keep it, run \"portcullis confirm\" here, or in a new ssh session\n")
	} else {
		a.printf("to keep it, open a new ssh session and run \"portcullis confirm\" there; this one would survive any policy\n")
	}
	a.printf("to end the trial now, run \"portcullis revert\"\n")
	if r.File == r.Config {
		a.printf("%s is the policy file itself: the next \"portcullis up\" puts it in force even if you do not confirm\n", r.File)
	}
}

// await waits for the end of the trial.
func (a *app) await(ctx context.Context) error {
	if err := a.out.Flush(); err != nil {
		return err
	}
	confirmed, err := a.firewall.Await(ctx)
	switch {
	case err != nil:
		return err
	case !confirmed:
		return errors.New("not confirmed in time: what was in force before is in force again")
	case a.output != asJSON:
		a.printf("confirmed\n")
	}
	return nil
}

// clock returns when that is, in so much time, as people say it.
func clock(left time.Duration) string {
	const soon = 12 * time.Hour
	layout := "15:04:05"
	if left > soon {
		layout = "Mon 15:04:05"
	}
	return time.Now().Add(left).Format(layout)
}

// watchdogCommand is run by try and open --for: see [firewall.Firewall.Watchdog].
func (a *app) watchdogCommand() *cobra.Command {
	return &cobra.Command{
		Use:     firewall.WatchdogCommand,
		Aliases: []string{"keep"}, // as the units of earlier versions call it when they start it again
		Short:   "Revert or close when the time is up",
		Hidden:  true,
		Args:    noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			signal.Ignore(unix.SIGHUP)
			log, last := agent.NewLog(completing{a}), ""
			return a.firewall.Watchdog(cmd.Context(), func(err error) {
				if err.Error() == last { // it is tried again and again
					return
				}
				last = err.Error()
				if log.IsJournal() { // that of a unit of its own
					log.Error("%v", err)
					return
				}
				agent.TellJournalOfError(a.complete(last))
				a.complain(err)
			})
		},
	}
}
