// SPDX-License-Identifier: Apache-2.0

package testdp

import (
	"errors"
	"fmt"
	"time"

	"github.com/cilium/ebpf"

	"github.com/portcullis-firewall/portcullis/bpf"
	"github.com/portcullis-firewall/portcullis/maps"
	"github.com/portcullis-firewall/portcullis/policy"
)

// Turns is a datapath in which policies take turns: their rules are written into the same maps, and the programs that
// differ in their constants are loaded once each, when the first policy needs them. Every address is this host's.
type Turns struct {
	set      *maps.Set
	path     Path
	programs map[turn]*ebpf.Program
	rules    []maps.Rule // in force
	table    *ebpf.Map   // over which the programs are loaded, whatever the group
	running  *ebpf.Program
	state    bpf.FirewallState
	run      ebpf.RunOptions
}

// turn is what the constants of a program go by.
type turn struct {
	features maps.Features
	input    policy.Verdict
}

// OpenTurns makes the maps, with room for policies like one.
func OpenTurns(path Path, like *policy.Policy) (_ *Turns, err error) {
	spec, err := bpf.LoadFirewall()
	if err != nil {
		return nil, err
	}
	maps.Resize(spec, like)
	shrink(spec, like, &Options{Rules: 256})
	set, err := maps.NewSet(spec, nil)
	if err != nil {
		return nil, err
	}
	t := &Turns{set: set, path: path, programs: make(map[turn]*ebpf.Program), state: bpf.FirewallState{Sweep: 1}}
	defer func() {
		if err != nil {
			t.Close()
		}
	}()
	if t.table, err = set.Table(""); err != nil {
		return nil, err
	}
	for name, key := range map[string]any{
		bpf.FirewallMapLocal4: &bpf.FirewallLocalKey4{}, bpf.FirewallMapLocal6: &bpf.FirewallLocalKey6{},
	} {
		m, err := set.Map(name)
		if err != nil {
			return nil, err
		}
		if err := m.Put(key, uint8(1)); err != nil {
			return nil, err
		}
	}
	return t, nil
}

// Close takes everything out of the kernel.
func (t *Turns) Close() {
	for _, p := range t.programs {
		p.Close()
	}
	t.set.Close()
}

// Apply puts a policy in force as it counts on an interface.
func (t *Turns) Apply(p *policy.Policy, iface string) error {
	features := maps.FeaturesOf(p.Open)
	if err := t.set.SetFeatures(features); err != nil {
		return err
	}
	group := policy.GroupOf(p.Open, iface)
	if err := errors.Join(t.set.KeepTables([]policy.Group{group}), t.set.AddTables([]policy.Group{group})); err != nil {
		return err
	}
	numbered, err := maps.Number(p.Open, t.rules, t.set.Capacity())
	if err != nil {
		return err
	}
	rules := make([]maps.Rule, len(numbered))
	for i, n := range numbered {
		rules[i].NumberedRule = n
	}
	if err := t.set.PutRules(rules, t.rules, t.rules); err != nil {
		return err
	}
	t.rules = rules
	if group != "" {
		if err := t.copyTable(group); err != nil {
			return err
		}
	}
	return t.load(turn{features, p.InputOf(iface)}, p.For(iface))
}

// copyTable makes the programs' table that of a group: to load them over another one takes the kernel half a second.
func (t *Turns) copyTable(g policy.Group) error {
	from, err := t.set.Table(g)
	if err != nil {
		return err
	}
	var value []byte
	if value, err = from.LookupBytes(uint32(0)); err != nil {
		return err
	}
	return t.table.Put(uint32(0), value)
}

func (t *Turns) load(of turn, p *policy.Policy) error {
	if t.running = t.programs[of]; t.running != nil {
		return nil
	}
	spec, err := bpf.LoadFirewall()
	if err != nil {
		return err
	}
	if err := t.set.Measure(spec); err != nil {
		return err
	}
	constants := maps.Constants{Policy: p, HZ: HZ, Ethernet: true, Features: of.features, TestClock: true}
	if err := constants.Set(spec); err != nil {
		return err
	}
	program := spec.Programs[string(t.path)]
	clear(spec.Programs)
	spec.Programs[string(t.path)] = program
	all, err := t.set.All()
	if err != nil {
		return err
	}
	collection, err := ebpf.NewCollectionWithOptions(spec, ebpf.CollectionOptions{MapReplacements: all})
	if err != nil {
		return fmt.Errorf("load %s: %w", t.path, err)
	}
	t.running = collection.DetachProgram(string(t.path))
	t.programs[of] = t.running
	collection.Close()
	return nil
}

// Passes runs a frame and reports whether it passed. What is answered did not.
func (t *Turns) Passes(b []byte) (bool, error) {
	t.run.Data = b
	switch result, err := t.running.Run(&t.run); {
	case err != nil:
		return false, fmt.Errorf("run %s: %w", t.path, err)
	case result == Verdict(t.path, true):
		return true, nil
	case result == Verdict(t.path, false), isAnswer(t.path, result):
		return false, nil
	default:
		return false, fmt.Errorf("%s returned %d", t.path, int32(result))
	}
}

func isAnswer(path Path, result uint32) bool {
	return path == XDP && (result == xdpTx || result == xdpRedirect) || path == TC && result == tcRedirect
}

// Advance moves the clock. Every 146 years it begins anew, and what sources are charged with is forgotten.
func (t *Turns) Advance(by time.Duration) error {
	const most = 1 << 62 / (uint64(time.Second) / HZ)
	if t.state.ClockOffset += uint64(by) / (uint64(time.Second) / HZ); t.state.ClockOffset > most {
		t.state.ClockOffset = 0
		m, err := t.set.Map(bpf.FirewallMapLimitBuckets)
		if err != nil {
			return err
		}
		for i := range m.MaxEntries() {
			if err := m.Put(i, &bpf.FirewallBucketSet{}); err != nil {
				return err
			}
		}
	}
	m, err := t.set.Map(".data.state")
	if err != nil {
		return err
	}
	return m.Put(uint32(0), &t.state)
}
