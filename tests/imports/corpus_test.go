// SPDX-License-Identifier: Apache-2.0

// Package imports plays packets to rule sets, in netfilter, and to what "portcullis import" makes of them.
package imports

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/portcullis-firewall/portcullis/firewall/importcheck"
	"github.com/portcullis-firewall/portcullis/policy/iptables"
	"github.com/portcullis-firewall/portcullis/tests/internal/lab"
)

var (
	update  = flag.Bool("update", false, "write the golden file anew")
	packets = flag.Int("packets", usual, "how many packets each rule set gets")
	filter  = flag.Bool("filter", false, "load each policy, instead of reading what it says")
)

const usual = 200

const corpus = "../../policy/iptables/testdata/corpus"

func program(t *testing.T) string {
	t.Helper()
	lab.RequireRoot(t)
	for _, name := range []string{"iptables-restore", "ip6tables-restore", "ipset", "ip"} {
		lab.NeedProgram(t, name)
	}
	return lab.Program(t)
}

// imported translates a rule set of the corpus, as import does it.
func imported(t *testing.T, path string) (r *iptables.Result, sets string) {
	t.Helper()
	var files []iptables.File
	for _, name := range []string{path, strings.TrimSuffix(path, filepath.Ext(path)) + ".sets"} {
		data, err := os.ReadFile(name)
		if os.IsNotExist(err) && name != path {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		if iptables.IsSets(data) {
			sets = string(data)
		}
		files = append(files, iptables.File{Name: filepath.Base(name), Data: data})
	}
	r, err := iptables.ImportWith(files, iptables.Options{Keep: true})
	if err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	return r, sets
}

// A policy lets in nothing that the rules of the corpus do not, by the packets that they tell apart. Where it lets in
// less, the golden file says so, and the import has said it, too.
func TestCorpusAgainstNetfilter(t *testing.T) {
	binary := program(t)
	var jobs []importcheck.Job
	var names []string
	listed := make(map[string]bool)
	paths, err := filepath.Glob(corpus + "/*.v[46]")
	if err != nil || len(paths) < 60 {
		t.Fatalf("%d rule sets: %v", len(paths), err)
	}
	for _, path := range paths {
		r, sets := imported(t, path)
		job := importcheck.NewJob(r, *packets, sets)
		if len(job.Probes) == 0 {
			continue // all comes in
		}
		job.Text = !*filter
		name := filepath.Base(path)
		jobs, names = append(jobs, job), append(names, name)
		listed[name] = len(r.Untranslated) > 0
	}
	found, err := importcheck.Run(context.Background(), binary, jobs)
	if err != nil {
		t.Fatal(err)
	}
	var narrower bytes.Buffer
	total := 0
	for i, a := range found {
		total += a.Packets
		for _, d := range a.WiderAt {
			t.Errorf("%s: the policy lets in what the rules drop: %s from %s to %s\n%s\n%s", names[i], d.What, d.Source, d.To, jobs[i].Policy, jobs[i].Stay[0])
		}
		for _, left := range a.LeftOut {
			fmt.Fprintf(&narrower, "%s: netfilter does not take %s\n", names[i], strings.SplitN(left, ": ", 2)[0])
		}
		var what []string
		for _, d := range a.NarrowerAt {
			what = append(what, strings.Fields(d.What)[0])
		}
		slices.Sort(what)
		if what = slices.Compact(what); len(what) > 0 {
			fmt.Fprintf(&narrower, "%s: narrower at %s\n", names[i], strings.Join(what, " "))
			if !listed[names[i]] {
				t.Errorf("%s: the policy lets in less than the rules (%s), and the import does not say so\n%s\n%s", names[i], strings.Join(what, " "), jobs[i].Policy, jobs[i].Rules[0])
			}
		}
	}
	t.Logf("%d rule sets, %d packets", len(found), total)
	const path = "testdata/narrower.golden"
	if *update {
		if err := os.WriteFile(path, narrower.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if *packets == usual && !bytes.Equal(narrower.Bytes(), want) {
		t.Errorf("narrower is\n%s\nwant\n%s", &narrower, want)
	}
}

// A policy that is wider, or narrower, is found out, and by which packets.
func TestTheComparisonCanFail(t *testing.T) {
	binary := program(t)
	r, _ := imported(t, corpus+"/centos6.v4")
	wider := importcheck.NewJob(r, 400, "")
	wider.Policy = strings.Replace(wider.Policy, "open:\n", "open:\n  - 3306/tcp from 0.0.0.0/0\n", 1)
	narrower := importcheck.NewJob(r, 400, "")
	narrower.Policy = strings.Replace(narrower.Policy, "  - 22/tcp\n", "  - 25/sctp\n", 1)
	found, err := importcheck.Run(context.Background(), binary, []importcheck.Job{wider, narrower})
	if err != nil {
		t.Fatal(err)
	}
	at := func(list []importcheck.Difference) (what string) {
		for _, d := range list {
			what += strings.Fields(d.What)[0] + " "
		}
		return what
	}
	if a := found[0]; a.Wider == 0 || a.Narrower != 0 || at(a.WiderAt) != "3306/tcp " {
		t.Errorf("a policy that opens 3306: %s: %v", a, a.WiderAt)
	}
	if a := found[1]; a.Wider != 0 || at(a.NarrowerAt) != "22/tcp " || a.Alike+a.Narrower != a.Packets {
		t.Errorf("a policy that does not open 22: %s: %v", a, a.NarrowerAt)
	}
}
