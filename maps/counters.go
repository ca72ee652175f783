// SPDX-License-Identifier: Apache-2.0

package maps

import (
	"fmt"

	"github.com/cilium/ebpf"

	"github.com/portcullis-firewall/portcullis/bpf"
)

// Counters returns packets by reason, over all CPUs. Rules that never counted are left out.
func (s *Set) Counters() (map[Reason]uint64, error) {
	m, err := s.Map(bpf.FirewallMapCounters)
	if err != nil {
		return nil, err
	}
	cpus, err := ebpf.PossibleCPU()
	if err != nil {
		return nil, err
	}
	n := m.MaxEntries()
	keys, values := make([]uint32, n), make([]uint64, int(n)*cpus)
	var cursor ebpf.MapBatchCursor
	if got, err := m.BatchLookup(&cursor, keys, values, nil); uint32(got) != n {
		return nil, fmt.Errorf("read counters: %w", err)
	}
	out := make(map[Reason]uint64)
	for i, key := range keys {
		var sum uint64
		for _, v := range values[i*cpus : (i+1)*cpus] {
			sum += v
		}
		if sum > 0 || Reason(key) < reasonCount {
			out[Reason(key)] = sum
		}
	}
	return out, nil
}

// ResetCounter sets one counter to 0.
func (s *Set) ResetCounter(r Reason) error {
	return s.putCounter(r, 0)
}

func (s *Set) putCounter(r Reason, sum uint64) error {
	m, err := s.Map(bpf.FirewallMapCounters)
	if err != nil {
		return err
	}
	cpus, err := ebpf.PossibleCPU()
	if err != nil {
		return err
	}
	values := make([]uint64, cpus)
	values[0] = sum
	if err := m.Put(uint32(r), values); err != nil {
		return fmt.Errorf("set counter of %s: %w", r, err)
	}
	return nil
}

func copyCounters(from, to *Set) error {
	counters, err := from.Counters()
	if err != nil {
		return err
	}
	limit := Reason(to.byName[State][bpf.FirewallMapCounters].MaxEntries())
	for reason, sum := range counters {
		if reason < limit && sum > 0 {
			if err := to.putCounter(reason, sum); err != nil {
				return err
			}
		}
	}
	return nil
}
