// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/portcullis-firewall/portcullis/firewall"
	"github.com/portcullis-firewall/portcullis/firewall/bans"
	"github.com/portcullis-firewall/portcullis/firewall/schedule"
	"github.com/portcullis-firewall/portcullis/maps"
)

func (a *app) bansCommand() *cobra.Command {
	limit := 0
	cmd := &cobra.Command{
		Use:         "bans [ADDRESS]",
		Short:       "List who is banned, or say what holds an address",
		Annotations: needsFilter,
		Long: `List the bans in force: of whom, since when, for how long they last and why, and how many
packets each has dropped. Up to some thousands are in order.

With an address, list the bans and the block lists that hold it, and say whether it is trusted.`,
		Example: `  portcullis bans
  portcullis bans 203.0.113.7
  portcullis bans -o json | jq -r '.bans[].address'`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) > 1 {
				return noArguments(cmd, args[1:])
			}
			return nil
		},
		ValidArgsFunction: a.completeBanned,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return a.listBans(cmd.Context(), limit)
			}
			addr, err := netip.ParseAddr(args[0])
			if err != nil {
				return usagef("bad address %q: write one, such as 203.0.113.7 or 2001:db8::1", args[0])
			}
			return a.whyBanned(cmd.Context(), addr.WithZone("").Unmap())
		},
	}
	cmd.Flags().IntVar(&limit, "limit", 0, "print only the first `N`")
	return cmd
}

// banEntry is a ban in JSON. What does not end has no until.
type banEntry struct {
	Address string     `json:"address"`
	Since   time.Time  `json:"since"`
	Until   *time.Time `json:"until,omitempty"`
	Left    *int64     `json:"left_seconds,omitempty"`
	Reason  string     `json:"reason"`
	Packets uint64     `json:"packets"`
}

func newBanEntry(b *maps.Ban, now time.Time) banEntry {
	e := banEntry{Address: bans.Text(b.Prefix), Since: b.Since.UTC(), Reason: b.Reason, Packets: b.Packets}
	if !b.Until.IsZero() {
		until, left := b.Until.UTC().Truncate(time.Second), int64(max(b.Until.Sub(now), 0).Seconds())
		e.Until, e.Left = &until, &left
	}
	return e
}

// mostSorted is how many bans are put in order.
const mostSorted = 8192

func (a *app) listBans(ctx context.Context, limit int) error {
	if limit < 0 {
		return usagef("--limit %d: write a number from 1 on, or 0 for all", limit)
	}
	f, err := a.view(ctx)
	if err != nil {
		return err
	}
	defer f.Close()
	debug.SetMemoryLimit(memoryForFlows)
	list := newBanList(a)
	found := 0
	var first []maps.Ban // until it is known how many there are
	show := func(all []maps.Ban) {
		slices.SortFunc(all, func(x, y maps.Ban) int {
			if c := x.Prefix.Addr().Compare(y.Prefix.Addr()); c != 0 {
				return c
			}
			return x.Prefix.Bits() - y.Prefix.Bits()
		})
		for i := range all {
			if limit == 0 || i < limit {
				list.add(&all[i])
			}
		}
	}
	for b, err := range f.Bans() {
		if err != nil {
			return err
		}
		if found++; found <= mostSorted {
			first = append(first, b)
			continue
		}
		if first != nil {
			show(first)
			first = nil
		}
		if limit == 0 || found <= limit {
			list.add(&b)
		}
	}
	show(first)
	reasons, err := f.BanReasons()
	if err != nil {
		return err
	}
	list.end(reasons)
	if limit > 0 && found > limit && a.output != asJSON {
		a.printf("and %d more\n", found-limit)
	}
	return nil
}

// banList prints bans one by one: there may be more than there is memory for.
type banList struct {
	*app
	now    time.Time
	some   bool
	widths [5]int
	rows   [][6]string
}

func newBanList(a *app) *banList {
	l := &banList{app: a, now: time.Now()}
	if a.output == asJSON {
		l.printf("{\n  \"bans\": [")
	}
	return l
}

func (l *banList) add(b *maps.Ban) {
	if l.output == asJSON {
		text, _ := json.Marshal(newBanEntry(b, l.now)) // of these types each can be written
		before := ","
		if !l.some {
			before = ""
		}
		l.some = true
		_, _ = l.stdout.Write(append([]byte(before+"\n    "), text...))
		return
	}
	if !l.some {
		l.rows = append(l.rows, [6]string{"ADDRESS", "SINCE", "LEFT", "PACKETS", "REASON"})
	}
	l.some = true
	l.rows = append(l.rows, [6]string{bans.Text(b.Prefix), b.Since.Local().Format(time.DateTime), leftText(b, l.now),
		strconv.FormatUint(b.Packets, 10), b.Reason})
	if len(l.rows) >= mostRows {
		l.flush()
	}
}

