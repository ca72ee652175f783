// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"errors"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/portcullis-firewall/portcullis/host"
	"github.com/portcullis-firewall/portcullis/maps"
	"github.com/portcullis-firewall/portcullis/policy"
)

// Names of the flow states that live connections are entered in.
const (
	stateEstablished = "tcp-established"
	stateUDP         = "udp"
	stateUDPStream   = "udp-stream"
)

// tcpStates maps the kernel's socket states (include/net/tcp_states.h) to the state of a flow. A socket whose peer
// has closed counts as established, because its own side may go on for as long as it likes.
var tcpStates = map[uint8]string{
	netlink.TCP_ESTABLISHED: stateEstablished,
	netlink.TCP_SYN_SENT:    "tcp-syn-sent",
	netlink.TCP_SYN_RECV:    "tcp-syn-recv",
	netlink.TCP_FIN_WAIT1:   "tcp-fin-wait",
	netlink.TCP_FIN_WAIT2:   "tcp-fin-wait",
	netlink.TCP_TIME_WAIT:   "tcp-time-wait",
	netlink.TCP_CLOSE_WAIT:  stateEstablished,
	netlink.TCP_LAST_ACK:    "tcp-last-ack",
	netlink.TCP_CLOSING:     "tcp-time-wait",
	netlink.TCP_NEW_SYN_REC: "tcp-syn-recv",
}

// conntrackTCP maps netfilter's states (enum tcp_conntrack) to those of flows. One in which nobody has answered is left
// out: an outsider may have begun it.
var conntrackTCP = map[uint8]string{
	2: "tcp-syn-recv",
	3: stateEstablished,
	4: "tcp-fin-wait",
	5: "tcp-close-wait",
	6: "tcp-last-ack",
	7: "tcp-time-wait",
	8: "tcp-close",
}

// seeder enters connections that were alive before the filter as flows.
type seeder struct {
	set    *maps.Set
	policy *policy.Policy
	hz     uint32
	now    uint64 // jiffies
	states map[string]maps.FlowState
}

func newSeeder(set *maps.Set, now uint64, p *policy.Policy, hz uint32) *seeder {
	s := &seeder{set, p, hz, now, make(map[string]maps.FlowState)}
	for _, state := range maps.FlowStates() {
		s.states[state.String()] = state
	}
	return s
}

// flow makes the flow of a connection. An unanswered one may be evicted.
func (s *seeder) flow(protocol uint8, local, remote netip.AddrPort, state string) maps.Flow {
	return maps.Flow{
		Protocol: protocol,
		Local:    local,
		Remote:   remote,
		State:    s.states[state],
		Answered: state != "tcp-syn-sent",
		Assured:  state != "tcp-syn-sent",
		Created:  maps.Created(s.now),
		Expires:  s.now + uint64(maps.Jiffies(s.policy.Timeout(state), s.hz)),
	}
}

// seed enters every live connection of this network namespace as a flow, and returns how many are established.
func seed(set *maps.Set, t *tools, p *policy.Policy, hz uint32) (int, error) {
	now, err := jiffies(t.clock)
	if err != nil {
		return 0, err
	}
	s := newSeeder(set, now, p, hz)
	flows, err := s.sockets()
	if err != nil {
		return 0, err
	}
	tracked, err := s.conntrack()
	if err != nil {
		return 0, err
	}
	flows = append(flows, tracked...)
	return countEstablished(flows), t.enterFlows(flows, false)
}

// sockets returns the flows of TCP connections and connected UDP sockets.
func (s *seeder) sockets() ([]maps.Flow, error) {
	var out []maps.Flow
	err := host.EachSocket(unix.IPPROTO_TCP, func(k *host.Socket) {
		if state := tcpStates[k.State]; state != "" {
			out = append(out, s.flow(unix.IPPROTO_TCP, k.Local, k.Remote, state))
		}
	})
	if err != nil {
		return nil, err
	}
	err = host.EachSocket(unix.IPPROTO_UDP, func(k *host.Socket) {
		out = append(out, s.flow(unix.IPPROTO_UDP, k.Local, k.Remote, stateUDPStream))
	})
	return out, err
}

