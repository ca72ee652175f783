// SPDX-License-Identifier: Apache-2.0

package maps

import (
	"fmt"
	"maps"
	"math/bits"
	"slices"
	"strings"

	"github.com/cilium/ebpf"

	"github.com/portcullis-firewall/portcullis/bpf"
	"github.com/portcullis-firewall/portcullis/policy"
)

// What is routed is judged by the interface that it comes in by: see bpf/forward.h. An entry says by which set of rules, and
// what is known of the interface; those without one are as that of no interface says.

// Interface is one of this host's by which packets come in that are routed.
type Interface struct {
	Index  int
	Name   string
	Judged bool // all that comes in by it has met a filter
	Guests bool // guests of this host are behind it
}

const (
	noInterface     = 0    // no device has that index
	leastForwarders = 4096 // that there is room for, however few interfaces there are
)

const (
	judged   = uint16(bpf.FirewallForwarderFlagFORWARDER_JUDGED)
	begins   = uint16(bpf.FirewallForwarderFlagFORWARDER_BEGINS)
	anything = uint16(bpf.FirewallForwarderFlagFORWARDS_ANYTHING)
)

// SetInterfaces says which interfaces there are, for the next PutRules. Without, that leaves what is known of them as it is
// unless rules about what is routed come or go.
func (r *Ruleset) SetInterfaces(list []Interface) {
	r.interfaces = slices.Clip(append([]Interface{}, list...))
}

// resizeForwarders sets the map size in spec for that many interfaces.
func resizeForwarders(spec *ebpf.CollectionSpec, interfaces int) {
	spec.Maps[bpf.FirewallMapForwarders].MaxEntries = uint32(max(leastForwarders, 2<<bits.Len(uint(interfaces))))
}

// forwardGroups finds the groups of interfaces among rules about what is routed.
type forwardGroups []policy.Rule

// newForwardGroups looks at each list of interfaces that rules name once: there may be many rules.
func newForwardGroups(rules []policy.Rule) (g forwardGroups) {
	seen := make(map[string]bool)
	for _, r := range rules {
		if key := strings.Join(r.On, ","); r.Forward && key != "" && !seen[key] {
			seen[key] = true
			g = append(g, policy.Rule{On: r.On, Forward: true})
		}
	}
	return g
}

func (g forwardGroups) of(iface string) policy.Group {
	if len(g) == 0 {
		return ""
	}
	return policy.ForwardGroupOf(g, iface)
}

// groups returns the groups of names, each once, in order.
func (g forwardGroups) groups(names []string) []policy.Group {
	seen := make(map[policy.Group]bool)
	for _, name := range names {
		seen[g.of(name)] = true
	}
	return slices.Sorted(maps.Keys(seen))
}

// namesOn returns the interfaces and patterns that rules about what is routed name.
func namesOn(rules []policy.Rule) (names []string) {
	for _, r := range newForwardGroups(rules) {
		names = append(names, r.On...)
	}
	return names
}

func namesOf(list []Interface) []string {
	names := make([]string, len(list))
	for i, iface := range list {
		names[i] = iface.Name
	}
	return names
}

func plainRules(rules []Rule) []policy.Rule {
	out := make([]policy.Rule, len(rules))
	for i, r := range rules {
		out[i] = r.Rule
	}
	return out
}

func isForward(r policy.Rule) bool { return r.Forward }

// forwarders returns the entries for interfaces, whose groups have sets.
func forwarders(list []Interface, rules []policy.Rule, sets map[policy.Group]uint16) map[uint32]bpf.FirewallForwarder {
	groups := newForwardGroups(rules)
	others := bpf.FirewallForwarder{Set: sets[""]}
	if slices.ContainsFunc(rules, isForward) {
		others.Flags = anything
	}
	out := make(map[uint32]bpf.FirewallForwarder)
	for _, iface := range list {
		g := groups.of(iface.Name)
		entry := bpf.FirewallForwarder{Set: sets[g]}
		if iface.Judged {
			entry.Flags |= judged
		}
		if iface.Guests && g == "" { // else it is named by rules, and they alone count
			entry.Flags |= begins
			others.Flags |= anything
		}
		if entry.Flags != 0 || entry.Set != others.Set {
			out[uint32(iface.Index)] = entry
		}
	}
	out[noInterface] = others
	return out
}

