// SPDX-License-Identifier: Apache-2.0

package iptables

import (
	"slices"

	"github.com/portcullis-firewall/portcullis/policy"
)

// key says what a packet is for, in one number, so that a set of packets is a
// set of keys with the sources of each: the destination port of a protocol that
// has them (as [policy.PortIndex]), an ICMP type and code, or a protocol.
type key uint32

const (
	icmpKeys  = key(len(policy.Protocols)) << 16 // + type<<8 + code
	otherKeys = icmpKeys + 1<<16                 // + number of the protocol
	lastKey   = otherKeys + 255
)

func portKey(index int, port uint16) key { return key(index)<<16 | key(port) }

func icmpKey(kind, code uint8) key { return icmpKeys | key(kind)<<8 | key(code) }

// keys is those from first to last.
type keys struct{ first, last key }

// ported are the keys of the protocols whose ports can be opened.
var ported = keys{0, icmpKeys - 1}

// keysOf are those of a protocol, by number.
func keysOf(f family, protocol uint8) keys {
	if i := policy.ProtocolIndex(policy.Protocol(protocol)); i >= 0 {
		return keys{portKey(i, 0), portKey(i, 65535)}
	}
	if protocol == icmpProtocol[f] {
		return keys{icmpKeys, otherKeys - 1}
	}
	return keys{otherKeys + key(protocol), otherKeys + key(protocol)}
}

var icmpProtocol = [...]uint8{1, 58}

// segment is packets with any of some keys from any of some sources.
type segment struct {
	keys
	from addresses
}

// region is a set of packets of one family: segments in order of their keys,
// which do not overlap.
type region []segment

func product(ks []keys, from addresses) region {
	if len(from) == 0 {
		return nil
	}
	var out region
	for _, k := range ks {
		out = out.union(region{{k, from}})
	}
	return out
}

// combine goes over the keys of both regions and joins the sources of each.
func combine(a, b region, sources func(a, b addresses) addresses) region {
	var out region
	add := func(k keys, from addresses) {
		if len(from) == 0 {
			return
		}
		if n := len(out); n > 0 && out[n-1].last+1 == k.first && slices.Equal(out[n-1].from, from) {
			out[n-1].last = k.last
			return
		}
		out = append(out, segment{k, from})
	}
	for at := key(0); len(a) > 0 || len(b) > 0; {
		// What holds from at on, and up to where.
		inA, last := a.holds(at, lastKey)
		inB, last := b.holds(at, last)
		add(keys{at, last}, sources(inA, inB))
		a, b = a.behind(last), b.behind(last)
		at = last + 1
	}
	return out
}

// holds returns the sources at a key, and up to where these are the ones.
func (r region) holds(at, atMost key) (from addresses, last key) {
	switch {
	case len(r) == 0:
		return nil, atMost
	case at < r[0].first:
		return nil, min(atMost, r[0].first-1)
	}
	return r[0].from, min(atMost, r[0].last)
}

func (r region) behind(last key) region {
	if len(r) > 0 && r[0].last == last {
		return r[1:]
	}
	return r
}

func (r region) union(o region) region {
	switch {
	case len(r) == 0:
		return o
	case len(o) == 0:
		return r
	}
	return combine(r, o, addresses.union)
}

func (r region) intersect(o region) region {
	if len(r) == 0 || len(o) == 0 {
		return nil
	}
	return combine(r, o, addresses.intersect)
}

func (r region) subtract(o region) region {
	if len(r) == 0 || len(o) == 0 {
		return r
	}
	return combine(r, o, addresses.subtract)
}

func (r region) contains(o region) bool { return len(o.subtract(r)) == 0 }

// only returns the part with some keys.
func (r region) only(k keys) (out region) {
	for _, s := range r {
		if s.first, s.last = max(s.first, k.first), min(s.last, k.last); s.first <= s.last {
			out = append(out, s)
		}
	}
	return out
}
