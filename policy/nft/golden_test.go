// SPDX-License-Identifier: Apache-2.0

package nft

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/portcullis-firewall/portcullis/policy/iptables"
	"github.com/portcullis-firewall/portcullis/policy/policytest"
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
			policytest.Golden(t, strings.TrimSuffix(path, ".nft")+".golden.yaml", r.YAML(), r.Policy, *update)
		})
	}
}
