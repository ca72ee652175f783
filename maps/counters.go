// SPDX-License-Identifier: Apache-2.0

package maps

import (
	"fmt"
	"strings"

	"github.com/cilium/ebpf"

	"github.com/portcullis-firewall/portcullis/bpf"
)

// Reason says why a packet passed or was dropped. Reasons from RuleReason(0) on are rules.
type Reason uint32

const (
	reasonCount = Reason(bpf.FirewallReasonREASON_COUNT)
	ruleZero    = Reason(bpf.FirewallReasonRULE_ZERO)
)

// Reasons that say how the flow table does.
const (
	FlowsFull    = Reason(bpf.FirewallReasonSEEN_FLOWS_FULL)
	FlowsEvicted = Reason(bpf.FirewallReasonSEEN_FLOWS_EVICTED)
)

// Verdicts of a reason.
const (
	Pass = "pass"
	Drop = "drop"
	Seen = "seen" // counted, but no packet's verdict
)

// Reasons returns every reason that is not a rule.
func Reasons() []Reason {
	list := make([]Reason, reasonCount)
	for i := range list {
		list[i] = Reason(i)
	}
	return list
}

// Verdict returns what became of the packets of a reason: Pass, Drop or Seen.
func (r Reason) Verdict() string {
	if r >= ruleZero {
		return Pass
	}
	verdict, _, _ := strings.Cut(bpf.FirewallReason(r).String(), "_")
	return strings.ToLower(verdict)
}

// String returns the reason in words: "closed port".
func (r Reason) String() string {
	if r >= ruleZero {
		return fmt.Sprintf("rule %d", r-ruleZero)
	}
	_, rest, _ := strings.Cut(bpf.FirewallReason(r).String(), "_")
	return strings.ToLower(strings.ReplaceAll(rest, "_", " "))
}

// IsRule reports whether the reason is a rule that has let a packet in.
func (r Reason) IsRule() bool { return r >= ruleZero }

// RuleReason returns the reason under which a rule counts.
func RuleReason(id uint16) Reason { return ruleZero + Reason(id) }

// Counters returns the packets by reason, summed over all CPUs. It leaves out rules without packets.
func (s *State) Counters() (map[Reason]uint64, error) {
	m, err := s.Map(bpf.FirewallMapCounters)
	if err != nil {
		return nil, err
	}
	counted, err := readCounters(m)
	if err != nil {
		return nil, err
	}
	out := make(map[Reason]uint64)
	for i, sum := range counted {
		if sum > 0 || Reason(i) < reasonCount {
			out[Reason(i)] = sum
		}
	}
	return out, nil
}

// readCounters returns the counters by number, summed over all CPUs.
func readCounters(m *ebpf.Map) ([]uint64, error) {
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
	sums := make([]uint64, n)
	for i, key := range keys {
		for _, v := range values[i*cpus : (i+1)*cpus] {
			sums[key] += v
		}
	}
	return sums, nil
}

// ResetCounter sets one counter to 0.
func (s *State) ResetCounter(r Reason) error { return s.putCounter(r, 0) }

func (s *State) putCounter(r Reason, sum uint64) error {
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

// putCounters sets the counters that there is room for.
func (s *State) putCounters(counters map[Reason]uint64) error {
	m, err := s.Map(bpf.FirewallMapCounters)
	if err != nil {
		return err
	}
	for reason, sum := range counters {
		if uint32(reason) < m.MaxEntries() && sum > 0 {
			if err := s.putCounter(reason, sum); err != nil {
				return err
			}
		}
	}
	return nil
}

func copyCounters(from, to *State) error {
	counters, err := from.Counters()
	if err != nil {
		return err
	}
	return to.putCounters(counters)
}
