// SPDX-License-Identifier: Apache-2.0

package differential

import (
	"os"
	"strings"
	"testing"
)

// difference is a row of docs/netfilter-differences.md that sequences meet. Where a step is marked with one, the two
// sides have to decide exactly so: a difference that is gone is a mistake in the documentation.
type difference struct {
	row             string // its first column
	netfilter, ours verdict
	either          bool // or in any other way, in random sequences: the states have parted
}

var (
	dhcpAnswer  = &difference{row: "answer of a DHCPv4 server, UDP 67 → 68", netfilter: drop, ours: input}
	dhcp6Answer = &difference{row: "answer of a DHCPv6 server to a link-local address, UDP 547 → 546", netfilter: drop, ours: input}
	notNamed    = &difference{row: "interfaces that are not named", netfilter: drop, ours: input}
	neighbours  = &difference{row: "neighbour discovery and MLD (ICMPv6 130 to 137, 143) under `icmp: drop`", netfilter: drop, ours: input}
	// Left to the stack: it looks at the packet before a socket gets anything of it.
	window         = &difference{row: "TCP outside the window, in a flow", netfilter: drop, ours: input}
	checksum       = &difference{row: "wrong TCP, UDP or ICMP checksum, in a flow", netfilter: drop, ours: input}
	reset          = &difference{row: "the peer's RST at any but the expected sequence number", netfilter: drop, ours: input, either: true}
	lateData       = &difference{row: "a packet late after the peer's FIN, before ours", netfilter: drop, ours: input}
	timeWait       = &difference{row: "a packet after the peer's SYN in TIME_WAIT", netfilter: drop, ours: input}
	reused         = &difference{row: "a SYN that meets ours on a port whose connection we have reset", netfilter: drop, ours: input, either: true}
	spokeAgain     = &difference{row: "a packet late after a RST, when this host has spoken since", netfilter: drop, ours: input}
	unansweredData = &difference{row: "a packet late after data of the peer's that this host has not acknowledged", netfilter: drop, ours: input}
	behindAH       = &difference{row: "any AH packet over IPv6 after one of ours to the same peer", netfilter: drop, ours: input}
	unseen         = &difference{row: "after a packet in a flow that the stack drops or holds back before netfilter", netfilter: drop, ours: input, either: true}
	splitLie       = &difference{row: "a transport header in fragments that lies about its length, in a flow", netfilter: drop, ours: input}
	wrongTag       = &difference{row: "SCTP with a wrong verification tag, in a flow", netfilter: drop, ours: input}
	pickup         = &difference{row: "SCTP after a chunk of ours that begins no association", netfilter: drop, ours: input, either: true}
	halfSCTP       = &difference{row: "SCTP that is answered, but not yet or no longer established", netfilter: drop, ours: input}
	otherCode      = &difference{row: "ICMP reply with another code than its query", netfilter: drop, ours: input}
	otherCall      = &difference{row: "PPTP's GRE, with another call ID than ours", netfilter: drop, ours: input}
	givenUp        = &difference{row: "to an address that this host has given up since `up`", netfilter: drop, ours: forwarded}
	openPort       = &difference{row: "ICMP error about a packet from an open port", netfilter: drop, ours: input}
	strayToOpen    = &difference{row: "TCP to an open port from no connection, under `invalid: drop`", netfilter: drop, ours: input}
	brokenReset    = &difference{row: "a packet late after a RST at the expected sequence number, but with a wrong checksum", netfilter: input, ours: drop}
	splitHeader    = &difference{row: "TCP header split over fragments", netfilter: input, ours: drop}
	splitQuote     = &difference{row: "SCTP chunk header, or what an ICMP error quotes, split over fragments", netfilter: input, ours: drop}
	nodeAnswer     = &difference{row: "answer to an ICMPv6 node information query (139, 140)", netfilter: input, ours: drop}
	cutHeader      = &difference{row: "IPv6 extension header that is longer than the packet, before ICMPv6", netfilter: input, ours: drop}
	findRouters    = &difference{row: "multicast router discovery (ICMPv6 151, 152), on Linux 6.1", netfilter: drop, ours: input}
	foundRouters   = &difference{row: findRouters.row, netfilter: input, ours: drop} // under `invalid: accept`
	noLength       = &difference{row: "IPv6 payload length 0 before a hop-by-hop header", netfilter: input, ours: drop, either: true}
	manyHeaders    = &difference{row: "more than 10 IPv6 extension headers", netfilter: input, ours: drop}
	cutOff         = &difference{row: "a header cut off before the ports, under `forward: accept`", netfilter: forwarded, ours: drop}
	markRouted     = &difference{row: "to a transparent proxy (TPROXY), or routed here by a rule about marks, ports or the type of service", netfilter: input, ours: drop}
	closedPort     = &difference{row: "answer to what left from a port while it was open, after it is closed", netfilter: input, ours: drop, either: true}
	limitedACK     = &difference{row: "TCP that begins no connection and belongs to none, to a port with a limit", netfilter: drop, ours: input}
	limitedUDP     = &difference{row: "UDP and other protocols than TCP, to a port with a limit, after an answer", netfilter: input, ours: drop}
	secondLimit    = &difference{row: "a packet for which two rules with limits count", netfilter: input, ours: drop}
	published      = &difference{row: "published container ports (DNAT)", netfilter: forwarded, ours: drop}
	unasked        = &difference{row: "an answer to nothing, from an unfiltered interface and a port that a forward rule opens", netfilter: drop, ours: forwarded}
	aboutAnswer    = &difference{row: "ICMP error about an answer to a masqueraded host, on its way back out of the same interface", netfilter: drop, ours: forwarded}
	allDifferent   = []*difference{
		dhcpAnswer, dhcp6Answer, notNamed, neighbours, window, checksum, reset, lateData, timeWait, reused, spokeAgain, unansweredData, behindAH, unseen,
		splitLie, wrongTag, pickup, halfSCTP, otherCode, otherCall, givenUp, openPort, strayToOpen, brokenReset,
		splitHeader, splitQuote, nodeAnswer, cutHeader, findRouters, noLength, manyHeaders, cutOff, markRouted,
		closedPort, limitedACK, limitedUDP, secondLimit, published, unasked, aboutAnswer,
	}
)