// conntrack returns the flows of the connections that netfilter tracks, if it does. They are wanted as they look on
// the wire, so behind NAT both ends of an entry may be ours.
func (s *seeder) conntrack() ([]maps.Flow, error) {
	// A dump walks the whole table, 10 ms for nothing where nothing is tracked.
	if count, err := host.SysctlNumber(nil, "net/netfilter/nf_conntrack_count"); err != nil || count == 0 {
		return nil, nil
	}
	local, err := host.LocalPrefixes()
	if err != nil {
		return nil, err
	}
	isLocal := func(addr netip.Addr) bool {
		for _, p := range local {
			if p.Contains(addr) {
				return true
			}
		}
		return false
	}
	var out []maps.Flow
	entries, err := netlink.ConntrackTableList(netlink.ConntrackTable, unix.AF_UNSPEC)
	if err != nil && !errors.Is(err, netlink.ErrDumpInterrupted) {
		return nil, nil // this kernel does not tell
	}
	for _, e := range entries {
		state := s.conntrackState(e)
		if state == "" {
			continue
		}
		for _, side := range []struct{ local, remote netip.AddrPort }{
			{host.AddrPort(e.Reverse.DstIP, e.Reverse.DstPort), host.AddrPort(e.Reverse.SrcIP, e.Reverse.SrcPort)},
			{host.AddrPort(e.Forward.DstIP, e.Forward.DstPort), host.AddrPort(e.Forward.SrcIP, e.Forward.SrcPort)},
		} {
			if isLocal(side.local.Addr()) && host.IsOutside(side.local, side.remote) && !isLocal(side.remote.Addr()) {
				out = append(out, s.flow(e.Forward.Protocol, side.local, side.remote, state))
			}
		}
	}
	return out, nil
}

// conntrackState returns the state for an entry, or "" for one that is not taken over. The list does not say whether
// an entry was answered; what an outsider began and nobody answered must not get in by it, so of UDP only streams
// count, which takes an answer.
func (s *seeder) conntrackState(e *netlink.ConntrackFlow) string {
	switch e.Forward.Protocol {
	case unix.IPPROTO_TCP:
		if tcp, ok := e.ProtoInfo.(*netlink.ProtoInfoTCP); ok {
			return conntrackTCP[tcp.State]
		}
	case unix.IPPROTO_UDP, unix.IPPROTO_UDPLITE:
		if int64(e.TimeOut) > int64(s.policy.Timeout(stateUDP).Seconds()) {
			return stateUDPStream
		}
	}
	return ""
}

// liveFlows returns the connections of this network namespace that are concerned.
func (f *Filter) liveFlows(concerned func(*maps.Flow) bool) ([]maps.Flow, error) {
	now, err := f.now()
	if err != nil {
		return nil, err
	}
	s := newSeeder(f.set, now, f.running.Policy, f.running.HZ)
	flows, err := s.sockets()
	if err != nil {
		return nil, err
	}
	tracked, err := s.conntrack()
	if err != nil {
		return nil, err
	}
	var out []maps.Flow
	for _, flow := range append(flows, tracked...) {
		if concerned(&flow) {
			out = append(out, flow)
		}
	}
	return out, nil
}

// enter writes flows into the table, where no live one stands.
func (f *Filter) enter(flows []maps.Flow) error {
	t, err := f.tools()
	if err != nil {
		return err
	}
	return t.enterFlows(flows, false)
}

// countEstablished counts the connections that can still be of use to anybody: not those that are winding down.
func countEstablished(flows []maps.Flow) int {
	seen := make(map[maps.FlowID]bool)
	for i := range flows {
		switch flows[i].State.String() {
		case stateEstablished, stateUDPStream:
			seen[flows[i].ID()] = true
		}
	}
	return len(seen)
}

// kill cuts the connections that are concerned: their flows are marked so that nothing revives them but a new
// connection, and their sockets are closed where the kernel can.
func (f *Filter) kill(concerned func(*maps.Flow) bool) (int, error) {
	flows, err := f.liveFlows(concerned)
	if err != nil {
		return 0, err
	}
	err = f.set.Flows(func(flow *maps.Flow) bool {
		if concerned(flow) {
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
	cut := make(map[maps.FlowID]bool)
	for i := range flows {
		flow := &flows[i]
		if !flow.Live(now) {
			continue
		}
		cut[flow.ID()] = true
		flow.State = maps.FlowKilled
		timeout := stateEstablished
		if flow.Protocol != unix.IPPROTO_TCP {
			timeout = stateUDPStream // here no SYN can tell a new conversation from the one that was cut
		}
		flow.Expires = now + uint64(maps.Jiffies(f.running.Policy.Timeout(timeout), f.running.HZ))
		if err := t.enterFlows(flows[i:i+1], true); err != nil {
			return len(cut), err
		}
		_ = destroySocket(flow) // without the kernel's help the peer finds out by itself
	}
	return len(cut), nil
}
