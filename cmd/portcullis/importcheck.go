// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/portcullis-firewall/portcullis/firewall/importcheck"
	"github.com/portcullis-firewall/portcullis/policy/iptables"
)

// importCheckCommand is run by import --verify: see [importcheck.Run].
func (a *app) importCheckCommand() *cobra.Command {
	return &cobra.Command{
		Use:         importcheck.Command,
		Short:       "Compare a policy with rules",
		Hidden:      true,
		Annotations: needsRoot,
		Args:        cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := a.privileged(); err != nil {
				return err
			}
			return importcheck.Serve(untilSignal(cmd), cmd.InOrStdin(), a.stdout)
		},
	}
}

// verifyImport plays packets to rules and to what became of them.
func verifyImport(cmd *cobra.Command, result *iptables.Result, files []iptables.File, packets int) (*importcheck.Agreement, error) {
	program, err := os.Executable()
	if err != nil {
		return nil, err
	}
	var sets strings.Builder
	for _, f := range files {
		if iptables.IsSets(f.Data) {
			sets.Write(f.Data)
		}
	}
	found, err := importcheck.Run(untilSignal(cmd), program, []importcheck.Job{importcheck.NewJob(result, packets, sets.String())})
	if err != nil {
		return nil, fmt.Errorf("verify: %w", err)
	}
	return found[0], nil
}

// maxDifferences is how many differences of a kind are printed.
const maxDifferences = 10

func (a *app) printAgreement(found *importcheck.Agreement) {
	for _, text := range found.LeftOut {
		fmt.Fprintf(a.stderr, "not compared: %s\n", text)
	}
	for _, kind := range []struct {
		name string
		at   []importcheck.Difference
	}{{"wider", found.WiderAt}, {"narrower", found.NarrowerAt}} {
		for _, d := range kind.at[:min(len(kind.at), maxDifferences)] {
			fmt.Fprintf(a.stderr, "%s: %s, such as from %s to %s (%s)\n", kind.name, d.What, d.Source, d.To, count(d.Packets, "packet", "packets"))
		}
		if more := len(kind.at) - maxDifferences; more > 0 {
			fmt.Fprintf(a.stderr, "%s: and %d more\n", kind.name, more)
		}
	}
	fmt.Fprintf(a.stderr, "compared with netfilter: %s\n", found)
}
