// SPDX-License-Identifier: Apache-2.0

package firewalld

import (
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/portcullis-firewall/portcullis/policy"
	"github.com/portcullis-firewall/portcullis/policy/iptables"
	"github.com/portcullis-firewall/portcullis/policy/policytest"
)

var update = flag.Bool("update", false, "write the golden files anew")

// load reads the files below a directory.
func load(t testing.TB, dir string) (files []iptables.File) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := os.ReadFile(path)
		name, _ := filepath.Rel(dir, path)
		files = append(files, iptables.File{Name: name, Data: data})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

func TestGolden(t *testing.T) {
	for _, name := range []string{"server", "office", "strict", "direct", "direct-iptables"} {
		t.Run(name, func(t *testing.T) {
			r, err := Import(load(t, filepath.Join("testdata", name)), iptables.Options{Keep: true})
			if err != nil {
				t.Fatal(err)
			}
			policytest.Golden(t, filepath.Join("testdata", name+".golden.yaml"), r.YAML(), r.Policy, *update)
		})
	}
}

// A zone of a higher priority comes first, even by its interface; else a source comes before.
func TestPriorities(t *testing.T) {
	for priority, want := range map[string]string{"": "[80/tcp from 10.0.0.0/8 22/tcp except 10.0.0.0/8]", `ingress-priority="-5"`: "[22/tcp]"} {
		files := []iptables.File{
			{Name: "a.xml", Data: []byte("<zone><source address=\"10.0.0.0/8\"/><port port=\"80\" protocol=\"tcp\"/></zone>")},
			{Name: "b.xml", Data: []byte("<zone " + priority + "><interface name=\"eth0\"/><port port=\"22\" protocol=\"tcp\"/></zone>")},
		}
		r, err := Import(files, iptables.Options{Interfaces: []string{"eth0"}})
		if err != nil {
			t.Fatal(err)
		}
		if got := fmt.Sprint(r.Policy.Open); got != want {
			t.Errorf("%q opens %s, want %s", priority, got, want)
		}
	}
}

func TestBadFiles(t *testing.T) {
	for name, c := range map[string]struct{ file, text, want string }{
		"nothing":        {"x.xml", "", "x.xml: neither XML"},
		"no zone":        {"ssh.xml", "<service/>", ErrNoZones.Error()},
		"no XML":         {"public.xml", "<zone><service", "public.xml: XML syntax error"},
		"something else": {"a.xml", "<html/>", "a.xml: <html> is not of firewalld"},
		"an attribute":   {"a.xml", `<zone><rule><service name="ssh"/><accept limit="3/m"/></rule></zone>`, `a.xml:1: <accept limit="3/m"/>: the attribute limit is not known`},
		"a target":       {"a.xml", `<zone target="nonsense"/>`, `a.xml:1: <zone target="nonsense"/>: "nonsense" is no target of a zone`},
		"of a policy":    {"a.xml", `<policy target="drop"/>`, `a.xml:1: <policy target="drop"/>: "drop" is no target of a policy: write one of CONTINUE`},
		"an option":      {"a.xml", `<ipset type="hash:ip"><option name="netmask" value="24"/></ipset>`, `a.xml:1: <option name="netmask" value="24"/>: firewalld has no such option`},
		"an action":      {"a.xml", `<zone><rule><service name="ssh"/><dorp/></rule></zone>`, `a.xml:1: <dorp/>: nothing that is known in <rule>`},
		"in a policy":    {"a.xml", `<policy><ingres-zone name="public"/></policy>`, `a.xml:1: <ingres-zone name="public"/>: nothing that is known in <policy>`},
		"a limit":        {"a.xml", `<zone><rule><service name="ssh"/><accept><limt value="3/m"/></accept></rule></zone>`, `a.xml:1: <limt value="3/m"/>: nothing that is known in <accept>`},
		"inversion":      {"a.xml", `<zone><rule><source address="10.0.0.0/8" invert="1"/><accept/></rule></zone>`, `a.xml:1: <source address="10.0.0.0/8" invert="1"/>: invert is "1"`},
		"a family":       {"a.xml", `<zone><rule family="ipv5"><drop/></rule></zone>`, `a.xml:1: <rule family="ipv5"/>: family is "ipv5"`},
		"a priority":     {"a.xml", `<zone><rule priority="high"><drop/></rule></zone>`, `a.xml:1: <rule priority="high"/>: priority is "high"`},
		"no source":      {"a.xml", `<zone><rule><source/><accept/></rule></zone>`, `a.xml:1: <source/>: it names no source`},
		"deep":           {"a.xml", strings.Repeat("<zone>", 50), "a.xml:1: the elements are too deep"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Import([]iptables.File{{Name: c.file, Data: []byte(c.text)}}, iptables.Options{})
			if err == nil || !strings.HasPrefix(err.Error(), c.want) {
				t.Errorf("gives %v, want %s", err, c.want)
			}
		})
	}
}

// FuzzZone translates any text as the file of a zone.
func FuzzZone(f *testing.F) {
	for _, dir := range []string{"server", "office", "strict", "direct"} {
		for _, file := range load(f, filepath.Join("testdata", dir)) {
			f.Add(string(file.Data))
		}
	}
	f.Fuzz(func(t *testing.T, text string) {
		if len(text) > 20_000 {
			return
		}
		files := []iptables.File{{Name: "zones/public.xml", Data: []byte(text)}}
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
		if again, err := Import(files, iptables.Options{Keep: true}); err != nil || string(again.YAML()) != string(yaml) {
			t.Fatalf("%q gives\n%s\nand then %v", text, yaml, errors.Join(err))
		}
	})
}
