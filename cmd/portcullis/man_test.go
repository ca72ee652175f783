//go:build man

// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"path/filepath"
	"testing"
)

func TestManualPages(t *testing.T) {
	h := newHost(t)
	h.types(2, "man")
	h.complains("portcullis man DIR")
	dir := t.TempDir()
	h.types(0, "man", dir)
	for _, page := range []string{"portcullis.8", "portcullis-open.8", "portcullis-flows-sweep.8"} {
		if _, err := os.Stat(filepath.Join(dir, page)); err != nil {
			t.Error(err)
		}
	}
}
