// SPDX-License-Identifier: Apache-2.0

package iptables

import (
	"cmp"
	"fmt"
	"slices"
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

// findings are what is to be said, in two kinds.
type findings struct {
	untranslated []Finding // the policy lacks it
	notes        []Finding // the policy says it, but differently
}

func (f *findings) lost(at place, format string, args ...any) {
	f.untranslated = add(f.untranslated, at, fmt.Sprintf(format, args...))
}

func (f *findings) note(at place, format string, args ...any) {
	f.notes = add(f.notes, at, fmt.Sprintf(format, args...))
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
		return cmp.Or(cmp.Compare(position(a), position(b)), cmp.Compare(a.Line, b.Line), cmp.Compare(a.Why, b.Why), cmp.Compare(a.Text, b.Text))
	})
	return list
}
