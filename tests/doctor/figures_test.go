// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/cilium/ebpf"

	"github.com/portcullis-firewall/portcullis/bpf"
	"github.com/portcullis-firewall/portcullis/firewall/doctor"
	"github.com/portcullis-firewall/portcullis/loader"
	"github.com/portcullis-firewall/portcullis/maps"
)

// raised is what each CPU counts of a reason that a test raises, and total what all do.
const raised = 7

// figures is what status and doctor say at one moment.
type figures struct {
	counters map[string]uint64 // by verdict and reason
	rules    []uint64
	flows    loader.FlowsStatus
	warnings []string
	lines    []string // of status
	stderr   string
	checks   []doctor.Check
}

func (p *patient) figures() (f figures) {
	p.t.Helper()
	var view struct {
		Counters []loader.CounterStatus
		Rules    []loader.RuleStatus
		Flows    loader.FlowsStatus
		Warnings []string
	}
	if err := json.Unmarshal([]byte(p.print("portcullis status -o json 2>/dev/null")), &view); err != nil {
		p.t.Fatal(err)
	}
	f.counters = make(map[string]uint64)
	for _, c := range view.Counters {
		f.counters[c.Verdict+" "+c.Reason] = c.Packets
	}
	for _, r := range view.Rules {
		f.rules = append(f.rules, r.Packets)
	}
	f.flows, f.warnings = view.Flows, view.Warnings
	for line := range strings.Lines(p.print("portcullis status 2>/dev/null")) {
		f.lines = append(f.lines, strings.Join(strings.Fields(line), " "))
	}
	f.stderr = p.print("portcullis status 2>&1 >/dev/null")
	f.checks = p.examine("")
	return f
}

// tallies are what a filter counts in.
type tallies struct{ ledger, rules *ebpf.Map }

func openTallies(t *testing.T, pinPath string) (c tallies) {
	t.Helper()
	for name, m := range map[string]**ebpf.Map{"ledger": &c.ledger, "rule_tallies": &c.rules} {
		opened, err := ebpf.LoadPinnedMap(filepath.Join(pinPath, loader.Schema, "maps", name), nil)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { opened.Close() })
		*m = opened
	}
	return c
}

// raise makes a reason's counter say so much on each CPU, and every other one 0.
func (c tallies) raise(t *testing.T, cpus int, reason maps.Reason) {
	t.Helper()
	for page := range c.ledger.MaxEntries() {
		values := make([]bpf.FirewallLedgerPage, cpus)
		if page == maps.OthersPage && reason < maps.RuleReason(0) {
			for i := range values {
				values[i].Tallies[reason].Packets = raised
			}
		}
		if err := c.ledger.Put(page, values); err != nil {
			t.Fatal(err)
		}
	}
	for rule := range c.rules.MaxEntries() {
		values := make([]bpf.FirewallTally, cpus)
		if reason == maps.RuleReason(uint16(rule)) {
			for i := range values {
				values[i].Packets = raised
			}
		}
		if err := c.rules.Put(rule, values); err != nil {
			t.Fatal(err)
		}
	}
}

// Each reason counts under its own name, and changes no other figure and no warning but those that are about it.
func TestEachReasonAlone(t *testing.T) {
	p := newPatient(t)
	p.write("interfaces: [eth0]\nopen: [80/tcp, 81/tcp]\nflows: {max: 1024}\n")
	p.Client.IP(t, "link", "set", "eth0", "down") // so that no packet comes
	p.must("portcullis up --config " + p.config)
	counters := openTallies(t, p.PinPath)
	cpus := ebpf.MustPossibleCPU()
	total := uint64(raised * cpus)

	nobody := maps.RuleReason(0)
	counters.raise(t, cpus, nobody)
	quiet := p.figures()
	if len(quiet.counters) != len(maps.Reasons()) || len(quiet.warnings) > 0 || quiet.stderr != "" ||
		quiet.flows != (loader.FlowsStatus{Max: 1024}) || !slices.Contains(quiet.lines, "flows: 0 assured, 0 others, of 1024") {
		t.Fatalf("nothing is counted: %+v", quiet)
	}
	for _, reason := range append(maps.Reasons(), maps.RuleReason(1), maps.RuleReason(2)) {
		t.Run(strings.ReplaceAll(reason.Verdict()+" "+reason.String(), " ", "_"), func(t *testing.T) {
			counters.raise(t, cpus, reason)
			got, want := p.figures(), quiet
			want.counters = make(map[string]uint64)
			for key := range quiet.counters {
				want.counters[key] = 0
			}
			want.checks = slices.Clone(quiet.checks)
			check := slices.IndexFunc(want.checks, func(c doctor.Check) bool { return c.Group == "portcullis" && c.Name == "flows" })
			row, flows := "", "flows: 0 assured, 0 others, of 1024"
			switch name := reason.Verdict() + " " + reason.String(); {
			case reason == maps.RuleReason(1):
				want.rules, row = []uint64{total, 0}, fmt.Sprintf("80/tcp %d", total)
			case reason == maps.RuleReason(2):
				want.rules, row = []uint64{0, total}, fmt.Sprintf("81/tcp %d", total)
			default:
				want.counters[name], row = total, fmt.Sprintf("%s %d", name, total)
			}
			if kind, invalid := strings.CutPrefix(row, "seen invalid "); invalid {
				row = "invalid " + kind
			}
			switch bpf.FirewallReason(reason) {
			case bpf.FirewallReasonSEEN_FLOWS_FULL:
				sentence := fmt.Sprintf("the flow table, for 1024 flows, had no room for %d packets that begin a flow, and what answered was dropped (over TCP it shows as \"invalid state\"): "+
					"set \"flows: {max: 2048}\" in the policy file (270 kB of memory); \"portcullis --pin-path %[2]s down --config %[3]s\" and \"portcullis --pin-path %[2]s up --config %[3]s\" re-create the table (this opens the host for a moment; live connections go on)", total, p.PinPath, p.config)
				want.flows.Full, want.warnings, want.stderr = total, []string{sentence}, "portcullis: warning: "+sentence+"\n"
				want.checks[check].Verdict, want.checks[check].Text = doctor.Warn, sentence
				flows += fmt.Sprintf("; %d refused", total)
				row = flows
			case bpf.FirewallReasonSEEN_MERGED:
				row = flows // it is about frames, for "status --check"
			case bpf.FirewallReasonSEEN_FLOWS_EVICTED:
				want.flows.Evicted = total
				want.checks[check].Text = fmt.Sprintf("0 of 1024; the table has been full, and has evicted %d flows; none of them was assured", total)
				flows += fmt.Sprintf("; %d evicted", total)
				row = flows
			}
			if !slices.Contains(got.lines, row) || !slices.Contains(got.lines, flows) {
				t.Errorf("status has no line %q or %q:\n%s", row, flows, strings.Join(got.lines, "\n"))
			}
			for _, line := range got.lines {
				if strings.HasSuffix(line, fmt.Sprintf(" %d", total)) && line != row {
					t.Errorf("status has the line %q too", line)
				}
			}
			want.lines = got.lines
			if !reflect.DeepEqual(got, want) {
				t.Errorf("got\n%+v\nwant\n%+v", got, want)
			}
		})
	}
}
