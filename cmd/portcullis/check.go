// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"net"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/portcullis-firewall/portcullis/firewall/savefile"
	"github.com/portcullis-firewall/portcullis/policy"
)

func (a *app) checkCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "check [FILE]",
		Short: "Check a policy file, and change nothing",
		Long: `Read the policy file, or FILE. Report every mistake with its line and column, and warn of
what would not work on this host, such as an interface that does not exist or a policy
that would lock out this ssh session. Needs no root. Exits with 1 if there is a mistake;
warnings alone do not count.

` + fileKeys(),
		Example: `  portcullis check
  portcullis check candidate.yaml`,
		Args:              atMostOneFile,
		ValidArgsFunction: completeFile,
		RunE:              func(_ *cobra.Command, args []string) error { return a.check(args) },
	}
}

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

type checkView struct {
	File     string   `json:"file"`
	Rules    []string `json:"rules"`
	Warnings []string `json:"warnings"`
}

func (a *app) check(args []string) error {
	file := a.config
	if len(args) > 0 {
		file = args[0]
	}
	p, err := loadFitting(file)
	if err != nil {
		return err
	}
	view := checkView{file, texts(p.Open), list(a.doubts(p, p.Interfaces, file))}
	if err := savefile.Check(file); err != nil {
		view.Warnings = append(view.Warnings, fmt.Sprintf("\"up\", \"apply\" and \"run\" refuse this file: %v", err))
	}
	a.warn(view.Warnings...)
	return a.print(view, func() { a.printf("%s is good: %s\n", file, openText(p)) })
}

// doubts tells what would not work here, of a policy that is good by itself and whose file names some interfaces.
func (a *app) doubts(p *policy.Policy, named []string, file string) (out []string) {
	for _, name := range named {
		if _, err := net.InterfaceByName(name); err != nil {
			out = append(out, fmt.Sprintf("there is no interface %s: \"up\" and \"apply\" refuse this file, \"run\" waits for it", name))
		}
	}
	if len(p.Interfaces) == 0 {
		if name, err := a.firewall.DefaultInterface(); err == nil {
			p = withInterfaces(p, []string{name})
		}
	}
	for _, s := range a.lockedOut(p) {
		out = append(out, s.loss(file))
	}
	return slices.Concat(out, a.unreachable(p), a.cutOff(p, file))
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
		RunE:              func(_ *cobra.Command, args []string) error { return a.diff(args) },
	}
}

type diffView struct {
	Config   string       `json:"config"`
	File     string       `json:"file"`
	Changes  []changeView `json:"changes"`
	Warnings []string     `json:"warnings"`
}

func (a *app) diff(args []string) error {
	f, err := a.connect()
	if err != nil {
		return err
	}
	defer f.Close()
	c, err := a.candidate(f, args)
	if err != nil {
		return err
	}
	view := diffView{c.config, c.file, c.changes, list(slices.Concat(c.warnings(), a.doubts(c.policy, c.named, c.file)))}
	if c.flows != "" {
		view.Warnings = append(view.Warnings, c.flows)
	}
	a.warn(view.Warnings...)
	return a.print(view, func() {
		a.printChanges(c.changes)
		switch {
		case len(c.changes) > 0:
		case c.flows != "":
			a.printf("no difference: what %s says is in force, but for flows max\n", c.file)
		default:
			a.printf("no difference: what %s says is in force\n", c.file)
		}
	})
}
