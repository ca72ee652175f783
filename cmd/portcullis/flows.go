// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"context"
	"net/netip"
	"slices"

	"github.com/spf13/cobra"

	"github.com/portcullis-firewall/portcullis/firewall"
	"github.com/portcullis-firewall/portcullis/firewall/schedule"
	"github.com/portcullis-firewall/portcullis/loader"
)

func (a *app) flowsCommand() *cobra.Command {
	limit := 0
	cmd := &cobra.Command{
		Use:   "flows",
		Short: "List tracked connections",
		Long: `List the live flows: what this host has sent to whom, and how long a reply may take.
Connections to a port that is open to all have none; they need none. For ICMP the
local port is the identifier of the query. A flow that is unanswered, or not assured,
gives its place to a new one when the table is full.`,
		Example: `  portcullis flows
  portcullis flows -o json --limit 100
  portcullis flows flush`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error { return a.flows(cmd.Context(), limit) },
	}
	cmd.Flags().IntVar(&limit, "limit", 0, "print the first `N` only")
	cmd.AddCommand(&cobra.Command{
		Use:   "flush",
		Short: "Delete all flows",
		Long: `Delete all flows. A connection that lives comes back with the next packet that this
host sends for it; until then what arrives for it is dropped.`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error { return a.flush(cmd.Context()) },
	}, &cobra.Command{
		Use:   "sweep",
		Short: "Remove expired flows from the table",
		Long: `Remove expired flows from the table. It changes no verdict, as an expired flow lets
nothing in; it makes room. To be run now and then, as a timer does.`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error { return a.sweep(cmd.Context()) },
	})
	return cmd
}

// flowView is a flow in JSON. Without ports they are 0; of ICMP they are the identifier and the type of the query.
type flowView struct {
	Protocol      string     `json:"protocol"`
	LocalAddress  netip.Addr `json:"local_address"`
	LocalPort     uint16     `json:"local_port"`
	RemoteAddress netip.Addr `json:"remote_address"`
	RemotePort    uint16     `json:"remote_port"`
	State         string     `json:"state"`
	Answered      bool       `json:"answered"`
	Assured       bool       `json:"assured"`
	Age           float64    `json:"age_seconds"`
	Expires       float64    `json:"expires_seconds"`
}

func (a *app) flows(ctx context.Context, limit int) error {
	if limit < 0 {
		return usagef("--limit %d: write a number from 1 on, or 0 for all", limit)
	}
	f, err := a.view(ctx)
	if err != nil {
		return err
	}
	defer f.Close()
	var all []loader.Flow
	err = f.Flows(func(flow loader.Flow) bool {
		all = append(all, flow)
		return true
	})
	if err != nil {
		return err
	}
	slices.SortFunc(all, func(x, y loader.Flow) int {
		return cmp.Or(cmp.Compare(x.Protocol, y.Protocol), x.Local.Compare(y.Local), x.Remote.Compare(y.Remote))
	})
	// Read while it changes, the table may show a flow twice.
	all = slices.CompactFunc(all, func(x, y loader.Flow) bool {
		return x.Protocol == y.Protocol && x.Local == y.Local && x.Remote == y.Remote
	})
	found := len(all)
	if limit > 0 && found > limit {
		all = all[:limit]
	}
	if a.output == asJSON {
		views := make([]flowView, len(all))
		for i, flow := range all {
			views[i] = flowView{
				Protocol:      flow.Protocol,
				LocalAddress:  flow.Local.Addr(),
				LocalPort:     flow.Local.Port(),
				RemoteAddress: flow.Remote.Addr(),
				RemotePort:    flow.Remote.Port(),
				State:         flow.State,
				Answered:      flow.Answered,
				Assured:       flow.Assured,
				Age:           flow.Age.Seconds(),
				Expires:       flow.Expires.Seconds(),
			}
		}
		return a.print(views, nil)
	}
	if found == 0 {
		a.printf("no flows\n")
		return nil
	}
	rows := [][]string{{"PROTOCOL", "LOCAL", "REMOTE", "STATE", "AGE", "EXPIRES"}}
	for _, flow := range all {
		rows = append(rows, []string{flow.Protocol, localText(flow), remoteText(flow), stateText(flow), schedule.Span(flow.Age), schedule.Span(flow.Expires)})
	}
	a.table(rows)
	if found > len(all) {
		a.printf("and %d more\n", found-len(all))
	}
	return nil
}

func localText(f loader.Flow) string { return endText(f.Local) }

func remoteText(f loader.Flow) string {
	if f.Protocol == "icmp" || f.Protocol == "icmpv6" {
		return f.Remote.Addr().String() // the type of the query is no port
	}
	return endText(f.Remote)
}

func endText(end netip.AddrPort) string {
	if end.Port() == 0 {
		return end.Addr().String()
	}
	return end.String()
}

func stateText(f loader.Flow) string {
	switch {
	case !f.Answered:
		return f.State + " (unanswered)"
	case !f.Assured:
		return f.State + " (not assured)"
	}
	return f.State
}

// view finds the running filter.
func (a *app) view(ctx context.Context) (firewall.Filter, error) {
	if err := a.privileged(); err != nil {
		return nil, err
	}
	return a.firewall.View(ctx)
}

type flushView struct {
	Removed int `json:"removed"`
}

type sweepView struct {
	Live    int `json:"live"`
	Removed int `json:"removed"`
}

func (a *app) flush(ctx context.Context) error {
	f, err := a.view(ctx)
	if err != nil {
		return err
	}
	defer f.Close()
	removed, err := f.Flush()
	if err != nil {
		return err
	}
	return a.print(flushView{removed}, func() { a.printf("removed %s\n", count(removed, "flow", "flows")) })
}

func (a *app) sweep(ctx context.Context) error {
	f, err := a.view(ctx)
	if err != nil {
		return err
	}
	defer f.Close()
	live, removed, err := f.Sweep()
	if err != nil {
		return err
	}
	return a.print(sweepView{live, removed}, func() {
		a.printf("removed %s; %s\n", count(removed, "expired flow", "expired flows"), count(live, "lives", "live"))
	})
}
