// SPDX-License-Identifier: Apache-2.0

package nft

import (
	"strconv"
	"strings"
	"sync"
)

// isNumber reports whether a text is a decimal number, or 0x and a hexadecimal
// one.
func isNumber(text string) bool {
	_, err := strconv.ParseUint(text, 0, 32)
	return err == nil && !strings.Contains(text, "_") && !(len(text) > 1 && text[0] == '0' && text[1] != 'x')
}

func number(text string) int {
	n, _ := strconv.ParseUint(text, 0, 32)
	return int(n)
}

// protocols are the names of /etc/protocols that nft prints, and the ones that
// people write.
var protocols = sync.OnceValue(func() map[string]int {
	return map[string]int{"icmp": 1, "igmp": 2, "ipencap": 4, "tcp": 6, "egp": 8, "udp": 17, "dccp": 33, "ipv6": 41, "ipv6-route": 43,
		"ipv6-frag": 44, "rsvp": 46, "gre": 47, "esp": 50, "ah": 51, "icmpv6": 58, "ipv6-icmp": 58, "ipv6-nonxt": 59, "ipv6-opts": 60,
		"hopopt": 0, "eigrp": 88, "ospf": 89, "ospfigp": 89, "ipip": 94, "etherip": 97, "encap": 98, "pim": 103, "ipcomp": 108, "comp": 108,
		"vrrp": 112, "l2tp": 115, "sctp": 132, "mobility-header": 135, "udplite": 136, "hip": 139, "shim6": 140}
})

// protocolOf is the number of a protocol, or -1.
func protocolOf(text string) int {
	if isNumber(text) && number(text) < 256 {
		return number(text)
	}
	if n, ok := protocols()[strings.ToLower(text)]; ok {
		return n
	}
	return -1
}

// icmpTypes are what nft calls the types of ICMP, by family.
var icmpTypes = sync.OnceValue(func() [2]map[string]int {
	return [2]map[string]int{
		{"echo-reply": 0, "destination-unreachable": 3, "source-quench": 4, "redirect": 5, "echo-request": 8, "router-advertisement": 9,
			"router-solicitation": 10, "time-exceeded": 11, "parameter-problem": 12, "timestamp-request": 13, "timestamp-reply": 14,
			"info-request": 15, "info-reply": 16, "address-mask-request": 17, "address-mask-reply": 18},
		{"destination-unreachable": 1, "packet-too-big": 2, "time-exceeded": 3, "parameter-problem": 4, "echo-request": 128,
			"echo-reply": 129, "mld-listener-query": 130, "mld-listener-report": 131, "mld-listener-done": 132, "mld-listener-reduction": 132,
			"nd-router-solicit": 133, "nd-router-advert": 134, "nd-neighbor-solicit": 135, "nd-neighbor-advert": 136, "nd-redirect": 137,
			"router-renumbering": 138, "ind-neighbor-solicit": 141, "ind-neighbor-advert": 142, "mld2-listener-report": 143},
	}
})

// rejection is what iptables calls an answer.
func rejection(kind, what string) string {
	switch {
	case kind == "tcp":
		return "tcp-reset"
	case what == "port-unreachable" || what == "admin-prohibited" || what == "":
		return "icmp-port-unreachable"
	}
	return "icmp-" + what
}
