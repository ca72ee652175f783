// SPDX-License-Identifier: Apache-2.0

package maps

import (
	"errors"
	"fmt"
	"net/netip"
	"unsafe"

	"github.com/cilium/ebpf"

	"github.com/portcullis-firewall/portcullis/bpf"
	"github.com/portcullis-firewall/portcullis/policy"
)

// Flow is one entry of the flow table, seen from this host. For protocols without ports the ports are 0, but for
// ICMP queries: the local port is the identifier, the remote one the query's type.
type Flow struct {
	Protocol uint8
	Local    netip.AddrPort
	Remote   netip.AddrPort
	State    FlowState
	Answered bool   // in the table that nothing evicts
	Created  uint64 // jiffies
	Expires  uint64 // jiffies
}

// flowTables lists the tables, those of answered flows first.
var flowTables = []struct {
	name     string
	answered bool
	six      bool
}{
	{bpf.FirewallMapFlows4, true, false},
	{bpf.FirewallMapFlows6, true, true},
	{bpf.FirewallMapPending4, false, false},
	{bpf.FirewallMapPending6, false, true},
}

const flowBatch = 4096

// Flows calls each for every entry, dead ones too, until it returns false. Entries that come or go meanwhile may be
// missed or seen twice.
func (s *Set) Flows(each func(*Flow) bool) error {
	for _, t := range flowTables {
		var err error
		more := true
		if t.six {
			more, err = eachFlow(s.byName[t.name], t.answered, (*Flow).setKey6, each)
		} else {
			more, err = eachFlow(s.byName[t.name], t.answered, (*Flow).setKey4, each)
		}
		if err != nil {
			return fmt.Errorf("read %s: %w", t.name, err)
		}
		if !more {
			return nil
		}
	}
	return nil
}

func eachFlow[K any](m *ebpf.Map, answered bool, setKey func(*Flow, *K), each func(*Flow) bool) (bool, error) {
	keys, values := make([]K, flowBatch), make([]bpf.FirewallFlow, flowBatch)
	var cursor ebpf.MapBatchCursor
	for {
		n, err := m.BatchLookup(&cursor, keys, values, nil)
		if err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return false, err
		}
		for i := range n {
			f := Flow{Answered: answered}
			setKey(&f, &keys[i])
			f.setValue(&values[i])
			if !each(&f) {
				return false, nil
			}
		}
		if err != nil {
			return true, nil
		}
	}
}

// PutFlow writes a flow into its table, and marks its port as used.
func (s *Set) PutFlow(f *Flow) error { return s.PutFlows([]Flow{*f}) }

