// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/portcullis-firewall/portcullis/firewall"
	"github.com/portcullis-firewall/portcullis/firewall/schedule"
	"github.com/portcullis-firewall/portcullis/policy"
)

func (a *app) openCommand() *cobra.Command {
	runtime, forward, period := false, false, durationFlag{}
	cmd := &cobra.Command{
		Use:         "open RULE...",
		Short:       "Let in what a rule names, now and permanently",
		Annotations: needsFilter,
		Long: `Open ports in the running filter, at once, and save the rules to the policy file; its
comments stay. What is open already stays open.

With --forward, let what the rules name be routed through this host, as from one of its
interfaces to another, and not in to it: "on" is where it comes in, "to" is where it goes.
Replies pass. The rules are saved under "forward" in the policy file.

` + ruleGrammar,
		Example: `  portcullis open http https
  portcullis open 22/tcp from 203.0.113.0/24,2001:db8::/32
  portcullis open ssh limit 6/minute
  portcullis open 5432/tcp on eth1 from @office
  portcullis open --forward all on eth1          what is behind eth1 may begin outward
  portcullis open --forward 443/tcp on eth0 to 10.0.0.5
  portcullis open 60000-61000/udp --runtime      not in the file: until the next "up"
  portcullis open 8080/tcp --for 1h              not in the file, and closes by itself`,
		Args:              someRule,
		ValidArgsFunction: a.completeOpen,
		RunE: func(cmd *cobra.Command, args []string) error {
			rules, err := a.parseRules(cmd.Context(), args, forward)
			if err != nil {
				return err
			}
			return a.open(cmd.Context(), firewall.OpenRequest{Rules: rules, Runtime: runtime, For: period.Duration})
		},
	}
	addForward(cmd, &forward)
	cmd.Flags().BoolVar(&runtime, "runtime", false, "do not save: the next \"up\" closes it again")
	cmd.Flags().Var(&period, "for", "like --runtime, and close it after `TIME`; live connections continue")
	return cmd
}

const forwardFlag = "forward"

func addForward(cmd *cobra.Command, forward *bool) {
	cmd.Flags().BoolVar(forward, forwardFlag, false, "the rules are about what is routed through this host")
}

func someRule(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return usagef("no rule named: see %q", cmd.CommandPath()+" --help")
	}
	return nil
}

// parseRules reads the rules of a command line.
func (a *app) parseRules(ctx context.Context, args []string, forward bool) ([]policy.Rule, error) {
	names, err := a.namesIn(ctx, args, forward)
	if err != nil {
		return nil, err
	}
	rules, err := names.ParseRules(args)
	if err != nil {
		return nil, ruleError(args, err)
	}
	return rules, nil
}

// namesIn returns what rules of a command line may name. Where they name lists, the running filter and its policy file
// tell what these hold.
func (a *app) namesIn(ctx context.Context, args []string, forward bool) (policy.Names, error) {
	if !policy.NamesList(args) {
		return policy.Names{Forward: forward}, nil
	}
	if err := a.privileged(); err != nil {
		return policy.Names{}, err
	}
	names, err := a.firewall.Names(ctx)
	names.Forward = forward
	return names, err
}

// ruleError returns the error for rules of a command line that cannot be read.
func ruleError(args []string, err error) error {
	if text := ruleHint(args); text != "" {
		err = errors.New(text)
	}
	return usageError{err}
}

func (a *app) open(ctx context.Context, r firewall.OpenRequest) error {
	if err := a.privileged(); err != nil {
		return err
	}
	report, err := a.firewall.Open(ctx, r)
	if err != nil {
		return err
	}
	a.warn(report.Warnings...)
	return a.print(report, func() { a.printOpen(report, r) })
}

func (a *app) printOpen(v *firewall.OpenReport, request firewall.OpenRequest) {
	for _, r := range v.Opened {
		a.printf("opened %s\n", withPorts(r, request.Rules))
	}
	for _, r := range v.Already {
		a.printf("already open: %s\n", withPorts(r, request.Rules))
	}
	runtime := request.Runtime || request.For > 0
	switch {
	case v.Created:
		a.printf("%s\n", createdText(v.Config))
	case len(v.Saved) > 0:
		a.printf("saved to %s\n", v.Config)
	case v.SecondsLeft > 0:
		left := time.Duration(v.SecondsLeft) * time.Second
		a.printf("not saved: it closes at %s, in %s; live connections go on\n", clock(left), schedule.Span(left))
	case runtime && len(v.Opened) > 0:
		a.printf("not saved: the next \"portcullis up\" closes it again\n")
	}
}

// withPorts returns a rule as it is written, with its ports where its name stands for several: https is 443/udp, too. Ports
// that are written themselves, and all of them, need no second time. A rule about what is routed is called one.
func withPorts(text string, rules []policy.Rule) string {
	i := slices.IndexFunc(rules, func(r policy.Rule) bool { return r.String() == text })
	if i < 0 {
		return text
	}
	r := rules[i]
	if len(r.Ports) > 1 && r.What() != (policy.Rule{Ports: r.Ports}).String() {
		ports := make([]string, len(r.Ports))
		for i, p := range r.Ports {
			ports[i] = p.String()
		}
		text = fmt.Sprintf("%s (%s)", text, strings.Join(ports, ", "))
	}
	if r.Forward {
		return "forward rule " + text
	}
	return text
}

// createdText returns a sentence about a file that was not there before.
func createdText(path string) string {
	return fmt.Sprintf("saved to %s, a new file: what is open now stays open at the next \"portcullis up\"", path)
}
