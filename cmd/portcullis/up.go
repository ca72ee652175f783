// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/portcullis-firewall/portcullis/firewall"
	"github.com/portcullis-firewall/portcullis/loader"
	"github.com/portcullis-firewall/portcullis/policy"
)

func (a *app) upCommand() *cobra.Command {
	mode := modeFlag{loader.ModeAuto}
	force, watch := false, false
	cmd := &cobra.Command{
		Use:         "up [IFACE...]",
		Short:       "Put the policy in force",
		Annotations: needsRoot,
		Long: `Put the policy in force on the interfaces named, else on those in the policy file, else
on the one with the default route. Live connections continue.

If the filter is up, this replaces its policy by that of its file, or of the one named, in
one step: no packet meets half a policy. Interfaces that are filtered stay filtered, and
rules opened with --runtime end.

With --watch, or where the file says "enforce: false", nothing is dropped: what would be
is counted, and "portcullis monitor" shows it. Look there first on a server whose traffic
you do not know; "portcullis apply" then enforces the file.

Without a policy file, replies, ICMP and the ports on which an sshd listens are let in.`,
		Example: `  portcullis up
  portcullis up eth0 --config web.yaml
  portcullis up --watch               count what would be dropped, and let it pass
  portcullis up eth0 --mode tc        behind another XDP program`,
		ValidArgsFunction: a.completeInterfaces,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.up(cmd.Context(), firewall.UpRequest{Interfaces: args, Mode: mode.Mode, Force: force, Watch: watch})
		},
	}
	addMode(cmd, &mode)
	cmd.Flags().BoolVar(&watch, "watch", false, "drop nothing, and count what would be dropped, until the next \"up\" or \"apply\"")
	cmd.Flags().BoolVar(&force, "force", false, "even if it locks out the ssh session that you are using")
	return cmd
}

func (a *app) up(ctx context.Context, r firewall.UpRequest) error {
	if err := a.privileged(); err != nil {
		return err
	}
	report, err := a.firewall.Up(ctx, r)
	if err != nil {
		return err
	}
	a.inForce = report.Config
	a.warn(report.Warnings...)
	return printed(a.print(report, func() { a.printUp(report) }), report.Skipped)
}

func (a *app) printUp(report *firewall.UpReport) {
	if !report.Enforcing {
		a.printf("%s\n", watchingText(report.Config))
	}
	for _, i := range report.Interfaces {
		a.printf("%s\n", filteringText(i))
	}
	if report.Updated {
		a.printf("it was running: the policy was replaced in place\n")
	}
	if report.Seeded > 0 {
		a.printf("%s\n", count(report.Seeded, "live connection goes on", "live connections go on"))
	}
	if report.Bans > 0 {
		a.printf("%s in force again\n", count(report.Bans, "ban is", "bans are"))
	}
	p := report.Policy
	if !report.BuiltIn {
		a.printf("policy: %s: %s\n", report.Config, openText(p))
		return
	}
	a.printf("policy: built in, as there is no %s\n", report.Config)
	forwarded := "nothing is forwarded"
	if report.Policy.Forward == policy.ForwardEstablished {
		forwarded = "what is behind this host reaches out, and only answers come in"
	}
	a.printf("  replies to what this host sends and ICMP come in; %s\n", forwarded)
	for _, r := range p.InputRules() {
		a.printf("  open: %s, because an sshd listens on port %d\n", r, r.Ports[0].First)
	}
	if len(p.Open) == 0 {
		a.printf("  no port is open: no sshd listens here\n")
	}
	a.printf("next: \"portcullis open http\", or what else this host serves; that also writes the file\n")
}

// openText returns the rules of a policy in one line, however many there are.
func openText(p *policy.Policy) string {
	text := "no port is open"
	if p.Input == policy.Accept {
		text = "input is accepted"
	} else if rules := p.InputRules(); len(rules) > 0 {
		text = "open: " + rulesText(rules)
	}
	if rules := p.ForwardRules(); len(rules) > 0 && p.Forward != policy.ForwardAccept {
		text += "; forwarded: " + rulesText(rules)
	}
	return text
}

// rulesText returns some rules in one line, and how many more there are.
func rulesText(list []policy.Rule) string {
	const most = 6
	rules, more := policy.Texts(list), ""
	if len(rules) > most {
		more = fmt.Sprintf("; and %d more", len(rules)-most)
		rules = rules[:most]
	}
	for i, text := range rules {
		rules[i] = folded(text)
	}
	return strings.Join(rules, "; ") + more
}

// filteringText returns a line about an interface that was to be filtered.
func filteringText(i loader.Interface) string {
	switch {
	case i.Present:
		return fmt.Sprintf("%s: filtering (%s, egress %s)", i.Name, i.IngressText(), i.EgressText())
	case i.Egress == "":
		return i.Name + ": not there, and not filtered"
	}
	return i.Name + ": gone, and not filtered"
}
