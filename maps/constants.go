// SPDX-License-Identifier: Apache-2.0

package maps

import (
	"encoding/binary"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/cilium/ebpf"

	"github.com/portcullis-firewall/portcullis/bpf"
	"github.com/portcullis-firewall/portcullis/policy"
)

// Constants holds the load-time constants of the programs of one interface.
type Constants struct {
	Policy      *policy.Policy
	HZ          uint32
	Ethernet    bool
	MAC         [6]byte
	MultiBuffer bool
	RunSlot     uint32 // where the program notes that it runs: see RunSlot
	Page        uint32 // of the ledger; 0 for a program that may stand at several devices
	ManyDevices bool   // MAC and RunSlot are looked up by the device: see State.PutDevice
	Features    Features
	TestClock   bool
}

// Set writes the constants into spec.
func (c *Constants) Set(spec *ebpf.CollectionSpec) error {
	forward := map[policy.ForwardPolicy]bpf.FirewallPolicy{
		policy.ForwardDrop:        bpf.FirewallPolicyPOLICY_DROP,
		policy.ForwardEstablished: bpf.FirewallPolicyPOLICY_ESTABLISHED,
		policy.ForwardAccept:      bpf.FirewallPolicyPOLICY_ACCEPT,
	}
	invalid := map[policy.InvalidPolicy]bpf.FirewallPolicy{
		policy.InvalidLog:    bpf.FirewallPolicyPOLICY_LOG,
		policy.InvalidDrop:   bpf.FirewallPolicyPOLICY_DROP,
		policy.InvalidAccept: bpf.FirewallPolicyPOLICY_ACCEPT,
	}
	input := map[policy.Verdict]bpf.FirewallPolicy{
		policy.Drop:   bpf.FirewallPolicyPOLICY_DROP,
		policy.Accept: bpf.FirewallPolicyPOLICY_ACCEPT,
		policy.Reject: bpf.FirewallPolicyPOLICY_REJECT,
	}
	timeouts := make([]uint32, spec.Variables[bpf.FirewallVarTimeouts].Size()/4)
	for _, state := range FlowStates() {
		timeouts[state] = Jiffies(c.Policy.Timeout(state.String()), c.HZ)
	}
	for name, value := range map[string]any{
		bpf.FirewallVarEthernet:         c.Ethernet,
		bpf.FirewallVarOwnMac:           macPairs(c.MAC),
		bpf.FirewallVarMultiBuffer:      c.MultiBuffer,
		bpf.FirewallVarRunSlot:          c.RunSlot,
		bpf.FirewallVarLedgerPage:       c.Page,
		bpf.FirewallVarManyDevices:      c.ManyDevices,
		bpf.FirewallVarInputPolicy:      uint32(input[c.Policy.Input]),
		bpf.FirewallVarForwardPolicy:    uint32(forward[c.Policy.Forward]),
		bpf.FirewallVarInvalidPolicy:    uint32(invalid[c.Policy.Invalid]),
		bpf.FirewallVarLoggedReasons:    loggedReasons(c.Policy),
		bpf.FirewallVarIcmp4Types:       c.Policy.ICMP.Types4(),
		bpf.FirewallVarIcmp6Types:       c.Policy.ICMP.Types6(),
		bpf.FirewallVarTimeouts:         timeouts,
		bpf.FirewallVarHz:               c.HZ,
		bpf.FirewallVarJiffy:            uint32(time.Second) / max(c.HZ, 1),
		bpf.FirewallVarLongestSynSent:   uint16(min(timeouts[bpf.FirewallFlowStateFLOW_TCP_SYN_SENT]/stampUnit+1, math.MaxUint16)),
		bpf.FirewallVarFlowSets:         spec.Maps[bpf.FirewallMapFlowTags].MaxEntries,
		bpf.FirewallVarUsesLimits:       c.Features&UsesLimits != 0,
		bpf.FirewallVarUsesAddresses:    c.Features&UsesAddresses != 0,
		bpf.FirewallVarUsesForwardRules: c.Features&UsesForwardRules != 0,
		bpf.FirewallVarTestClock:        c.TestClock,
	} {
		v := spec.Variables[name]
		if v == nil {
			return fmt.Errorf("the object has no constant %s", name)
		}
		if err := v.Set(value); err != nil {
			return fmt.Errorf("set constant %s: %w", name, err)
		}
	}
	return nil
}

// loggedReasons returns a bit for each reason of which packets go into the journal.
func loggedReasons(p *policy.Policy) (bits uint64) {
	names := p.Log.Reasons()
	for _, reason := range Reasons() {
		if v := reason.Verdict(); (v == Drop || v == Seen) && slices.Contains(names, reason.String()) {
			bits |= 1 << reason
		}
	}
	return bits
}

// stampUnit is that of the stamps in .data.syn_sent (jiffies).
const stampUnit = 1 << 8

// macPairs views an address as the datapath compares it.
func macPairs(mac [6]byte) (pairs [3]uint16) {
	for i := range pairs {
		pairs[i] = binary.NativeEndian.Uint16(mac[i*2:])
	}
	return pairs
}

// Jiffies returns a duration in the kernel's ticks.
func Jiffies(d time.Duration, hz uint32) uint32 {
	return uint32(d.Seconds() * float64(hz))
}

// Duration returns ticks as a duration.
func Duration(jiffies int64, hz uint32) time.Duration {
	return time.Duration(float64(jiffies) / float64(hz) * float64(time.Second))
}
