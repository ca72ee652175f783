// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"fmt"

	"github.com/portcullis-firewall/portcullis/maps"
	"github.com/portcullis-firewall/portcullis/policy"
)

// Refusals is how often a new flow found the table full, and how large the table is.
type Refusals struct {
	Packets uint64 // that would have begun a flow
	Max     int    // the most flows that the table keeps
	Wanted  int    // what the policy in force asks for: the table has it after down and up
}

// Refusals returns those since the filter came up.
func (f *Filter) Refusals() (r Refusals, err error) {
	counted, err := f.set.LedgerBelow(0)
	if err != nil {
		return r, err
	}
	most, err := f.set.MaxFlows()
	return Refusals{counted.Total(maps.FlowsFull).Packets, int(most), f.running.Policy.FlowLimit()}, err
}

// Refusals returns those that the status knows of.
func (s *Status) Refusals() Refusals {
	return Refusals{s.Flows.Full, int(s.Flows.Max), s.Policy.FlowLimit()}
}

// String returns a sentence that says what was lost and what to set.
func (r Refusals) String() string {
	packets := fmt.Sprintf("%d packets that begin a flow", r.Packets)
	if r.Packets == 1 {
		packets = "1 packet that begins a flow"
	}
	return fmt.Sprintf("the flow table, for %d flows, had no room for %s, and what answered was dropped (over TCP it shows as \"invalid state\"): %s", r.Max, packets, r.advice())
}

// anew is how the table gets another size.
const anew = "\"portcullis down\" and \"portcullis up\" re-create the table (this opens the host for a moment; live connections go on)"

// KeepsSize returns a sentence on why the flow table does not have the size that the policy asks for.
func KeepsSize(now, wanted int) string {
	return fmt.Sprintf("the flow table keeps its size of %d flows while the filter runs, and the policy asks for %d: %s", now, wanted, anew)
}

func (r Refusals) advice() string {
	next := r.next()
	switch {
	case r.Wanted > r.Max:
		return fmt.Sprintf("the policy in force asks for %d, and %s", r.Wanted, anew)
	case next <= r.Max:
		return "no table is larger, and \"portcullis flows\" lists what fills it"
	default:
		return fmt.Sprintf("set \"flows: {max: %d}\" in the policy file (%s of memory); %s", next, bytesText(maps.FlowMemory(next)), anew)
	}
}

// next returns the size to try: twice as large, or four times where more was refused than the table holds.
func (r Refusals) next() int {
	factor := 2
	if r.Packets > uint64(r.Max) {
		factor = 4
	}
	return min(factor*r.Max, policy.MaxMaxFlows)
}

func bytesText(n int) string {
	switch {
	case n >= 1e9:
		return fmt.Sprintf("%.1f GB", float64(n)/1e9)
	case n >= 1e6:
		return fmt.Sprintf("%.0f MB", float64(n)/1e6)
	default:
		return fmt.Sprintf("%.0f kB", float64(n)/1e3)
	}
}
