// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"regexp"
	"slices"
	"strings"
	"sync"

	"github.com/spf13/cobra"

	"github.com/portcullis-firewall/portcullis/firewall"
	"github.com/portcullis-firewall/portcullis/firewall/doctor"
	"github.com/portcullis-firewall/portcullis/host"
)

func (a *app) doctorCommand() *cobra.Command {
	verbose := false
	cmd := &cobra.Command{
		Use:   "doctor [IFACE...]",
		Short: "Find what would stop or slow the filter",
		Long: `Find what would stop or slow the filter on this host, before it is up or while it is, with
the command that fixes it. Looks at the interfaces named, or at those that are filtered or
that "portcullis up" would filter. Changes nothing.

  fail  stops the filter; doctor exits with 1
  warn  slows it, or makes it do less than you meant
  note  is worth knowing`,
		Example: `  portcullis doctor
  portcullis doctor -v eth1
  portcullis doctor -o json | jq -r '.checks[] | select(.verdict == "warn") | .fix[]'`,
		GroupID:           "more",
		Annotations:       needsRoot,
		ValidArgsFunction: a.completeInterfaces,
		RunE:              func(cmd *cobra.Command, args []string) error { return a.doctor(cmd.Context(), args, verbose) },
	}
	cmd.Flags().BoolVarP(&verbose, "verbose", "v", false, "also list what is fine")
	return cmd
}

// doctorView is what doctor found, in JSON.
type doctorView struct {
	Stopped    bool           `json:"stopped"` // there is a fail among the checks
	Interfaces []string       `json:"interfaces"`
	Checks     []doctor.Check `json:"checks"`
}

func (a *app) doctor(ctx context.Context, named []string, verbose bool) error {
	// What is attached cannot be told from what others attached, nor a filter that is up from one that is down.
	if err := a.privileged(); err != nil {
		return err
	}
	o := doctor.Options{PinPath: a.pinPath}
	var filtered []string
	var wanted firewall.Wanted
	seen, err := a.firewall.Inspect(ctx)
	if err == nil {
		o.Running, o.Bypassed, o.LookErr = seen.Running, seen.Bypassed, seen.LookErr
		filtered = o.Running.Policy.Interfaces
		wanted, o.PolicyErr = a.firewall.Wanted(ctx)
	} else {
		o.FilterErr = err
		wanted, o.PolicyErr = a.firewall.WantedByFile()
	}
	o.Policy, o.BuiltIn, o.Config = wanted.Policy, wanted.BuiltIn, wanted.Config
	o.ConfigFlag = a.firewall.Flags().Config != ""
	var configured []string
	if o.PolicyErr == nil {
		configured, o.Named = o.Policy.Interfaces, o.Policy.Interfaces
	}
	if o.Running != nil {
		o.Policy = o.Running.Policy
		if len(configured) > 0 {
			for _, i := range o.Running.Interfaces {
				if i.Present {
					configured = append(slices.Clone(configured), i.Name)
				}
			}
		}
	}
	o.Interfaces, o.InterfaceErr = a.firewall.Interfaces(named, configured, filtered)
	if o.InterfaceErr == nil {
		o.Interfaces, o.InterfaceErr = host.Matching(o.Interfaces)
	}
	o.Default = a.firewall.DefaultInterface()
	if o.InterfaceErr == nil {
		unfiltered, err := a.firewall.Unfiltered(o.Interfaces)
		if err != nil {
			a.warn(err.Error())
		}
		o.Unfiltered = namesOfInterfaces(unfiltered)
	}

	view := doctorView{Interfaces: list(o.Interfaces), Checks: doctor.Examine(ctx, o)}
	failed := len(namesOf(view.Checks, doctor.Fail))
	view.Stopped = failed > 0
	err = a.print(view, func() { a.printChecks(view.Checks, verbose) })
	if err == nil && failed > 0 {
		err = errors.New(count(failed, "thing stops the filter here", "things stop the filter here"))
	}
	return err
}

const textWidth = 100 // of a sentence, before it goes on in the next line

// printChecks prints each group: in one line what is well, then what is not.
func (a *app) printChecks(checks []doctor.Check, verbose bool) {
	width := 0
	for _, c := range checks {
		width = max(width, len(c.Name))
	}
	indent := strings.Repeat(" ", len("  fail  ")+width+2)
	for first := 0; first < len(checks); {
		group := checks[first:]
		for i, c := range group {
			if c.Group != group[0].Group {
				group = group[:i]
				break
			}
		}
		if first > 0 {
			a.printf("\n")
		}
		first += len(group)
		a.printf("%s\n", group[0].Group)
		if well := namesOf(group, doctor.OK); len(well) > 0 && !verbose {
			a.printf("  %-4s  %s\n", doctor.OK, strings.Join(well, ", "))
		}
		for _, c := range group {
			if c.Verdict == doctor.OK && !verbose {
				continue
			}
			lines := wrap(c.Text, textWidth)
			a.printf("  %-4s  %-*s  %s\n", c.Verdict, width, c.Name, lines[0])
			for _, line := range lines[1:] {
				a.printf("%s%s\n", indent, line)
			}
			for _, command := range c.Fix {
				a.printf("%s  %s\n", indent, command)
			}
		}
	}
	stops, slows := len(namesOf(checks, doctor.Fail)), len(namesOf(checks, doctor.Warn))
	switch {
	case stops > 0: // run says so
	case slows > 0:
		a.printf("\nnothing stops the filter here; %s\n", count(slows, "warning", "warnings"))
	default:
		a.printf("\nnothing stops the filter here\n")
	}
}

func namesOf(checks []doctor.Check, v doctor.Verdict) (names []string) {
	for _, c := range checks {
		if c.Verdict == v {
			names = append(names, c.Name)
		}
	}
	return names
}

// unbroken is a word, or a command that a text quotes, which may be meant for pasting.
var unbroken = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`\S*"portcullis [^"]*"\S*|\S+`) })

// wrap breaks a sentence into lines.
func wrap(text string, width int) (lines []string) {
	line := ""
	for _, word := range unbroken().FindAllString(text, -1) {
		if line != "" && len(line)+1+len(word) > width {
			lines, line = append(lines, line), ""
		}
		if line != "" {
			line += " "
		}
		line += word
	}
	return append(lines, line)
}
