// SPDX-License-Identifier: Apache-2.0

package main

import (
	"github.com/spf13/cobra"

	"github.com/portcullis-firewall/portcullis/cmd/fleetcommand"
)

// fleetCommand becomes portcullisd, which has the libraries of the stores.
func (a *app) fleetCommand() *cobra.Command {
	fleet := fleetcommand.New(func(cmd *cobra.Command, r *fleetcommand.Request) error {
		words := fleetcommand.Words(cmd, r.Args)
		return a.becomeDaemon("fleet", append([]string{"--output=" + a.output.String()}, words...)...)
	}, func(err error) error { return usageError{err} })
	fleet.GroupID = "more"
	return fleet
}
