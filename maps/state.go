// SPDX-License-Identifier: Apache-2.0

package maps

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync/atomic"

	"github.com/cilium/ebpf"

	"github.com/portcullis-firewall/portcullis/bpf"
)

// The names of data sections, where the datapath has variables instead of a map.
const (
	stateMap   = ".data.state"
	accountMap = ".data.account"
	runMap     = ".data.last_run"
	usedMap    = ".data.used"
	devicesMap = ".data.devices"
)

var stateKinds = []kind{
	{bpf.FirewallMapFlows, "flows"},
	{bpf.FirewallMapFlowTags, "flow_tags"},
	{bpf.FirewallMapLocal4, "local4"},
	{bpf.FirewallMapLocal6, "local6"},
	{".data.own", "known_own"},
	{".data.others", "known_others"},
	{bpf.FirewallMapQuestions, "questions"},
	{bpf.FirewallMapStations, "stations"},
	{bpf.FirewallMapSearches, "searches"},
	{bpf.FirewallMapLedger, "ledger"},
	{bpf.FirewallMapLedgerOffsets, "ledger_offsets"},
	{bpf.FirewallMapLedgerPages, "ledger_pages"},
	{bpf.FirewallMapRuleTallies, "rule_tallies"},
	{bpf.FirewallMapRuleOffsets, "rule_offsets"},
	{bpf.FirewallMapLimitBuckets, "limit_buckets"},
	{bpf.FirewallMapEvents, "events"},
	{bpf.FirewallMapJournal, "journal"},
	{bpf.FirewallMapReaders, "readers"},
	{bpf.FirewallMapAllowances, "allowances"},
	{bpf.FirewallMapReaderBuffers, "reader_buffers"},
	{bpf.FirewallMapShowings, "showings"},
	{bpf.FirewallMapEventBudgets, "event_budgets"},
	{bpf.FirewallMapRejections, "rejections"},
	{usedMap, "used"},
	{".data.syn_sent", "syn_sent"},
	{runMap, "last_run"},
	{devicesMap, "devices"},
	{bpf.FirewallMapSourceGate, "source_gate"},
	{bpf.FirewallMapBans4, "bans4"},
	{bpf.FirewallMapBans6, "bans6"},
	{bpf.FirewallMapBanNetworks4, "ban_networks4"},
	{bpf.FirewallMapBanNetworks6, "ban_networks6"},
	{bpf.FirewallMapBanReasons, "ban_reasons"},
	{bpf.FirewallMapSourceCounters, "source_counters"},
	{stateMap, "state"},
	{accountMap, "account"},
}

// keepSize lists the maps that keep their size as long as the filter runs.
var keepSize = []string{
	bpf.FirewallMapFlows, bpf.FirewallMapFlowTags,
	bpf.FirewallMapBans4, bpf.FirewallMapBans6, bpf.FirewallMapBanNetworks4, bpf.FirewallMapBanNetworks6,
}

// State holds the maps that outlive a policy: flows, counters, local addresses and what the datapath has found out.
type State struct {
	group
	knownBans *knownBans // what was found of bans by whoever is about to change them

	inherited              []inheritance
	begunPages, begunRules idSet // what counts from 0 in this state, and inherits nothing
}

// NewState creates the maps that spec describes, or takes those of old, which may be nil. Maps of old whose size no
// longer fits are made anew; the ledger then goes on from its values, see InheritRest.
func NewState(spec *ebpf.CollectionSpec, old *State) (_ *State, err error) {
	s := &State{group: group{kinds: stateKinds}}
	renewed := make(map[string]bool)
	defer func() {
		if err != nil {
			s.Close()
		}
	}()
	for _, k := range stateKinds {
		if taken, err := s.take(k, spec, old); err != nil {
			return nil, err
		} else if taken {
			continue
		}
		if err := s.create(k, spec); err != nil {
			return nil, err
		}
		renewed[k.name] = old != nil
		if k.name == stateMap {
			if err := s.chooseSeed(); err != nil {
				return nil, err
			}
		}
	}
	return s, s.inheritFrom(old, renewed[bpf.FirewallMapLedger], renewed[bpf.FirewallMapRuleTallies])
}

// take takes a map from old if it has the right size, and reports whether it did.
func (s *State) take(k kind, spec *ebpf.CollectionSpec, old *State) (bool, error) {
	if old == nil || spec.Maps[k.name] == nil {
		return false, nil
	}
	have, err := old.Map(k.name)
	if err != nil {
		return false, err
	}
	if have.MaxEntries() != spec.Maps[k.name].MaxEntries && !slices.Contains(keepSize, k.name) {
		return false, nil
	}
	spec.Maps[k.name].MaxEntries = have.MaxEntries()
	clone, err := have.Clone()
	if err == nil {
		s.put(k.name, clone)
	}
	return err == nil, err
}

