// SPDX-License-Identifier: Apache-2.0

// Package audit compares the sockets that listen on this host, and the ports
// that it publishes for containers, with what a policy opens.
package audit

import (
	"cmp"
	"net/netip"
	"slices"

	"github.com/portcullis-firewall/portcullis/firewall/cmdline"
	"github.com/portcullis-firewall/portcullis/host"
	"github.com/portcullis-firewall/portcullis/host/netfilter"
	"github.com/portcullis-firewall/portcullis/policy"
)

// State is how a port, or a rule, stands.
type State string

// The states.
const (
	Open   State = "open"   // something listens, and a rule, or an interface that is not filtered, lets others come
	Closed State = "closed" // something listens, and nobody can come to it
	Unused State = "unused" // a rule, and nobody listens
)

// Entry is a port on which something listens, or a rule that nothing uses.
type Entry struct {
	State     State    `json:"state"`
	Port      string   `json:"port"`      // as a rule writes it; of an unused rule what it opens
	Addresses []string `json:"addresses"` // that it listens on; * is all of this host
	Processes []string `json:"processes"` // or what it is published for
	Rules     []string `json:"rules"`     // that open it
	From      []string `json:"from"`      // whom the rules let come, and where; empty is nobody, * anyone anywhere
	Bypass    []string `json:"bypass"`    // interfaces that are not filtered, by which anyone may come
	Fix       string   `json:"fix"`       // what to type if that was not meant; empty where all is well
}

// Input is what Compare takes.
type Input struct {
	Policy    *policy.Policy
	Filtered  []host.Interface // on which the policy is, or would be
	Running   bool             // the policy is in force; else nothing is filtered
	Listeners []host.Listener
	Published []netfilter.Published
	Local     []netip.Addr // the addresses of this host
	Loopback  int          // the index of its loopback interface
	Ephemeral [2]uint16    // the ports that the kernel gives to clients, first and last

	Unfiltered []host.Interface // by which packets come in past the filter
	Flags      cmdline.Flags    // of the commands that are proposed
}

// service is a port on which something listens.
type service struct {
	protocol    policy.Protocol
	first, last uint16
	addresses   []string
	processes   []string
	bypass      []string
	only        int  // the interface that all of its sockets listen on, or 0
	published   bool // by DNAT
}

// Compare returns the ports, apart for addresses at which others may come: those that are closed, those that are open, and the rules that nothing uses.
func Compare(in Input) (entries []Entry) {
	used := map[int]bool{}
	for _, s := range in.byAddress(in.services()) {
		entry := Entry{State: Closed, Port: s.text(), Addresses: s.addresses, Processes: s.processes, Rules: []string{}, From: []string{}, Bypass: s.bypass}
		for _, i := range in.admit(&entry, s) {
			used[i] = true
		}
		toAll := slices.Equal(entry.From, []string{anyone})
		switch {
		case entry.State == Closed && in.client(s):
			continue
		case !in.Running:
			entry.State, entry.From = Open, []string{"*"}
			if !toAll {
				entry.Fix = in.Flags.Line("up")
			}
			entries = append(entries, entry)
			continue
		}
		switch {
		case len(s.bypass) > 0 && !toAll:
			entry.State, entry.Fix = Open, in.Flags.Line(append([]string{"up"}, s.bypass...)...)
		case entry.State == Closed:
			entry.Fix = in.Flags.Line("open", opens(s))
		}
		entries = append(entries, entry)
	}
	for i, r := range in.Policy.Open {
		if used[i] || r.Forward || !hasPorts(r) {
			continue
		}
		unused := Entry{State: Unused, Port: what(r), Addresses: []string{}, Processes: []string{},
			Rules: []string{r.String()}, From: in.who(r), Bypass: []string{}}
		if in.Running { // or close is refused
			unused.Fix = in.Flags.Line("close", r.String())
		}
		entries = append(entries, unused)
	}
	order := []State{Closed, Open, Unused}
	slices.SortStableFunc(entries, func(a, b Entry) int { return slices.Index(order, a.State) - slices.Index(order, b.State) })
	return entries
}

// services lists what others could reach, one entry a port, in order.
func (in *Input) services() (list []service) {
	add := func(s service) {
		for i := range list {
			if l := &list[i]; l.protocol == s.protocol && l.first == s.first && l.last == s.last {
				l.addresses = append(l.addresses, s.addresses...)
				l.processes = append(l.processes, s.processes...)
				l.bypass = append(l.bypass, s.bypass...)
				if l.only != s.only {
					l.only = 0
				}
				l.published = l.published || s.published
				return
			}
		}
		list = append(list, s)
	}
	for _, l := range in.Listeners {
		if l.Local.Addr().IsLoopback() || l.Interface != 0 && l.Interface == in.Loopback {
			continue
		}
		address := l.Local.Addr().String()
		if l.Local.Addr().IsUnspecified() {
			address = "*"
		}
		add(service{protocol: l.Protocol, first: l.Local.Port(), last: l.Local.Port(), addresses: []string{address}, processes: l.Processes,
			bypass: in.bypassTo(l.Interface), only: l.Interface})
	}
	for _, p := range in.Published {
		if address, ok := in.reachable(p.Destination); ok {
			add(service{protocol: p.Protocol, first: p.First, last: p.Last, addresses: []string{address}, processes: []string{"to " + p.To},
				bypass: in.bypassTo(0), published: true})
		}
	}
	slices.SortFunc(list, func(a, b service) int {
		return cmp.Or(cmp.Compare(a.protocol, b.protocol), cmp.Compare(a.first, b.first), cmp.Compare(a.last, b.last))
	})
	for i := range list {
		for _, texts := range []*[]string{&list[i].addresses, &list[i].processes, &list[i].bypass} {
			slices.Sort(*texts)
			*texts = append([]string{}, slices.Compact(*texts)...)
		}
	}
	return list
}

// bypassTo lists the interfaces that are not filtered and lead to a socket, which may listen on a single one.
func (in *Input) bypassTo(only int) (names []string) {
	for _, i := range in.Unfiltered {
		if only == 0 || only == i.Index {
			names = append(names, i.Name)
		}
	}
	return names
}

// reachable reports whether a published address is one of this host that others can reach.
func (in *Input) reachable(p netip.Prefix) (address string, ok bool) {
	if !p.IsValid() || p.Bits() == 0 {
		return "*", true
	}
	for _, a := range in.Local {
		if p.Contains(a) && !a.IsLoopback() {
			return p.Addr().String(), true
		}
	}
	return "", false
}

// client reports whether a socket only waits for answers, as far as that can be seen: the answers of DHCPv4 servers pass without
// a rule, and a UDP port of those that the kernel hands out belongs to somebody who has asked for none.
func (in *Input) client(s service) bool {
	const dhcp = 68
	return s.protocol == policy.UDP && !s.published && (s.first == dhcp || s.first >= in.Ephemeral[0] && s.first <= in.Ephemeral[1])
}

func (s service) ports() policy.PortRange {
	return policy.PortRange{Protocol: s.protocol, First: s.first, Last: s.last}
}

func (s service) text() string { return s.ports().String() }

// opens is the rule to propose. DHCPv6 servers answer from their link-local address.
func opens(s service) string {
	const dhcpv6 = 546
	if s.protocol == policy.UDP && s.first == dhcpv6 {
		return s.text() + " from fe80::/10"
	}
	return s.text()
}
