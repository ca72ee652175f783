// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"slices"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/portcullis-firewall/portcullis/bpf"
	"github.com/portcullis-firewall/portcullis/host"
	"github.com/portcullis-firewall/portcullis/loader/seed"
	"github.com/portcullis-firewall/portcullis/maps"
	"github.com/portcullis-firewall/portcullis/policy"
)

var protocolNames = map[uint8]string{
	unix.IPPROTO_ICMP:   "icmp",
	unix.IPPROTO_ICMPV6: "icmpv6",
	unix.IPPROTO_GRE:    "gre",
	unix.IPPROTO_ESP:    "esp",
	unix.IPPROTO_AH:     "ah",
	unix.IPPROTO_IPIP:   "ipip",
	unix.IPPROTO_IPV6:   "ipv6",
}

func protocolName(number uint8) string {
	if policy.ProtocolIndex(policy.Protocol(number)) >= 0 {
		return policy.Protocol(number).String()
	}
	if name := protocolNames[number]; name != "" {
		return name
	}
	return strconv.Itoa(int(number))
}

// Flows calls each for every live flow, once, by protocol and addresses, until it returns false.
func (f *Filter) Flows(each func(Flow) bool) error {
	now, err := f.now()
	if err != nil {
		return err
	}
	return f.set.SortedFlows(now, func(flow *maps.Flow) bool {
		return each(f.shown(flow, now))
	})
}

// shown returns a flow as users see it at a time (jiffies).
func (f *Filter) shown(flow *maps.Flow, now uint64) Flow {
	return Flow{
		Protocol: protocolName(flow.Protocol),
		Local:    flow.Local,
		Remote:   flow.Remote,
		State:    flow.State.String(),
		Answered: flow.Answered,
		Assured:  flow.Assured,
		Age:      maps.Duration(int64(flow.Age(now)), f.running.HZ),
		Expires:  maps.Duration(int64(flow.Expires-now), f.running.HZ),
	}
}

// Flush takes every flow out of the table. A connection that is alive comes back with its next packet from this
// host; until then what arrives for it is dropped.
func (f *Filter) Flush() (removed int, err error) {
	result, err := f.runSweep(true)
	return int(result.Removed), err
}

// Sweep takes the dead flows out of the table.
func (f *Filter) Sweep() (live, removed int, err error) {
	result, err := f.runSweep(false)
	return int(result.Live), int(result.Removed), err
}

func (f *Filter) runSweep(flush bool) (result bpf.FirewallSweep, err error) {
	unlock, err := f.change()
	if err != nil {
		return result, err
	}
	defer unlock()
	if flush {
		result.Flush = 1
	}
	t, err := f.tools()
	if err != nil {
		return result, err
	}
	if err := t.runSweep(&result); err != nil {
		return result, err
	}
	if err := f.tidyReaders(); err != nil {
		return result, err
	}
	return result, f.set.AfterSweep()
}

// tidyReaders makes up for those who looked at packets and were killed.
func (f *Filter) tidyReaders() error {
	unlock, err := f.pins.LockState(f.ctx)
	if err != nil {
		return err
	}
	defer unlock()
	now, err := f.now()
	if err == nil {
		_, err = f.set.TidyReaders(now)
	}
	return err
}

// enterLive enters every live connection of this network namespace as a flow, and returns how many are established.
func enterLive(t *tools, p *policy.Policy, hz uint32) (int, error) {
	now, err := jiffies(t.clock)
	if err != nil {
		return 0, err
	}
	live, err := seed.Live(now, p, hz)
	if err != nil {
		return 0, err
	}
	return live.Established(), t.enterFlows(live.Flows, false)
}

// liveConnections returns the connections of this network namespace.
func (f *Filter) liveConnections() (*seed.Connections, error) {
	now, err := f.now()
	if err != nil {
		return nil, err
	}
	return seed.Live(now, f.running.Policy, f.running.HZ)
}

// concerns tells which connections a change concerns. It is asked about flows, of some of which netfilter knows how they
// were begun.
type concerns func(*seed.Connections, *maps.Flow) bool

// liveFlows returns the connections of this network namespace that are concerned.
func (f *Filter) liveFlows(concerned concerns) (*seed.Connections, error) {
	live, err := f.liveConnections()
	if err != nil {
		return nil, err
	}
	var flows []maps.Flow
	for i := range live.Flows {
		if concerned(live, &live.Flows[i]) {
			flows = append(flows, live.Flows[i])
		}
	}
	live.Flows = flows
	return live, nil
}

// enter writes flows into the table, where no live one stands.
func (f *Filter) enter(flows []maps.Flow) error {
	t, err := f.tools()
	if err != nil {
		return err
	}
	return t.enterFlows(flows, false)
}

// kill cuts the connections that are concerned: their flows are marked so that nothing revives them but a new
// connection, and their sockets are closed where the kernel can. It returns how many were of use: each may have several flows,
// and those that are over have some for a while.
func (f *Filter) kill(concerned concerns) (int, error) {
	live, err := f.liveFlows(concerned)
	if err != nil {
		return 0, err
	}
	flows := live.Flows
	err = f.set.Flows(func(flow *maps.Flow) bool {
		if concerned(live, flow) {
			flows = append(flows, *flow)
		}
		return true
	})
	if err != nil {
		return 0, err
	}
	now, err := f.now()
	if err != nil {
		return 0, err
	}
	t, err := f.tools()
	if err != nil {
		return 0, err
	}
	isLocal, err := host.LocalAddresses()
	if err != nil {
		return 0, err
	}
	// A flow of what is routed may be of either end, and that of the other one must not begin where this one is cut.
	for _, flow := range slices.Clone(flows) {
		if flow.Live(now) && !isLocal(flow.Local.Addr()) {
			flows = append(flows, seed.Turned(flow))
		}
	}
	cut := make(map[seed.Origin]bool)
	for i := range flows {
		flow := &flows[i]
		if !flow.Live(now) {
			continue
		}
		if seed.IsOfUse(flow) {
			cut[live.Origin(flow)] = true
		}
		flow.State = maps.FlowKilled
		timeout := seed.Established
		if flow.Protocol != unix.IPPROTO_TCP {
			timeout = seed.UDPStream // here no SYN can tell a new conversation from the one that was cut
		}
		flow.Expires = now + uint64(maps.Jiffies(f.running.Policy.Timeout(timeout), f.running.HZ))
		if err := t.enterFlows(flows[i:i+1], true); err != nil {
			return len(cut), err
		}
		_ = seed.DestroySocket(flow) // without the kernel's help the peer finds out by itself
	}
	return len(cut), nil
}

// flowsStatus counts the flows, and takes the rest from the ledger.
func (f *Filter) flowsStatus(counted *maps.Ledger) (s FlowsStatus, err error) {
	now, err := f.now()
	if err != nil {
		return s, err
	}
	flows, err := f.set.CountFlows(now)
	if err != nil {
		return s, err
	}
	most, err := f.set.MaxFlows()
	return FlowsStatus{
		Assured:  flows.Assured,
		Answered: flows.Answered,
		Pending:  flows.Pending,
		Max:      most,
		Full:     counted.Total(maps.FlowsFull).Packets,
		Evicted:  counted.Total(maps.FlowsEvicted).Packets,
	}, err
}
