// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/portcullis-firewall/portcullis/policy"
)

func (a *app) checkCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "check [FILE]",
		Short: "Check a policy file, and touch nothing",
		Long: `Read the policy file, or FILE, report every mistake with its line and column, and warn of
what would not work on this host: an interface that is not there, a policy under which
this ssh session could not be opened again. Needs no root. Exits with 1 if the file has
a mistake; with warnings alone it is good.

` + ranges(),
		Example: `  portcullis check
  portcullis check candidate.yaml`,
		Args:              atMostOneFile,
		ValidArgsFunction: completeFile,
		RunE:              func(_ *cobra.Command, args []string) error { return a.check(firstOf(args)) },
	}
}

// ranges documents the numbers of a policy file.
func ranges() string {
	var b strings.Builder
	fmt.Fprintf(&b, "flows: max is %d to %d (default %d); a new value takes effect after \"portcullis\ndown\" and \"portcullis up\".\n\n",
		policy.MinMaxFlows, policy.MaxMaxFlows, policy.DefaultMaxFlows)
	b.WriteString("Timeouts are 1s to 30d. A flow that is idle for the timeout of its state expires:\n\n")
	for _, t := range policy.Timeouts {
		lines := wrap(t.Meaning, 58)
		fmt.Fprintf(&b, "    %-18s  %-5s  %s\n", t.Name, t.DefaultText(), strings.Join(lines, "\n"+strings.Repeat(" ", 31)))
	}
	return strings.TrimSuffix(b.String(), "\n")
}

func (a *app) check(file string) error {
	report, err := a.firewall.Check(file)
	if err != nil {
		return err
	}
	a.warn(report.Warnings...)
	return a.print(report, func() { a.printf("%s is good: %s\n", report.File, openText(report.Policy)) })
}

func (a *app) diffCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "diff [FILE]",
		Short: "Show what \"portcullis apply\" would change",
		Long: `Show the difference between what is in force and the policy file, or FILE, as
"portcullis apply" would make it, and touch nothing. Rules are written as in the file;
a line of "-" ends, one of "+" begins, one of "~" changes. Exits with 0 whether or not
there is a difference, which -o json tells programs.`,
		Example: `  portcullis diff
  portcullis diff candidate.yaml -o json | jq '.changes | length'`,
		Args:              atMostOneFile,
		ValidArgsFunction: completeFile,
		RunE:              func(cmd *cobra.Command, args []string) error { return a.diff(cmd.Context(), firstOf(args)) },
	}
}

func (a *app) diff(ctx context.Context, file string) error {
	if err := a.privileged(); err != nil {
		return err
	}
	report, err := a.firewall.Diff(ctx, file)
	if err != nil {
		return err
	}
	a.warn(report.Warnings...)
	return a.print(report, func() {
		a.printChanges(report.Changes)
		switch {
		case len(report.Changes) > 0:
		case report.Deferred:
			a.printf("no difference: what %s says is in force, but for flows max\n", report.File)
		default:
			a.printf("no difference: what %s says is in force\n", report.File)
		}
	})
}
