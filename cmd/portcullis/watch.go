// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/portcullis-firewall/portcullis/firewall/propose"
	"github.com/portcullis-firewall/portcullis/loader"
)

// watchRate is how many packets of a reason a CPU shows a second: enough for whom somebody asks for, and bounded in a flood.
const watchRate = 1000

func (a *app) watchCommand() *cobra.Command {
	var span durationFlag
	asFile := false
	cmd := &cobra.Command{
		Use:         "watch",
		Short:       "See which rules what is dropped would need",
		Annotations: needsFilter,
		Long: `Look at what is dropped, or would be after "up --watch", until interrupted or for a time,
and list the rules that it would need: what was asked for, by how many packets from how
many sources, and when last. What begins nothing is left out: replies, broken packets,
broadcasts, forged sources.

With --propose, print a policy file: the policy in force and these rules, each with what
was seen as its comment. A rule names its sources if there are eight at most; what more
ask for it opens to everybody. What looks like a scan stays a comment. Nothing is written
or put in force.`,
		Example: `  portcullis up --watch && portcullis watch --propose --for 1d > proposed.yaml
  portcullis watch --for 10m`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if asFile && a.output == asJSON {
				return usagef("--propose prints a policy file: leave it or -o json out")
			}
			return a.watch(cmd.Context(), span, asFile)
		},
	}
	cmd.Flags().Var(&span, "for", "end after `TIME`")
	cmd.Flags().BoolVar(&asFile, "propose", false, "print a policy file with these rules")
	return cmd
}

func (a *app) watch(ctx context.Context, span durationFlag, asFile bool) error {
	view, err := a.view(ctx)
	if err != nil {
		return err
	}
	inForce, err := view.Saved()
	view.Close()
	if err != nil {
		return err
	}
	own, err := a.firewall.Addresses()
	if err != nil {
		return fmt.Errorf("find the addresses of this host: %w", err)
	}
	if span.Duration > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, span.Duration)
		defer cancel()
	}
	m, err := a.firewall.Monitor(ctx, loader.MonitorOptions{Reasons: propose.Reasons(), Snaplen: shownBytes, Rate: watchRate})
	if err != nil {
		return err
	}
	defer m.Close()
	enforced := "what is dropped"
	if inForce.WatchOnly {
		enforced = "what would be dropped"
	}
	fmt.Fprintf(a.stderr, "portcullis: looking at %s\n", enforced)
	c := propose.New(own)
	_, err = a.runMonitor(ctx, m, 0, func(told loader.Monitored) error {
		c.Add(told)
		return nil
	})
	if err != nil && !errors.Is(err, context.Canceled) && !errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	proposal, err := c.Proposal(!inForce.WatchOnly)
	if err != nil {
		return err
	}
	if asFile {
		_, err := a.stdout.Write(proposal.File(inForce))
		return err
	}
	return a.print(proposal, func() { a.printWatched(proposal) })
}

func (a *app) printWatched(v *propose.Proposal) {
	rows := [][]string{{"RULE", "SEEN"}}
	for i := range v.Needs {
		n := &v.Needs[i]
		seen := strings.TrimPrefix(n.Comment(), "# ")
		if n.Scan {
			seen += ", like a scan"
		}
		rows = append(rows, []string{n.Rule, seen})
	}
	if len(rows) > 1 {
		a.table(rows)
	} else {
		a.printf("nothing that a rule would let in\n")
	}
	for _, note := range v.Notes() {
		a.printf("%s\n", note)
	}
}
