// SPDX-License-Identifier: Apache-2.0

package host

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/portcullis-firewall/portcullis/loader"
	"github.com/portcullis-firewall/portcullis/maps"
	"github.com/portcullis-firewall/portcullis/policy"
	"github.com/portcullis-firewall/portcullis/tests/internal/lab"
)

// What schema v4 had of its own: rules counted behind its 30 reasons, and were pinned as text.
const (
	reasonsV4  = 30
	capacityV4 = 1024
	ruleSizeV4 = 256 // a mark for what is not in the file, and the text
)

// becomeV4 makes what is pinned what schema v4 would have pinned, with the same flows, rules and counters.
func becomeV4(t *testing.T, l *lab.Lab) {
	t.Helper()
	ours, older := filepath.Join(l.PinPath, loader.Schema), filepath.Join(l.PinPath, "v4")
	set, err := maps.OpenSet(filepath.Join(ours, "maps"), filepath.Join(ours, "policy"), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer set.Close()
	counters, err := set.Counters()
	if err != nil {
		t.Fatal(err)
	}
	inForce, err := set.Rules()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(ours, older); err != nil {
		t.Fatal(err)
	}
	pin := func(path string, spec *ebpf.MapSpec) *ebpf.Map {
		m, err := ebpf.NewMap(spec)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { m.Close() })
		os.Remove(filepath.Join(older, path))
		if err := m.Pin(filepath.Join(older, path)); err != nil {
			t.Fatal(err)
		}
		return m
	}
	counts := pin("maps/counters", &ebpf.MapSpec{Type: ebpf.PerCPUArray, KeySize: 4, ValueSize: 8, MaxEntries: reasonsV4 + capacityV4})
	texts := pin("policy/rules", &ebpf.MapSpec{Type: ebpf.Array, KeySize: 4, ValueSize: ruleSizeV4, MaxEntries: capacityV4, Flags: unix.BPF_F_MMAPABLE})
	put := func(number uint32, sum uint64) {
		values := make([]uint64, ebpf.MustPossibleCPU())
		values[len(values)-1] = sum
		if err := counts.Put(number, values); err != nil {
			t.Fatal(err)
		}
	}
	for reason, sum := range counters {
		if reason < reasonsV4 {
			put(uint32(reason), sum)
		}
	}
	for _, r := range inForce {
		put(reasonsV4+uint32(r.ID), counters[maps.RuleReason(r.ID)])
		var wire [ruleSizeV4]byte
		if r.Runtime {
			wire[0] = 1
		}
		copy(wire[1:], r.Rule.String())
		if err := texts.Put(uint32(r.ID), wire); err != nil {
			t.Fatal(err)
		}
	}
	for _, path := range []string{"policy/rule_records", "policy/running", "policy/clock"} {
		if err := os.Remove(filepath.Join(older, path)); err != nil {
			t.Fatal(err)
		}
	}
}

// An upgrade from schema v4 keeps counters under the names of their reasons and rules, and flows. Rules are there under
// their numbers before, whatever their place in the policy.
func TestAnUpgradeKeepsCounters(t *testing.T) {
	l := lab.New(t)
	l.Server.Echo(t, 443)
	l.Server.Echo(t, 80)
	l.Client.Echo(t, 7)
	up(t, l, loader.ModeNative, policyOf(t, "22/tcp", "443/tcp", "80/tcp", "25/tcp from 192.0.2.0/24"))
	change(t, l, func(f *loader.Filter) error {
		_, err := f.OpenRules(rules(t, "8080/tcp"), true)
		return err
	})
	mustTalk(t, mustDial(t, l.Client, "tcp", lab.ServerV4, 443), "to 443")
	for range 3 {
		mustTalk(t, mustDial(t, l.Client, "tcp", lab.ServerV4, 80), "to 80")
	}
	mustNotDial(t, l.Client, lab.ServerV4, 9)
	ours := mustDial(t, l.Server, "tcp", lab.ClientV4, 7)
	mustTalk(t, ours, "before")
	before := status(t, l)
	packets := func(s *loader.Status) map[string]uint64 {
		out := make(map[string]uint64)
		for _, r := range s.Rules {
			out[r.Rule] = r.Packets
		}
		for _, c := range s.Counters {
			out[c.Verdict+" "+c.Reason] = c.Packets
		}
		return out
	}
	had := packets(before)
	if had["443/tcp"] == 0 || had["80/tcp"] <= had["443/tcp"] || had["drop closed port"] == 0 || had["pass established"] == 0 {
		t.Fatalf("the test shows nothing with %v", had)
	}
	flows := len(flowTable(t, l))

	becomeV4(t, l)
	report := upWith(t, l, loader.Options{
		Interfaces: []string{"eth0"}, KeepRuntime: true,
		Policy: policyOf(t, "993/tcp", "80/tcp", "25/tcp from 192.0.2.0/24", "443/tcp"),
	})
	if got := strings.Join(report.Warnings, "\n"); !strings.Contains(got, "connections go on, and so do counters") {
		t.Errorf("the warnings are %q", got)
	}
	after := status(t, l)
	has := packets(after)
	for _, name := range []string{"443/tcp", "80/tcp", "25/tcp from 192.0.2.0/24", "8080/tcp", "drop closed port", "drop source", "pass icmp"} {
		if has[name] != had[name] {
			t.Errorf("%s: %d packets before the upgrade, %d after", name, had[name], has[name])
		}
	}
	if has["993/tcp"] != 0 || has["pass established"] < had["pass established"] {
		t.Errorf("before the upgrade: %v, after: %v", had, has)
	}
	if _, gone := has["22/tcp"]; gone {
		t.Error("a rule that the new policy has not is there")
	}
	for _, r := range after.Rules {
		if r.Runtime != (r.Rule == "8080/tcp") {
			t.Errorf("%s is not in the file: %t", r.Rule, r.Runtime)
		}
	}
	if now := len(flowTable(t, l)); now < flows || flows == 0 {
		t.Errorf("%d flows before, %d after", flows, now)
	}
	mustTalk(t, ours, "after")
	mustTalk(t, mustDial(t, l.Client, "tcp", lab.ServerV4, 443), "to 443 again")
	if s := packets(status(t, l)); s["443/tcp"] <= had["443/tcp"] || s["80/tcp"] != had["80/tcp"] {
		t.Errorf("443/tcp was used, and %v is counted after %v", s, had)
	}
	if _, err := os.Stat(filepath.Join(l.PinPath, "v4")); err == nil {
		t.Error("what the older version pinned is still there")
	}
}

// With rules whose text nobody can read any more, an upgrade goes on, and says so.
func TestAnUpgradeWithRulesThatCannotBeRead(t *testing.T) {
	l := lab.New(t)
	up(t, l, loader.ModeNative, policyOf(t, "443/tcp"))
	becomeV4(t, l)
	m, err := ebpf.LoadPinnedMap(filepath.Join(l.PinPath, "v4/policy/rules"), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	var wire [ruleSizeV4]byte
	copy(wire[1:], "no-such-service-anywhere")
	if err := m.Put(uint32(7), wire); err != nil {
		t.Fatal(err)
	}
	report := upWith(t, l, loader.Options{Interfaces: []string{"eth0"}, Policy: policy.Default()})
	if got := strings.Join(report.Warnings, "\n"); !strings.Contains(got, `rule "no-such-service-anywhere" of the older version cannot be read`) {
		t.Errorf("the warnings are %q", got)
	}
}
