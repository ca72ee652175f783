// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"fmt"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/portcullis-firewall/portcullis/policy"
	"github.com/portcullis-firewall/portcullis/policy/quote"
)

// print prints a result, as JSON or by the given function.
func (a *app) print(result any, table func()) error {
	if a.output != asJSON {
		table()
		return nil
	}
	e := json.NewEncoder(a.stdout)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	return e.Encode(result)
}

func (a *app) printf(format string, args ...any) { fmt.Fprintf(a.stdout, format, args...) }

// table prints rows of equal length in columns.
func (a *app) table(rows [][]string) {
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	for _, row := range rows {
		cells := make([]string, len(row))
		for i, cell := range row {
			cells[i] = quote.Text(cell)
		}
		fmt.Fprintln(w, strings.Join(cells, "\t"))
	}
	w.Flush()
	for line := range strings.Lines(b.String()) {
		a.printf("%s\n", strings.TrimRight(line, " \n"))
	}
}

// list makes sure that a slice without entries is [] in JSON, and not null.
func list[T any](s []T) []T {
	if s == nil {
		return []T{}
	}
	return s
}

func texts(rules []policy.Rule) []string {
	out := make([]string, len(rules))
	for i, r := range rules {
		out[i] = r.String()
	}
	return out
}

func count(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}

// span writes a duration with its two largest units: 4d23h, 1m30s.
func span(d time.Duration) string {
	seconds := int64(d.Round(time.Second) / time.Second)
	units := []struct {
		name    string
		seconds int64
	}{{"d", 86400}, {"h", 3600}, {"m", 60}, {"s", 1}}
	var b strings.Builder
	for i, u := range units {
		n := seconds / u.seconds
		if n == 0 {
			continue
		}
		fmt.Fprintf(&b, "%d%s", n, u.name)
		if i+1 < len(units) {
			next := units[i+1]
			if m := seconds % u.seconds / next.seconds; m > 0 {
				fmt.Fprintf(&b, "%d%s", m, next.name)
			}
		}
		return b.String()
	}
	return "0s"
}
