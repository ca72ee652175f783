// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/portcullis-firewall/portcullis/firewall"
)

func (a *app) closeCommand() *cobra.Command {
	var runtime, forward, kill, force bool
	cmd := &cobra.Command{
		Use:         "close RULE...",
		Short:       "Take a rule back",
		Annotations: needsFilter,
		Long: `Close what a rule opened, at once, and take the rule out of the policy file; comments stay.
Connections that the rule let in continue unless --kill cuts them, now or when the rule is
closed already. With --forward, the rules are about what is routed through this host.`,
		Example: `  portcullis close http
  portcullis close 22/tcp from 203.0.113.0/24
  portcullis close --forward all on eth1
  portcullis close 5432/tcp --kill`,
		Args:              someRule,
		ValidArgsFunction: a.completeRules,
		RunE: func(cmd *cobra.Command, args []string) error {
			names, err := a.namesIn(cmd.Context(), args, forward)
			if err != nil {
				return err
			}
			rules, err := a.firewall.RulesToClose(cmd.Context(), args, names)
			if err != nil {
				return ruleError(args, err)
			}
			return a.close(cmd.Context(), firewall.CloseRequest{Rules: rules, Runtime: runtime, Kill: kill, Force: force})
		},
	}
	cmd.Long += closingNote
	addForward(cmd, &forward)
	cmd.Flags().BoolVar(&runtime, "runtime", false, "do not save: the next \"up\" opens it again")
	cmd.Flags().BoolVar(&kill, "kill", false, "cut the connections that the rule let in")
	cmd.Flags().BoolVar(&force, "force", false, "even if it locks out the ssh session that you are using")
	return cmd
}

func (a *app) close(ctx context.Context, r firewall.CloseRequest) error {
	if err := a.privileged(); err != nil {
		return err
	}
	report, err := a.firewall.Close(ctx, r)
	if err != nil {
		return err
	}
	a.warn(report.Warnings...)
	return a.print(report, func() { a.printClose(report, r) })
}

func (a *app) printClose(v *firewall.CloseReport, r firewall.CloseRequest) {
	for _, rule := range v.Closed {
		a.printf("closed %s\n", withPorts(rule, r.Rules))
	}
	for _, rule := range v.NotOpen {
		a.printf("not open: %s\n", withPorts(rule, r.Rules))
	}
	if v.Kept > 0 {
		a.printf("%s; to cut them, repeat it with --kill\n", count(v.Kept, "live connection goes on", "live connections go on"))
	}
	switch {
	case v.Killed > 0:
		a.printf("cut %s\n", count(v.Killed, "connection", "connections"))
	case r.Kill:
		a.printf("no live connection to cut\n")
	}
	switch {
	case v.Created:
		a.printf("%s\n", createdText(v.Config))
	case len(v.Saved) > 0:
		a.printf("saved to %s\n", v.Config)
	case r.Runtime && len(v.Closed) > 0:
		a.printf("not saved: the next \"portcullis up\" opens what %s says\n", v.Config)
	}
	if len(v.StillBy) > 0 {
		a.warn(fmt.Sprintf("some of it stays open because of %s", strings.Join(v.StillBy, "; ")))
	}
}
