//go:build man

// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestManualPages(t *testing.T) {
	h := newHost(t)
	h.types(2, "man")
	h.complains("portcullis man DIR")
	dir := t.TempDir()
	h.types(0, "man", dir)
	for _, c := range append(commands(), commandTree()) {
		if c.Name() == "help" {
			continue
		}
		page := strings.ReplaceAll(c.CommandPath(), " ", "-") + ".8"
		text, err := os.ReadFile(filepath.Join(dir, page))
		if err != nil {
			t.Errorf("%s has no manual page: %v", c.CommandPath(), err)
		}
		if needs := c.Annotations[needsAnnotation]; needs != "" && !strings.Contains(string(text), "Needs "+needs+".") {
			t.Errorf("%s does not say that it needs %s", page, needs)
		}
	}
}

// A table of a help text is one in the manual, too, and no paragraph.
func TestManualPagesKeepTables(t *testing.T) {
	h := newHost(t)
	dir := t.TempDir()
	h.types(0, "man", dir)
	for page, line := range map[string]string{
		"portcullis.8":        "  2  wrong command line",
		"portcullis-open.8":   "            80,443,8000-8100/tcp   several, of one protocol",
		"portcullis-doctor.8": "note  is worth knowing",
		"portcullis-check.8":  "    invalid ",
	} {
		text, err := os.ReadFile(filepath.Join(dir, page))
		if err != nil {
			t.Fatal(err)
		}
		filled := true
		found := false
		for l := range strings.SplitSeq(string(text), "\n") {
			switch {
			case l == ".EX" || l == ".nf":
				filled = false
			case l == ".EE" || l == ".fi":
				filled = true
			}
			if strings.Contains(l, strings.TrimSpace(line)) {
				found = true
				if filled {
					t.Errorf("%s fills %q", page, l)
				}
			}
		}
		if !found {
			t.Errorf("%s has no %q", page, line)
		}
	}
}
