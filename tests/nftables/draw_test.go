// SPDX-License-Identifier: Apache-2.0

package nftables

import (
	"fmt"
	"math/rand/v2"
	"strings"
)

func pick[T any](random *rand.Rand, of ...T) T { return of[random.IntN(len(of))] }

// drawn makes up a ruleset that nft takes.
type drawn struct {
	*rand.Rand
	b strings.Builder
}

func (d *drawn) chance(percent int) bool { return d.IntN(100) < percent }

// drawRuleset makes up tables with chains of input.
func drawRuleset(random *rand.Rand) string {
	d := &drawn{Rand: random}
	tables := 1
	if d.chance(30) {
		tables = 2
	}
	for i := range tables {
		d.table(i)
	}
	return d.b.String()
}

func (d *drawn) table(i int) {
	family := pick(d.Rand, "inet", "inet", "inet", "ip", "ip6")
	fmt.Fprintf(&d.b, "table %s t%d {\n", family, i)
	d.b.WriteString("\tset ports { type inet_service; flags interval; elements = { 22, 80-81, 1000 } }\n" +
		"\tset some { type ipv4_addr; flags interval; elements = { 10.0.0.0/9, 192.0.2.7, 198.51.100.0-198.51.100.99 } }\n" +
		"\tset six { type ipv6_addr; flags interval; elements = { 2001:db8::/33 } }\n" +
		"\tset pairs { type ipv4_addr . inet_service; elements = { 10.1.2.3 . 22, 192.0.2.7 . 80, 1.1.1.1 . 443 } }\n" +
		"\tset moving { type ipv4_addr; flags timeout; elements = { 10.1.2.3 timeout 1h } }\n" +
		"\tset cards { type ifname; elements = { \"eth0\", \"wlan0\" } }\n" +
		"\tmap verdicts { type inet_service : verdict; elements = { 22 : accept, 80 : jump three, 443 : drop } }\n" +
		"\tchain three { iifname != \"eth1\" tcp dport { 79-80, 443 } accept; }\n")
	d.b.WriteString("\tchain two {\n")
	for range d.IntN(4) {
		d.rule(family, []string{"accept", "accept", "drop", "return"})
	}
	d.b.WriteString("\t}\n\tchain one {\n")
	for range d.IntN(5) {
		d.rule(family, []string{"accept", "accept", "accept", "drop", "return", "jump two", "goto two", "reject"})
	}
	d.b.WriteString("\t}\n")
	bases := 1
	if d.chance(20) {
		bases = 2
	}
	for n := range bases {
		fmt.Fprintf(&d.b, "\tchain in%d {\n\t\ttype filter hook input priority %d; policy %s;\n", n, pick(d.Rand, -10, 0, 0, 5)+n, pick(d.Rand, "drop", "drop", "drop", "accept"))
		if d.chance(60) {
			d.b.WriteString("\t\tct state vmap { established : accept, related : accept, invalid : " + pick(d.Rand, "drop", "drop", "continue") + " }\n")
		}
		for range 1 + d.IntN(7) {
			d.rule(family, []string{"accept", "accept", "accept", "accept", "drop", "reject", "jump one", "jump two", "goto one", "return", "continue", "counter", "log"})
		}
		d.b.WriteString("\t}\n")
	}
	if d.chance(60) {
		d.forward(family)
	}
	d.b.WriteString("}\n")
}

// forward makes up a chain about what is routed.
func (d *drawn) forward(family string) {
	fmt.Fprintf(&d.b, "\tchain through {\n\t\ttype filter hook forward priority %d; policy %s;\n", pick(d.Rand, -10, 0, 5), pick(d.Rand, "drop", "drop", "drop", "accept"))
	if d.chance(85) {
		d.b.WriteString("\t\tct state established,related accept\n")
	}
	for range d.IntN(5) {
		if d.chance(30) {
			fmt.Fprintf(&d.b, "\t\t%s %s\n", pick(d.Rand, `oifname "eth1"`, `oifname != "eth0"`, `iifname "eth0" oifname "eth1"`, `iifname { "eth0", "wlan0" } oifname { "eth1", "eth0" }`, `iifname "eth*" oifname "eth*"`),
				pick(d.Rand, "accept", "accept", "drop", "jump one"))
			continue
		}
		d.rule(family, []string{"accept", "accept", "accept", "drop", "reject", "jump one", "goto two", "return"})
	}
	d.b.WriteString("\t}\n")
}

