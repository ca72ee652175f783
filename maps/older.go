// SPDX-License-Identifier: Apache-2.0

package maps

import (
	"fmt"
	"path/filepath"
	"unsafe"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/portcullis-firewall/portcullis/bpf"
)

// The flow table of schema v3. Its tags are those of today.
type (
	entryV3 struct {
		Key  bpf.FirewallFlowKey
		Flow flowV3
	}
	flowV3 struct {
		Expires, Created uint64 // jiffies
		Ack              uint32
		State            uint8
		Ending           uint8
		Answered         uint8
		_                uint8
	}
)

const killedV3 = 19

// endingsV3 maps the bits of flowV3.Ending to marks.
var endingsV3 = []bpf.FirewallMark{
	bpf.FirewallMarkFIN_OURS, bpf.FirewallMarkFIN_THEIRS, bpf.FirewallMarkRST_OURS, bpf.FirewallMarkSYN_THEIRS,
}

// FlowsOfV3 calls each with the flows that a filter of schema v3 has pinned in dir, those that are dead too, in the
// form in which the datapath enters them, until it returns an error.
func FlowsOfV3(dir string, each func(*bpf.FirewallSeed) error) error {
	tags, err := olderMap[bpf.FirewallTags](dir, "flow_tags")
	if err != nil {
		return err
	}
	defer tags.release()
	entries, err := olderMap[entryV3](dir, "flows")
	if err != nil {
		return err
	}
	defer entries.release()
	if len(entries.values) < len(tags.values)*placesPerSet {
		return fmt.Errorf("the older flow table has %d places in %d sets", len(entries.values), len(tags.values))
	}
	for set := range tags.values {
		for i, word := range tags.values[set].Words {
			for n := range tagsPerWord {
				if tag := word >> (tagBits * n) & busy; tag == 0 || tag == busy {
					continue
				}
				if err := each(entries.values[set*placesPerSet+i*tagsPerWord+n].seed()); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

func (e *entryV3) seed() *bpf.FirewallSeed {
	flow := bpf.FirewallFlow{Expires: e.Flow.Expires, Created: Created(e.Flow.Created), Ack: e.Flow.Ack, State: e.Flow.State}
	for bit, mark := range endingsV3 {
		if e.Flow.Ending>>bit&1 != 0 {
			flow.Marks |= uint16(mark)
		}
	}
	if e.Flow.State == killedV3 {
		flow.State = uint8(FlowKilled)
	}
	if e.Flow.Answered != 0 {
		flow.Marks |= uint16(bpf.FirewallMarkANSWERED)
		switch bpf.FirewallFlowState(e.Flow.State) {
		case bpf.FirewallFlowStateFLOW_TCP_ESTABLISHED, bpf.FirewallFlowStateFLOW_TCP_FIN_WAIT,
			bpf.FirewallFlowStateFLOW_TCP_CLOSE_WAIT, bpf.FirewallFlowStateFLOW_TCP_LAST_ACK,
			bpf.FirewallFlowStateFLOW_TCP_TIME_WAIT, bpf.FirewallFlowStateFLOW_TCP_CLOSE,
			bpf.FirewallFlowStateFLOW_UDP_STREAM, bpf.FirewallFlowStateFLOW_GRE_STREAM,
			bpf.FirewallFlowStateFLOW_SCTP_ESTABLISHED:
			flow.Marks |= uint16(bpf.FirewallMarkASSURED)
		}
	}
	return &bpf.FirewallSeed{Entry: bpf.FirewallEntry{Key: e.Key, Flow: flow}}
}

// older is the memory of an array that another version has pinned.
type older[T any] struct {
	values []T
	memory []byte
}

func (o *older[T]) release() { _ = unix.Munmap(o.memory) } // fails for no memory that was mapped

func olderMap[T any](dir, name string) (*older[T], error) {
	m, err := ebpf.LoadPinnedMap(filepath.Join(dir, name), nil)
	if err != nil {
		return nil, fmt.Errorf("open the older map %s: %w", name, err)
	}
	defer m.Close()
	if size := uint32(unsafe.Sizeof(*new(T))); m.ValueSize() != size || m.Type() != ebpf.Array {
		return nil, fmt.Errorf("the older map %s is a %s of %d bytes each, not an array of %d", name, m.Type(), m.ValueSize(), size)
	}
	memory, err := unix.Mmap(m.FD(), 0, int(m.ValueSize()*m.MaxEntries()), unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("map the memory of the older map %s: %w", name, err)
	}
	return &older[T]{view[T](memory), memory}, nil
}
