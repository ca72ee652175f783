// SPDX-License-Identifier: Apache-2.0

package ufw

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/portcullis-firewall/portcullis/policy"
	"github.com/portcullis-firewall/portcullis/policy/iptables"
	"github.com/portcullis-firewall/portcullis/policy/policytest"
)

var update = flag.Bool("update", false, "write the golden files anew")

func load(t testing.TB, names string) (files []iptables.File) {
	t.Helper()
	for _, name := range strings.Fields(names) {
		data, err := os.ReadFile(filepath.Join("testdata", name))
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, iptables.File{Name: filepath.Base(name), Data: data})
	}
	return files
}

const rulesOfSystem = "before.rules before6.rules after.rules after6.rules"

var goldens = []struct{ name, files string }{
	{"host", "user.rules user6.rules default/ufw ufw.conf " + rulesOfSystem},
	{"users-only", "user.rules user6.rules"},
	{"four-only", "user.rules four/ufw " + rulesOfSystem},
	{"open", "user.rules user6.rules open/ufw " + rulesOfSystem},
}

func TestGolden(t *testing.T) {
	for _, g := range goldens {
		t.Run(g.name, func(t *testing.T) {
			r, err := Import(load(t, g.files), iptables.Options{Keep: true})
			if err != nil {
				t.Fatal(err)
			}
			policytest.Golden(t, filepath.Join("testdata", g.name+".golden.yaml"), r.YAML(), r.Policy, *update)
		})
	}
}

// What iptables-save prints on a host of ufw comes to the same rules as its files, for both families.
func TestDump(t *testing.T) {
	files, err := Import(load(t, goldens[0].files), iptables.Options{Keep: true})
	if err != nil {
		t.Fatal(err)
	}
	dump, err := iptables.ImportWith(load(t, "dump.v4 dump.v6"), iptables.Options{Keep: true})
	if err != nil {
		t.Fatal(err)
	}
	if !dump.Policy.Equal(files.Policy) {
		t.Errorf("are not the same: %v\n%s\n%s", policy.Diff(files.Policy, dump.Policy), files.YAML(), dump.YAML())
	}
}

func TestDetect(t *testing.T) {
	for name, want := range map[string]bool{"user.rules": true, "user6.rules": true, "before.rules": true, "default/ufw": true, "ufw.conf": true, "dump.v4": false} {
		if got := Detect(load(t, name)[0]); got != want {
			t.Errorf("%s: %t", name, got)
		}
	}
}

func TestNoRules(t *testing.T) {
	if _, err := Import(load(t, "default/ufw"), iptables.Options{}); err != ErrNoRules {
		t.Errorf("the defaults alone give %v", err)
	}
	if _, err := Import([]iptables.File{{Name: "x", Data: []byte("hello\n")}}, iptables.Options{}); err == nil || !strings.HasPrefix(err.Error(), "x: not a file of ufw") {
		t.Errorf("another file gives %v", err)
	}
}

// FuzzRules translates any text as rules of users, beside those of the system.
func FuzzRules(f *testing.F) {
	system := load(f, "default/ufw "+rulesOfSystem)
	for _, file := range load(f, "user.rules before.rules dump.v4") {
		f.Add(string(file.Data))
	}
	f.Fuzz(func(t *testing.T, text string) {
		if len(text) > 20_000 {
			return
		}
		files := append([]iptables.File{{Name: "user.rules", Data: []byte(text)}}, system...)
		r, err := Import(files, iptables.Options{Keep: true})
		if err != nil {
			return
		}
		yaml := r.YAML()
		p, err := policy.Parse("imported", yaml)
		if err != nil {
			t.Fatalf("%q gives\n%s\nwhich is no policy: %v", text, yaml, err)
		}
		if !p.Equal(r.Policy) {
			t.Fatalf("%q gives\n%s\nwhich is read as another: %v", text, yaml, policy.Diff(r.Policy, p))
		}
	})
}
