// SPDX-License-Identifier: Apache-2.0

package maps

import (
	"net/netip"
	"unsafe"

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
	Assured  bool   // it keeps its place in the table until it closes
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

// Live reports whether packets may belong to the flow at a time (jiffies).
func (f *Flow) Live(now uint64) bool { return now < f.Expires && f.State != FlowKilled }

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

// flowSets is the number of sets of a table that keeps at most so many flows: with places for twice as many, so that
// none of its sets gets full before the table is.
func flowSets(limit int) uint32 { return uint32((2*limit + placesPerSet - 1) / placesPerSet) }

// FlowMemory returns the bytes that a table for at most so many flows takes.
func FlowMemory(limit int) int {
	set := int(unsafe.Sizeof(bpf.FirewallTags{})) + placesPerSet*int(unsafe.Sizeof(bpf.FirewallEntry{}))
	return int(flowSets(limit)) * set
}

// Flows calls each for every entry, dead ones too, until it returns false. Entries that come or go meanwhile may be
// missed.
func (s *Set) Flows(each func(*Flow) bool) error {
	return s.eachEntry(func(entry *bpf.FirewallEntry) bool {
		f := &Flow{}
		f.setKey(&entry.Key)
		f.setValue(&entry.Flow)
		return each(f)
	})
}

// FlowCounts says how many live flows there are. All are either answered or pending.
type FlowCounts struct{ Assured, Answered, Pending int }

// CountFlows counts the flows that are alive at a time (jiffies), without a list of them.
func (s *Set) CountFlows(now uint64) (c FlowCounts, err error) {
	err = s.eachEntry(func(entry *bpf.FirewallEntry) bool {
		v := &entry.Flow
		if !isLive(v, now) {
			return true
		}
		if isAnswered(v) {
			c.Answered++
		} else {
			c.Pending++
		}
		if isAssured(v) && !givesWay(v) {
			c.Assured++
		}
		return true
	})
	return c, err
}

// givesWay tells of an assured flow that it gives its place to a new one all the same, since its connection is over: as
// worth() in bpf/room.h decides.
func givesWay(v *bpf.FirewallFlow) bool {
	switch bpf.FirewallFlowState(v.State) {
	case bpf.FirewallFlowStateFLOW_TCP_TIME_WAIT, bpf.FirewallFlowStateFLOW_TCP_CLOSE, bpf.FirewallFlowStateFLOW_TCP_LAST_ACK:
		return true
	}
	return false
}

// eachEntry calls each for every place that is taken, in the datapath's own memory, until it returns false.
func (s *Set) eachEntry(each func(*bpf.FirewallEntry) bool) error {
	tags, err := s.memory(bpf.FirewallMapFlowTags)
	if err != nil {
		return err
	}
	entries, err := s.memory(bpf.FirewallMapFlows)
	if err != nil {
		return err
	}
	walk(view[bpf.FirewallTags](tags), view[bpf.FirewallEntry](entries), each)
	return nil
}

func walk(tags []bpf.FirewallTags, entries []bpf.FirewallEntry, each func(*bpf.FirewallEntry) bool) {
	for set := range tags {
		for i, word := range tags[set].Words {
			word &= 1<<(tagsPerWord*tagBits) - 1 // what is above counts strays
			for place := set*placesPerSet + i*tagsPerWord; word != 0; place, word = place+1, word>>tagBits {
				if tag := word & busy; tag == 0 || tag == busy {
					continue
				}
				if !each(&entries[place]) {
					return
				}
			}
		}
	}
}

// MaxFlows returns the most flows that the table keeps: the "flows: max" of the policy that it was made for.
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
