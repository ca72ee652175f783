// SPDX-License-Identifier: Apache-2.0

package iptables

import (
	"slices"
	"sync"

	"github.com/portcullis-firewall/portcullis/policy"
)

// cell is a kind of packet that some rules tell from others and the policy
// does not.
type cell int

const (
	begins      cell = iota // begins a connection with this host, or goes through it
	toGroup                 // the same, to a multicast group
	toBroadcast             // and to a broadcast address
	midstream               // TCP that netfilter calls NEW, but no SYN
	answers                 // ESTABLISHED
	related                 // RELATED
	invalid                 // INVALID
	cells
)

// packets is a set of packets of one family.
type packets [cells]region

func (p packets) empty() bool {
	for _, r := range p {
		if len(r) > 0 {
			return false
		}
	}
	return true
}

func (p packets) with(q packets, op func(a, b region) region) packets {
	for c := range p {
		p[c] = op(p[c], q[c])
	}
	return p
}

func (p packets) union(q packets) packets     { return p.with(q, region.union) }
func (p packets) intersect(q packets) packets { return p.with(q, region.intersect) }
func (p packets) subtract(q packets) packets  { return p.with(q, region.subtract) }
func (p packets) contains(q packets) bool     { return q.subtract(p).empty() }

// toThisHost are the packets that there can be to this host. Port 0 belongs to
// nobody; TCP and SCTP are for one host only; the answers to pings of a group
// are switched off in IPv4.
func toThisHost(f family) packets { return possible()[f] }

var possible = sync.OnceValue(func() [2]packets { return [2]packets{allPackets(v4), allPackets(v6)} })

func allPackets(f family) packets {
	from := everyone[f].subtract(martians[f])
	withPorts := func(protocols ...policy.Protocol) (ks []keys) {
		for _, p := range protocols {
			i := policy.ProtocolIndex(p)
			ks = append(ks, keys{portKey(i, 1), portKey(i, 65535)})
		}
		return ks
	}
	var portless, queries, replies, unasked []keys
	for n := range 256 {
		if k := keysOf(f, uint8(n)); k.first >= otherKeys {
			portless = append(portless, k)
		}
		switch of := typeKeys(uint8(n)); {
		case slices.Contains(icmpQueries[f], uint8(n)):
			queries = append(queries, of)
		case slices.Contains(icmpReplies[f], uint8(n)):
			replies, unasked = append(replies, of), append(unasked, of)
		case !slices.Contains(icmpUntracked[f], uint8(n)):
			unasked = append(unasked, of)
		}
	}
	ports := slices.Concat(withPorts(policy.Protocols[:]...), portless)
	datagrams := withPorts(policy.UDP, policy.UDPLite)
	var p packets
	p[begins] = product(slices.Concat(ports, queries), from)
	p[midstream] = product(withPorts(policy.TCP), from)
	p[answers] = product(slices.Concat(ports, queries, replies), from)
	p[related] = product([]keys{{icmpKeys, otherKeys - 1}}, from)
	p[invalid] = product(slices.Concat(ports, unasked), from)
	// VRRP and routing protocols, too, speak to groups.
	datagrams = append(datagrams, portless...)
	p[toGroup] = product(datagrams, from)
	if f == v6 {
		p[toGroup] = product(slices.Concat(datagrams, queries), from)
	} else {
		p[toBroadcast] = p[toGroup]
	}
	return p
}

// throughThisHost are the packets that may be routed.
func throughThisHost(f family) packets {
	p := toThisHost(f)
	p[toGroup], p[toBroadcast] = nil, nil
	return p
}
