// SPDX-License-Identifier: Apache-2.0

package maps

import (
	"net/netip"

	"github.com/portcullis-firewall/portcullis/bpf"
)

// Flow is one entry of the flow table, seen from this host. For protocols without ports the ports are 0, but for
// ICMP queries: the local port is the identifier, the remote one the query's type.
type Flow struct {
	Protocol uint8
	Local    netip.AddrPort
	Remote   netip.AddrPort
	State    FlowState
	Answered bool   // something has come in
	Assured  bool   // it gives its place to no new flow, unless it is a connection that is over
	Created  uint32 // Created(jiffies)
	Expires  uint64 // jiffies
}

// createdShift is the datapath's CREATED_SHIFT.
const createdShift = 4

// Created returns the time of creation that a flow keeps, for one that begins now (jiffies).
func Created(now uint64) uint32 { return uint32(now >> createdShift) }

// Age returns how long ago the flow began (jiffies).
func (f *Flow) Age(now uint64) uint64 { return uint64(Created(now)-f.Created) << createdShift }

// FlowID is what tells one flow from another.
type FlowID struct {
	Protocol      uint8
	Local, Remote netip.AddrPort
}

// ID returns the flow's identity.
func (f *Flow) ID() FlowID { return FlowID{f.Protocol, f.Local, f.Remote} }

// Seed makes what the datapath is told of a flow. Replace has it written also where it is alive already.
func (f *Flow) Seed(replace bool) *bpf.FirewallSeed {
	s := &bpf.FirewallSeed{Entry: bpf.FirewallEntry{Key: flowKey(f), Flow: flowValue(f)}}
	if replace {
		s.Replace = 1
	}
	return s
}

// The flow table's sets (bpf/types.h): each place has a tag in its set's line, and 0 is a free one.
const (
	tagBits      = 10
	tagsPerWord  = 6
	placesPerSet = len(bpf.FirewallTags{}.Words) * tagsPerWord
	busy         = 1<<tagBits - 1 // somebody writes a flow there
)

// flowSets is the size of a table for so many flows: places for twice as many, so that none of its sets gets full
// before the table is.
func flowSets(flows int) uint32 {
	return uint32((2*flows + placesPerSet - 1) / placesPerSet)
}

// Flows calls each for every entry, dead ones too, until it returns false. Entries that come or go meanwhile may be
// missed.
func (s *Set) Flows(each func(*Flow) bool) error {
	tags, err := s.memory(bpf.FirewallMapFlowTags)
	if err != nil {
		return err
	}
	entries, err := s.memory(bpf.FirewallMapFlows)
	if err != nil {
		return err
	}
	eachFlow(view[bpf.FirewallTags](tags), view[bpf.FirewallEntry](entries), each)
	return nil
}

func eachFlow(tags []bpf.FirewallTags, entries []bpf.FirewallEntry, each func(*Flow) bool) {
	for set := range tags {
		for i, word := range tags[set].Words {
			word &= 1<<(tagsPerWord*tagBits) - 1 // what is above counts strays
			for place := set*placesPerSet + i*tagsPerWord; word != 0; place, word = place+1, word>>tagBits {
				if tag := word & busy; tag == 0 || tag == busy {
					continue
				}
				f := &Flow{}
				entry := entries[place]
				f.setKey(&entry.Key)
				f.setValue(&entry.Flow)
				if !each(f) {
					return
				}
			}
		}
	}
}

// MaxFlows returns the most flows that the table keeps.
func (s *Set) MaxFlows() (uint32, error) {
	memory, err := s.memory(accountMap)
	if err != nil {
		return 0, err
	}
	return view[bpf.FirewallAccount](memory)[0].MaxFlows, nil
}

// AfterSweep takes the marks off ports that no flow has used for two sweeps.
func (s *Set) AfterSweep() error {
	var now, before uint8
	err := s.state(func(state *bpf.FirewallState) { now, before = state.Sweep, state.Sweep-1 })
	if err != nil {
		return err
	}
	if before == 0 {
		before = 255
	}
	used, err := s.memory(".data.used")
	if err != nil {
		return err
	}
	for i, mark := range used {
		if mark != 0 && mark != now && mark != before {
			clearByte(used, i, mark)
		}
	}
	return nil
}
