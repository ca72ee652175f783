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

// What nft 1.0.6 makes of each file, in JSON, comes to the same policy as the file, and to as many findings.
func TestJSONSaysTheSame(t *testing.T) {
	files, err := filepath.Glob("testdata/*.json")
	if err != nil || len(files) < 5 {
		t.Fatalf("%d files: %v", len(files), err)
	}
	for _, path := range files {
		t.Run(filepath.Base(path), func(t *testing.T) {
			text, err := Import([]iptables.File{load(t, strings.TrimSuffix(path, ".json")+".nft")}, iptables.Options{Keep: true}, nil)
			if err != nil {
				t.Fatal(err)
			}
			json, err := Import([]iptables.File{load(t, path)}, iptables.Options{Keep: true}, nil)
			if err != nil {
				t.Fatal(err)
			}
			if !json.Policy.Equal(text.Policy) {
				t.Errorf("is another policy: %v\n%s\n%s", policy.Diff(text.Policy, json.Policy), text.YAML(), json.YAML())
			}
			if len(json.Untranslated) != len(text.Untranslated) {
				t.Errorf("has other findings: %v and %v", json.Untranslated, text.Untranslated)
			}
		})
	}
}

// What is no ruleset is an error that says what to give.
func TestBadFiles(t *testing.T) {
	for name, c := range map[string]struct{ text, want string }{
		"empty":                  {"", "no chain of nftables"},
		"no chain of input":      {"table inet a { chain b { accept } }", "no chain of nftables"},
		"not JSON":               {`{"nftables": [`, "f: not the JSON"},
		"a chain without table":  {`{"nftables": [{"chain": {"family": "ip", "table": "a", "name": "b"}}]}`, "f:1: a chain has no table"},
		"another object":         {`{"nftables": [{"zebra": {}}]}`, `f:1: "zebra" is not understood`},
		"no end":                 {"table inet a {\n chain b {", "f:2: chain b has no end"},
		"no such variable":       {"table inet a {\n chain b { iifname $wan accept\n }\n}", "f:2: $wan is not defined"},
		"quotes":                 {"table inet a\n\"", "f:2: the quotes are not closed"},
		"include":                {"include \"/etc/nftables.d/*.nft\"\n", "f:1: include"},
		"a command":              {"table ip a { }\nfoo bar", `f:2: "foo" is no command`},
		"a rule of no chain":     {"table ip a { }\nadd rule ip a b accept", "f:2: there is no chain b"},
		"a rule of no table":     {"add rule ip a b accept", "f:1: there is no table ip a"},
		"a rule by its handle":   {"table ip a { chain b { } }\ninsert rule ip a b position 4 accept", "f:2: a rule by its position"},
		"a rule that is deleted": {"table ip a { chain b { } }\ndelete rule ip a b handle 4", `f:2: "delete rule" is not understood`},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Import([]iptables.File{{Name: "f", Data: []byte(c.text)}}, iptables.Options{Keep: true}, nil)
			if err == nil || !strings.HasPrefix(err.Error(), c.want) {
				t.Errorf("gives %v, want %s", err, c.want)
			}
		})
	}
}

// Included files are read in their place, but not without end.
func TestInclude(t *testing.T) {
	main := iptables.File{Name: "nftables.conf", Data: []byte("table inet a {\n chain in { type filter hook input priority 0; policy drop; ct state established,related accept; }\n}\ninclude \"/etc/nftables.d/*.nft\"\n")}
	include := func(path string) ([]iptables.File, error) {
		if path != "/etc/nftables.d/*.nft" {
			return nil, os.ErrNotExist
		}
		return []iptables.File{{Name: "ssh.nft", Data: []byte("add rule inet a in tcp dport 22 accept\n")}}, nil
	}
	r, err := Import([]iptables.File{main}, iptables.Options{}, include)
	if err != nil {
		t.Fatal(err)
	}
	if text := string(r.YAML()); !strings.Contains(text, "- 22/tcp\n") {
		t.Errorf("gives\n%s", text)
	}
	include = func(string) ([]iptables.File, error) {
		return []iptables.File{{Name: "loop.nft", Data: []byte("include \"loop.nft\"\n")}}, nil
	}
	if _, err := Import([]iptables.File{main}, iptables.Options{}, include); err == nil || !strings.Contains(err.Error(), "is not followed") {
		t.Errorf("a file that includes itself gives %v", err)
	}
}
