// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/portcullis-firewall/portcullis/firewall"
	"github.com/portcullis-firewall/portcullis/loader"
)

func (a *app) downCommand() *cobra.Command {
	return &cobra.Command{
		Use:         "down [IFACE...]",
		Short:       "Take the filter off and leave the host open",
		Annotations: needsFilter,
		Long: `Take the filter off the interfaces named, or off all of them. Every port on which
something listens can be reached there from then on.`,
		Example: `  portcullis down
  portcullis down eth1`,
		ValidArgsFunction: a.completeFiltered,
		RunE:              func(cmd *cobra.Command, args []string) error { return a.down(cmd.Context(), args) },
	}
}

func (a *app) down(ctx context.Context, interfaces []string) error {
	if err := a.privileged(); err != nil {
		return err
	}
	report, err := a.firewall.Down(ctx, interfaces)
	if err != nil {
		return err
	}
	a.warn(report.Warnings...)
	return a.print(report, func() { a.printDown(report) })
}

func (a *app) printDown(r *firewall.DownReport) {
	for _, name := range r.Interfaces {
		switch {
		case slices.Contains(r.Patterns, name):
			a.printf("%s: interfaces that appear are no longer filtered\n", name)
		case slices.Contains(r.Absent, name):
			a.printf("%s (gone): no longer waited for\n", name)
		case r.Behind[name] != "":
			a.printf("%s: no longer filtered by itself; what comes in for it still is, on %s\n", name, r.Behind[name])
		case slices.ContainsFunc(r.Others, func(o loader.Instance) bool { return slices.Contains(o.Interfaces, name) }):
			a.printf("%s: no longer filtered by this instance\n", name)
		default:
			a.printf("%s: no longer filtered: every port is open\n", name)
		}
	}
	var here, away []string
	for _, name := range r.Remaining {
		if slices.Contains(r.Absent, name) || slices.Contains(r.Patterns, name) {
			away = append(away, name)
		} else {
			here = append(here, name)
		}
	}
	for _, other := range r.Others {
		a.printf("still filtered by another instance: %s (--pin-path %s)\n", strings.Join(other.Interfaces, ", "), other.PinPath)
	}
	switch {
	case len(here) > 0:
		a.printf("still filtered: %s\n", strings.Join(here, ", "))
	case len(r.Others) == 0:
		a.printf("this host is unprotected now\n")
	}
	if len(away) > 0 {
		a.printf("still to be filtered when it appears: %s\n", strings.Join(away, ", "))
	}
}
