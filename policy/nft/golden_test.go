// SPDX-License-Identifier: Apache-2.0

package nft

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/portcullis-firewall/portcullis/policy"
	"github.com/portcullis-firewall/portcullis/policy/iptables"
)

var update = flag.Bool("update", false, "write the golden files anew")

func load(t testing.TB, path string) iptables.File {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return iptables.File{Name: filepath.Base(path), Data: data}
}

func TestGolden(t *testing.T) {
	files, err := filepath.Glob("testdata/*.nft")
	if err != nil || len(files) < 5 {
		t.Fatalf("%d files: %v", len(files), err)
	}
	for _, path := range files {
		t.Run(filepath.Base(path), func(t *testing.T) {
			r, err := Import([]iptables.File{load(t, path)}, iptables.Options{Keep: true}, nil)
			if err != nil {
				t.Fatal(err)
			}
			got := r.YAML()
			golden := strings.TrimSuffix(path, ".nft") + ".golden.yaml"
			if *update {
				if err := os.WriteFile(golden, got, 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(got, want) {
				t.Errorf("gives\n%s\nwant\n%s", got, want)
			}
			p, err := policy.Parse(golden, got)
			if err != nil {
				t.Fatal(err)
			}
			if !p.Equal(r.Policy) {
				t.Errorf("is read again as another policy: %v", policy.Diff(r.Policy, p))
			}
		})
	}
}
