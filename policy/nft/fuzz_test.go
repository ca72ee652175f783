// SPDX-License-Identifier: Apache-2.0

package nft

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/portcullis-firewall/portcullis/policy"
	"github.com/portcullis-firewall/portcullis/policy/iptables"
)

// fuzz translates any text. Whatever comes of it has to be a policy file that says the same when it is read, twice the
// same for the same text, and lines of it have to stay in their comments.
func fuzz(f *testing.F, pattern string) {
	seeds, err := filepath.Glob(pattern)
	if err != nil || len(seeds) == 0 {
		f.Fatalf("no seeds: %v", err)
	}
	for _, seed := range seeds {
		data, err := os.ReadFile(seed)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(string(data))
	}
	f.Fuzz(func(t *testing.T, text string) {
		if len(text) > 20_000 {
			return
		}
		files := []iptables.File{{Name: "rules", Data: []byte(text)}}
		first, err := Import(files, iptables.Options{Keep: true}, nil)
		if err != nil {
			if strings.ContainsAny(err.Error(), "\x00\n") {
				t.Fatalf("%q gives the error %q", text, err)
			}
			return
		}
		yaml := first.YAML()
		p, err := policy.Parse("imported", yaml)
		if err != nil {
			t.Fatalf("%q gives\n%s\nwhich is no policy: %v", text, yaml, err)
		}
		if !p.Equal(first.Policy) {
			t.Fatalf("%q gives\n%s\nwhich is read as another: %v", text, yaml, policy.Diff(first.Policy, p))
		}
		for _, finding := range append(first.Untranslated, first.Notes...) {
			if strings.ContainsFunc(finding.String(), func(c rune) bool { return c < ' ' || c == 0x7f }) {
				t.Fatalf("%q gives the finding %q", text, finding)
			}
		}
		if again, err := Import(files, iptables.Options{Keep: true}, nil); err != nil || string(again.YAML()) != string(yaml) {
			t.Fatalf("%q gives\n%s\nand then %v", text, yaml, err)
		}
	})
}

func FuzzText(f *testing.F) { fuzz(f, "testdata/*.nft") }

func FuzzJSON(f *testing.F) { fuzz(f, "testdata/*.json") }
