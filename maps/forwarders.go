// SPDX-License-Identifier: Apache-2.0

package maps

import (
	"errors"
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

// forwarders returns the entries for interfaces, whose groups have sets, by rules about what is routed. Open says whether
// there are rules at all: answers of a container that publishes an open port are let through, in fragments, too.
func forwarders(list []Interface, rules []policy.Rule, sets map[policy.Group]uint16, open bool) map[uint32]bpf.FirewallForwarder {
	groups := newForwardGroups(rules)
	others := bpf.FirewallForwarder{Set: sets[""]}
	if open {
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

// forwarderStep writes an entry, or deletes it.
type forwarderStep struct {
	key   uint32
	entry bpf.FirewallForwarder
	gone  bool
}

// forwarderSteps returns what brings the entries that are there to those that are wanted, where the interfaces on the
// list are there, or nobody knows which where that is nil. Every interface goes from what held for it to what will in one
// step, so nothing is held back that both let through. Flags go first, as without them less is let through. Entries of
// interfaces that are gone make room for new ones, and the error is ErrNoRoom if that is too little.
func forwarderSteps(have, want map[uint32]bpf.FirewallForwarder, list []Interface, room int) ([]forwarderStep, error) {
	present := make(map[uint32]bool)
	for _, iface := range list {
		present[uint32(iface.Index)] = true
	}
	var fewer, gone, others, last []forwarderStep
	put := func(key uint32, entry bpf.FirewallForwarder) {
		step := forwarderStep{key: key, entry: entry}
		switch had, ok := have[key]; {
		case ok && had == entry:
		case ok && had.Flags&^entry.Flags != 0 && key != noInterface:
			fewer = append(fewer, step)
		default:
			others = append(others, step)
		}
	}
	for _, key := range slices.Sorted(maps.Keys(want)) {
		if key != noInterface {
			put(key, want[key])
		}
	}
	for _, key := range slices.Sorted(maps.Keys(have)) {
		if _, ok := want[key]; ok {
			continue
		}
		step := forwarderStep{key: key, gone: true}
		if list != nil && !present[key] {
			gone = append(gone, step)
			continue
		}
		put(key, bpf.FirewallForwarder{Set: want[noInterface].Set})
		last = append(last, step) // once that of no interface says the same
	}
	if n := len(want) + len(last); n > room {
		return nil, fmt.Errorf("%w: there are %d interfaces about which to say what is routed, and room for %d", ErrNoRoom, n, room)
	}
	put(noInterface, want[noInterface])
	return slices.Concat(fewer, gone, others, last), nil
}

// planForwarders returns the steps to the entries that are wanted, and writes nothing.
func (r *Ruleset) planForwarders(want map[uint32]bpf.FirewallForwarder, list []Interface) ([]forwarderStep, error) {
	m, err := r.Map(bpf.FirewallMapForwarders)
	if err != nil {
		return nil, err
	}
	have, err := r.readForwarders()
	if err != nil {
		return nil, err
	}
	return forwarderSteps(have, want, list, int(m.MaxEntries()))
}

func (r *Ruleset) putForwarders(steps []forwarderStep) error {
	m, err := r.Map(bpf.FirewallMapForwarders)
	if err != nil {
		return err
	}
	for _, step := range steps {
		if step.gone {
			if err := m.Delete(step.key); err != nil {
				return fmt.Errorf("forget what is routed from interface %d: %w", step.key, err)
			}
		} else if err := m.Put(step.key, step.entry); err != nil {
			return fmt.Errorf("say what is routed from interface %d: %w", step.key, err)
		}
	}
	return nil
}

// setAnything says that something is let through.
func (r *Ruleset) setAnything() error {
	m, err := r.Map(bpf.FirewallMapForwarders)
	if err != nil {
		return err
	}
	var others bpf.FirewallForwarder
	if err := m.Lookup(uint32(noInterface), &others); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
		return fmt.Errorf("read %s: %w", m, err)
	}
	if others.Flags&anything != 0 {
		return nil
	}
	others.Flags |= anything
	return r.putForwarders([]forwarderStep{{key: noInterface, entry: others}})
}

// reopened returns the entries that are there, where rules for this host alone change, and are then some or none.
func (r *Ruleset) reopened(open bool) (map[uint32]bpf.FirewallForwarder, error) {
	entries, err := r.readForwarders()
	if err != nil {
		return nil, err
	}
	for _, entry := range entries {
		open = open || entry.Flags&begins != 0
	}
	others := entries[noInterface]
	others.Flags &^= anything
	if open {
		others.Flags |= anything
	}
	entries[noInterface] = others
	return entries, nil
}

// Distrust takes interfaces for judged no longer that are not so on a list, and those that are not there. It needs no room.
func (r *Ruleset) Distrust(list []Interface) error {
	have, err := r.readForwarders()
	if err != nil {
		return err
	}
	for _, iface := range list {
		if iface.Judged {
			delete(have, uint32(iface.Index))
		}
	}
	var steps []forwarderStep
	for _, key := range slices.Sorted(maps.Keys(have)) {
		if entry := have[key]; entry.Flags&judged != 0 {
			entry.Flags &^= judged
			steps = append(steps, forwarderStep{key: key, entry: entry})
		}
	}
	return r.putForwarders(steps)
}

// SyncInterfaces brings what is known of interfaces in line with a list, as the rules in force say. If the sets of a new
// group of interfaces, or they themselves, have no room, the error is ErrNoRoom, and nothing has changed but that of
// [Ruleset.Distrust].
func (s *Set) SyncInterfaces(list []Interface) error {
	if err := s.Distrust(list); err != nil {
		return err
	}
	want, sets, err := s.wantedForwarders(list)
	if errors.Is(err, ErrNoRoom) {
		// Perhaps what was dropped is in the way.
		if err := s.forgetDropped(); err != nil {
			return err
		}
		want, sets, err = s.wantedForwarders(list)
	}
	if err != nil {
		return err
	}
	steps, err := s.planForwarders(want, list)
	if err != nil {
		return err
	}
	if err := s.writeSets(sets); err != nil {
		return err
	}
	return s.putForwarders(steps) // sets that no entry names any more go with the next change of rules
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
		open, err := s.hasRules()
		return forwarders(list, nil, nil, open), nil, err
	}
	rules, err := s.Rules()
	if err != nil {
		return nil, nil, err
	}
	open := len(rules) > 0
	// A set is known by its contents, whichever rules are compiled beside.
	rules = slices.DeleteFunc(rules, func(r Rule) bool { return !r.Rule.Forward })
	compiled, _, sets, err := s.compileBeside(rules, list)
	if err != nil {
		return nil, nil, err
	}
	return forwarders(list, plainRules(rules), compiled.Forward, open), sets, nil
}
