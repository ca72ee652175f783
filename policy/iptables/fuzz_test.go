// SPDX-License-Identifier: Apache-2.0

package iptables

import (
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/portcullis-firewall/portcullis/policy"
)

// fuzzImport translates any text as one kind of file. Whatever comes of it has
// to be a policy file that says the same when it is read, twice the same for
// the same text, and lines of it have to stay in their comments.
func fuzzImport(f *testing.F, name string, read func(s *ruleset, text string)) {
	seeds, err := filepath.Glob("testdata/*.*")
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
	for seed := range uint64(8) {
		f.Add(drawModel(rand.New(rand.NewPCG(seed, 1))).text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if len(text) > 20_000 {
			return
		}
		files := []File{{name, []byte(text)}}
		first, err := importWith(files, read)
		if errors.Is(err, ErrNoRules) || errors.Is(err, ErrTooComplicated) {
			return
		}
		if err != nil {
			t.Fatal(err)
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
		if again, err := importWith(files, read); err != nil || string(again.YAML()) != string(yaml) {
			t.Fatalf("%q gives\n%s\nand then\n%s %v", text, yaml, again.YAML(), err)
		}
	})
}

func importWith(files []File, read func(s *ruleset, text string)) (*Result, error) {
	s := newRuleset()
	read(s, string(files[0].Data))
	return s.translate(files, nil)
}

func FuzzSave(f *testing.F) {
	fuzzImport(f, "rules", func(s *ruleset, text string) { s.readSave(v4, "rules", 1, text) })
}

func FuzzSaveIPv6(f *testing.F) {
	fuzzImport(f, "rules.v6", func(s *ruleset, text string) { s.readSave(v6, "rules.v6", 1, text) })
}

func FuzzUFW(f *testing.F) {
	fuzzImport(f, "user.rules", func(s *ruleset, text string) { s.readUFW(v4, "user.rules", text) })
}

// FuzzSets reads any text as sets of ipset that a rule names.
func FuzzSets(f *testing.F) {
	for _, seed := range []string{"create x hash:net family inet\nadd x 10.0.0.0/8\nadd x 10.1.0.0/16 nomatch\n", "create y list:set size 8\nadd y x\nadd y y\n", "add x 1.2.3.4-1.2.3.9\ncreate x bitmap:port range 0-9\n"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if len(text) > 20_000 {
			return
		}
		s := newRuleset()
		s.readSets("sets", text)
		s.readSave(v4, "rules", 1, savedRules("-A INPUT -m set --match-set x src -j DROP\n-A INPUT -m set ! --match-set y dst -j DROP\n-A INPUT -p tcp -m set --match-set x src -j ACCEPT"))
		r, err := s.translate(nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		if p, err := policy.Parse("imported", r.YAML()); err != nil || !p.Equal(r.Policy) {
			t.Fatalf("%q gives\n%s\n%v", text, r.YAML(), err)
		}
	})
}

func FuzzScript(f *testing.F) {
	fuzzImport(f, "firewall.sh", func(s *ruleset, text string) { s.readScript("firewall.sh", text) })
}

// FuzzModel translates rules that are made up from a seed, and compares them
// with the model.
func FuzzModel(f *testing.F) {
	f.Add(uint64(1), uint64(2))
	f.Fuzz(func(t *testing.T, a, b uint64) { mustHold(t, rand.New(rand.NewPCG(a, b)), 100, make(map[string]int)) })
}

// Sets are sets: what the regions make of random ones is what they hold, address
// by address and key by key.
func TestRegions(t *testing.T) {
	random := rand.New(rand.NewPCG(3, 4))
	draw := func() region {
		var r region
		for range random.IntN(5) {
			first := key(random.IntN(40))
			p := modelSources[random.IntN(len(modelSources))]
			r = r.union(region{{keys{first, first + key(random.IntN(10))}, addresses{spanOf(p)}}})
		}
		return r
	}
	holds := func(r region, k key, a string) bool {
		for _, s := range r {
			if s.first <= k && k <= s.last && s.from.contains(prefixes(a)) {
				return true
			}
		}
		return false
	}
	for range 2000 {
		a, b := draw(), draw()
		union, both, less := a.union(b), a.intersect(b), a.subtract(b)
		for k := range key(55) {
			for _, address := range []string{"10.0.0.1/32", "10.1.0.1/32", "192.0.2.7/32", "127.255.255.255/32", "128.0.0.0/32"} {
				inA, inB := holds(a, k, address), holds(b, k, address)
				if holds(union, k, address) != (inA || inB) || holds(both, k, address) != (inA && inB) || holds(less, k, address) != (inA && !inB) {
					t.Fatalf("%v and %v at %d from %s", a, b, k, address)
				}
			}
		}
		var whole []span
		for _, s := range union {
			for _, p := range s.from.prefixes() {
				whole = append(whole, spanOf(p))
			}
			if !join(whole).contains(s.from) || !s.from.contains(join(whole)) {
				t.Fatalf("%v in networks is %v", s.from, whole)
			}
			whole = nil
		}
	}
}
