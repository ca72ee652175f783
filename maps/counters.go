// SPDX-License-Identifier: Apache-2.0

package maps

import (
	"fmt"
	"strings"

	"github.com/portcullis-firewall/portcullis/bpf"
)

// Reason says why a packet passed or was dropped. Reasons from RuleReason(0) on are rules.
type Reason uint32

const (
	reasonCount = Reason(bpf.FirewallReasonREASON_COUNT)
	ruleZero    = Reason(bpf.FirewallReasonRULE_ZERO)
)

// Reasons that are asked for by name.
const (
	FlowsFull    = Reason(bpf.FirewallReasonSEEN_FLOWS_FULL)    // how the flow table does
	FlowsEvicted = Reason(bpf.FirewallReasonSEEN_FLOWS_EVICTED) // the same
	Merged       = Reason(bpf.FirewallReasonSEEN_MERGED)

	dropLimit     = Reason(bpf.FirewallReasonDROP_LIMIT)
	dropForward   = Reason(bpf.FirewallReasonDROP_FORWARD)
	unsentLimit   = Reason(bpf.FirewallReasonUNSENT_LIMIT)
	unsentForward = Reason(bpf.FirewallReasonUNSENT_FORWARD)
	passRule      = Reason(bpf.FirewallReasonPASS_RULE)

	unsentLimitWatched   = Reason(bpf.FirewallReasonUNSENT_LIMIT_WATCHED)
	unsentForwardWatched = Reason(bpf.FirewallReasonUNSENT_FORWARD_WATCHED)
)

// The reasons for which packets are dropped, and those under which the same packets count while the filter only watches.
const (
	firstDrop    = Reason(bpf.FirewallReasonDROP_CLOSED_PORT)
	afterDrops   = Reason(bpf.FirewallReasonSEEN_FLOWS_FULL)
	firstWatched = Reason(bpf.FirewallReasonWATCHED_DROPS)
	afterWatched = firstWatched + afterDrops - firstDrop
)

// Banned is the reason for which packets of banned sources are dropped.
const Banned = Reason(bpf.FirewallReasonDROP_BANNED)

// Verdicts of a reason.
const (
	Pass      = "pass"
	Drop      = "drop"
	WouldDrop = "would drop" // it passes, as the filter only watches
	Seen      = "seen"       // counted, but no packet's verdict
)

// Reasons returns every reason that is not a rule.
func Reasons() []Reason {
	list := make([]Reason, 0, reasonCount+afterWatched-firstWatched)
	for r := range reasonCount {
		list = append(list, r)
	}
	for r := firstWatched; r < afterWatched; r++ {
		list = append(list, r)
	}
	return list
}

// IsWatched reports whether packets count under the reason that would be dropped, but for a filter that only watches.
func (r Reason) IsWatched() bool { return r >= firstWatched && r < afterWatched }

// Decided returns the reason that the policy has for a packet, whether or not it is in force.
func (r Reason) Decided() Reason {
	if r.IsWatched() {
		return r - firstWatched + firstDrop
	}
	return r
}

// Watched returns the reason under which a packet counts that would be dropped for r.
func (r Reason) Watched() Reason { return r - firstDrop + firstWatched }

// Verdict returns what became of the packets of a reason: Pass, Drop, WouldDrop or Seen.
func (r Reason) Verdict() string {
	if r >= ruleZero {
		return Pass
	}
	if r.IsWatched() {
		return WouldDrop
	}
	verdict, _, _ := strings.Cut(bpf.FirewallReason(r).String(), "_")
	return strings.ToLower(verdict)
}

// String returns the reason in words: "closed port".
func (r Reason) String() string {
	if r >= ruleZero {
		return fmt.Sprintf("rule %d", r-ruleZero)
	}
	_, rest, _ := strings.Cut(bpf.FirewallReason(r.Decided()).String(), "_")
	return strings.ToLower(strings.ReplaceAll(rest, "_", " "))
}

// IsRule reports whether the reason is a rule that has let a packet in.
func (r Reason) IsRule() bool { return r >= ruleZero }

// RuleReason returns the reason under which a rule counts.
func RuleReason(id uint16) Reason { return ruleZero + Reason(id) }

// Counters returns the packets by reason, of all interfaces that there have been. It leaves out rules without packets.
func (s *State) Counters() (map[Reason]uint64, error) {
	ledger, err := s.Ledger()
	if err != nil {
		return nil, err
	}
	out := make(map[Reason]uint64)
	for _, r := range Reasons() {
		out[r] = ledger.Total(r).Packets
	}
	for id, tally := range ledger.rules {
		if tally.Packets > 0 {
			out[RuleReason(uint16(id))] = tally.Packets
		}
	}
	return out, nil
}
