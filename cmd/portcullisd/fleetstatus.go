// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"strings"
	"text/tabwriter"

	"github.com/portcullis-firewall/portcullis/firewall/fleet/publish"
)

func (c *fleetRun) status(ctx context.Context) error {
	f, err := c.open(ctx)
	if err != nil {
		return err
	}
	defer f.Store.Close()
	groups, err := c.groups(ctx, f)
	if err != nil {
		return err
	}
	report := struct {
		Groups []*publish.GroupStatus `json:"groups"`
	}{[]*publish.GroupStatus{}}
	for _, group := range groups {
		g, err := f.Status(ctx, group)
		if err != nil {
			return err
		}
		report.Groups = append(report.Groups, g)
	}
	return c.report(report, func() {
		if len(report.Groups) == 0 {
			c.printf("nothing was published yet: \"portcullis fleet publish\" does\n")
		}
		for _, g := range report.Groups {
			c.printGroup(g)
		}
	})
}

func (c *fleetRun) printGroup(g *publish.GroupStatus) {
	verified := "verified"
	if !g.Verified {
		verified = "not verified: name a key with --key"
	}
	c.printf("group %s: bundle %d, published %s (%s)\n", g.Group, g.Serial, g.Time, verified)
	if g.Problem != "" {
		c.printf("  %s\n", g.Problem)
	}
	if g.Wave != "" {
		c.printf("  only %s of the hosts; the others run bundle %d\n", g.Wave, g.Before)
	}
	if len(g.Revoked) > 0 {
		c.printf("  revoked: %s\n", strings.Join(g.Revoked, ", "))
	}
	if len(g.Hosts) == 0 {
		c.printf("  no host has said anything yet\n")
		return
	}
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "HOST\tBUNDLE\tSTATE\tHERE\tDRIFT\tBANS")
	for _, h := range g.Hosts {
		here, drift := "yes", "-"
		if !h.Present {
			here = "no"
		}
		if len(h.Drift) > 0 {
			drift = fmt.Sprint(len(h.Drift))
		}
		fmt.Fprintf(w, "%s\t%d\t%s\t%s\t%s\t%d\n", h.Name, h.Serial, h.State, here, drift, h.Bans)
	}
	w.Flush()
	for line := range strings.Lines(b.String()) {
		c.printf("  %s\n", strings.TrimRight(line, " \n"))
	}
	for _, h := range g.Hosts {
		if h.Problem != "" {
			c.printf("  %s: %s\n", h.Name, h.Problem)
		}
		for _, d := range h.Drift {
			c.printf("  %s, by hand: %s\n", h.Name, d)
		}
	}
}

func (c *fleetRun) diff(ctx context.Context) error {
	f, err := c.open(ctx)
	if err != nil {
		return err
	}
	defer f.Store.Close()
	group := c.Group
	if group == "" {
		if group, err = f.Only(ctx); err != nil {
			return err
		}
	}
	host := ""
	if len(c.Args) > 0 {
		host = c.Args[0]
	}
	hosts, err := f.Diff(ctx, group, host)
	if err != nil {
		return err
	}
	report := struct {
		Group string               `json:"group"`
		Hosts []publish.DiffReport `json:"hosts"`
	}{group, hosts}
	return c.report(report, func() {
		for _, h := range hosts {
			c.printDiff(h)
		}
		if len(hosts) == 0 {
			c.printf("no host of group %s has said anything yet\n", group)
		}
	})
}

func (c *fleetRun) printDiff(h publish.DiffReport) {
	switch {
	case h.Serial == h.Target && len(h.Drift) == 0:
		c.printf("%s: no difference: it runs bundle %d\n", h.Host, h.Serial)
	case h.Serial == h.Target:
		c.printf("%s runs bundle %d, but for what was changed there by hand:\n", h.Host, h.Serial)
	default:
		c.printf("%s runs bundle %d, and is to run %d:\n", h.Host, h.Serial, h.Target)
	}
	for _, text := range h.Changes {
		c.printf("  %s\n", text)
	}
	for _, text := range h.Packets {
		c.printf("    %s\n", text)
	}
	for _, text := range h.Drift {
		c.printf("  by hand: %s\n", text)
	}
	if h.Problem != "" {
		c.printf("  %s\n", h.Problem)
	}
}
