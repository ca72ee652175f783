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
		Use:         "confirm",
		Short:       "Keep the policy that is on trial",
		Annotations: needsRoot,
		Long: `Keep the policy that "portcullis try" put in force, and save its text as the policy file;
the old text goes into a file beside it that ends in ` + firewall.BackupSuffix + `.

Over ssh, confirm from a connection that was opened after the change. Inside tmux and
screen nobody can tell which connection you use, so confirm outside of them.`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error { return a.confirm(cmd.Context(), console) },
	}
	cmd.Flags().BoolVar(&console, "console", false, "you are at the machine's own console, although this terminal does not look like it")
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
			a.printf("saved to %s; the old version is in %s\n", report.Config, report.Backup)
		case report.Saved:
			a.printf("saved to %s\n", report.Config)
		}
	})
}

func (a *app) revertCommand() *cobra.Command {
	return &cobra.Command{
		Use:         "revert",
		Short:       "Put back what was in force before \"try\"",
		Annotations: needsRoot,
		Long: `End the trial that "portcullis try" began, and put back what was in force before: policy,
rules and interfaces. Flows and counters are kept.`,
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
			a.printf("the trial of %s is over: the previous policy is in force again\n", report.File)
		} else {
			a.printf("the trial of %s is over: the filter is off, as before, and every port is open\n", report.File)
		}
	})
}
