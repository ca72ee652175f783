// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"net/netip"
	"runtime/debug"

	"github.com/spf13/cobra"

	"github.com/portcullis-firewall/portcullis/firewall"
	"github.com/portcullis-firewall/portcullis/firewall/schedule"
	"github.com/portcullis-firewall/portcullis/loader"
)

func (a *app) flowsCommand() *cobra.Command {
	limit := 0
	cmd := &cobra.Command{
		Use:         "flows",
		Short:       "List tracked connections",
		Annotations: needsFilter,
		Long: `List the live flows: what this host has sent to whom, and how long a reply may take.
Connections to a port that is open to everybody need no flow and have none. For ICMP the
local port is the identifier of the query. When the table is full, flows that are not
answered or not assured give way to new ones.`,
		Example: `  portcullis flows
  portcullis flows -o json --limit 100
  portcullis flows flush`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error { return a.flows(cmd.Context(), limit) },
	}
	cmd.Flags().IntVar(&limit, "limit", 0, "print only the first `N`")
	cmd.AddCommand(&cobra.Command{
		Use:         "flush",
		Short:       "Delete all flows",
		Annotations: needsFilter,
		Long: `Delete all flows. A live connection gets a new flow with the next packet that this host
sends for it; until then, whatever arrives for it is dropped.`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error { return a.flush(cmd.Context()) },
	}, &cobra.Command{
		Use:         "sweep",
		Short:       "Remove expired flows from the table",
		Annotations: needsFilter,
		Long: `Remove expired flows from the table. This makes room and changes no verdict, since an
expired flow lets nothing in. "portcullis run" does it regularly; without it, a timer can.`,
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

// memoryForFlows is the heap at which garbage is collected, where the list is so long that there is some.
const memoryForFlows = 32 << 20

func (a *app) flows(ctx context.Context, limit int) error {
	if limit < 0 {
		return usagef("--limit %d: write a number from 1 on, or 0 for all", limit)
	}
	f, err := a.view(ctx)
	if err != nil {
		return err
	}
	defer f.Close()
	debug.SetMemoryLimit(memoryForFlows)
	var list flowList = &flowTable{app: a}
	if a.output == asJSON {
		list = &flowArray{app: a}
	}
	found := 0
	err = f.Flows(func(flow loader.Flow) bool {
		if found++; limit == 0 || found <= limit {
			list.add(flow)
		}
		return true
	})
	if err != nil {
		return err
	}
	list.end()
	if limit > 0 && found > limit && a.output != asJSON {
		a.printf("and %d more\n", found-limit)
	}
	return nil
}

// flowList prints flows one by one: there may be more than there is memory for.
type flowList interface {
	add(loader.Flow)
	end()
}

// flowArray prints flows as JSON.
type flowArray struct {
	*app
	some bool
}

func (l *flowArray) add(f loader.Flow) {
	text, _ := json.MarshalIndent(flowView{ // of these types each can be written
		Protocol:      f.Protocol,
		LocalAddress:  f.Local.Addr(),
		LocalPort:     f.Local.Port(),
		RemoteAddress: f.Remote.Addr(),
		RemotePort:    f.Remote.Port(),
		State:         f.State,
		Answered:      f.Answered,
		Assured:       f.Assured,
		Age:           f.Age.Seconds(),
		Expires:       f.Expires.Seconds(),
	}, "  ", "  ")
	before := "[\n  "
	if l.some {
		before = ",\n  "
	}
	l.some = true
	_, _ = l.stdout.Write(append([]byte(before), text...))
}

func (l *flowArray) end() {
	if !l.some {
		l.printf("[")
	} else {
		l.printf("\n")
	}
	l.printf("]\n")
}

// flowTable prints flows as a table. Its columns are as wide as the rows that it has seen need.
type flowTable struct {
	*app
	widths [6]int
	rows   [][6]string
}

// mostRows is how many rows are looked at before they are printed.
const mostRows = 4096

func (l *flowTable) add(f loader.Flow) {
	if l.rows == nil {
		l.rows = append(l.rows, [6]string{"PROTOCOL", "LOCAL", "REMOTE", "STATE", "AGE", "EXPIRES"})
	}
	l.rows = append(l.rows, [6]string{f.Protocol, localText(f), remoteText(f), stateText(f), schedule.Span(f.Age), schedule.Span(f.Expires)})
	if len(l.rows) >= mostRows {
		l.flush()
	}
}

func (l *flowTable) flush() {
	for _, row := range l.rows {
		for i, cell := range row {
			l.widths[i] = max(l.widths[i], len(cell))
		}
	}
	for _, row := range l.rows {
		for i, cell := range row {
			if i == len(row)-1 {
				l.printf("%s\n", cell)
			} else {
				l.printf("%-*s  ", l.widths[i], cell)
			}
		}
	}
	l.rows = l.rows[:0]
}

func (l *flowTable) end() {
	if l.rows == nil {
		l.printf("no flows\n")
		return
	}
	l.flush()
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
