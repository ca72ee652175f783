//go:build man

// SPDX-License-Identifier: Apache-2.0

package main

import (
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"
)

func init() { packaging = append(packaging, (*app).manCommand) }

// manCommand is for those who package the program. It is not part of the program itself, since the library would slow its
// start.
func (a *app) manCommand() *cobra.Command {
	return &cobra.Command{
		Use:    "man DIR",
		Short:  "Write the manual pages into a directory",
		Hidden: true,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 1 {
				return usagef("name one directory: portcullis man DIR")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			header := &doc.GenManHeader{Title: "PORTCULLIS", Section: "8", Source: "Portcullis " + version, Manual: "Portcullis"}
			check, _, err := cmd.Root().Find([]string{"check"})
			if err != nil {
				return err
			}
			documentKeys(check)
			prepareManual(cmd.Root())
			return doc.GenManTree(cmd.Root(), header, args[0])
		},
	}
}

// prepareManual puts into the text of every command what its help prints by the template, and keeps its tables.
func prepareManual(cmd *cobra.Command) {
	cmd.Long = keepTables(cmd.Long)
	if needs := cmd.Annotations[needsAnnotation]; needs != "" {
		cmd.Long += "\n\nNeeds " + needs + "."
	}
	for _, c := range cmd.Commands() {
		prepareManual(c)
	}
}

// keepTables indents lines that are indented so far that the manual keeps them as they are: it is made of Markdown, which
// asks for four blanks and for empty lines around them.
func keepTables(text string) string {
	const code = 4
	var out []string
	lines := strings.Split(text, "\n")
	for start := 0; start < len(lines); {
		end, least := start, code
		for end < len(lines) && strings.HasPrefix(lines[end], " ") {
			least = min(least, len(lines[end])-len(strings.TrimLeft(lines[end], " ")))
			end++
		}
		if end == start {
			out = append(out, lines[start])
			start++
			continue
		}
		if start > 0 && lines[start-1] != "" {
			out = append(out, "")
		}
		for _, line := range lines[start:end] {
			out = append(out, strings.Repeat(" ", code-least)+line)
		}
		if end < len(lines) && lines[end] != "" {
			out = append(out, "")
		}
		start = end
	}
	return strings.Join(out, "\n")
}
