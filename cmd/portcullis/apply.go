// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"slices"

	"github.com/spf13/cobra"

	"github.com/portcullis-firewall/portcullis/firewall"
)

func (a *app) applyCommand() *cobra.Command {
	force := false
	cmd := &cobra.Command{
		Use:         "apply [FILE]",
		Short:       "Put the policy file, or another file, in force",
		Annotations: needsFilter,
		Long: `Replace the policy in force by that of the policy file, or of FILE, and show what changes.
Everything changes at once, on every interface: no packet meets half a policy, and live
connections continue. Rules opened with --runtime end.

FILE does not become the policy file: unless "portcullis save" writes what is in force
there, the next "portcullis up" goes back to it. No interface stops being filtered; for
that there is "portcullis down eth1".`,
		Example: `  portcullis apply
  portcullis apply candidate.yaml && portcullis save`,
		Args:              atMostOneFile,
		ValidArgsFunction: completeFile,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.apply(cmd.Context(), firewall.ApplyRequest{File: firstOf(args), Force: force})
		},
	}
	cmd.Flags().BoolVar(&force, "force", false, "even if it locks out the ssh session that you are using")
	return cmd
}

func atMostOneFile(cmd *cobra.Command, args []string) error {
	if len(args) > 1 {
		return usagef("one file at a time: see %q", cmd.CommandPath()+" --help")
	}
	return nil
}

// firstOf returns the first argument, or "".
func firstOf(args []string) string {
	if len(args) == 0 {
		return ""
	}
	return args[0]
}

func completeFile(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return []string{"yaml", "yml"}, cobra.ShellCompDirectiveFilterFileExt
}

func (a *app) apply(ctx context.Context, r firewall.ApplyRequest) error {
	if err := a.privileged(); err != nil {
		return err
	}
	report, err := a.firewall.Apply(ctx, r)
	if err != nil {
		return err
	}
	a.inForce = report.Config
	a.warn(report.Warnings...)
	return printed(a.print(report, func() { a.printApply(report) }), report.Skipped)
}

func (a *app) printApply(v *firewall.ApplyReport) {
	a.printChanges(v.Changes)
	a.printPackets(v.Changes, v.Packets)
	but := ""
	if v.Deferred {
		but = ", but for flows max"
	}
	switch {
	case !v.Applied:
		a.printf("nothing to do: what %s says is in force%s\n", v.File, but)
	case v.File == v.Config:
		a.printf("in force: what %s says%s\n", v.File, but)
	default:
		a.printf("in force: what %s says%s, until the next \"portcullis up\"; \"portcullis save\" writes it to %s\n", v.File, but, v.Config)
	}
}

// printPackets prints who is let in and through where that has changed, and that it has not where rules have.
func (a *app) printPackets(changes []firewall.Change, packets []firewall.PacketChange) {
	if len(packets) == 0 {
		if slices.ContainsFunc(changes, firewall.Change.OfRules) {
			a.printf("these rules let in the same packets as before\n")
		}
		return
	}
	through := slices.IndexFunc(packets, func(c firewall.PacketChange) bool { return c.Forward }) // they come last
	if through < 0 {
		through = len(packets)
	}
	a.printPart("who is let in:", packets[:through])
	a.printPart("who is let through:", packets[through:])
}

func (a *app) printPart(heading string, packets []firewall.PacketChange) {
	if len(packets) == 0 {
		return
	}
	a.printf("%s\n", heading)
	const most = 50
	for _, c := range packets[:min(len(packets), most)] {
		a.printf("  %s\n", c)
	}
	if more := len(packets) - most; more > 0 {
		a.printf("  and %d more: -o json has all\n", more)
	}
}

func (a *app) printChanges(changes []firewall.Change) {
	for _, c := range changes {
		a.printf("%s\n", c)
	}
}