// untimed is none of Portcullis's: netfilter's state after a simultaneous open has a timeout that no sysctl sets, so
// short timeouts cannot be compared.
var untimed = &difference{row: "SYN_SENT2 has no timeout of its own to set", netfilter: input, ours: drop, either: true}

// notPlayed are the rows that two verdicts about a packet cannot show.
var notPlayed = map[string]string{
	"what is routed, once `forward: accept` becomes `drop`":                                                                "no policy is changed here",
	"loopback, and the host's own addresses":                                                                               "not on eth0",
	"later fragments of a packet to this host, or through it but under `forward: drop` without a rule and without guests":  "no verdict of their own behind reassembly",
	"UDP begun behind an unfiltered interface and masqueraded, from a source port that input opens, under `forward: drop`": "no port is translated here that input opens",
	"what two forward rules let through, one each way, after one is closed":                                                "no rule is closed here",
	"more than 2 VLAN tags": "without VLAN devices neither side lets it in",
	"answer to a packet that left by `PACKET_QDISC_BYPASS`, `AF_XDP` or `XDP_REDIRECT`":                                     "netfilter does not see it leave either: open ports only",
	"a frame to nobody's MAC that ebtables, `br_netfilter` or an action of `tc` gives to this host's stack":                 "no bridge is between the two hosts",
	"multicast that this host routes, and directed broadcasts under `bc_forwarding`":                                        "no daemon routes multicast here",
	"to a guest that shares the MAC address of the filtered interface: ipvlan, macvlan in `passthru` or `source` mode":      "tests/topology",
	"group and broadcast frames for those behind the interface: macvlan in another namespace, virtual machines on a bridge": "the host gets them, too, and that is compared",
	"answer that comes in by a filtered interface to what left by another one":                                              "tests/host",
	"answer to one of very many unanswered packets":                                                                         "the size of a table",
	"IPv4 source routes (LSRR, SSRR) through an open port, where `accept_source_route` is on, which it is not by default":   "the sides do not turn it on",
	"a flow that was idle for 7/8 of its timeout":                                                                           "a matter of timing",
}

// Every difference that the documentation lists is played, or there is a reason why not; and nothing else is.
func TestDifferencesAreThoseOfTheDocumentation(t *testing.T) {
	text, err := os.ReadFile("../../docs/netfilter-differences.md")
	if err != nil {
		t.Fatal(err)
	}
	list, _, _ := strings.Cut(string(text), "## Neither")
	rows := make(map[string]bool)
	for _, line := range strings.Split(list, "\n") {
		first, _, ok := strings.Cut(strings.TrimPrefix(line, "| "), " | ")
		if ok && strings.HasPrefix(line, "| ") && first != "case" {
			rows[first] = true
		}
	}
	known := make(map[string]bool)
	for _, d := range allDifferent {
		known[d.row] = true
	}
	for row := range notPlayed {
		known[row] = true
	}
	for row := range rows {
		if !known[row] {
			t.Errorf("no sequence meets %q", row)
		}
	}
	for row := range known {
		if !rows[row] {
			t.Errorf("the documentation does not list %q", row)
		}
	}
}