// PutFlows writes flows, and marks their ports as used. A flow that is already there is replaced; of new ones packets
// know after the next run of the sweep, which enters them in the filter.
func (s *Set) PutFlows(flows []Flow) error {
	if len(flows) == 0 {
		return nil
	}
	for _, t := range flowTables {
		var keys4 []bpf.FirewallFlowKey4
		var keys6 []bpf.FirewallFlowKey6
		var values []bpf.FirewallFlow
		for i := range flows {
			f := &flows[i]
			if f.Answered != t.answered || f.Local.Addr().Is6() != t.six {
				continue
			}
			if t.six {
				keys6 = append(keys6, flowKey6(f))
			} else {
				keys4 = append(keys4, flowKey4(f))
			}
			values = append(values, flowValue(f))
		}
		if len(values) == 0 {
			continue
		}
		var err error
		if t.six {
			_, err = s.byName[t.name].BatchUpdate(keys6, values, nil)
		} else {
			_, err = s.byName[t.name].BatchUpdate(keys4, values, nil)
		}
		if err != nil {
			return fmt.Errorf("write %d flows to %s: %w", len(values), t.name, err)
		}
	}
	state, err := s.state()
	if err != nil {
		return err
	}
	err = mapped(s.byName[".data.used"], func(used []byte) error {
		for i := range flows {
			if slot := policy.PortIndex(policy.Protocol(flows[i].Protocol), flows[i].Local.Port()); slot >= 0 {
				used[slot] = state.Sweep
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	return mapped(s.byName[".data.syn_sent"], func(memory []byte) error {
		stamps := unsafe.Slice((*uint16)(unsafe.Pointer(unsafe.SliceData(memory))), len(memory)/2)
		for i := range flows {
			if flows[i].State == FlowState(bpf.FirewallFlowStateFLOW_TCP_SYN_SENT) {
				stamps[flows[i].Local.Port()] = uint16(flows[i].Created / stampUnit)
			}
		}
		return nil
	})
}

// FlowID is what tells one flow from another.
type FlowID struct {
	Protocol      uint8
	Local, Remote netip.AddrPort
}

// ID returns the flow's identity.
func (f *Flow) ID() FlowID { return FlowID{f.Protocol, f.Local, f.Remote} }

// SeedFlows writes the flows that are not in a table alive already.
func (s *Set) SeedFlows(flows []Flow, now uint64) error {
	seen := make(map[FlowID]bool)
	var missing []Flow
	for i := range flows {
		f := &flows[i]
		if seen[f.ID()] {
			continue
		}
		seen[f.ID()] = true
		have, err := s.lookup(f)
		if err != nil {
			return err
		}
		if have == nil || have.Expires <= now || have.State == FlowKilled {
			missing = append(missing, *f)
		}
	}
	return s.PutFlows(missing)
}

// lookup returns the flow of the same identity and table, or nil.
func (s *Set) lookup(f *Flow) (*Flow, error) {
	var value bpf.FirewallFlow
	var err error
	m := s.tableOf(f)
	if f.Local.Addr().Is4() {
		err = m.Lookup(flowKey4(f), &value)
	} else {
		err = m.Lookup(flowKey6(f), &value)
	}
	if errors.Is(err, ebpf.ErrKeyNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("look up flow: %w", err)
	}
	have := *f
	have.setValue(&value)
	return &have, nil
}

// tableOf returns the table in which a flow belongs.
func (s *Set) tableOf(f *Flow) *ebpf.Map {
	for _, t := range flowTables {
		if t.answered == f.Answered && t.six == f.Local.Addr().Is6() {
			return s.byName[t.name]
		}
	}
	panic("unreachable: every family and state has a table")
}

// FlowCapacity returns how many answered flows the table of one family holds.
func (s *Set) FlowCapacity() uint32 { return s.byName[bpf.FirewallMapFlows4].MaxEntries() }

// BeforeSweep empties the generation of the flow filter that no packet asks; the sweep enters what lives.
func (s *Set) BeforeSweep() error {
	state, err := s.state()
	if err != nil {
		return err
	}
	return mapped(s.byName[bpf.FirewallMapFilter], func(memory []byte) error {
		half := len(memory) / 2
		if state.Generation == 0 {
			memory = memory[half:]
		}
		clear(memory[:half])
		return nil
	})
}

// AfterSweep makes packets ask the new generation of the filter, and takes the marks off ports that no flow has used
// for two sweeps.
func (s *Set) AfterSweep() error {
	err := mapped(s.byName[".data.state"], func(memory []byte) error {
		memory[unsafe.Offsetof(bpf.FirewallState{}.Generation)] ^= 1
		return nil
	})
	if err != nil {
		return err
	}
	state, err := s.state()
	if err != nil {
		return err
	}
	now, before := state.Sweep, state.Sweep-1
	if before == 0 {
		before = 255
	}
	return mapped(s.byName[".data.used"], func(used []byte) error {
		for i, mark := range used {
			if mark != 0 && mark != now && mark != before {
				clearByte(used, i, mark)
			}
		}
		return nil
	})
}

func (s *Set) state() (state bpf.FirewallState, err error) {
	err = mapped(s.byName[".data.state"], func(memory []byte) error {
		state = *(*bpf.FirewallState)(unsafe.Pointer(unsafe.SliceData(memory)))
		return nil
	})
	return state, err
}
