// SPDX-License-Identifier: Apache-2.0

package maps

import (
	"fmt"

	"github.com/cilium/ebpf"

	"github.com/portcullis-firewall/portcullis/bpf"
)

// maxBlockLists is the number that those of block lists are below; in source_counters the reasons of bans are behind.
const maxBlockLists = 1024

// sourceCounters returns the packets by block list and by reason of bans.
func (s *State) sourceCounters() ([]uint64, error) {
	m, err := s.Map(bpf.FirewallMapSourceCounters)
	if err != nil {
		return nil, err
	}
	return readCounters(m)
}

// readCounters returns plain counters by number, summed over all CPUs.
func readCounters(m *ebpf.Map) ([]uint64, error) {
	cpus, err := ebpf.PossibleCPU()
	if err != nil {
		return nil, err
	}
	sums := make([]uint64, m.MaxEntries())
	err = inBatches(m, m.MaxEntries(), cpus, func(key uint32, values []uint64) {
		for _, v := range values {
			sums[key] += v
		}
	})
	return sums, err
}

func (s *State) resetSourceCounter(place uint32) error {
	m, err := s.Map(bpf.FirewallMapSourceCounters)
	if err != nil {
		return err
	}
	cpus, err := ebpf.PossibleCPU()
	if err != nil {
		return err
	}
	if err := m.Put(place, make([]uint64, cpus)); err != nil {
		return fmt.Errorf("set the counter of a block list or a reason of bans: %w", err)
	}
	return nil
}