// OpenState returns the state that is pinned in dir. Each map is opened when it is first asked for, by lost if it has no
// pin any more.
func OpenState(dir string, lost Lost) *State {
	return &State{group: group{kinds: stateKinds, dir: dir, lost: lost}}
}

// StatePins returns the names of a state's pins.
func StatePins() []string { return pinsOf(stateKinds) }

// chooseSeed gives the flow table's hash a seed that nobody knows.
func (s *State) chooseSeed() error {
	return s.state(func(state *bpf.FirewallState) { state.Seed = rand.Uint64() })
}

// state calls work with the datapath's variables.
func (s *State) state(work func(*bpf.FirewallState)) error {
	memory, err := s.memory(stateMap)
	if err != nil {
		return err
	}
	work(&view[bpf.FirewallState](memory)[0])
	return nil
}

// SetHandover says whether XDP and TC both filter a device for the moment: XDP then marks what it has counted.
func (s *State) SetHandover(on bool) error {
	return s.state(func(state *bpf.FirewallState) {
		state.Handover = 0
		if on {
			state.Handover = 1
		}
	})
}

// Watching reports whether the filter only watches: what would be dropped passes.
func (s *State) Watching() (watching bool, err error) {
	err = s.state(func(state *bpf.FirewallState) { watching = state.Watching != 0 })
	return watching, err
}

// SetWatching makes the filter only watch, or drop again, from one packet to the next: it is one store.
func (s *State) SetWatching(on bool) error {
	beforeWrite()
	return s.state(func(state *bpf.FirewallState) {
		var value uint8
		if on {
			value = 1
		}
		state.Watching = value
	})
}

// runSlots is how many places there are for programs to note in that they run.
const runSlots = 1024

// RunSlot returns the place in which the programs of a device note that they run. Devices whose indexes are a multiple
// of 1023 apart share one, so that the one is taken to run while the other does. Place 0 is for programs that may stand
// at several devices.
func RunSlot(ifindex int) uint32 { return uint32(ifindex)%(runSlots-1) + 1 }

// PutDevice makes the MAC address of a device known to programs that are loaded once for many.
func (s *State) PutDevice(ifindex int, mac [6]byte) error {
	memory, err := s.memory(devicesMap)
	if err != nil {
		return err
	}
	d := &view[bpf.FirewallDevice](memory)[RunSlot(ifindex)]
	if d.Ifindex == uint32(ifindex) && d.Mac == macPairs(mac) {
		return nil
	}
	atomic.StoreUint32(&d.Ifindex, 0) // no packet is to meet half an address
	d.Mac = macPairs(mac)
	atomic.StoreUint32(&d.Ifindex, uint32(ifindex))
	return nil
}

// LastRun returns when a program that notes it in a place last looked at a packet that came in, in jiffies modulo 2^32.
func (s *State) LastRun(slot uint32) (uint32, error) {
	memory, err := s.memory(runMap)
	if err != nil {
		return 0, err
	}
	return atomic.LoadUint32(&words(memory)[slot%runSlots]), nil
}

// The kinds of local addresses, as bpf/maps.h has them.
const (
	localOwn uint8 = iota + 1
	localShared
)

// PutLocal sets the prefixes of addresses that the kernel delivers to this host: its own, and those that others may have,
// too. New ones are added before old ones are removed.
func (s *State) PutLocal(own, shared []netip.Prefix) error {
	m4, err := s.Map(bpf.FirewallMapLocal4)
	if err != nil {
		return err
	}
	m6, err := s.Map(bpf.FirewallMapLocal6)
	if err != nil {
		return err
	}
	keep4, keep6 := make(map[bpf.FirewallLocalKey4]bool), make(map[bpf.FirewallLocalKey6]bool)
	for i, p := range slices.Concat(shared, own) { // what is both, is its own
		kind := localShared
		if i >= len(shared) {
			kind = localOwn
		}
		var err error
		if p.Addr().Is4() {
			key := localKey4(p)
			keep4[key] = true
			err = m4.Put(key, kind)
		} else {
			key := localKey6(p)
			keep6[key] = true
			err = m6.Put(key, kind)
		}
		if err != nil {
			return fmt.Errorf("add local address %s: %w", p, err)
		}
	}
	var one uint8
	var key4 bpf.FirewallLocalKey4
	var gone4 []bpf.FirewallLocalKey4
	for it := m4.Iterate(); it.Next(&key4, &one); {
		if !keep4[key4] {
			gone4 = append(gone4, key4)
		}
	}
	for _, key := range gone4 {
		if err := m4.Delete(key); err != nil {
			return fmt.Errorf("remove local address: %w", err)
		}
	}
	var key6 bpf.FirewallLocalKey6
	var gone6 []bpf.FirewallLocalKey6
	for it := m6.Iterate(); it.Next(&key6, &one); {
		if !keep6[key6] {
			gone6 = append(gone6, key6)
		}
	}
	for _, key := range gone6 {
		if err := m6.Delete(key); err != nil {
			return fmt.Errorf("remove local address: %w", err)
		}
	}
	return nil
}
