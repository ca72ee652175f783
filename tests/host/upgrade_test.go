// SPDX-License-Identifier: Apache-2.0

package host

import (
	"cmp"
	"encoding/binary"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/portcullis-firewall/portcullis/loader"
	"github.com/portcullis-firewall/portcullis/maps"
	"github.com/portcullis-firewall/portcullis/policy"
	"github.com/portcullis-firewall/portcullis/tests/internal/lab"
)

// The reasons of schemas v4 and v5, in the order in which they counted.
var olderReasons = []string{
	"pass not ip", "pass other host", "pass established", "pass related", "pass icmp", "pass neighbor discovery", "pass dhcp",
	"pass fragment", "pass forward", "pass input", "pass invalid", "drop closed port", "drop source", "drop icmp",
	"drop protocol", "drop forward", "drop invalid", "drop bad vlan", "drop bad ipv4", "drop bad ipv6", "drop bad extension",
	"drop bad transport", "drop tiny fragment", "seen flows full", "seen flows evicted", "seen invalid header",
	"seen invalid length", "seen invalid flags", "seen invalid state", "seen invalid icmp",
}

// What they had of their own. In v4 rules counted behind the reasons, and were pinned as text.
const (
	firstRuleV4   = 30
	firstRuleV5   = 64
	olderCapacity = 1024
	ruleSizeV4    = 256 // a mark for what is not in the file, and the text
)

// becomeOlder makes what is pinned what an older schema would have pinned, with the same flows, rules and counters.
func becomeOlder(t *testing.T, l *lab.Lab, schema string) {
	t.Helper()
	ours, older := filepath.Join(l.PinPath, loader.Schema), filepath.Join(l.PinPath, schema)
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
		spec.Type, spec.KeySize = cmp.Or(spec.Type, ebpf.Array), 4
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
	firstRule := uint32(map[string]int{"v4": firstRuleV4, "v5": firstRuleV5}[schema])
	counts := pin("maps/counters", &ebpf.MapSpec{Type: ebpf.PerCPUArray, ValueSize: 8, MaxEntries: firstRule + olderCapacity})
	put := func(number uint32, sum uint64) {
		values := make([]uint64, ebpf.MustPossibleCPU())
		values[len(values)-1] = sum
		if err := counts.Put(number, values); err != nil {
			t.Fatal(err)
		}
	}
	for reason, sum := range counters {
		if number := slices.Index(olderReasons, reason.Verdict()+" "+reason.String()); number >= 0 {
			put(uint32(number), sum)
		}
	}
	for _, r := range inForce {
		put(firstRule+uint32(r.ID), counters[maps.RuleReason(r.ID)])
	}
	os.Remove(filepath.Join(older, "maps/limit_buckets"))
	for _, path := range []string{"policy/limits", "policy/rule_records", "policy/running", "policy/clock"} {
		if err := os.Remove(filepath.Join(older, path)); err != nil {
			t.Fatal(err)
		}
	}
	const mappable = unix.BPF_F_MMAPABLE
	if schema == "v4" {
		texts := pin("policy/rules", &ebpf.MapSpec{ValueSize: ruleSizeV4, MaxEntries: olderCapacity, Flags: mappable})
		for _, r := range inForce {
			var wire [ruleSizeV4]byte
			if r.Runtime {
				wire[0] = 1
			}
			copy(wire[1:], r.Rule.String())
			if err := texts.Put(uint32(r.ID), wire); err != nil {
				t.Fatal(err)
			}
		}
		return
	}
	places := pin("policy/rules", &ebpf.MapSpec{ValueSize: 8, MaxEntries: olderCapacity, Flags: mappable})
	records := pin("policy/rule_records", &ebpf.MapSpec{ValueSize: 8, MaxEntries: olderCapacity, Flags: mappable})
	at := uint32(0) // in words
	for _, r := range inForce {
		b := recordV5(r)
		if err := places.Put(uint32(r.ID), [2]uint32{at * 8, uint32(len(b))}); err != nil {
			t.Fatal(err)
		}
		for word := range slices.Chunk(append(b, make([]byte, 7)...), 8) {
			if len(word) == 8 {
				if err := records.Put(at, [8]byte(word)); err != nil {
					t.Fatal(err)
				}
				at++
			}
		}
	}
}

// recordV5 is the record of a rule of ports and sources, as schema v5 has it.
func recordV5(r maps.Rule) []byte {
	runtime := uint32(0)
	if r.Runtime {
		runtime = 1
	}
	what := r.Rule.What()
	var b []byte
	for _, n := range []uint32{runtime, uint32(len(what)), uint32(len(r.Rule.Ports)), uint32(len(r.Rule.From))} {
		b = binary.NativeEndian.AppendUint32(b, n)
	}
	b = append(b, what...)
	for _, p := range r.Rule.Ports {
		b = append(b, byte(p.Protocol), 0)
		b = binary.NativeEndian.AppendUint16(b, p.First)
		b = binary.NativeEndian.AppendUint16(b, p.Last)
	}
	for _, p := range r.Rule.From {
		address := p.Addr().AsSlice()
		b = append(append(b, byte(len(address)), byte(p.Bits())), address...)
	}
	return b
}

// An upgrade keeps counters under the names of their reasons and rules, and flows. Rules are there under their numbers
// before, whatever their place in the policy.
func TestAnUpgradeKeepsCounters(t *testing.T) {
	for _, schema := range []string{"v4", "v5"} {
		t.Run(schema, func(t *testing.T) { upgradeKeepsCounters(t, schema) })
	}
}

func upgradeKeepsCounters(t *testing.T, schema string) {
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

	becomeOlder(t, l, schema)
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
	if _, err := os.Stat(filepath.Join(l.PinPath, schema)); err == nil {
		t.Error("what the older version pinned is still there")
	}
}

// With rules whose text nobody can read any more, an upgrade goes on, and says so.
func TestAnUpgradeWithRulesThatCannotBeRead(t *testing.T) {
	l := lab.New(t)
	up(t, l, loader.ModeNative, policyOf(t, "443/tcp"))
	becomeOlder(t, l, "v4")
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
