// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/portcullis-firewall/portcullis/firewall/explain"
)

func (a *app) explainCommand() *cobra.Command {
	var flags, recording string
	cmd := &cobra.Command{
		Use:         "explain SRC[:PORT] WHAT [to ADDRESS] [on IFACE]",
		Short:       "Say what becomes of a packet, and why",
		Annotations: needsFilter,
		Long: `Say what becomes of a packet that somebody sends to this host: the verdict, the rule, list,
flow or ban that decides, and for a drop the command that would let it in. The packet is
run through the very program that filters, over the flows, bans and limits of this moment,
and leaves no trace: nothing is counted, charged or logged.

WHAT is what a rule can name, as 443/tcp, https or gre, or a type of ICMP: echo-request,
ipv4/13. Of TCP it is a SYN, unless --flags says otherwise. The packet comes to the address
that this host would answer from, by the interface on which the way to the source leads
out, unless "to" and "on" say otherwise.

With --pcap, explain the packets of a recording (pcap or pcapng of Ethernet, raw IP or
tcpdump -i any), as if they came in now: those that this host has sent, and those that came
by interfaces that are not filtered, are left out. A packet of which too little was recorded
is said to be one, and not explained.

The exit code is 0 whatever becomes of the packet, and 1 if one could not be explained.`,
		Example: `  portcullis explain 203.0.113.9 443/tcp
  portcullis explain 203.0.113.9:40000 ssh on eth1
  portcullis explain 2001:db8::5 echo-request
  portcullis explain 192.0.2.53:53 40000/udp     the answer of a DNS server
  portcullis explain 203.0.113.9 443/tcp --flags ack
  portcullis explain 198.51.100.7 80/tcp to 10.0.0.5     through this host
  portcullis explain --pcap customer.pcap on eth0
  portcullis explain 203.0.113.9 443/tcp -o json | jq -r .verdict`,
		ValidArgsFunction: a.completeExplain,
		RunE: func(cmd *cobra.Command, args []string) error {
			if recording != "" {
				return a.explainRecording(cmd.Context(), recording, args, flags)
			}
			request, err := explain.ParseRequest(args, flags)
			if err != nil {
				return usageError{err}
			}
			return a.explain(cmd.Context(), request)
		},
	}
	cmd.Flags().StringVar(&flags, "flags", "", "flags of the TCP segment, such as `syn,ack`; none for none (default: syn)")
	cmd.Flags().StringVar(&recording, "pcap", "", "explain the packets of `FILE`, or of - for what comes by standard input")
	_ = cmd.MarkFlagFilename("pcap", "pcap", "pcapng", "cap")
	_ = cmd.RegisterFlagCompletionFunc("flags", words("syn", "syn,ack", "ack", "fin,ack", "rst", "none"))
	return cmd
}

// completeExplain completes what follows the source.
func (a *app) completeExplain(cmd *cobra.Command, args []string, word string) ([]string, cobra.ShellCompDirective) {
	const directive = cobra.ShellCompDirectiveNoFileComp
	switch {
	case len(args) == 0:
		return nil, directive
	case args[len(args)-1] == "on":
		return a.completeFiltered(cmd, nil, word)
	case args[len(args)-1] == "to":
		return nil, directive
	case len(args) == 1:
		services, _ := completeServices(cmd, nil, word)
		return append([]string{"echo-request"}, services...), directive
	}
	return slices.DeleteFunc([]string{"to", "on"}, func(w string) bool { return slices.Contains(args, w) }), directive
}

func (a *app) openExplainer(ctx context.Context) (*explain.Explainer, error) {
	if err := a.privileged(); err != nil {
		return nil, err
	}
	return explain.Open(ctx, a.firewall)
}

func (a *app) explain(ctx context.Context, request explain.Request) error {
	e, err := a.openExplainer(ctx)
	if err != nil {
		return err
	}
	defer e.Close()
	answers, err := e.Explain(request)
	if err != nil {
		return err
	}
	if len(answers) == 1 {
		a.warn(answers[0].Warnings...)
		a.completeAnswer(answers[0])
		return a.print(answers[0], func() { a.printAnswer(answers[0]) })
	}
	for i, answer := range answers {
		if i == 0 {
			a.warn(answer.Warnings...)
		} else if a.output != asJSON {
			a.printf("\n")
		}
		if err := a.answerLine(answer, a.printAnswer); err != nil {
			return err
		}
	}
	return nil
}

// answerLine prints one answer of several: in JSON an object a line.
func (a *app) answerLine(answer *explain.Answer, text func(*explain.Answer)) error {
	a.completeAnswer(answer)
	if a.output != asJSON {
		text(answer)
		return nil
	}
	lines := json.NewEncoder(a.stdout)
	lines.SetEscapeHTML(false)
	return lines.Encode(answer)
}

// completeAnswer writes the flags of this command into those that an answer names.
func (a *app) completeAnswer(answer *explain.Answer) {
	complete := func(command, advice *string) {
		if *command != "" {
			*command = strings.Trim(a.complete(`"`+*command+`"`), `"`)
		}
		*advice = a.complete(*advice)
	}
	complete(&answer.Command, &answer.Advice)
	if s := answer.Still; s != nil {
		complete(&s.Command, &s.Advice)
	}
}

func (a *app) printAnswer(v *explain.Answer) {
	a.printf("%s, in by %s\n", v.Packet, v.Interface)
	switch {
	case v.Reason == "rule" && v.Line > 0:
		a.printf("%s: rule %s, %s:%d\n", v.Verdict, folded(v.Rule), v.File, v.Line)
	case v.Reason == "rule":
		a.printf("%s: rule %s, %s\n", v.Verdict, folded(v.Rule), elsewhere(v))
	default:
		a.printf("%s: %s\n", v.Verdict, v.Reason)
	}
	a.printf("  %s (step %d of \"How it decides\", %s)\n", v.Why, v.Step, explain.StepName(v.Step))
	if v.Rule != "" && v.Reason != "rule" {
		place := elsewhere(v)
		if v.Line > 0 {
			place = fmt.Sprintf("%s:%d", v.File, v.Line)
		}
		a.printf("  rule: %s, %s\n", folded(v.Rule), place)
	}
	if f := v.Flow; f != nil {
		state := f.State
		if !f.Alive {
			state += ", over"
		}
		a.printf("  flow: %s %s - %s, %s\n", f.Protocol, f.Local, f.Remote, state)
	}
	if v.Trusted {
		a.printf("  its source is trusted\n")
	}
	if v.Invalid != "" && v.Reason != "invalid" {
		a.printf("  netfilter would call it invalid: %s\n", v.Invalid)
	}
	if v.Advice != "" {
		a.printf("  %s\n", v.Advice)
	}
	if v.Command != "" {
		a.printf("  to let it in: %s\n", v.Command)
	}
	if s := v.Still; s != nil {
		a.printf("  then it is still dropped: %s\n    %s\n", s.Reason, s.Why)
		if s.Advice != "" {
			a.printf("    %s\n", s.Advice)
		}
		if s.Command != "" {
			a.printf("    to let it in: %s\n", s.Command)
		}
	}
}

// elsewhere says where a rule comes from that the policy file does not have.
func elsewhere(v *explain.Answer) string {
	if v.Runtime {
		return "opened at run time"
	}
	if v.Unread() != nil {
		return "in a policy file that cannot be read"
	}
	return "which the policy file does not have"
}
