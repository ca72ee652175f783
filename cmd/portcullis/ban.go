// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"net/netip"
	"time"

	"github.com/spf13/cobra"

	"github.com/portcullis-firewall/portcullis/firewall"
	"github.com/portcullis-firewall/portcullis/firewall/bans"
	"github.com/portcullis-firewall/portcullis/firewall/schedule"
)

// fromInput stands for the lines of standard input among addresses.
const fromInput = "-"

// periodFlag is how long a ban lasts.
type periodFlag struct {
	time.Duration
	cut bool // to the longest one
}

func (p *periodFlag) Type() string { return "TIME" }

func (p *periodFlag) String() string {
	if p.Duration == 0 {
		return ""
	}
	return schedule.Span(p.Duration)
}

func (p *periodFlag) Set(text string) (err error) {
	p.Duration, err = bans.ParsePeriod(text)
	p.cut = p.Duration == bans.LongestBan && text != "3650d"
	return err
}

func (a *app) banCommand() *cobra.Command {
	period, reason, force := periodFlag{}, "", false
	cmd := &cobra.Command{
		Use:         "ban ADDRESS...",
		Short:       "Drop whatever comes from an address or a network",
		Annotations: needsFilter,
		Long: `Drop whatever comes from addresses or networks, at once, and cut their connections. A ban
comes before every rule, and holds over changes of the policy, upgrades and reboots until it
ends by itself, or "portcullis unban" ends it. Of two bans of one address for different
reasons the one that lasts longer stays; one for the same reason takes the place of the other.

With - for the address, lines are read from standard input until it ends, which may be a pipe
that stays open: ADDRESS [TIME [REASON]], with - as the time of a ban that does not end. Each
line that cannot be used is told by its number, the others are in force, and the exit code is 1.

A ban of a trusted address is refused, and so is one of the source of an ssh session in which
somebody has logged in, of a default gateway, a resolver or an address of this host, of a
network that holds one, and of networks shorter than /8 or, for IPv6, /16.`,
		Example: `  portcullis ban 203.0.113.7 --for 10m --reason sshd
  portcullis ban 198.51.100.0/24 2001:db8::/32
  portcullis ban - --for 1d <addresses.txt`,
		Args:              someAddress,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := bans.CheckReason(reason); err != nil {
				return usagef("--reason: %w", err)
			}
			if period.cut {
				a.warn("a ban that ends lasts 3650d at most, and this one does: leave --for out if it is not to end")
			}
			defaults := bans.Line{For: period.Duration, Reason: reason}
			if isInput(args) {
				return a.banInput(cmd.Context(), defaults, force)
			}
			lines := make([]bans.Line, len(args))
			for i, text := range args {
				lines[i] = defaults
				var err error
				if lines[i].Prefix, err = bans.ParseAddress(text); err != nil {
					if _, noTime := bans.ParsePeriod(text); i > 0 && noTime == nil {
						return usagef("%s is no address: how long is a flag, --for %s", text, text)
					}
					return usageError{err}
				}
			}
			return a.ban(cmd.Context(), lines, force)
		},
	}
	cmd.Flags().Var(&period, "for", "end the ban after `TIME`, such as 10m, 12h or 5d; without it, it does not end")
	cmd.Flags().StringVar(&reason, "reason", "", "say why, in `TEXT` of up to 63 bytes")
	cmd.Flags().BoolVar(&force, "force", false, "even if it hits who looks after this host")
	_ = cmd.RegisterFlagCompletionFunc("for", words("10m", "1h", "1d", "7d"))
	_ = cmd.RegisterFlagCompletionFunc("reason", a.completeReasons)
	return cmd
}

func isInput(args []string) bool { return len(args) == 1 && args[0] == fromInput }

func someAddress(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return usagef("no address named: see %q", cmd.CommandPath()+" --help")
	}
	for _, text := range args {
		if text == fromInput && len(args) > 1 {
			return usagef("- stands for standard input, and no address can stand beside it")
		}
	}
	return nil
}

// banProblem is a line, or an address of the command line, that is not banned.
type banProblem struct {
	Line    int    `json:"line,omitempty"`
	Message string `json:"message"`
}

type banView struct {
	*firewall.BanReport
	Errors []banProblem `json:"errors"`
}

