// SPDX-License-Identifier: Apache-2.0

package maps

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/cilium/ebpf"

	"github.com/portcullis-firewall/portcullis/bpf"
	"github.com/portcullis-firewall/portcullis/policy"
)

const portsMap = ".bss" // a section: the datapath has the ports in a variable

var rulesetKinds = []kind{
	{portsMap, portsPin},
	{bpf.FirewallMapRangeSets, "range_sets"},
	{bpf.FirewallMapRangeLines, "range_lines"},
	{bpf.FirewallMapRangeBuckets, "range_buckets"},
	{bpf.FirewallMapForwarders, "forwarders"},
	{blockingMap, "blocking"},
	{bpf.FirewallMapBlockLists, "block_lists"},
	{bpf.FirewallMapLimits, "limits"},
	{bpf.FirewallMapRules, "rules"},
	{bpf.FirewallMapRuleRecords, "rule_records"},
	{bpf.FirewallMapRunning, "running"},
}

// Ruleset holds the maps of one policy: ports by group of interfaces, sources, what is routed, and the rules as they are shown. Several may
// share one [State].
type Ruleset struct {
	group
	interfaces []Interface // see SetInterfaces
}

// NewRuleset creates the maps that spec describes.
func NewRuleset(spec *ebpf.CollectionSpec) (*Ruleset, error) {
	r := &Ruleset{group: group{kinds: slices.Clone(rulesetKinds)}}
	for _, k := range rulesetKinds {
		if err := r.create(k, spec); err != nil {
			r.Close()
			return nil, err
		}
	}
	return r, nil
}

// OpenRuleset opens the ruleset that is pinned in dir. Lost, which may be nil, opens maps that have lost their pins.
func OpenRuleset(dir string, lost Lost) (*Ruleset, error) {
	r := &Ruleset{group: group{kinds: slices.Clone(rulesetKinds), dir: dir, lost: lost}}
	err := r.OpenAll()
	if err == nil {
		err = r.checkFound(dir)
	}
	if err == nil {
		err = r.openTables(dir, func(*ebpf.Map) bool { return true })
	}
	if err != nil {
		r.Close()
		return nil, err
	}
	return r, nil
}

// checkFound refuses a table that was found without its pin and is another group's.
func (r *Ruleset) checkFound(dir string) error {
	if _, err := os.Lstat(filepath.Join(dir, portsPin)); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	g, err := groupOf(r.byName[portsMap])
	if err == nil && g != "" {
		err = fmt.Errorf("open pinned map %s: %w", portsPin, fs.ErrNotExist)
	}
	return err
}

// RulesetPins returns the names of a ruleset's pins, but for the tables of groups, see [TablePin].
func RulesetPins() []string { return pinsOf(rulesetKinds) }

// Adopt replaces maps by those that are pinned in dir and large enough, and takes the tables of groups that are there.
// Nothing else may use these. They keep what they hold until it is written anew.
func (r *Ruleset) Adopt(dir string) error {
	if err := r.adopt(dir); err != nil {
		return err
	}
	base, err := r.Map(portsMap)
	if err != nil {
		return err
	}
	return r.openTables(dir, func(m *ebpf.Map) bool { return m.ValueSize() == base.ValueSize() })
}

func (r *Ruleset) adopt(dir string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	found := make(map[string]*ebpf.Map)
	defer func() {
		for _, m := range found {
			m.Close()
		}
	}()
	for _, k := range rulesetKinds {
		m, err := openPinned(dir, k.pin)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		found[k.name] = m
	}
	fits := func(name string) bool {
		m, fresh := found[name], r.byName[name]
		return m != nil && m.ValueSize() == fresh.ValueSize() && fitsIn(name, m.MaxEntries(), fresh.MaxEntries())
	}
	// Those of which one says what is where in the others.
	for _, together := range [][]string{
		{bpf.FirewallMapRules, bpf.FirewallMapRuleRecords},
		{bpf.FirewallMapRangeSets, bpf.FirewallMapRangeLines, bpf.FirewallMapRangeBuckets, blockingMap, bpf.FirewallMapBlockLists},
	} {
		if !slices.ContainsFunc(together, func(name string) bool { return !fits(name) }) {
			continue
		}
		for _, name := range together {
			if m := found[name]; m != nil {
				m.Close()
				delete(found, name)
			}
		}
	}
	for _, k := range rulesetKinds {
		if !fits(k.name) {
			continue
		}
		r.unmap(k.name)
		r.byName[k.name].Close()
		r.byName[k.name] = found[k.name]
		delete(found, k.name)
	}
	return nil
}

// mostSpare is how much more than needed a map may have room for, to be used again: what a large policy took is given
// back some time.
const mostSpare = 4

// fitsIn reports whether a map with room for have entries can be used in the place of one for want.
func fitsIn(name string, have, want uint32) bool {
	switch name {
	case bpf.FirewallMapRangeSets, bpf.FirewallMapRangeLines, bpf.FirewallMapRangeBuckets, bpf.FirewallMapRuleRecords, bpf.FirewallMapForwarders:
		return have >= want && have <= mostSpare*want
	}
	return have == want // to which other maps and the constants of programs are laid out
}

// Running holds what a running filter was told besides its rules.
type Running struct {
	Policy *policy.Policy // without rules, which are in Rules, and interfaces
	Netns  uint64         // cookie of the network namespace
	HZ     uint32         // jiffies a second
	Config string         // file that the policy came from
}

// PutRunning records running.
func (r *Ruleset) PutRunning(running *Running) error {
	wire, err := r.wireRunning(running)
	if err != nil {
		return err
	}
	return r.putSettings(wire)
}

func (r *Ruleset) wireRunning(running *Running) (*bpf.FirewallSettings, error) {
	wire, err := wirePolicy(running.Policy)
	if err != nil {
		return nil, err
	}
	features, err := r.Features()
	if err != nil {
		return nil, err
	}
	wire.Features = uint32(features)
	wire.Netns = running.Netns
	wire.Hz = running.HZ
	wire.ConfigLength = uint32(len(running.Config))
	if len(running.Config) > len(wire.Config) {
		return nil, fmt.Errorf("the path of the config file is longer than %d bytes", len(wire.Config))
	}
	copy(wire.Config[:], running.Config)
	return &wire, nil
}

// wirePolicy returns what is recorded of a policy: all but its rules, and its interfaces, which have pins.
func wirePolicy(p *policy.Policy) (wire bpf.FirewallSettings, err error) {
	text := p.CompleteYAML()
	if len(text) > len(wire.Policy) {
		return wire, fmt.Errorf("the policy without its rules is %d bytes, and %d is the most: put networks of block and trust into list files, or shorten the list of icmp types", len(text), len(wire.Policy))
	}
	wire.PolicyLength = uint32(copy(wire.Policy[:], text))
	return wire, nil
}

// Running returns what PutRunning recorded.
func (r *Ruleset) Running() (*Running, error) {
	wire, err := r.settings()
	if err != nil {
		return nil, err
	}
	p, err := policy.ParseComplete("policy in force", wire.Policy[:min(int(wire.PolicyLength), len(wire.Policy))])
	if err != nil {
		return nil, err
	}
	config := wire.Config[:min(int(wire.ConfigLength), len(wire.Config))]
	return &Running{
		Policy: p,
		Netns:  wire.Netns,
		HZ:     wire.Hz,
		Config: string(config),
	}, nil
}
