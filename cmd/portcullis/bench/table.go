// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"fmt"
	"strings"
)

// Tables writes a report as rows of text, one table each for the targets, every work, and what was left out.
func (r *Report) Tables() (tables [][][]string) {
	m := r.Machine
	tables = append(tables, [][]string{
		{fmt.Sprintf("Linux %s, %s, %s, by %s (%s), %s", m.Kernel, m.CPU, count(m.CPUs, "CPU"), r.Method.Generator, r.Method.Protocol, r.Method.Interfaces)},
		{fmt.Sprintf("medians of %s; ± half the distance of the quartiles; load before: %s", count(r.Method.Rounds, "round"), m.Load)},
	})
	if m.Emulated {
		tables[0] = append(tables[0], []string{emulated})
	}
	for i := range r.Works {
		w := &r.Works[i]
		head := []string{strings.ToUpper(w.Title), "", "±", "", "MPPS", "CHECKED BY"}
		if base := w.Row(w.Baseline); base != nil {
			head[3] = "OF " + strings.ToUpper(base.Title)
		}
		rows := [][]string{head}
		for j := range w.Rows {
			rows = append(rows, w.text(&w.Rows[j]))
		}
		tables = append(tables, rows)
	}
	if len(r.Targets) > 0 {
		rows := [][]string{{"TARGET", "", "FOUND", "", "FIGURE", "AGAINST", "BEST STATEFUL PEER"}}
		for _, t := range r.Targets {
			if t.Verdict != Absent {
				rows = append(rows, []string{t.Title, t.Limit(), t.Found, t.Verdict, t.Figure, t.Against, t.Peer})
			}
		}
		if len(rows) > 1 {
			tables = append(tables, rows)
		}
	}
	if len(r.LeftOut) > 0 {
		rows := [][]string{{"LEFT OUT", "BECAUSE"}}
		for _, l := range r.LeftOut {
			rows = append(rows, []string{l.What, l.Why})
		}
		tables = append(tables, rows)
	}
	return tables
}

func (w *Work) text(r *Row) []string {
	if r.Invalid != "" {
		return []string{r.Title, "invalid: " + r.Invalid, "", "", "", ""}
	}
	if r.Figure == nil {
		return []string{r.Title, "not measured", "", "", "", ""}
	}
	row := []string{r.Title, figure(r.Figure.Median, w.Unit), percent((r.Figure.High - r.Figure.Low) / 2 / r.Figure.Median), "", "", r.Checked}
	if r.Ratio != nil {
		row[3] = ratio(r.Ratio.Median)
	}
	if r.Mpps > 0 {
		row[4] = fmt.Sprintf("%.2f", r.Mpps)
	}
	if r.Lost > 0 {
		row[5] += ", " + percent(r.Lost) + " lost"
	}
	return row
}

func percent(part float64) string {
	if part != part || part > 10 { // of nothing
		return ""
	}
	return fmt.Sprintf("%.0f%%", 100*part)
}

// Markdown writes the report as text with tables.
func (r *Report) Markdown() string {
	var b strings.Builder
	fmt.Fprintf(&b, "# Measured on %s\n\nThis file was written by `portcullis bench --report`.\n", r.Began.Format("2 January 2006"))
	for i, rows := range r.Tables() {
		if i == 0 { // what was measured, and where
			for _, row := range rows {
				fmt.Fprintf(&b, "\n%s\n", row[0])
			}
			continue
		}
		b.WriteByte('\n')
		for n, row := range rows {
			fmt.Fprintf(&b, "| %s |\n", strings.Join(row, " | "))
			if n == 0 {
				fmt.Fprintf(&b, "|%s\n", strings.Repeat("---|", len(row)))
			}
		}
	}
	return b.String()
}
