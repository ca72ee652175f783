// SPDX-License-Identifier: Apache-2.0

package maps

import (
	"errors"
	"io/fs"

	"github.com/cilium/ebpf"

	"github.com/portcullis-firewall/portcullis/bpf"
)

const portsMap = ".bss" // a section: the datapath has the ports in a variable

var rulesetKinds = []kind{
	{portsMap, "ports"},
	{bpf.FirewallMapSources4, "sources4"},
	{bpf.FirewallMapSources6, "sources6"},
	{bpf.FirewallMapRules, "rules"},
	{bpf.FirewallMapRuleRecords, "rule_records"},
	{bpf.FirewallMapRunning, "running"},
}

// Ruleset holds the maps of one policy: ports, sources, and the rules as they are shown. Several may share one [State].
type Ruleset struct{ group }

// NewRuleset creates the maps that spec describes.
func NewRuleset(spec *ebpf.CollectionSpec) (*Ruleset, error) {
	r := &Ruleset{group{kinds: rulesetKinds}}
	for _, k := range rulesetKinds {
		if err := r.create(k, spec); err != nil {
			r.Close()
			return nil, err
		}
	}
	return r, nil
}

// OpenRuleset opens the ruleset that is pinned in dir.
func OpenRuleset(dir string) (*Ruleset, error) {
	r := &Ruleset{group{kinds: rulesetKinds, dir: dir}}
	for _, k := range rulesetKinds {
		if _, err := r.Map(k.name); err != nil {
			r.Close()
			return nil, err
		}
	}
	return r, nil
}

// Adopt takes the maps that are pinned in dir in the place of new ones, where they have the same size. Nobody else may
// use them; what they hold stays until it is written anew.
func (r *Ruleset) Adopt(dir string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, k := range rulesetKinds {
		m, err := openPinned(dir, k.pin)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		fresh := r.byName[k.name]
		if m.MaxEntries() != fresh.MaxEntries() || m.ValueSize() != fresh.ValueSize() {
			m.Close()
			continue
		}
		r.unmap(k.name)
		fresh.Close()
		r.byName[k.name] = m
	}
	return nil
}
