// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/portcullis-firewall/portcullis/loader"
	"github.com/portcullis-firewall/portcullis/maps"
)

// row is one line of a view: what counts, how much in all, and how much a second.
type row struct {
	Name    string     `json:"name"`
	Verdict string     `json:"verdict,omitempty"`
	Packets uint64     `json:"packets"`
	Bytes   uint64     `json:"bytes"`
	PPS     float64    `json:"packets_per_second"`
	BPS     float64    `json:"bytes_per_second"`
	Source  netip.Addr `json:"-"` // that can be banned
	Sampled uint64     `json:"-"` // of a source
}

// rates are what top shows: the rows of each view.
type rates struct {
	Seconds    float64        `json:"seconds"` // between the two looks
	Interfaces []row          `json:"interfaces"`
	Reasons    []row          `json:"reasons"`
	Rules      []row          `json:"rules"`
	Sources    []sourceRow    `json:"sources"` // of what is dropped; none where they are not sampled
	Blocked    []row          `json:"lists_and_bans"`
	Flows      map[string]int `json:"flows"`
	Entries    int            `json:"flow_table_entries"`
	Max        uint32         `json:"flow_table_max"`

	unsampled error // why sources are not sampled that were asked for
}

// ratesOf compares two samples.
func ratesOf(before, now *loader.Sample, took time.Duration) *rates {
	r := &rates{Seconds: took.Seconds(), Entries: now.Entries, Max: now.MaxFlows, Interfaces: []row{}, Reasons: []row{}, Rules: []row{},
		Sources: []sourceRow{}, Blocked: []row{}}
	add := func(view *[]row, of row, had, has maps.Tally) {
		of.Packets, of.Bytes = has.Packets, has.Bytes
		if has.Packets >= had.Packets && has.Bytes >= had.Bytes && r.Seconds > 0 { // else it counts anew
			of.PPS = float64(has.Packets-had.Packets) / r.Seconds
			of.BPS = float64(has.Bytes-had.Bytes) / r.Seconds
		}
		*view = append(*view, of)
	}

	type reason struct{ verdict, reason string }
	reasons, former := make(map[reason]maps.Tally), make(map[reason]maps.Tally)
	interfaces := make(map[string]maps.Tally)
	for _, t := range before.Ledger {
		interfaces[nameOf(t)] = t.Received
		sum(former, t, func(c loader.TrafficCounter) reason { return reason{c.Verdict, c.Reason} })
	}
	for _, t := range now.Ledger {
		add(&r.Interfaces, row{Name: nameOf(t)}, interfaces[nameOf(t)], t.Received)
		sum(reasons, t, func(c loader.TrafficCounter) reason { return reason{c.Verdict, c.Reason} })
	}
	for of, tally := range reasons {
		add(&r.Reasons, row{Name: of.reason, Verdict: of.verdict}, former[of], tally)
	}
	rules := make(map[uint16]loader.RuleStatus)
	for _, status := range before.Rules {
		rules[status.ID] = status
	}
	for _, status := range now.Rules {
		had := rules[status.ID]
		if had.Rule != status.Rule {
			had = status // it has just been opened
		}
		add(&r.Rules, row{Name: status.Rule}, maps.Tally{Packets: had.Packets, Bytes: had.Bytes}, maps.Tally{Packets: status.Packets, Bytes: status.Bytes})
	}
	counted := make(map[string]uint64)
	for _, l := range before.BlockLists {
		counted["@"+l.Name] = l.Packets
	}
	for _, b := range before.BanReasons {
		counted[banName(b)] = b.Packets
	}
	for _, l := range now.BlockLists {
		add(&r.Blocked, row{Name: "@" + l.Name}, maps.Tally{Packets: counted["@"+l.Name]}, maps.Tally{Packets: l.Packets})
	}
	for _, b := range now.BanReasons {
		name := banName(b)
		add(&r.Blocked, row{Name: name}, maps.Tally{Packets: counted[name]}, maps.Tally{Packets: b.Packets})
	}
	for _, view := range [][]row{r.Interfaces, r.Reasons, r.Rules, r.Blocked} {
		sortRows(view, byRate)
	}
	return r
}

// banName names bans by their reason, which may be empty.
func banName(b maps.BanReason) string {
	if b.Text == "" {
		return "banned without a reason"
	}
	return "banned: " + b.Text
}

func nameOf(t loader.Traffic) string {
	if t.Interface == "" {
		return "(" + t.Of + ")"
	}
	return t.Interface
}

func sum[K comparable](into map[K]maps.Tally, t loader.Traffic, key func(loader.TrafficCounter) K) {
	for _, c := range t.Counters {
		tally := into[key(c)]
		tally.Add(c.Tally)
		into[key(c)] = tally
	}
}

// order is by what rows are sorted.
type order int

const (
	byRate order = iota
	byPackets
	byName
	orders
)

func (o order) String() string { return [...]string{"rate", "packets", "name"}[o] }

func sortRows(rows []row, by order) {
	slices.SortStableFunc(rows, func(a, b row) int {
		switch by {
		case byName:
			return cmp.Or(strings.Compare(a.Name, b.Name), strings.Compare(a.Verdict, b.Verdict))
		case byPackets:
			return cmp.Or(cmp.Compare(b.Packets, a.Packets), strings.Compare(a.Name, b.Name))
		}
		return cmp.Or(cmp.Compare(b.PPS, a.PPS), cmp.Compare(b.Packets, a.Packets), strings.Compare(a.Name, b.Name))
	})
}
