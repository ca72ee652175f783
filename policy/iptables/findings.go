// SPDX-License-Identifier: Apache-2.0

package iptables

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// Finding is something to know about a line.
type Finding struct {
	File string `json:"file,omitempty"`
	Line int    `json:"line,omitempty"` // 0: about the whole
	Text string `json:"text,omitempty"`
	Why  string `json:"why"`
}

func (f Finding) String() string {
	if f.Line == 0 {
		return f.Why
	}
	return fmt.Sprintf("%s:%d: %s: %s", plain(f.File), f.Line, f.Text, f.Why)
}

// Grouped are the lines about which the same is to be said.
type Grouped struct {
	Why   string
	Lines []Finding
}

// Group returns findings with each thing to say once, in their order.
func Group(list []Finding) (out []Grouped) {
	at := make(map[string]int)
	for _, f := range list {
		i, ok := at[f.Why]
		if !ok {
			i = len(out)
			at[f.Why] = i
			out = append(out, Grouped{Why: f.Why})
		}
		out[i].Lines = append(out[i].Lines, f)
	}
	return out
}

// maxLines is how many lines a group names.
const maxLines = 8

func (g Grouped) String() string {
	if len(g.Lines) == 1 {
		return g.Lines[0].String()
	}
	var b strings.Builder
	file, named := "", 0
	for _, f := range g.Lines {
		switch {
		case f.Line == 0:
			continue
		case named == maxLines:
			fmt.Fprintf(&b, " and %d more", len(g.Lines)-named)
		case f.File != file && file != "":
			fmt.Fprintf(&b, ", %s:%d", plain(f.File), f.Line)
		case f.File != file:
			fmt.Fprintf(&b, "%s:%d", plain(f.File), f.Line)
		case named < maxLines:
			fmt.Fprintf(&b, ",%d", f.Line)
		}
		file = f.File
		if named++; named > maxLines {
			break
		}
	}
	if named == 0 {
		return g.Why
	}
	return fmt.Sprintf("%s (%d lines): %s", b.String(), len(g.Lines), g.Why)
}

// findings are what is to be said, in three kinds.
type findings struct {
	untranslated []Finding // the policy lacks it
	stays        []Finding // the policy relies on it
	notes        []Finding // the policy says it, but differently
}

func (f *findings) lost(at place, format string, args ...any) {
	f.untranslated = add(f.untranslated, at, fmt.Sprintf(format, args...))
}

func (f *findings) note(at place, format string, args ...any) {
	f.notes = add(f.notes, at, fmt.Sprintf(format, args...))
}

func (f *findings) stay(at place, format string, args ...any) {
	f.stays = add(f.stays, at, fmt.Sprintf(format, args...))
}

func add(list []Finding, at place, why string) []Finding {
	found := Finding{at.file, at.line, plain(at.text), plain(why)}
	unwritten := at.file == "" && at.line > 0 // by a user
	if unwritten || slices.Contains(list, found) {
		return list
	}
	return append(list, found)
}

func inOrder(list []Finding, files []File) []Finding {
	position := func(f Finding) int {
		return slices.IndexFunc(files, func(file File) bool { return file.Name == f.File })
	}
	slices.SortFunc(list, func(a, b Finding) int {
		return cmp.Or(cmp.Compare(position(a), position(b)), cmp.Compare(a.Line, b.Line), cmp.Compare(a.Why, b.Why))
	})
	return list
}
