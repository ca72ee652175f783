// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/portcullis-firewall/portcullis/firewall"
)

func (a *app) confirmCommand() *cobra.Command {
	console := false
	cmd := &cobra.Command{
		Use:   "confirm",
		Short: "Keep the policy that is on trial",
		Long: `Keep the policy that "portcullis try" put in force, and save its text as the policy
file; what that held goes into a file beside it, ` + firewall.BackupSuffix + `.

Over ssh, this is taken from a connection only that was opened after the change. In tmux
and screen nobody can tell which that is: leave them for it.`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error { return a.confirm(cmd.Context(), console) },
	}
	cmd.Flags().BoolVar(&console, "console", false, "this terminal is at the machine itself, though it does not look it")
	return cmd
}

func (a *app) confirm(ctx context.Context, console bool) error {
	if err := a.privileged(); err != nil {
		return err
	}
	report, err := a.firewall.Confirm(ctx, console)
	if err != nil {
		return err
	}
	a.warn(report.Warnings...)
	return a.print(report, func() {
		if report.Already {
			a.printf("confirmed already: %s\n", report.File)
			return
		}
		a.printf("confirmed: the policy of %s stays in force\n", report.File)
		switch {
		case report.Backup != "":
			a.printf("saved to %s; what that held before is in %s\n", report.Config, report.Backup)
		case report.Saved:
			a.printf("saved to %s\n", report.Config)
		}
	})
}

func (a *app) revertCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "revert",
		Short: "Put back what was in force before the trial",
		Long: `End the trial that "portcullis try" began, and put back what was in force before: policy,
rules, interfaces. Flows and counters go on.`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error { return a.revert(cmd.Context()) },
	}
}

func (a *app) revert(ctx context.Context) error {
	if err := a.privileged(); err != nil {
		return err
	}
	report, err := a.firewall.Revert(ctx)
	if err != nil {
		return err
	}
	return a.print(report, func() {
		if report.Running {
			a.printf("the trial of %s is over: what was in force before is in force again\n", report.File)
		} else {
			a.printf("the trial of %s is over: nothing is filtered, as before, and every port is open\n", report.File)
		}
	})
}
