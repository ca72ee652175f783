// SPDX-License-Identifier: Apache-2.0

package main

import "github.com/spf13/cobra"

// What a command needs stands in its annotations: its help says so, and tests try it for every command.
const needsAnnotation = "needs"

var (
	needsRoot   = map[string]string{needsAnnotation: "root"}
	needsFilter = map[string]string{needsAnnotation: "root and a running filter"}
)

func init() {
	cobra.AddTemplateFunc("needs", func(cmd *cobra.Command) string { return cmd.Annotations[needsAnnotation] })
}
