// SPDX-License-Identifier: Apache-2.0

package bench

import "fmt"

// target is what the design asks of one kind of work.
type target struct {
	work    string
	title   string
	against string // the subject that the figure is divided by, or with plus subtracted; empty: the figure itself
	subject string // keyPortcullis where it is empty
	plus    bool
	limit   float64
	least   bool   // the limit is the least, not the most
	peer    string // what the best stateful peer was seen to need
}

var targets = []target{
	{work: "closed", title: "Default drop, closed port, one source", against: keyDrop, limit: 1.12, peer: "nft ×6.8, iptables ×7.7"},
	{work: "ports-10k", title: "The same with 10,000 open ports", against: keyDrop, limit: 1.12, peer: "nft set ×8.6"},
	{work: "spoofed-syn-1m", title: "Spoofed SYN flood, random ports, 1M flows in the table", against: keyDrop, limit: 1.15, peer: "about ×8, empty table"},
	{work: "spoofed-ack-1m", title: "Spoofed ACK flood, random ports, 1M flows in the table", against: keyDrop, limit: 1.5, peer: "about ×8"},
	{work: "spoofed-ack-10k", title: "The same with 10k flows", against: keyDrop, limit: 1.2, peer: "about ×8"},
	{work: "interfaces-8", title: "Closed port, 8 interfaces of different rules", against: keyDrop, limit: 1.12},
	{work: "sources-100k", title: "Port with 100,000 allowed sources, random others", against: keyDrop, limit: 1.5, peer: "nft set of 10,000 ×12.7"},
	{work: "blocked-clean", title: "Clean random sources, 1M blocked addresses", against: keyDrop, limit: 1.7, peer: "nft ×4.4, ipset ×5.2"},
	{work: "blocked-hit", title: "Random blocked sources, 1M blocked addresses", against: keyDrop, limit: 2.6, peer: "nft ×4.8, ipset ×5.7"},
	{work: "open-interfaces-8", title: "Open port, 8 interfaces of different rules", against: keyPass, limit: 1.03},
	{work: "open", title: "Open port, accept", against: keyPass, limit: 1.03, peer: "×1.5"},
	{work: "syn-flood", title: "SYN flood on an open port, random sources", against: keyPass, limit: 1.05, peer: "×1.7"},
	{work: "syn-flood-entries", title: "Flow entries that it makes", limit: 0, peer: "one a source"},
	{work: "established-1", title: "Established, 1 flow", against: keyPass, limit: 1.05, peer: "×1.28"},
	{work: "established-200k", title: "Established, 200k flows", against: keyPass, limit: 1.35, peer: "×1.97"},
	{work: "open-port-writes", title: "One port opened, map writes", limit: 10},
	{work: "open-port-command", title: "One port opened, whole command", limit: 4000, peer: "iptables 4.0 ms, ufw 204 ms"},
	{work: "apply-large", title: "10,000 rules with 100,000 networks put in force, whole command, of nft", against: keyNft, limit: 1},
	{work: "apply-large-more", title: "One rule more in them, whole command", limit: 100000},
	{work: "block-load", title: "1M blocked addresses put in force", limit: 700000, peer: "nft 2.4 s, ipset 3.9 s"},
	{work: "ban-bulk", title: "1M addresses banned at once", limit: 1000000},
	{work: "program", title: "Program alone, closed port, over an empty one", against: keyEmpty, plus: true, limit: 15, peer: "xdp-filter +10, stateless"},
	{work: "stream-1", title: "Bulk TCP, TC mode, of no firewall", against: keyNone, subject: keyTC, limit: 0.97, least: true, peer: "nft ×0.96"},
	{work: "stream-1", title: "Bulk TCP, native XDP, of pass-only", against: keyPass, limit: 0.97, least: true},
	{work: "stream-8", title: "Bulk TCP, 8 streams, TC mode, of no firewall", against: keyNone, subject: keyTC, limit: 0.97, least: true},
	{work: "stream-8", title: "Bulk TCP, 8 streams, native XDP, of pass-only", against: keyPass, limit: 0.97, least: true},
	{work: "connections", title: "Connections, TC mode, of no firewall", against: keyNone, subject: keyTC, limit: 0.97, least: true, peer: "nft ×0.89"},
	{work: "connections", title: "Connections, native XDP, of pass-only", against: keyPass, limit: 0.97, least: true},
}

// Verdicts on a target.
const (
	Met    = "met"
	Short  = "short"
	Absent = "not measured"
)

// TargetResult is a target and what was found.
type TargetResult struct {
	Work    string  `json:"work"`
	Title   string  `json:"title"`
	Target  string  `json:"target"`
	Least   bool    `json:"least"`   // at least that, instead of at most
	Figure  string  `json:"figure"`  // as it was measured
	Against string  `json:"against"` // the figure of what it is compared with
	Result  *Spread `json:"result,omitempty"`
	Found   string  `json:"found"` // the result in words
	Verdict string  `json:"verdict"`
	Peer    string  `json:"peer"`
}

// judge compares a report with the targets. A median that is right at the limit has met it.
func judge(r *Report) (out []TargetResult) {
	for _, t := range targets {
		result := TargetResult{Work: t.work, Title: t.title, Target: t.write(t.limit), Least: t.least, Peer: t.peer, Verdict: Absent}
		if values, base := r.rounds(t); values != nil {
			w := r.Work(t.work)
			result.Figure = figure(spread(values).Median, w.Unit)
			if base != nil {
				result.Against = figure(spread(base).Median, w.Unit)
			}
			result.Result = spread(t.compare(values, base))
			result.Found = t.write(result.Result.Median)
			if !t.plus && t.against != "" {
				result.Found = fmt.Sprintf("×%.3f", result.Result.Median) // a digit more than the limit has
			}
			result.Verdict = Short
			if t.meets(result.Result.Median) {
				result.Verdict = Met
			}
		}
		out = append(out, result)
	}
	return out
}

// rounds returns the rounds of a target's subject and of what it is compared with; nil, when either is missing.
func (r *Report) rounds(t target) (values, base []float64) {
	w := r.Work(t.work)
	if w == nil {
		return nil, nil
	}
	subject := t.subject
	if subject == "" {
		subject = keyPortcullis
	}
	row := w.Row(subject)
	if row == nil || len(row.Rounds) == 0 {
		return nil, nil
	}
	if t.against == "" {
		return row.Rounds, nil
	}
	other := w.Row(t.against)
	if other == nil || len(other.Rounds) == 0 {
		return nil, nil
	}
	return row.Rounds, other.Rounds
}

func (t *target) compare(values, base []float64) []float64 {
	switch {
	case base == nil:
		return values
	case t.plus:
		var out []float64
		for i := range min(len(values), len(base)) {
			out = append(out, values[i]-base[i])
		}
		return out
	}
	return ratios(values, base)
}

func (t *target) meets(found float64) bool {
	if t.least {
		return found >= t.limit
	}
	return found <= t.limit
}

// write writes a limit, or what was found, in the target's terms.
func (t *target) write(value float64) string {
	switch {
	case t.plus:
		return fmt.Sprintf("%+.0f ns", value)
	case t.against != "":
		return fmt.Sprintf("×%.2f", value)
	case t.work == "syn-flood-entries":
		return fmt.Sprintf("%.0f entries", value)
	}
	return figure(value, Microseconds)
}
