// SPDX-License-Identifier: Apache-2.0

package firewalld

import (
	"net/netip"
	"slices"
	"strings"

	"github.com/portcullis-firewall/portcullis/policy/iptables"
)

// some is packets of one kind: options of iptables, and what has none.
type some struct {
	options, doubts []string
}

// opens are the packets that an element names: of a service, which may be of
// several kinds, a port, a protocol or a source port.
func (l *lowering) opens(f iptables.Family, n *node) []some {
	switch n.name {
	case "service":
		return l.ofService(f, n.attr("name"), n, nil)
	case "port":
		return []some{portOf(n.attr("port"), n.attr("protocol"))}
	case "protocol":
		return []some{protocolOf(n.attr("value"))}
	case "source-port":
		return []some{sourcePortOf(n.attr("port"), n.attr("protocol"))}
	}
	return nil
}

// ofService are the packets of a service, with those that it includes.
func (l *lowering) ofService(f iptables.Family, name string, at *node, within []string) (out []some) {
	s := l.services[name]
	switch {
	case slices.Contains(within, name):
		return nil
	case s == nil:
		l.out.Lost(at.at, "service %s is not known: name its file, or /usr/lib/firewalld/services, too", name)
		return nil
	}
	var to []string
	if s.to[f] != "" {
		to = []string{"-d", s.to[f]}
	}
	add := func(one some) {
		if s.to[f] == "-" {
			return
		}
		one.options = slices.Concat(to, one.options)
		out = append(out, one)
	}
	for _, p := range s.ports {
		port, protocol, found := strings.Cut(p, "/")
		if found {
			add(portOf(port, protocol))
		} else {
			add(protocolOf(port))
		}
	}
	for _, p := range s.sourcePorts {
		port, protocol, _ := strings.Cut(p, "/")
		add(sourcePortOf(port, protocol))
	}
	for _, other := range s.includes {
		out = append(out, l.ofService(f, other, at, append(slices.Clone(within), name))...)
	}
	return out
}

func portOf(port, protocol string) some {
	return some{options: []string{"-p", protocol, "-m", "multiport", "--dport", strings.ReplaceAll(port, "-", ":")}}
}

func protocolOf(name string) some {
	return some{options: []string{"-p", name}}
}

func sourcePortOf(port, protocol string) some {
	return some{options: []string{"-p", protocol}, doubts: []string{"source port " + port}}
}

// icmpNames are the types of ICMP that firewalld names, by family.
var icmpNames = [2][]string{
	strings.Fields(`address-unreachable communication-prohibited destination-unreachable echo-reply echo-request fragmentation-needed
		host-precedence-violation host-prohibited host-redirect host-unknown host-unreachable ip-header-bad network-prohibited
		network-redirect network-unknown network-unreachable parameter-problem port-unreachable precedence-cutoff protocol-unreachable
		redirect required-option-missing router-advertisement router-solicitation source-quench source-route-failed time-exceeded
		timestamp-reply timestamp-request tos-host-redirect tos-host-unreachable tos-network-redirect tos-network-unreachable
		ttl-zero-during-reassembly ttl-zero-during-transit`),
	strings.Fields(`address-unreachable bad-header beyond-scope communication-prohibited destination-unreachable echo-reply echo-request
		failed-policy mld-listener-done mld-listener-query mld-listener-report mld2-listener-report neighbour-advertisement
		neighbour-solicitation no-route packet-too-big parameter-problem port-unreachable redirect reject-route router-advertisement
		router-solicitation time-exceeded ttl-zero-during-reassembly ttl-zero-during-transit unknown-header-type unknown-option`),
}

// icmpOptions are those of a type of ICMP, if a family has it. One that is not
// known may be of either.
func icmpOptions(f iptables.Family, name string) ([]string, bool) {
	known := slices.Contains(icmpNames[0], name) || slices.Contains(icmpNames[1], name)
	if known && !slices.Contains(icmpNames[f], name) {
		return nil, false
	}
	return []string{"-p", [...]string{"icmp", "ipv6-icmp"}[f], "--icmp-type", name}, true
}

// source are the options of where packets come from, if they can be of a family.
func (l *lowering) source(f iptables.Family, n *node) (options, doubts []string, ok bool) {
	return l.address(f, n, "-s")
}

// address reads an element that names addresses, a set of them or a MAC.
func (l *lowering) address(f iptables.Family, n *node, option string) (options, doubts []string, ok bool) {
	not := n.yes("invert") || n.yes("not")
	switch {
	case n.attr("mac") != "":
		return nil, []string{"the MAC address " + n.attr("mac")}, true
	case n.attr("ipset") != "":
		name := n.attr("ipset")
		list, known := l.members(f, name)
		switch {
		case !known:
			return nil, []string{"ipset " + name}, true
		case len(list) == 0:
			return nil, nil, not
		}
		return negated(not, option, strings.Join(list, ",")), nil, true
	}
	text := n.attr("address")
	if text == "" {
		return nil, nil, true
	}
	family, known := familyOf(text)
	switch {
	case !known:
		return nil, []string{option + " " + text}, true
	case family != f:
		return nil, nil, false
	}
	return negated(not, option, text), nil, true
}

func negated(not bool, options ...string) []string {
	if not {
		return append([]string{"!"}, options...)
	}
	return options
}

// familyOf tells the family of an address or a network, with a mask of either
// kind.
func familyOf(text string) (iptables.Family, bool) {
	address, _, _ := strings.Cut(text, "/")
	a, err := netip.ParseAddr(address)
	if err != nil {
		return iptables.IPv4, false
	}
	if a.Is4() {
		return iptables.IPv4, true
	}
	return iptables.IPv6, true
}

// members are the addresses in an ipset, and whether they are all that it can
// have.
func (l *lowering) members(f iptables.Family, name string) (list []string, known bool) {
	n := l.ipsets[name]
	if n == nil || !slices.Contains([]string{"hash:ip", "hash:net"}, n.attr("type")) {
		return nil, false
	}
	family := iptables.IPv4
	for _, c := range n.children {
		switch {
		case c.name == "option" && c.attr("name") == "timeout" && c.attr("value") != "0":
			return nil, false
		case c.name == "option" && c.attr("name") == "family" && c.attr("value") == "inet6":
			family = iptables.IPv6
		case c.name == "entry":
			text := strings.TrimSpace(c.text)
			if _, ok := familyOf(text); !ok {
				return nil, false
			}
			list = append(list, text)
		}
	}
	if family != f {
		return nil, true
	}
	return list, true
}
