// SPDX-License-Identifier: Apache-2.0

package iptables

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/portcullis-firewall/portcullis/policy"
	"github.com/portcullis-firewall/portcullis/policy/policytest"
)

var update = flag.Bool("update", false, "write the golden files anew")

// goldens are the files that become one policy, and for which interfaces.
var goldens = []struct {
	name, files, interfaces string
}{
	{"design", "design.sh", ""},
	{"debian", "debian.v4 debian.v6", ""},
	{"debian-v6", "debian.v6", ""},
	{"centos", "centos.v4", ""},
	{"nft", "nft.v4", ""},
	{"ufw", "user.rules user6.rules", ""},
	{"docker", "docker.v4", ""},
	{"fail2ban", "fail2ban.v4", ""},
	{"firewalld", "firewalld.v4", ""},
	{"script", "script.sh", ""},
	{"nasty", "nasty.v4", ""},
	{"zones", "zones.v4", ""},
	{"zones-eth0", "zones.v4", "eth0"},
	{"open", "open.v4", ""},
}

func importFiles(t testing.TB, names, interfaces string) *Result {
	t.Helper()
	var files []File
	for _, name := range strings.Fields(names) {
		data, err := os.ReadFile(filepath.Join("testdata", name))
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, File{name, data})
	}
	r, err := Import(files, strings.Fields(interfaces))
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestGolden(t *testing.T) {
	for _, g := range goldens {
		t.Run(g.name, func(t *testing.T) {
			r := importFiles(t, g.files, g.interfaces)
			policytest.Golden(t, filepath.Join("testdata", g.name+".golden.yaml"), r.YAML(), r.Policy, *update)
		})
	}
}

// Nothing of the first script is lost, and http stays http.
func TestTheScriptThatPortcullisReplaces(t *testing.T) {
	r := importFiles(t, "design.sh", "")
	want, err := policy.Parse("want", []byte("interfaces: [eth0]\ninput: drop\nforward: drop\nicmp: accept\nopen: [http]\ninvalid: log\n"))
	if err != nil {
		t.Fatal(err)
	}
	if !r.Policy.Equal(want) || len(r.Policy.Open) != 1 || r.Policy.Open[0].String() != "http" {
		t.Errorf("gives\n%s", r.Policy.YAML())
	}
	if len(r.Untranslated) > 0 {
		t.Errorf("not translated: %v", r.Untranslated)
	}
}
