// SPDX-License-Identifier: Apache-2.0

package iptables

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/portcullis-firewall/portcullis/policy"
)

// corpusFiles returns the rule sets of testdata/corpus, each with the sets of its name and, of "NAME.v4", those for IPv6.
func corpusFiles(t testing.TB) map[string][]File {
	t.Helper()
	paths, err := filepath.Glob("testdata/corpus/*")
	if err != nil || len(paths) < 60 {
		t.Fatalf("%d rule sets: %v", len(paths), err)
	}
	out := make(map[string][]File)
	for _, path := range paths {
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		name := filepath.Base(path)
		if base, ok := strings.CutSuffix(name, ".sets"); ok {
			out[base+".v4"] = append(out[base+".v4"], File{name, data})
			continue
		}
		out[name] = append(out[name], File{name, data})
	}
	return out
}

// What the rule sets of the corpus come to stands in one file: what each opens, and what it leaves out.
func TestCorpus(t *testing.T) {
	corpus := corpusFiles(t)
	names := make([]string, 0, len(corpus))
	for name := range corpus {
		names = append(names, name)
	}
	slices.Sort(names)
	var got bytes.Buffer
	for _, name := range names {
		r, err := ImportWith(corpus[name], Options{Keep: true})
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		p, err := policy.Parse(name, r.YAML())
		if err != nil || !p.Equal(r.Policy) {
			t.Errorf("%s is written as\n%s\n%v", name, r.YAML(), err)
		}
		fmt.Fprintf(&got, "== %s\n", name)
		for line := range strings.Lines(string(r.Policy.YAML())) {
			if line != "interfaces: []\n" {
				got.WriteString(line)
			}
		}
		for _, kind := range r.kinds()[:2] {
			for _, g := range Group(kind.findings) {
				fmt.Fprintf(&got, "# %s: %s\n", strings.ToLower(kind.title), g)
			}
		}
	}
	const path = "testdata/corpus.golden"
	if *update {
		if err := os.WriteFile(path, got.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got.Bytes(), want) {
		gotLines, wantLines := strings.Split(got.String(), "\n"), strings.Split(string(want), "\n")
		for i, line := range gotLines {
			if i >= len(wantLines) || line != wantLines[i] {
				t.Fatalf("line %d of %s would be\n%s\n(go test -update writes it anew)", i+1, path, line)
			}
		}
		t.Fatalf("%s has more lines", path)
	}
}
