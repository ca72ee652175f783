// SPDX-License-Identifier: Apache-2.0

package packets

import (
	"net/netip"
	"strings"

	"github.com/portcullis-firewall/portcullis/policy"
	"github.com/portcullis-firewall/portcullis/policy/addrset"
)

// portNames names ports as rules do. Where those that are left out are fewer, as next to a rule for all, it names them.
type portNames struct {
	butFor bool // all but the names
	names  []string
}

// String returns every name: "80/tcp", "http,443/tcp" or "all but ssh".
func (n portNames) String() string { return n.text(len(n.names)) }

// text is String with so many names at most, and the number of the others.
func (n portNames) text(most int) string {
	text := strings.Join(n.names[:min(len(n.names), most)], ",")
	if more := len(n.names) - most; more > 0 {
		text += " and " + count(more) + " more"
	}
	if n.butFor {
		text = "all but " + text
	}
	return text
}

// portNames returns ports as a rule names them, or one by one.
func (d *differ) portNames(ports []policy.PortRange) portNames {
	if name := d.names[portsText(ports)]; name != "" {
		return portNames{names: []string{name}}
	}
	if len(ports) > mostShown {
		others := otherPorts(ports)
		if len(others) == 0 {
			return portNames{names: []string{"all"}}
		}
		if len(others) < len(ports) {
			return portNames{true, d.eachName(others)}
		}
	}
	return portNames{names: d.eachName(ports)}
}

func (d *differ) eachName(ports []policy.PortRange) []string {
	names := make([]string, len(ports))
	for i, p := range ports {
		switch name := d.names[p.String()]; {
		case name != "":
			names[i] = name
		case p.First == 0 && p.Last == 0xffff:
			names[i] = p.Protocol.String()
		default:
			names[i] = p.String()
		}
	}
	return names
}

// otherPorts returns what a rule for all opens beside ports, which come in the order of their slots.
func otherPorts(ports []policy.PortRange) (out []policy.PortRange) {
	next := 0
	add := func(end int) {
		out = append(out, portsOf(next, min(end, protocolSlots)-1)...)
		for _, p := range portsOf(max(next, protocolSlots), end-1) {
			if policy.ProtocolIndex(p.Protocol) < 0 {
				out = append(out, p)
			}
		}
	}
	for _, p := range ports {
		first, last := slots(p)
		add(first)
		next = last + 1
	}
	add(protocolSlots + 256)
	return out
}

// sourcesText returns "203.0.113.0/24", "10.0.0.0/8 except 10.9.0.0/16", or how many networks there are.
func sourcesText(prefixes []netip.Prefix) string {
	if from, except, ok := shortest(prefixes); ok && len(except) > 0 {
		return fold(from) + " except " + fold(except)
	}
	return fold(prefixes)
}

// mostToShorten is how many networks there are at most where shortest looks for fewer: as many as an exception of one
// address leaves of IPv6, for each one that is shown.
const mostToShorten = mostShown * 128

// shortest returns networks as others without some in them, if all of these are few enough to be shown. What it gets
// is sorted, and as few as can be without exceptions.
func shortest(prefixes []netip.Prefix) (from, except []netip.Prefix, ok bool) {
	if len(prefixes) > mostToShorten {
		return nil, nil, false
	}
	if len(prefixes) <= mostShown {
		return prefixes, nil, true
	}
	for _, family := range addrset.Everything {
		whole := addrset.Prefixes([]addrset.Range{family})[0]
		var in []netip.Prefix
		for _, p := range prefixes {
			if whole.Contains(p.Addr()) {
				in = append(in, p)
			}
		}
		f, e := shortestIn(whole, in)
		from, except = append(from, f...), append(except, e...)
	}
	return from, except, len(from)+len(except) <= mostShown
}

// shortestIn is shortest for networks that are all in whole.
func shortestIn(whole netip.Prefix, prefixes []netip.Prefix) (from, except []netip.Prefix) {
	if len(prefixes) == 0 || prefixes[0] == whole {
		return prefixes, nil
	}
	lower := netip.PrefixFrom(whole.Addr(), whole.Bits()+1)
	split := 0
	for split < len(prefixes) && lower.Contains(prefixes[split].Addr()) {
		split++
	}
	upper := netip.PrefixFrom(addrset.RangeOf(lower).Last.Next(), lower.Bits())
	switch split {
	case len(prefixes):
		return shortestIn(lower, prefixes)
	case 0:
		return shortestIn(upper, prefixes)
	}
	from, except = shortestIn(lower, prefixes[:split])
	f, e := shortestIn(upper, prefixes[split:])
	from, except = append(from[:len(from):len(from)], f...), append(except, e...)
	holes := addrset.Prefixes(addrset.Subtract([]addrset.Range{addrset.RangeOf(whole)}, addrset.Of(prefixes)))
	if 1+len(holes) < len(from)+len(except) {
		return []netip.Prefix{whole}, holes
	}
	return from, except
}
