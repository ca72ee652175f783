// SPDX-License-Identifier: Apache-2.0

package iptables

import (
	"math/bits"
	"strings"
	"sync"

	"github.com/portcullis-firewall/portcullis/policy"
)

// What connection tracking calls a message that belongs to nothing, by type:
// NEW if it is a query, nothing at all if it is UNTRACKED, and else INVALID
// (nf_conntrack_proto_icmp.c and nf_conntrack_proto_icmpv6.c of Linux 6.12).
var (
	icmpQueries   = [...][]uint8{{8, 13, 15, 17}, {128, 139}}
	icmpReplies   = [...][]uint8{{0, 14, 16, 18}, {129, 140}}
	icmpUntracked = [...][]uint8{{}, {130, 131, 132, 133, 134, 135, 136, 143}}
)

func typeKeys(kind uint8) keys { return keys{icmpKey(kind, 0), icmpKey(kind, 255)} }

// icmpMessage is what iptables calls a message; code is -1 for all of a type.
type icmpMessage struct {
	kind uint8
	code int
}

// icmpCodes are the names that iptables and ip6tables have for single codes,
// and their second names for types; those of policy are the rest.
var icmpCodes = sync.OnceValue(func() [2]map[string]icmpMessage {
	return [2]map[string]icmpMessage{
		{
			"network-unreachable": {3, 0}, "host-unreachable": {3, 1}, "protocol-unreachable": {3, 2}, "port-unreachable": {3, 3},
			"fragmentation-needed": {3, 4}, "source-route-failed": {3, 5}, "network-unknown": {3, 6}, "host-unknown": {3, 7},
			"network-prohibited": {3, 9}, "host-prohibited": {3, 10}, "tos-network-unreachable": {3, 11},
			"tos-host-unreachable": {3, 12}, "communication-prohibited": {3, 13}, "host-precedence-violation": {3, 14},
			"precedence-cutoff": {3, 15}, "network-redirect": {5, 0}, "host-redirect": {5, 1}, "tos-network-redirect": {5, 2},
			"tos-host-redirect": {5, 3}, "ttl-exceeded": {11, -1}, "ttl-zero-during-transit": {11, 0},
			"ttl-zero-during-reassembly": {11, 1}, "ip-header-bad": {12, 0}, "required-option-missing": {12, 1},
			"ping": {8, -1}, "pong": {0, -1},
		},
		{
			"no-route": {1, 0}, "communication-prohibited": {1, 1}, "beyond-scope": {1, 2}, "address-unreachable": {1, 3},
			"port-unreachable": {1, 4}, "failed-policy": {1, 5}, "reject-route": {1, 6}, "ttl-exceeded": {3, -1},
			"ttl-zero-during-transit": {3, 0}, "ttl-zero-during-reassembly": {3, 1}, "bad-header": {4, 0},
			"unknown-header-type": {4, 1}, "unknown-option": {4, 2}, "ping": {128, -1}, "pong": {129, -1},
		},
	}
})

// icmpTypes are the names of policy for types, by family and number.
var icmpTypes = sync.OnceValue(func() (names [2][256]string) {
	for _, name := range strings.Fields(`echo-request echo-reply destination-unreachable time-exceeded parameter-problem
		redirect router-solicitation router-advertisement extended-echo-request extended-echo-reply source-quench
		timestamp-request timestamp-reply address-mask-request address-mask-reply packet-too-big mld-listener-query
		mld-listener-report mld-listener-done mld2-listener-report neighbour-solicitation neighbour-advertisement
		node-information-query node-information-response`) {
		for f, kind := range icmpNumbers(name) {
			if kind >= 0 {
				names[f][kind] = name
			}
		}
	}
	return names
})

// icmpNumbers returns the number of a message in each family, or -1.
func icmpNumbers(name string) (kinds [2]int) {
	kinds = [2]int{-1, -1}
	t, err := policy.ParseICMPType(name)
	if err != nil {
		return kinds
	}
	one := policy.ICMP{Mode: policy.ICMPList, Types: []policy.ICMPType{t}}
	for f, words := range [][4]uint64{one.Types4(), one.Types6()} {
		for i, word := range words {
			if word != 0 {
				kinds[f] = i*64 + bits.TrailingZeros64(word)
			}
		}
	}
	return kinds
}

// counterpart is the number of the same message in the other family.
func counterpart(f family, kind uint8) (uint8, bool) {
	name := icmpTypes()[f][kind]
	if name == "" {
		return 0, false
	}
	n := icmpNumbers(name)[f.other()]
	return uint8(max(n, 0)), n >= 0
}

// parseICMPType reads the argument of --icmp-type in one family.
func parseICMPType(f family, text string) (icmpMessage, bool) {
	text = strings.ToLower(text)
	kind, code, hasCode := strings.Cut(text, "/")
	if n, err := numberOf(kind, 8); err == nil {
		m := icmpMessage{uint8(n), -1}
		if hasCode {
			c, err := numberOf(code, 8)
			if err != nil {
				return m, false
			}
			m.code = int(c)
		}
		return m, f != v4 || n != 255 // which is any, written otherwise
	}
	if m, ok := icmpCodes()[f][text]; ok {
		return m, true
	}
	if hasCode {
		return icmpMessage{}, false // ipv4/8 is a name of policy alone
	}
	n := icmpNumbers(text)[f]
	return icmpMessage{uint8(max(n, 0)), -1}, n >= 0
}

// in returns the message as it is called in a family, for rules that are taken
// for the other one, too. Codes have no counterpart.
func (m icmpMessage) in(home, f family) []keys {
	if home != f {
		kind, ok := counterpart(home, m.kind)
		if !ok || m.code >= 0 {
			return nil
		}
		m.kind = kind
	}
	if m.code >= 0 {
		return []keys{{icmpKey(m.kind, uint8(m.code)), icmpKey(m.kind, uint8(m.code))}}
	}
	return []keys{typeKeys(m.kind)}
}
