// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

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

// printf prints a text for people. Each argument that is a string stays on its line, whatever name or path it is. The
// commands that the text names carry the flags of this one.
func (a *app) printf(format string, args ...any) {
	for i, arg := range args {
		if text, ok := arg.(string); ok {
			args[i] = quote.Text(text)
		}
	}
	_, _ = io.WriteString(a.stdout, a.complete(fmt.Sprintf(format, args...))) // the last flush tells
}

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

func count(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}