func (a *app) ban(ctx context.Context, lines []bans.Line, force bool) error {
	if err := a.privileged(); err != nil {
		return err
	}
	report, err := a.firewall.Ban(ctx, firewall.BanRequest{Bans: lines, Force: force})
	if report == nil {
		return err
	}
	view := banView{report, []banProblem{}}
	refused := make(map[int]bool)
	for _, r := range report.Refused {
		refused[r.Place] = true
		view.Errors = append(view.Errors, banProblem{Message: r.Err.Error()})
	}
	if err != nil {
		view.Errors = append(view.Errors, banProblem{Message: err.Error()})
	}
	a.warn(report.Warnings...)
	shown := a.print(view, func() {
		if err == nil && report.Kept == 0 {
			for i, l := range lines {
				if !refused[i] {
					a.printf("banned %s\n", banText(l))
				}
			}
		} else if n := report.Banned - report.Kept; n > 0 {
			a.printf("banned %s\n", count(n, "address or network", "addresses and networks"))
		}
		a.printBans(report)
	})
	for _, r := range report.Refused {
		a.complain(fmt.Errorf("not banned: %w", r.Err))
	}
	switch {
	case shown != nil:
		return shown
	case err != nil:
		return err
	case len(report.Refused) > 0:
		return errTold
	}
	return nil
}

// banText returns a ban in words.
func banText(l bans.Line) string {
	text := bans.Text(l.Prefix)
	if l.For > 0 {
		text += " for " + schedule.Span(l.For)
	}
	if l.Reason != "" {
		text += " (" + l.Reason + ")"
	}
	return text
}

func (a *app) printBans(report *firewall.BanReport) {
	if report.Kept > 0 {
		a.printf("%s for another reason, for as long or longer\n", count(report.Kept, "address or network was banned already", "addresses and networks were banned already"))
	}
	if report.Cut > 0 {
		a.printf("cut %s\n", count(report.Cut, "connection", "connections"))
	}
}

func (a *app) unbanCommand() *cobra.Command {
	all, reason := false, ""
	cmd := &cobra.Command{
		Use:         "unban ADDRESS...",
		Short:       "End bans",
		Annotations: needsFilter,
		Long: `End the bans of addresses and networks, as "portcullis bans" shows them. With - for the
address, they are read from standard input, one a line. With --reason, only bans for that
reason end: of the addresses that are named, or with no address all of them.`,
		Example: `  portcullis unban 203.0.113.7
  portcullis unban --reason sshd
  portcullis unban --all`,
		Args: func(cmd *cobra.Command, args []string) error {
			byReason := cmd.Flags().Changed("reason")
			switch {
			case all && (len(args) > 0 || byReason):
				return usagef("--all ends all bans: leave the rest out")
			case (all || byReason) && len(args) == 0:
				return nil
			}
			return someAddress(cmd, args)
		},
		ValidArgsFunction: a.completeBanned,
		RunE: func(cmd *cobra.Command, args []string) error {
			r := firewall.UnbanRequest{All: len(args) == 0}
			if cmd.Flags().Changed("reason") {
				r.IsReason = func(text string) bool { return text == reason }
			}
			if isInput(args) {
				return a.unbanInput(cmd.Context(), r.IsReason)
			}
			for _, text := range args {
				p, err := bans.ParseAddress(text)
				if err != nil {
					return usageError{err}
				}
				r.Prefixes = append(r.Prefixes, p)
			}
			return a.unban(cmd.Context(), r)
		},
	}
	cmd.Flags().BoolVar(&all, "all", false, "end all bans")
	cmd.Flags().StringVar(&reason, "reason", "", "end only bans for the reason `TEXT`")
	_ = cmd.RegisterFlagCompletionFunc("reason", a.completeReasons)
	return cmd
}

type unbanView struct {
	*firewall.UnbanReport
	NotBanned []string     `json:"not_banned"`
	Errors    []banProblem `json:"errors"`
}

func (a *app) unban(ctx context.Context, r firewall.UnbanRequest) error {
	if err := a.privileged(); err != nil {
		return err
	}
	report, err := a.firewall.Unban(ctx, r)
	if report == nil {
		return err
	}
	view := unbanView{report, texts(report.NotBanned), []banProblem{}}
	if err != nil {
		view.Errors = append(view.Errors, banProblem{Message: err.Error()})
	}
	a.warn(report.Warnings...)
	shown := a.print(view, func() {
		for _, text := range view.NotBanned {
			a.printf("not banned: %s\n", text)
		}
		a.printf("ended %s\n", count(report.Unbanned, "ban", "bans"))
	})
	if shown != nil {
		return shown
	}
	return err
}

func texts(prefixes []netip.Prefix) []string {
	out := make([]string, len(prefixes))
	for i, p := range prefixes {
		out[i] = bans.Text(p)
	}
	return out
}
