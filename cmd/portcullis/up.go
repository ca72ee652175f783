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

type modeFlag struct{ loader.Mode }

func (m *modeFlag) String() string { return string(m.Mode) }
func (m *modeFlag) Type() string   { return "MODE" }
func (m *modeFlag) Set(text string) (err error) {
	m.Mode, err = loader.ParseMode(text)
	return err
}

func (a *app) upCommand() *cobra.Command {
	mode := modeFlag{loader.ModeAuto}
	force := false
	cmd := &cobra.Command{
		Use:   "up [IFACE...]",
		Short: "Put the policy in force",
		Long: `Put the policy in force on the interfaces named, or on those that the policy file
names, or on the one of the default route. Connections that live go on.

On a filter that runs it applies its file anew, or the one named, in one step: no packet
meets half a policy. What is filtered stays so, and rules opened with --runtime end.

Without a file, replies, ICMP and the ports on which an sshd listens are let in.`,
		Example: `  portcullis up
  portcullis up eth0 --config web.yaml
  portcullis up eth0 --mode tc        behind another XDP program`,
		ValidArgsFunction: a.completeInterfaces,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.up(cmd.Context(), firewall.UpRequest{Interfaces: args, Mode: mode.Mode, Force: force})
		},
	}
	cmd.Flags().Var(&mode, "mode", "where to filter: auto, native, generic or tc")
	cmd.Flags().BoolVar(&force, "force", false, "also when it locks out the ssh session of this command")
	_ = cmd.RegisterFlagCompletionFunc("mode", words("auto", "native", "generic", "tc"))
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
	a.warn(report.Warnings...)
	return a.print(report, func() { a.printUp(report) })
}

func (a *app) printUp(report *firewall.UpReport) {
	for _, i := range report.Interfaces {
		state := "filtering"
		if !i.Present {
			state = "gone, and not filtered"
		}
		a.printf("%s: %s (%s, egress %s)\n", i.Name, state, i.IngressText(), i.EgressText())
	}
	if report.Updated {
		a.printf("it was running: the policy was replaced in place\n")
	}
	if report.Seeded > 0 {
		a.printf("%s\n", count(report.Seeded, "live connection goes on", "live connections go on"))
	}
	p := report.Policy
	if !report.BuiltIn {
		a.printf("policy: %s: %s\n", report.Config, openText(p))
		return
	}
	a.printf("policy: built in, as there is no %s\n", report.Config)
	a.printf("  replies to what this host sends and ICMP come in; nothing is forwarded\n")
	for _, r := range p.Open {
		a.printf("  open: %s, because an sshd listens on port %d\n", r, r.Ports[0].First)
	}
	if len(p.Open) == 0 {
		a.printf("  no port is open: no sshd listens here\n")
	}
	a.printf("next: \"portcullis open http\", or what else this host serves; that also writes the file\n")
}

// openText tells the rules of a policy in one line, however many there are.
func openText(p *policy.Policy) string {
	const most = 6
	if p.Input == policy.Accept {
		return "input is accepted"
	}
	if len(p.Open) == 0 {
		return "no port is open"
	}
	rules, more := texts(p.Open), ""
	if len(rules) > most {
		more = fmt.Sprintf("; and %d more", len(rules)-most)
		rules = rules[:most]
	}
	return "open: " + strings.Join(rules, "; ") + more
}