func leftText(b *maps.Ban, now time.Time) string {
	if b.Until.IsZero() {
		return "for ever"
	}
	return schedule.Span(max(b.Until.Sub(now), 0))
}

func (l *banList) flush() {
	for _, row := range l.rows {
		for i := range l.widths {
			l.widths[i] = max(l.widths[i], len(row[i]))
		}
	}
	for _, row := range l.rows {
		line := fmt.Sprintf("%-*s  %-*s  %-*s  %-*s  %s", l.widths[0], row[0], l.widths[1], row[1], l.widths[2], row[2], l.widths[3], row[3], row[4])
		l.printf("%s\n", strings.TrimRight(line, " "))
	}
	l.rows = l.rows[:0]
}

// reasonView is a reason and what was dropped by its bans, those that have ended among them.
type reasonView struct {
	Reason  string `json:"reason"`
	Packets uint64 `json:"packets"`
}

func (l *banList) end(reasons []maps.BanReason) {
	if l.output != asJSON {
		if !l.some {
			l.printf("nobody is banned\n")
		}
		l.flush()
		return
	}
	views := make([]reasonView, len(reasons))
	for i, r := range reasons {
		views[i] = reasonView{r.Text, r.Packets}
	}
	text, _ := json.Marshal(views)
	end := "],\n  \"reasons\": "
	if l.some {
		end = "\n  " + end
	}
	_, _ = l.stdout.Write(append(append([]byte(end), text...), "\n}\n"...))
}

// whyView is what holds an address.
type whyView struct {
	Address string     `json:"address"`
	Dropped bool       `json:"dropped"`
	Trusted bool       `json:"trusted"`
	Bans    []banEntry `json:"bans"`
	Lists   []listView `json:"lists"`
}

type listView struct {
	List    string    `json:"list"`
	Network string    `json:"network"`
	Since   time.Time `json:"since"`
}

func (a *app) whyBanned(ctx context.Context, addr netip.Addr) error {
	f, err := a.view(ctx)
	if err != nil {
		return err
	}
	defer f.Close()
	v, err := whyBanned(f, addr)
	if err != nil {
		return err
	}
	return a.print(v, func() {
		switch {
		case v.Trusted:
			a.printf("%s is trusted: it is neither banned nor blocked\n", v.Address)
		case !v.Dropped:
			a.printf("%s is neither banned nor blocked\n", v.Address)
		}
		for _, b := range v.Bans {
			text := "for ever"
			if b.Left != nil {
				text = "for another " + schedule.Span(time.Duration(*b.Left)*time.Second)
			}
			if b.Reason != "" {
				text += " (" + b.Reason + ")"
			}
			a.printf("banned: %s, since %s, %s; %s\n", b.Address, b.Since.Local().Format(time.DateTime), text, count(int(b.Packets), "packet", "packets"))
		}
		for _, l := range v.Lists {
			a.printf("blocked: by %s (%s), in force since %s\n", l.List, l.Network, l.Since.Local().Format(time.DateTime))
		}
	})
}

func whyBanned(f firewall.Filter, addr netip.Addr) (*whyView, error) {
	v := &whyView{Address: addr.String(), Bans: []banEntry{}, Lists: []listView{}}
	held, err := f.BansOf(addr)
	if err != nil {
		return nil, err
	}
	now := time.Now()
	for i := range held {
		v.Bans = append(v.Bans, newBanEntry(&held[i], now))
	}
	list, blocked, trusted, err := f.BlockedBy(addr)
	if err != nil {
		return nil, err
	}
	if blocked {
		network, err := firewall.BlockedNetwork(f, list, addr)
		if err != nil {
			return nil, err
		}
		lists, err := f.BlockLists()
		if err != nil {
			return nil, err
		}
		for _, l := range lists {
			if l.Name == list {
				v.Lists = append(v.Lists, listView{l.Name, bans.Text(network), l.Since.UTC()})
			}
		}
	}
	v.Trusted = trusted
	v.Dropped = !trusted && (blocked || len(held) > 0)
	return v, nil
}

// mostCompleted is how many bans a shell offers.
const mostCompleted = 500

// completeBanned completes who is banned.
func (a *app) completeBanned(cmd *cobra.Command, args []string, word string) ([]string, cobra.ShellCompDirective) {
	return left(a.askFilter(cmd, func(f firewall.Filter) (out []string) {
		for b, err := range f.Bans() {
			if err != nil || len(out) == mostCompleted {
				break
			}
			if text := bans.Text(b.Prefix); strings.HasPrefix(text, word) {
				out = append(out, text)
			}
		}
		return out
	}), args)
}

// completeReasons completes the reasons that there are bans for, or were.
func (a *app) completeReasons(cmd *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
	return a.askFilter(cmd, func(f firewall.Filter) (out []string) {
		reasons, err := f.BanReasons()
		for _, r := range reasons {
			if err == nil && r.Text != "" {
				out = append(out, r.Text)
			}
		}
		return out
	}), cobra.ShellCompDirectiveNoFileComp
}
