// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/portcullis-firewall/portcullis/firewall"
	"github.com/portcullis-firewall/portcullis/firewall/schedule"
	"github.com/portcullis-firewall/portcullis/loader"
	"github.com/portcullis-firewall/portcullis/maps"
)

func (a *app) statusCommand() *cobra.Command {
	all, check := false, false
	cmd := &cobra.Command{
		Use:         "status",
		Short:       "Show what is filtered, open and counted",
		Annotations: needsFilter,
		Long: `Show the interfaces, the policy, how many packets each rule let in, what became of all
others and why, and how full the flow table is. Rules are printed as "portcullis open"
and "portcullis close" take them, those that they take with --forward apart; long lists
of addresses are counted unless you say --all or -o json. Of bans it shows how many there
are, and the reasons for which somebody was banned last. Exits with 3 if the filter is not
up.

An assured flow keeps its place in the table. A flow that is not assured, or whose
connection is over, counts among the others, and is evicted when the table is full and a
new flow needs its place: no live connection is lost. If no flow can be evicted, the new
one is refused and its answers are dropped (for TCP, as "invalid state"). In JSON, live
flows are "answered" or "pending"; "assured" counts those that keep their place, "max" is
the size of the table, "evicted" and "full" count what was evicted and refused.

Whatever comes in by an interface is counted once, as passed or dropped. --check holds
that for a second against the frames that the device itself has received, and exits with
1 and the difference if it does not add up, or if an interface is there and not filtered.`,
		Example: `  portcullis status
  portcullis status -o json | jq '.rules[] | select(.packets == 0) | .rule'`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if check {
				return a.checkLedger(cmd.Context())
			}
			return a.status(cmd.Context(), all)
		},
	}
	cmd.Flags().BoolVar(&check, "check", false, "compare what was counted with what the devices count")
	cmd.Flags().BoolVar(&all, "all", false, "show every address of a rule")
	return cmd
}

type notRunningView struct {
	Running bool `json:"running"`
}

func (a *app) status(ctx context.Context, all bool) error {
	if err := a.privileged(); err != nil {
		return err
	}
	status, err := a.firewall.Status(ctx)
	if isNotRunning(err) && a.output == asJSON {
		return errors.Join(a.print(notRunningView{}, nil), err)
	}
	if err != nil {
		return err
	}
	a.inForce = status.Config
	for i, w := range status.Warnings { // printed last, but JSON has them, too
		status.Warnings[i] = a.complete(w)
	}
	return a.print(status, func() { a.printStatus(status, all) })
}

func (a *app) printStatus(v *firewall.Status, all bool) {
	source, p := v.Config, v.Policy
	if !v.Enforcing {
		a.printf("%s\n", watchingText(v.Config))
	}
	switch {
	case v.Trial != nil:
		source = fmt.Sprintf("%s, on trial: unless you run \"portcullis confirm\" within %s, %s", v.Trial.File, v.Trial.Left, v.Trial.Outcome)
	case v.BuiltIn:
		source = "built in, as there is no " + v.Config
	case v.FileGone:
		source = fmt.Sprintf("from %s, which is gone; \"portcullis save\" writes it again", v.Config)
	}
	a.printf("policy: %s\n", source)
	a.printf("  %s\n\n", v.Settings)

	rows := [][]string{{"INTERFACE", "INGRESS", "EGRESS", "PASSED", "DROPPED", "NOTE"}}
	for _, i := range v.Interfaces {
		passed, dropped := "", ""
		for _, t := range v.Ledger {
			if t.Interface == i.Name {
				passed, dropped = strconv.FormatUint(t.Passed.Packets, 10), strconv.FormatUint(t.Dropped.Packets, 10)
			}
		}
		rows = append(rows, []string{i.Name, i.IngressText(), i.EgressText(), passed, dropped, i.Absence()})
	}
	for _, pattern := range v.Patterns {
		rows = append(rows, []string{pattern, "", "", "", "", "when they appear"})
	}
	a.noted(rows)

	if !a.printRules("OPEN", v.Rules, false, all) {
		a.printf("\nno port is open\n")
	}
	a.printRules("FORWARDED", v.Rules, true, all)
	a.printLists(v.Lists)
	a.printBanned(v.Bans)
	a.printCounters(v.Counters, v.Closed)
	a.printf("\nflows: %s\n", flowsText(v.Flows, p.FlowLimit()))
	a.warn(v.Warnings...)
}

// watchingText is what is said first of a filter that only watches.
func watchingText(config string) string {
	return "WATCHING ONLY: nothing is dropped, until " + config + " says \"enforce: true\" and \"portcullis apply\" is run"
}

// printRules prints the rules of one kind, and reports whether there are any.
func (a *app) printRules(heading string, rules []firewall.RuleStatus, forward, all bool) bool {
	rows := [][]string{{heading, "PACKETS", "NOTE"}}
	for _, r := range rules {
		if r.Forward != forward {
			continue
		}
		note := ""
		switch {
		case r.SecondsLeft > 0:
			note = "for another " + schedule.Span(time.Duration(r.SecondsLeft)*time.Second)
		case r.Runtime:
			note = "runtime"
		}
		text := r.Rule
		if !all {
			text = folded(text)
		}
		rows = append(rows, []string{text, strconv.FormatUint(r.Packets, 10), note})
	}
	if len(rows) == 1 {
		return false
	}
	a.printf("\n")
	a.noted(rows)
	return true
}

// printCounters prints the verdicts, and then the kinds of what was invalid, which are of packets that have a verdict, too.
// What became of flows is in a line of its own.
func (a *app) printCounters(counters []loader.CounterStatus, closed maps.Tally) {
	verdicts, kinds := [][]string{{"VERDICT", "REASON", "PACKETS"}}, [][]string{{"INVALID KIND", "PACKETS"}}
	if closed.Packets > 0 {
		verdicts = append(verdicts, []string{maps.Pass, "rules closed since", strconv.FormatUint(closed.Packets, 10)})
	}
	for _, c := range counters {
		packets := strconv.FormatUint(c.Packets, 10)
		switch {
		case c.Packets == 0:
		case c.Verdict != maps.Seen:
			verdicts = append(verdicts, []string{c.Verdict, c.Reason, packets})
		case strings.HasPrefix(c.Reason, "invalid "):
			kinds = append(kinds, []string{c.Reason, packets})
		}
	}
	for _, rows := range [][][]string{verdicts, kinds} {
		if len(rows) > 1 {
			a.printf("\n")
			a.table(rows)
		}
	}
}

// noted prints a table whose last column has a heading only if there is something in it.
func (a *app) noted(rows [][]string) {
	last := len(rows[0]) - 1
	if !slices.ContainsFunc(rows[1:], func(row []string) bool { return row[last] != "" }) {
		rows[0][last] = ""
	}
	a.table(rows)
}

// flowsText says how full the flow table is, and what became of those that it had no room for. Wanted is the most that
// the policy asks for.
func flowsText(f loader.FlowsStatus, wanted int) string {
	text := fmt.Sprintf("%d assured, %d others, of %d", f.Assured, f.Answered+f.Pending-f.Assured, f.Max)
	if wanted != int(f.Max) {
		text += fmt.Sprintf(" (policy: %d, takes effect after \"down\" and \"up\")", wanted)
	}
	if f.Evicted > 0 {
		text += fmt.Sprintf("; %d evicted", f.Evicted)
	}
	if f.Full > 0 {
		text += fmt.Sprintf("; %d refused", f.Full)
	}
	return text
}
