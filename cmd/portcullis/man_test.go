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
