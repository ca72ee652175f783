// SPDX-License-Identifier: Apache-2.0

package maps

import (
	"fmt"
	"strings"

	"github.com/portcullis-firewall/portcullis/bpf"
)

// Reason says why a packet passed or was dropped. Reasons from reasonCount on are rules.
type Reason uint32

const reasonCount = Reason(bpf.FirewallReasonREASON_COUNT)

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

// Reasons lists every reason that is not a rule.
func Reasons() []Reason {
	list := make([]Reason, reasonCount)
	for i := range list {
		list[i] = Reason(i)
	}
	return list
}

// Verdict returns what became of the packets of a reason: Pass, Drop or Seen.
func (r Reason) Verdict() string {
	if r > reasonCount {
		return Pass
	}
	verdict, _, _ := strings.Cut(bpf.FirewallReason(r).String(), "_")
	return strings.ToLower(verdict)
}

// String returns the reason in words: "closed port".
func (r Reason) String() string {
	if r > reasonCount {
		return fmt.Sprintf("rule %d", r-reasonCount)
	}
	_, rest, _ := strings.Cut(bpf.FirewallReason(r).String(), "_")
	return strings.ToLower(strings.ReplaceAll(rest, "_", " "))
}

// RuleReason is the reason under which a rule counts.
func RuleReason(id uint16) Reason { return reasonCount + Reason(id) }

// FlowState is the state of a flow; the names are those of the policy's timeouts.
type FlowState uint8

// FlowKilled marks a flow that the administrator cut.
const FlowKilled = FlowState(bpf.FirewallFlowStateFLOW_KILLED)

// String returns the name of the state: "tcp-established".
func (s FlowState) String() string {
	if s == FlowKilled {
		return "killed"
	}
	name := strings.TrimPrefix(bpf.FirewallFlowState(s).String(), "FLOW_")
	return strings.ToLower(strings.ReplaceAll(name, "_", "-"))
}

// FlowStates lists the states that have a timeout.
func FlowStates() []FlowState {
	var list []FlowState
	for s := FlowState(1); s < FlowState(bpf.FirewallFlowStateFLOW_STATES); s++ {
		list = append(list, s)
	}
	return list
}
