// SPDX-License-Identifier: Apache-2.0

package maps

import (
	"bytes"
	"cmp"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
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

// FlowID identifies a flow.
type FlowID struct {
	Protocol      uint8
	Local, Remote netip.AddrPort
}

// Live reports whether packets may belong to the flow at a time (jiffies).
func (f *Flow) Live(now uint64) bool { return now < f.Expires && f.State != FlowKilled }

// ID returns the flow's identity.
func (f *Flow) ID() FlowID { return FlowID{f.Protocol, f.Local, f.Remote} }

// Seed returns the flow as the argument of the program that enters flows. With replace it is entered even if such a
// flow is alive.
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

// flowSets returns the number of sets for at most limit flows. They have places for twice as many, so that no set is
// full before the table is.
func flowSets(limit int) uint32 { return uint32((2*limit + placesPerSet - 1) / placesPerSet) }

// FlowMemory returns the size in bytes of a table for at most limit flows.
func FlowMemory(limit int) int {
	set := int(unsafe.Sizeof(bpf.FirewallTags{})) + placesPerSet*int(unsafe.Sizeof(bpf.FirewallEntry{}))
	return int(flowSets(limit)) * set
}

// Flows calls each for every entry, expired ones too, until it returns false. The flow is valid until each returns.
// Entries that come or go meanwhile may be missed.
func (s *State) Flows(each func(*Flow) bool) error {
	f := &Flow{}
	return s.eachEntry(func(entry *bpf.FirewallEntry) bool {
		f.setKey(&entry.Key)
		f.setValue(&entry.Flow)
		return each(f)
	})
}

// FlowCounts holds numbers of live flows. Each is either answered or pending.
type FlowCounts struct{ Assured, Answered, Pending int }

// CountFlows returns the numbers of flows that are alive at a time (jiffies).
func (s *State) CountFlows(now uint64) (c FlowCounts, err error) {
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

// givesWay reports whether even an assured flow may be evicted, since its connection is over: worth() in bpf/room.h
// decides alike.
func givesWay(v *bpf.FirewallFlow) bool {
	switch bpf.FirewallFlowState(v.State) {
	case bpf.FirewallFlowStateFLOW_TCP_TIME_WAIT, bpf.FirewallFlowStateFLOW_TCP_CLOSE, bpf.FirewallFlowStateFLOW_TCP_LAST_ACK:
		return true
	}
	return false
}

// setsPerWindow is how many sets are mapped at once. A table of a million flows takes 140 MB.
const setsPerWindow = 1024

// eachEntry calls each for every place that is taken, in the datapath's own memory, until it returns false.
func (s *State) eachEntry(each func(*bpf.FirewallEntry) bool) error {
	tags, err := s.Map(bpf.FirewallMapFlowTags)
	if err != nil {
		return err
	}
	sets := int(tags.MaxEntries())
	for first := 0; first < sets; first += setsPerWindow {
		more, err := s.eachEntryOf(first, min(first+setsPerWindow, sets), each)
		if err != nil || !more {
			return err
		}
	}
	return nil
}

// fewSets is how many sets with flows are mapped one by one. To map a window of entries takes the time of a hundred of those,
// and most tables are nearly empty.
const fewSets = setsPerWindow / 16

// eachEntryOf is eachEntry for some sets. It returns false if each has.
func (s *State) eachEntryOf(first, end int, each func(*bpf.FirewallEntry) bool) (more bool, err error) {
	const tagsSize = unsafe.Sizeof(bpf.FirewallTags{})
	memory, release, err := s.window(bpf.FirewallMapFlowTags, uintptr(first)*tagsSize, uintptr(end)*tagsSize)
	if err != nil {
		return false, err
	}
	defer release()
	tags := view[bpf.FirewallTags](memory)[:end-first]
	taken := make([]int, 0, fewSets)
	for set := range tags {
		if !isTaken(&tags[set]) {
			continue
		}
		if len(taken) == fewSets {
			return s.walkSets(first, tags, each)
		}
		taken = append(taken, set)
	}
	for _, set := range taken {
		if more, err := s.walkSets(first+set, tags[set:set+1], each); !more || err != nil {
			return more, err
		}
	}
	return true, nil
}

// walkSets walks through the entries of sets from the first one on, of which these are the tags.
func (s *State) walkSets(first int, tags []bpf.FirewallTags, each func(*bpf.FirewallEntry) bool) (more bool, err error) {
	const entrySize = unsafe.Sizeof(bpf.FirewallEntry{})
	memory, release, err := s.window(bpf.FirewallMapFlows, uintptr(first*placesPerSet)*entrySize, uintptr((first+len(tags))*placesPerSet)*entrySize)
	if err != nil {
		return false, err
	}
	defer release()
	return walk(tags, view[bpf.FirewallEntry](memory), each), nil
}

// isTaken reports whether there may be a flow in a set.
func isTaken(tags *bpf.FirewallTags) bool {
	all := uint64(0)
	for _, word := range tags.Words {
		all |= word
	}
	return all&(1<<(tagsPerWord*tagBits)-1) != 0 // what is above counts strays
}

// walk calls each for the entries of places that are taken, until it returns false.
func walk[T any](tags []bpf.FirewallTags, entries []T, each func(*T) bool) (more bool) {
	for set := range tags {
		for i, word := range tags[set].Words {
			word &= 1<<(tagsPerWord*tagBits) - 1 // what is above counts strays
			for place := set*placesPerSet + i*tagsPerWord; word != 0; place, word = place+1, word>>tagBits {
				if tag := word & busy; tag == 0 || tag == busy {
					continue
				}
				if !each(&entries[place]) {
					return false
				}
			}
		}
	}
	return true
}

// MaxFlows returns the most flows that the table keeps: the "flows: max" of the policy that it was made for.
func (s *State) MaxFlows() (uint32, error) {
	memory, err := s.memory(accountMap)
	if err != nil {
		return 0, err
	}
	return view[bpf.FirewallAccount](memory)[0].MaxFlows, nil
}

// TableUse returns how many places of the flow table are taken, by dead flows, too, and the most that it keeps.
func (s *State) TableUse() (entries int, most uint32, err error) {
	memory, err := s.memory(accountMap)
	if err != nil {
		return 0, 0, err
	}
	account := &view[bpf.FirewallAccount](memory)[0]
	return int(max(atomic.LoadInt64(&account.Flows), 0)), account.MaxFlows, nil
}

// CountFlowStates returns how many flows are alive at a time (jiffies) in each state.
func (s *State) CountFlowStates(now uint64) (map[string]int, error) {
	var byState [256]int
	err := s.eachEntry(func(entry *bpf.FirewallEntry) bool {
		if isLive(&entry.Flow, now) {
			byState[entry.Flow.State]++
		}
		return true
	})
	out := make(map[string]int)
	for _, state := range append(FlowStates(), FlowKilled) {
		out[state.String()] = byState[state]
	}
	return out, err
}

// AfterSweep clears the marks of ports that no flow has used for two sweeps.
func (s *State) AfterSweep() error {
	var now, before uint8
	err := s.state(func(state *bpf.FirewallState) { now, before = state.Sweep, state.Sweep-1 })
	if err != nil {
		return err
	}
	if before == 0 {
		before = 255
	}
	used, err := s.memory(usedMap)
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

// FlowState is the state of a flow. Its names are those of the policy's timeouts.
type FlowState uint8

// FlowKilled is the state of a flow that the administrator has cut.
const FlowKilled = FlowState(bpf.FirewallFlowStateFLOW_KILLED)

// String returns the name of the state: "tcp-established".
func (s FlowState) String() string {
	if s == FlowKilled {
		return "killed"
	}
	name := strings.TrimPrefix(bpf.FirewallFlowState(s).String(), "FLOW_")
	return strings.ToLower(strings.ReplaceAll(name, "_", "-"))
}

// FlowStates returns the states that have a timeout.
func FlowStates() []FlowState {
	var list []FlowState
	for s := FlowState(1); s < FlowState(bpf.FirewallFlowStateFLOW_STATES); s++ {
		list = append(list, s)
	}
	return list
}

// sortedAtOnce is the number of flows that one walk through the table yields. It holds twice as many, of 64 bytes each.
const sortedAtOnce = 1 << 16

// SortedFlows calls each for every flow that is alive at a time (jiffies), in the order of protocols and addresses,
// until it returns false. The flow is valid until each returns. It walks through the table once for every 65,536 flows,
// to use a bounded amount of memory.
func (s *State) SortedFlows(now uint64, each func(*Flow) bool) error {
	return s.sortedFlows(now, sortedAtOnce, each)
}

func (s *State) sortedFlows(now uint64, atOnce int, each func(*Flow) bool) error {
	places, err := s.Map(bpf.FirewallMapFlows)
	if err != nil {
		return err
	}
	// At once, as a slice that grows leaves others behind. Pages that are not used take nothing.
	held := make([]bpf.FirewallEntry, 0, min(2*atOnce, int(places.MaxEntries())))
	var last *bpf.FirewallFlowKey // what each has had
	f := &Flow{}
	for {
		held = held[:0]
		more := false // there are some behind those held
		err := s.eachEntry(func(entry *bpf.FirewallEntry) bool {
			if !isLive(&entry.Flow, now) {
				return true
			}
			e := *entry // it may change, but no more in between
			if last != nil && compareKeys(&e.Key, last) <= 0 || more && compareKeys(&e.Key, &held[atOnce-1].Key) >= 0 {
				return true
			}
			if held = append(held, e); len(held) == 2*atOnce {
				if held = sortEntries(held); len(held) > atOnce {
					held, more = held[:atOnce], true
				}
			}
			return true
		})
		if err != nil {
			return err
		}
		if held = sortEntries(held); len(held) > atOnce {
			held, more = held[:atOnce], true
		}
		for i := range held {
			f.setKey(&held[i].Key)
			f.setValue(&held[i].Flow)
			if !each(f) {
				return nil
			}
		}
		if !more {
			return nil
		}
		key := held[len(held)-1].Key
		last = &key
	}
}

// sortEntries sorts flows and removes duplicates: a table that changes while it is read may show a flow twice.
func sortEntries(list []bpf.FirewallEntry) []bpf.FirewallEntry {
	slices.SortFunc(list, func(a, b bpf.FirewallEntry) int { return compareKeys(&a.Key, &b.Key) })
	return slices.CompactFunc(list, func(a, b bpf.FirewallEntry) bool { return compareKeys(&a.Key, &b.Key) == 0 })
}

func compareKeys(a, b *bpf.FirewallFlowKey) int {
	return cmp.Or(
		cmp.Compare(a.Protocol, b.Protocol),
		cmp.Compare(a.Family, b.Family),
		bytes.Compare(addressBytes(&a.Local), addressBytes(&b.Local)),
		cmp.Compare(a.LocalPort, b.LocalPort),
		bytes.Compare(addressBytes(&a.Remote), addressBytes(&b.Remote)),
		cmp.Compare(a.RemotePort, b.RemotePort),
	)
}

// addressBytes views an address as it is on the wire, which is also its order.
func addressBytes(words *[4]uint32) []byte {
	return unsafe.Slice((*byte)(unsafe.Pointer(words)), unsafe.Sizeof(*words))
}
