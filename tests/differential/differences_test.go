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
}

var (
	dhcpAnswer = &difference{"answer of a DHCPv4 server, UDP 67 → 68", drop, input}
	neighbours = &difference{"neighbour discovery and MLD (ICMPv6 130 to 137, 143) under `icmp: drop`", drop, input}
	// Left to the stack: it looks at the packet before a socket gets anything of it.
	window       = &difference{"TCP outside the window, in a flow", drop, input}
	checksum     = &difference{"wrong TCP, UDP or ICMP checksum, in a flow", drop, input}
	reset        = &difference{"the peer's RST at any but the expected sequence number", drop, input}
	lateData     = &difference{"a packet late after the peer's FIN, before ours", drop, input}
	timeWait     = &difference{"a packet after the peer's SYN in TIME_WAIT", drop, input}
	reused       = &difference{"a SYN that meets ours on a port whose connection we have reset", drop, input}
	behindAH     = &difference{"any AH packet over IPv6 after one of ours to the same peer", drop, input}
	openPort     = &difference{"ICMP error about a packet from an open port", drop, input}
	splitHeader  = &difference{"TCP header split over fragments", input, drop}
	manyHeaders  = &difference{"more than 10 IPv6 extension headers", input, drop}
	unseen       = &difference{"after a packet in a flow that the stack drops or holds back before netfilter", drop, input}
	wrongTag     = &difference{"SCTP with a wrong verification tag, or out of turn, in a flow", drop, input}
	pickup       = &difference{"SCTP after a chunk of ours that begins no association", drop, input}
	closedPort   = &difference{"answer to what left from a port while it was open, after it is closed", input, drop}
	allDifferent = []*difference{
		dhcpAnswer, neighbours, window, checksum, reset, lateData, timeWait, reused, behindAH, openPort, splitHeader, manyHeaders,
		unseen, wrongTag, pickup, closedPort,
	}
)

// notPlayed are the rows that two verdicts about a packet cannot show.
var notPlayed = map[string]string{
	"loopback, and the host's own addresses":   "not on eth0",
	"interfaces that are not named":            "not on eth0",
	"later fragments of a packet to this host": "no verdict of their own behind reassembly",
	"more than 2 VLAN tags":                    "without VLAN devices neither side lets it in",
	"answer to a packet that left by `PACKET_QDISC_BYPASS`, `AF_XDP` or `XDP_REDIRECT`": "netfilter does not see it leave either: open ports only",
	"answer to one of very many unanswered packets":                                     "the size of a table",
	"published container ports (DNAT)":                                                  "needs NAT",
	"a flow that was idle for 7/8 of its timeout":                                       "a matter of timing",
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
