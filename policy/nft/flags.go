// SPDX-License-Identifier: Apache-2.0

package nft

import (
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/portcullis-firewall/portcullis/policy/addrset"
)

// tcpFlags are the bits of the flags of TCP.
var tcpFlags = map[string]int{"fin": 1, "syn": 2, "rst": 4, "psh": 8, "ack": 16, "urg": 32, "ecn": 64, "cwr": 128}

// modelled are those that iptables can ask for.
const modelled = 63

// flagBits is the number that flags come to.
func flagBits(list []expr) (bits int, ok bool) {
	for _, e := range list {
		b, known := tcpFlags[e.text]
		if isNumber(e.text) && e.kind == isLiteral {
			b, known = number(e.text), number(e.text) < 256
		}
		if !known {
			return 0, false
		}
		bits |= b
	}
	return bits, true
}

// askFlags is about the flags as they are. One, or several with commas, without
// an operator, ask whether any of these is set.
func (of *terms) askFlags(q question, exact bool) bool {
	if exact && len(q.values) > 1 {
		return false
	}
	bits, ok := flagBits(q.values)
	if !ok {
		return false
	}
	switch {
	case q.op == "in" || q.op == "" && !exact:
		of.flags(bits, 0, true)
	case q.op == "!":
		of.flags(bits, 0, false)
	case q.op == "" || q.op == "==":
		of.flags(255, bits, false)
	case q.op == "!=":
		of.flags(255, bits, true)
	default:
		return false
	}
	return true
}

// askMasked is about some bits of a field.
func (of *terms) askMasked(q question, left expr) {
	field, mask := left.of[0], left.of[1]
	of.implied(field)
	equal := q.op == "" || q.op == "=="
	switch {
	case field.kind != isField || !equal && q.op != "!=":
	case field.text == "tcp flags":
		maskBits, ok1 := flagBits(flat(mask))
		set, ok2 := flagBits(q.values)
		if ok1 && ok2 && (len(q.values) == 1 || q.bits) {
			of.flags(maskBits, set, !equal)
			return
		}
	case field.text == "ip frag-off" && mask.kind == isLiteral && isNumber(mask.text) && number(mask.text)&^0x3fff == 0 &&
		len(q.values) == 1 && isNumber(q.values[0].text) && number(q.values[0].text) == 0:
		// Connection tracking has put all pieces together before.
		of.never = of.never || !equal
		return
	case slices.Contains([]string{"ip saddr", "ip daddr", "ip6 saddr", "ip6 daddr"}, field.text) && len(q.values) == 1:
		if bits, ok := prefixBits(mask.text); ok && q.values[0].kind == isLiteral {
			q.field, q.values = field.text, []expr{{kind: isPrefix, of: q.values, bits: bits}}
			of.ask(q, true)
			return
		}
	}
	of.doubt("%s", q.text)
}

// prefixBits is the length of the prefix that a mask is of.
func prefixBits(mask string) (bits int, ok bool) {
	a, err := netip.ParseAddr(mask)
	if err != nil {
		return 0, false
	}
	for bits := range a.BitLen() + 1 {
		if addrset.RangeOf(netip.PrefixFrom(everyOne(a), bits)).First == a {
			return bits, true
		}
	}
	return 0, false
}

// everyOne is the last address of a family.
func everyOne(a netip.Addr) netip.Addr {
	return addrset.RangeOf(netip.PrefixFrom(a, 0)).Last
}

// flags asks for bits under a mask. Of what iptables has no bits for, it may be
// any.
func (of *terms) flags(mask, set int, not bool) {
	if mask&^modelled != 0 {
		of.doubt("tcp flags ecn and cwr")
		if not {
			return // these alone may differ
		}
	}
	if not {
		of.options = append(of.options, "!")
	}
	of.options = append(of.options, "--tcp-flags", strconv.Itoa(mask&modelled), strconv.Itoa(set&modelled))
}

// askPacketType is about whom the frame is for. TCP is taken from frames to
// this host alone.
func (of *terms) askPacketType(q question) bool {
	if !q.isEquality() {
		return false
	}
	var among []string
	for _, v := range q.values {
		among = append(among, strings.Replace(v.text, "unicast", "host", 1))
	}
	var words []string
	for word, kind := range map[string]string{"host": "LOCAL", "broadcast": "BROADCAST", "multicast": "MULTICAST"} {
		if slices.Contains(among, word) != q.not() {
			words = append(words, kind)
		}
	}
	if len(words) == 0 {
		of.never = true
		return true
	}
	slices.Sort(words)
	of.options = append(of.options, "--dst-type", strings.Join(words, ","))
	of.frames = true
	return true
}
