// SPDX-License-Identifier: Apache-2.0

package main

import (
	"strings"

	"github.com/spf13/cobra"

	"github.com/portcullis-firewall/portcullis/loader"
)

func (a *app) downCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "down [IFACE...]",
		Short: "Take the filter off, and leave the host open",
		Long: `Take the filter off the interfaces named, or off all. From then on every port on
which something listens can be reached there.`,
		Example: `  portcullis down
  portcullis down eth1`,
		ValidArgsFunction: a.completeFiltered,
		RunE:              func(_ *cobra.Command, args []string) error { return a.down(args) },
	}
}

func (a *app) down(interfaces []string) error {
	take := a.turnToChange
	if len(interfaces) == 0 {
		take = a.takeTurn // no trial outlives it
	}
	turn, err := take()
	if err != nil {
		return err
	}
	defer turn.Release()
	report, err := a.firewall.Down(a.pinPath, interfaces)
	if err != nil {
		return err
	}
	if len(report.Remaining) == 0 {
		if err := turn.Clear(); err != nil {
			return err
		}
	}
	view := loader.DownReport{Interfaces: list(report.Interfaces), Remaining: list(report.Remaining)}
	return a.print(view, func() {
		for _, name := range report.Interfaces {
			a.printf("%s: no longer filtered: every port is open\n", name)
		}
		if len(report.Remaining) > 0 {
			a.printf("still filtered: %s\n", strings.Join(report.Remaining, ", "))
		} else {
			a.printf("this host is unprotected now\n")
		}
	})
}
