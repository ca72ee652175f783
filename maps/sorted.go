// SPDX-License-Identifier: Apache-2.0

package maps

import (
	"bytes"
	"cmp"
	"slices"
	"unsafe"

	"github.com/portcullis-firewall/portcullis/bpf"
)

// sortedAtOnce is how many flows are sorted in one walk through the table; two times as many, of 64 bytes each, are held.
const sortedAtOnce = 1 << 17

// SortedFlows calls each for the flows that are alive at a time (jiffies), each once, by protocol and addresses, until
// it returns false. The flow is each's until it returns. The memory that it takes is bounded, as the table may be
// larger than what a command may use: it walks through the table again for every 131,072 flows.
func (s *State) SortedFlows(now uint64, each func(*Flow) bool) error {
	return s.sortedFlows(now, sortedAtOnce, each)
}

func (s *State) sortedFlows(now uint64, atOnce int, each func(*Flow) bool) error {
	var held []bpf.FirewallEntry
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

// sortEntries sorts flows, and leaves each once: read while it changes, the table may show one twice.
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
