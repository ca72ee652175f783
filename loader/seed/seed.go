// SPDX-License-Identifier: Apache-2.0

// Package seed finds the connections that live already, which a filter enters as flows before it drops anything.
package seed

import (
	"errors"
	"net/netip"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/portcullis-firewall/portcullis/host"
	"github.com/portcullis-firewall/portcullis/maps"
	"github.com/portcullis-firewall/portcullis/policy"
)

// Names of the flow states that live connections are entered in.
const (
	Established = "tcp-established"
	udp         = "udp"
	UDPStream   = "udp-stream"
)

// tcpStates maps the kernel's socket states (include/net/tcp_states.h) to the state of a flow. A socket whose peer
// has closed counts as established, because its own side may go on for as long as it likes.
var tcpStates = map[uint8]string{
	netlink.TCP_ESTABLISHED: Established,
	netlink.TCP_SYN_SENT:    "tcp-syn-sent",
	netlink.TCP_SYN_RECV:    "tcp-syn-recv",
	netlink.TCP_FIN_WAIT1:   "tcp-fin-wait",
	netlink.TCP_FIN_WAIT2:   "tcp-fin-wait",
	netlink.TCP_TIME_WAIT:   "tcp-time-wait",
	netlink.TCP_CLOSE_WAIT:  Established,
	netlink.TCP_LAST_ACK:    "tcp-last-ack",
	netlink.TCP_CLOSING:     "tcp-time-wait",
	netlink.TCP_NEW_SYN_REC: "tcp-syn-recv",
}

// conntrackTCP maps netfilter's states (enum tcp_conntrack) to those of flows. One in which nobody has answered is left
// out: an outsider may have begun it.
var conntrackTCP = map[uint8]string{
	2: "tcp-syn-recv",
	3: Established,
	4: "tcp-fin-wait",
	5: "tcp-close-wait",
	6: "tcp-last-ack",
	7: "tcp-time-wait",
	8: "tcp-close",
}

// seeder makes flows of connections.
type seeder struct {
	policy *policy.Policy
	hz     uint32
	now    uint64 // jiffies
	states map[string]maps.FlowState
}

func newSeeder(now uint64, p *policy.Policy, hz uint32) *seeder {
	s := &seeder{p, hz, now, make(map[string]maps.FlowState)}
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

// Connections are those that live already.
type Connections struct {
	// Flows has for each what a filter may meet: where netfilter translates addresses, and where it is routed, more
	// than one flow.
	Flows []maps.Flow
	// Origins says of what is routed how it was begun, by the flows of it.
	Origins map[maps.FlowID]Origin
	// Led says where netfilter leads what is routed, if that is another destination than its origin has.
	Led map[Origin]netip.AddrPort
}

// Origin is a connection through this host as whoever began it sees it, before any translation.
type Origin struct {
	Protocol uint8
	From, To netip.AddrPort
}

// Live returns every live connection of this network namespace, as they are at a time (jiffies).
func Live(now uint64, p *policy.Policy, hz uint32) (*Connections, error) {
	s := newSeeder(now, p, hz)
	flows, err := s.sockets()
	if err != nil {
		return nil, err
	}
	tracked, err := s.conntrack()
	if err != nil {
		return nil, err
	}
	tracked.Flows = append(flows, tracked.Flows...)
	return tracked, nil
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
		out = append(out, s.flow(unix.IPPROTO_UDP, k.Local, k.Remote, UDPStream))
	})
	return out, err
}

// conntrack returns the connections that netfilter tracks, if it does. They are wanted as they look on the wire, so behind
// NAT both ends of an entry may be ours.
func (s *seeder) conntrack() (*Connections, error) {
	out := &Connections{Origins: make(map[maps.FlowID]Origin), Led: make(map[Origin]netip.AddrPort)}
	// A dump walks the whole table, 10 ms for nothing where nothing is tracked.
	if count, err := host.SysctlNumber(nil, "net/netfilter/nf_conntrack_count"); err != nil || count == 0 {
		return out, nil
	}
	isLocal, err := host.LocalAddresses()
	if err != nil {
		return nil, err
	}
	entries, err := host.CompleteList(tracked)
	if err != nil && !errors.Is(err, netlink.ErrDumpInterrupted) {
		return out, nil // this kernel does not tell
	}
	var routed []maps.Flow
	for i := range entries {
		e := &entries[i]
		state := s.conntrackState(e)
		if state == "" {
			continue
		}
		protocol, from, to := e.protocol, e.original.from, e.original.to
		origin := Origin{protocol, from, to}
		server := e.reply.from // which "to" is not where the destination is translated
		isRouted := !isLocal(from.Addr()) && !isLocal(server.Addr()) && s.policy.Forward != policy.ForwardAccept
		if isRouted && server != to {
			out.Led[origin] = server
		}
		for _, side := range []struct{ local, remote netip.AddrPort }{
			{e.reply.to, server},
			{to, from},
		} {
			switch {
			case isLocal(side.remote.Addr()) || !host.IsOutside(side.local, side.remote):
			case isLocal(side.local.Addr()):
				flow := s.flow(protocol, side.local, side.remote, state)
				flow.Assured = flow.Assured && state != udp // a few packets are no reason to stay when there is no room
				out.Flows = append(out.Flows, flow)
				if isRouted {
					out.Origins[flow.ID()] = origin
				}
			case isRouted && host.IsOutside(side.remote, side.local):
				flow := s.flow(protocol, side.local, side.remote, state)
				// There may be very many, and from its next packet on it is assured: until then it gives way.
				flow.Assured = false
				turned := Turned(flow)
				if _, ok := out.Origins[flow.ID()]; ok {
					continue // its addresses are not translated
				}
				out.Origins[flow.ID()], out.Origins[turned.ID()] = origin, origin
				routed = append(routed, flow, turned)
			}
		}
	}
	// What is of this host itself comes first.
	out.Flows = append(out.Flows, routed...)
	return out, nil
}

// Turned returns a flow as it is seen from its other end.
func Turned(flow maps.Flow) maps.Flow {
	flow.Local, flow.Remote = flow.Remote, flow.Local
	return flow
}

// conntrackState returns the state for an entry, or "" for one that is not taken over: what an outsider began and nobody
// answered must not get in by it.
func (s *seeder) conntrackState(e *entry) string {
	switch e.protocol {
	case unix.IPPROTO_TCP:
		return conntrackTCP[e.tcpState]
	case unix.IPPROTO_UDP, unix.IPPROTO_UDPLITE:
		switch {
		case e.assured:
			return UDPStream
		case e.answered:
			return udp
		}
	}
	return ""
}

// Established counts the connections that can still be of use to anybody.
func (c *Connections) Established() int {
	seen := make(map[Origin]bool)
	for i := range c.Flows {
		if IsOfUse(&c.Flows[i]) {
			seen[c.Origin(&c.Flows[i])] = true
		}
	}
	return len(seen)
}

// IsOfUse reports whether a flow can still be of use to anybody: no connection that is winding down, or was never answered.
func IsOfUse(flow *maps.Flow) bool {
	state := flow.State.String()
	return state == Established || !strings.HasPrefix(state, "tcp-")
}

// Origin returns what tells the connection of a flow from others, from whichever end it is seen.
func (c *Connections) Origin(flow *maps.Flow) Origin {
	if o, ok := c.Origins[flow.ID()]; ok {
		return o
	}
	if flow.Local.Compare(flow.Remote) > 0 {
		return Origin{flow.Protocol, flow.Remote, flow.Local}
	}
	return Origin{flow.Protocol, flow.Local, flow.Remote}
}
