// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/portcullis-firewall/portcullis/firewall"
	"github.com/portcullis-firewall/portcullis/policy"
)

func (a *app) checkCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "check [FILE]",
		Short: "Check a policy file, and change nothing",
		Long: `Read the policy file, or FILE. Report every mistake with its line and column, and warn of
what would not work on this host, such as an interface that does not exist or a policy
that would lock out this ssh session. Needs no root. Exits with 1 if there is a mistake, if
others can write to the file or to a list, or if what it blocks holds this host itself, its
gateway or the like, as "apply" then refuses it; warnings alone do not count. In JSON, "ok"
says whether the file is good, and "errors" lists the mistakes.`,
		Example: `  portcullis check
  portcullis check candidate.yaml
  portcullis check -o json | jq -r '.errors[] | "\(.file):\(.line): \(.message)"'`,
		Args:              atMostOneFile,
		ValidArgsFunction: completeFile,
		RunE:              func(_ *cobra.Command, args []string) error { return a.check(firstOf(args)) },
	}
	cmd.SetHelpFunc(func(cmd *cobra.Command, args []string) {
		documentKeys(cmd)
		cmd.Root().HelpFunc()(cmd, args)
	})
	return cmd
}

// documentKeys adds the keys of a policy file to the text of the check command. All other commands start without.
func documentKeys(check *cobra.Command) { check.Long += "\n\n" + fileKeys() }

// fileKeys documents the keys of a policy file.
func fileKeys() string {
	const indent = 17
	var b strings.Builder
	row := func(name, text string) {
		lines := wrap(text, 70)
		fmt.Fprintf(&b, "    %-*s%s\n", indent-4, name, strings.Join(lines, "\n"+strings.Repeat(" ", indent)))
	}
	b.WriteString("The keys of the file, each of which may be left out:\n\n")
	for _, k := range policy.Keys() {
		row(k.Name, describeKey(k))
		if k.Name == "timeouts" { // too many for this table
			continue
		}
		for _, inner := range k.Keys {
			row("  "+inner.Name, describeKey(inner))
		}
	}
	b.WriteString("\nTimeouts are 1s to 30d. A flow that is idle for the timeout of its state expires:\n\n")
	for _, t := range policy.Timeouts {
		lines := wrap(t.Meaning, 58)
		fmt.Fprintf(&b, "    %-18s  %-5s  %s\n", t.Name, t.DefaultText(), strings.Join(lines, "\n"+strings.Repeat(" ", 31)))
	}
	return strings.TrimSuffix(b.String(), "\n")
}

func describeKey(k policy.Key) string {
	text := k.Meaning
	if k.Note != "" {
		text += "; " + k.Note
	}
	if len(k.Keys) > 0 {
		return text
	}
	return fmt.Sprintf("%s: %s (default: %s)", text, k.Values, k.Default)
}

// checkView is what check found, in JSON.
type checkView struct {
	OK bool `json:"ok"`
	*firewall.CheckReport
	Errors []checkError `json:"errors"`
}

// checkError is a mistake in a policy file, or why it could not be read.
type checkError struct {
	File    string `json:"file"`
	Line    int    `json:"line,omitempty"` // from 1, as columns
	Column  int    `json:"column,omitempty"`
	Message string `json:"message"`
}

func (a *app) check(file string) error {
	report, err := a.firewall.Check(file)
	if err != nil {
		if a.output == asJSON {
			err = errors.Join(a.print(checkView{Errors: checkErrors(err, cmp.Or(file, a.config))}, nil), err)
		}
		return err
	}
	a.warn(report.Warnings...)
	bad := []checkError{}
	for _, l := range report.Policy.Lists {
		if l.URL != "" {
			continue
		}
		for _, mistake := range l.Skipped {
			bad = append(bad, checkErrors(mistake, file)...)
		}
	}
	var refused []error
	for _, text := range report.Refused {
		refused = append(refused, errors.New(text))
		bad = append(bad, checkError{File: report.File, Message: text})
	}
	return errors.Join(printed(a.print(checkView{len(bad) == 0, report, bad}, func() {
		good := "good"
		switch {
		case len(refused) > 0:
			good = "not good for this host"
		case len(bad) > 0:
			good = "good, but for lines of its lists"
		}
		a.printf("%s is %s: %s\n", report.File, good, openText(report.Policy))
	}), report.Skipped), errors.Join(refused...))
}

// checkErrors returns each of the errors that one holds.
func checkErrors(err error, file string) (out []checkError) {
	if several, ok := err.(interface{ Unwrap() []error }); ok {
		for _, one := range several.Unwrap() {
			out = append(out, checkErrors(one, file)...)
		}
		return out
	}
	if mistake := new(policy.Error); errors.As(err, &mistake) {
		return []checkError{{mistake.File, mistake.Line, mistake.Column, mistake.Msg}}
	}
	return []checkError{{File: file, Message: err.Error()}}
}

func (a *app) diffCommand() *cobra.Command {
	return &cobra.Command{
		Use:         "diff [FILE]",
		Short:       "Show what \"portcullis apply\" would change",
		Annotations: needsFilter,
		Long: `Show what "portcullis apply" would change in the policy in force, with the policy file or
with FILE, and change nothing. "-" marks what goes, "+" what comes, "~" what changes.
Exits with 0 whether or not there is a difference; programs read it from -o json.`,
		Example: `  portcullis diff
  portcullis diff candidate.yaml -o json | jq '.changes | length'`,
		Args:              atMostOneFile,
		ValidArgsFunction: completeFile,
		RunE:              func(cmd *cobra.Command, args []string) error { return a.diff(cmd.Context(), firstOf(args)) },
	}
}

func (a *app) diff(ctx context.Context, file string) error {
	if err := a.privileged(); err != nil {
		return err
	}
	report, err := a.firewall.Diff(ctx, file)
	if err != nil {
		return err
	}
	a.warn(report.Warnings...)
	return printed(a.print(report, func() {
		a.printChanges(report.Changes)
		a.printPackets(report.Changes, report.Packets)
		switch {
		case len(report.Changes) > 0:
		case report.Deferred:
			a.printf("no difference: what %s says is in force, but for flows max\n", report.File)
		default:
			a.printf("no difference: what %s says is in force\n", report.File)
		}
	}), report.Skipped)
}
