// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"

	"github.com/spf13/cobra"
)

func (a *app) saveCommand() *cobra.Command {
	return &cobra.Command{
		Use:         "save",
		Short:       "Write what is in force to the policy file",
		Annotations: needsFilter,
		Long: `Write the policy in force, including rules opened with --runtime, to the policy file or to
the one that --config names. What the file says already stays as written, comments and
order included. The file is replaced as a whole or not at all.`,
		Example: `  portcullis open 8080/tcp --runtime && portcullis save
  portcullis save --config copy.yaml`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error { return a.save(cmd.Context()) },
	}
}

func (a *app) save(ctx context.Context) error {
	if err := a.privileged(); err != nil {
		return err
	}
	report, err := a.firewall.Save(ctx)
	if err != nil {
		return err
	}
	a.warn(report.Warnings...)
	return a.print(report, func() {
		a.printChanges(report.Changes)
		if !report.Created && len(report.Changes) == 0 {
			a.printf("nothing to do: %s says what is in force\n", report.Config)
			return
		}
		a.printf("saved to %s\n", report.Config)
	})
}