// readForwarders returns the entries that are there.
func (r *Ruleset) readForwarders() (map[uint32]bpf.FirewallForwarder, error) {
	m, err := r.Map(bpf.FirewallMapForwarders)
	if err != nil {
		return nil, err
	}
	have := make(map[uint32]bpf.FirewallForwarder)
	var key uint32
	var entry bpf.FirewallForwarder
	it := m.Iterate()
	for it.Next(&key, &entry) {
		have[key] = entry
	}
	if err := it.Err(); err != nil {
		return nil, fmt.Errorf("read %s: %w", m, err)
	}
	return have, nil
}

// putForwarders brings the entries that are there to those that are wanted, each in one step. That of no interface is the
// first: another than it lets through what that does and more, so nothing is held back meanwhile that both policies let through.
func (r *Ruleset) putForwarders(want map[uint32]bpf.FirewallForwarder) error {
	m, err := r.Map(bpf.FirewallMapForwarders)
	if err != nil {
		return err
	}
	have, err := r.readForwarders()
	if err != nil {
		return err
	}
	for _, key := range slices.Sorted(maps.Keys(want)) {
		if entry, ok := have[key]; ok && entry == want[key] {
			continue
		}
		if err := m.Put(key, want[key]); err != nil {
			return fmt.Errorf("say what is routed from interface %d: %w", key, err)
		}
	}
	for key := range have {
		if _, ok := want[key]; !ok {
			if err := m.Delete(key); err != nil {
				return fmt.Errorf("forget what is routed from interface %d: %w", key, err)
			}
		}
	}
	return nil
}

// SyncInterfaces brings what is known of interfaces in line with a list, as the rules in force say. If the sets of a new
// group of interfaces have no room, the error is ErrNoRoom and nothing has changed.
func (s *Set) SyncInterfaces(list []Interface) error {
	want, sets, err := s.wantedForwarders(list)
	if err != nil {
		return err
	}
	if err := s.writeSets(sets); err != nil {
		return err
	}
	return s.putForwarders(want) // sets that no entry names any more go with the next change of rules
}

// OutdatedInterfaces returns those of a list of which something else is known, and writes nothing.
func (s *Set) OutdatedInterfaces(list []Interface) (outdated []Interface, err error) {
	want, sets, err := s.wantedForwarders(list)
	if err != nil {
		return nil, err
	}
	fresh := make(map[uint16]bool)
	for _, p := range sets {
		fresh[p.number] = true
	}
	have, err := s.readForwarders()
	if err != nil {
		return nil, err
	}
	at := func(entries map[uint32]bpf.FirewallForwarder, index int) bpf.FirewallForwarder {
		if entry, ok := entries[uint32(index)]; ok {
			return entry
		}
		return bpf.FirewallForwarder{Set: entries[noInterface].Set}
	}
	for _, iface := range list {
		if wanted := at(want, iface.Index); wanted != at(have, iface.Index) || fresh[wanted.Set] {
			outdated = append(outdated, iface)
		}
	}
	return outdated, nil
}

// wantedForwarders returns the entries for interfaces by the rules in force, and the sets that have yet to be written.
func (s *Set) wantedForwarders(list []Interface) (map[uint32]bpf.FirewallForwarder, []placed, error) {
	features, err := s.Features()
	if err != nil {
		return nil, nil, err
	}
	if features&UsesForwardRules == 0 {
		return forwarders(list, nil, nil), nil, nil
	}
	rules, err := s.Rules()
	if err != nil {
		return nil, nil, err
	}
	// A set is known by its contents, whichever rules are compiled beside.
	rules = slices.DeleteFunc(rules, func(r Rule) bool { return !r.Rule.Forward })
	compiled, _, sets, err := s.compileBeside(rules, list)
	if err != nil {
		return nil, nil, err
	}
	return forwarders(list, plainRules(rules), compiled.Forward), sets, nil
}
