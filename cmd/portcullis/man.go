//go:build man

// SPDX-License-Identifier: Apache-2.0

package main

import (
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
			sayNeeds(cmd.Root())
			check, _, err := cmd.Root().Find([]string{"check"})
			if err != nil {
				return err
			}
			documentKeys(check)
			return doc.GenManTree(cmd.Root(), header, args[0])
		},
	}
}

// sayNeeds puts into the text of every command what its help prints by the template.
func sayNeeds(cmd *cobra.Command) {
	if needs := cmd.Annotations[needsAnnotation]; needs != "" {
		cmd.Long += "\n\nNeeds " + needs + "."
	}
	for _, c := range cmd.Commands() {
		sayNeeds(c)
	}
}