// rule makes up one rule, of one family at most.
func (d *drawn) rule(family string, verdicts []string) {
	var parts []string
	add := func(percent int, of ...string) {
		if d.chance(percent) {
			parts = append(parts, pick(d.Rand, of...))
		}
	}
	four, six := family == "ip", family == "ip6"
	if family == "inet" {
		switch d.IntN(4) {
		case 0:
			four = true
		case 1:
			six = true
		}
	}
	if family == "inet" && !four && !six {
		add(8, "meta nfproto ipv4", "meta nfproto ipv6", "meta protocol ip", "meta nfproto != ipv6")
	}
	add(20, `iifname "eth0"`, `iifname != "eth0"`, `iifname "eth*"`, `iifname { "eth0", "eth1" }`, `iifname != { "eth0", "eth1" }`, `iif "eth1"`,
		`iifname @cards`, `iifname != @cards`, `iifname { "eth*", "wlan0" }`)
	if four {
		add(35, "ip saddr 10.0.0.0/8", "ip saddr != 10.0.0.0/8", "ip saddr { 10.1.0.0/16, 192.0.2.7 }", "ip saddr != { 10.1.2.3, 1.1.1.1 }", "ip saddr @some",
			"ip saddr != @some", "ip saddr 10.0.0.0-10.255.0.0", "ip saddr @moving", "ip saddr & 255.0.0.0 == 10.0.0.0")
		add(10, "ip daddr 192.0.2.1", "ip daddr != 192.0.2.1", "ip daddr { 192.0.2.1, 203.0.113.9 }", "ip daddr 255.255.255.255", "ip daddr 192.0.2.0/24")
	}
	if six {
		add(35, "ip6 saddr 2001:db8::/32", "ip6 saddr != 2001:db8::/32", "ip6 saddr @six", "ip6 saddr != { 2001:db8::1, 2001:db8:ffff::1 }")
		add(10, "ip6 daddr 2001:db8:1::1", "ip6 daddr != 2001:db8:1::1")
	}
	add(20, "ct state new", "ct state new,invalid", "ct state != invalid", "ct state { new, established }", "ct state != new", "ct state established,related",
		"ct state != established,related", "ct state ! invalid", "ct state new,untracked")
	add(5, "fib daddr type local", "fib daddr type != local", "fib daddr type broadcast", "fib daddr type { local, broadcast }", "meta pkttype host", "meta pkttype != host", "meta pkttype { broadcast, multicast }")
	d.transport(&parts, four, six)
	add(12, "meta mark 0x1", "meta length 0-60", "limit rate 1000/second burst 1000 packets", "ct count over 100000", "numgen random mod 2 0", "limit rate over 1/hour", "meta cpu 0")
	text := strings.Join(parts, " ")
	switch {
	case d.chance(6) && !six && !strings.ContainsAny(text, "{@"):
		fmt.Fprintf(&d.b, "\t\t%s\n", pick(d.Rand, "ip saddr . tcp dport @pairs accept", "ip saddr . tcp dport { 10.1.2.3 . 22, 10.200.0.1 . 1-443 } accept",
			`iifname . tcp dport vmap { "eth0" . 22 : accept, "eth1" . 80 : drop, "wlan0" . 443 : jump three }`, "ip saddr vmap { 10.0.0.0/8 : drop, 192.0.2.7 : accept, 1.1.1.1 : continue }"))
	case d.chance(8):
		fmt.Fprintf(&d.b, "\t\t%s\n", pick(d.Rand, "tcp dport vmap @verdicts", "tcp dport vmap { 22 : accept, 79-81 : drop, 443 : jump three }", "meta l4proto vmap { tcp : jump three, icmp : accept, ipv6-icmp : accept }",
			"udp dport vmap { 1-100 : accept, 443 : drop }", `iifname vmap { "eth0" : jump three, "lo" : accept, "eth1" : accept }`))
	default:
		fmt.Fprintf(&d.b, "\t\t%s %s\n", text, pick(d.Rand, verdicts...))
	}
}

// transport makes up what is asked about a protocol.
func (d *drawn) transport(parts *[]string, four, six bool) {
	if d.chance(25) {
		return
	}
	ports := pick(d.Rand, "22", "80", "443", "79-81", "{ 22, 443 }", "@ports", "!= 22", "!= { 22, 80 }", "!= @ports", ">= 1000", "< 100", "1-65535", "{ 1-79, 1000 }")
	kinds := []string{"tcp dport " + ports, "tcp dport " + ports, "tcp dport " + ports, "udp dport " + ports, "meta l4proto { tcp, udp } th dport " + ports,
		"tcp dport " + ports + " tcp flags & (fin | syn | rst | ack) == syn", "tcp flags syn / syn,fin tcp dport " + ports, "tcp flags & (fin | syn) != syn", "tcp flags syn", "tcp sport 1-30000 tcp dport " + ports,
		"meta l4proto udp", "meta l4proto != tcp", "meta l4proto != { tcp, udp }", "meta l4proto 50", "meta l4proto { 89, esp }", "meta l4proto tcp tcp dport " + ports}
	if !six {
		kinds = append(kinds, "icmp type echo-request", "icmp type { echo-request, timestamp-request }", "icmp type != echo-request", "ip protocol icmp", "ip protocol { icmp, udp }", "ip ttl 64 tcp dport "+ports, "ip protocol tcp", "ip frag-off & 0x1fff != 0")
	}
	if !four {
		kinds = append(kinds, "icmpv6 type echo-request", "ip6 nexthdr tcp tcp dport "+ports, "icmpv6 type { echo-request, nd-neighbor-solicit }", "ip6 nexthdr { udp, ipv6-icmp }")
	}
	if !four && !six {
		kinds = append(kinds, "meta l4proto { icmp, ipv6-icmp }")
	}
	*parts = append(*parts, pick(d.Rand, kinds...))
}
