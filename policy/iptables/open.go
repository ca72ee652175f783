// SPDX-License-Identifier: Apache-2.0

package iptables

import (
	"net/netip"
	"slices"
	"strconv"

	"github.com/portcullis-firewall/portcullis/policy"
)

// open fills in what is let in.
func (t *translation) open() {
	t.opened, t.limited = make(map[spot]region), make(map[spot]region)
	t.bounded = make(map[*rule]policy.Rule)
	spots := t.spotsOf(t.filtered)
	if !slices.ContainsFunc(t.filtered, func(in iface) bool { return !t.letsAll(in) }) {
		t.result.Input = policy.Accept
		for _, s := range spots {
			t.opened[s] = t.begun(s)
		}
		return
	}
	t.openICMP()
	for _, o := range t.openings() {
		r, err := policy.ParseRule(t.text(o))
		if err != nil || o.limit.Count == 0 && !t.isLetIn(r) {
			continue // what it would have opened is found to be missing
		}
		t.result, _ = t.result.WithRule(r)
		for _, by := range o.rules {
			t.bounded[by] = r
		}
	}
	for _, r := range t.result.Open {
		into := t.opened
		if r.Limit.Count > 0 {
			into = t.limited
		}
		for _, s := range spots {
			into[s] = into[s].union(t.regionOf(r, s))
		}
	}
}

// isLetIn reports whether the rules let in all that a rule of a policy would.
func (t *translation) isLetIn(r policy.Rule) bool {
	return !slices.ContainsFunc(t.spotsOf(t.filtered), func(s spot) bool { return !t.letIn(s, t.regionOf(r, s)) })
}

// regionOf is what a rule of the policy opens at a spot.
func (t *translation) regionOf(r policy.Rule, s spot) region {
	of := func(prefixes []netip.Prefix) addresses {
		var spans []span
		for _, p := range prefixes {
			if familyOf(p.Addr()) == s.family {
				spans = append(spans, spanOf(p))
			}
		}
		return join(spans)
	}
	if !r.AppliesOn(s.in.pattern()) || len(r.To) > 0 && !of(r.To).contains(t.places[s.family][s.to]) {
		return nil
	}
	from := everyone[s.family]
	if len(r.From) > 0 {
		from = of(r.From)
	}
	from = from.subtract(of(r.Except))
	var ks []keys
	for _, p := range r.Ports {
		of := keysOf(s.family, uint8(p.Protocol))
		if policy.ProtocolIndex(p.Protocol) >= 0 {
			of = keys{of.first + key(p.First), of.first + key(p.Last)}
		}
		ks = append(ks, of)
	}
	return product(ks, from)
}

// openICMP lets in the types that come in whole: each code, from everybody. A
// type that is no query is INVALID when nobody asked.
func (t *translation) openICMP() {
	queries := true
	for _, f := range families {
		all, lets := t.everywhere(f)
		every := toThisHost(f)
		for n := range 256 {
			kind := uint8(n)
			if slices.Contains(icmpQueries[f], kind) {
				whole := lets.contains(every[begins].only(typeKeys(kind)))
				queries = queries && whole
				if whole {
					t.kinds[f] = append(t.kinds[f], kind)
				}
			} else if of := every[invalid].only(typeKeys(kind)); len(of) > 0 && all[invalid].contains(of) {
				t.kinds[f] = append(t.kinds[f], kind)
			}
		}
	}
	for _, f := range families {
		if t.home[f] != f && !queries {
			t.kinds[f] = slices.DeleteFunc(t.kinds[f], func(kind uint8) bool {
				other, ok := counterpart(f, kind)
				return !ok || !slices.Contains(t.kinds[f.other()], other)
			})
		}
	}
	t.result.ICMP = policy.ICMP{Mode: policy.ICMPAccept}
	if !queries {
		t.result.ICMP = icmpList(t.kinds)
	}
	for f, words := range [][4]uint64{t.result.ICMP.Types4(), t.result.ICMP.Types6()} {
		for n := range 256 {
			if words[n/64]>>(n%64)&1 != 0 {
				for _, s := range t.spotsOf(t.filtered) {
					if s.family == family(f) {
						t.opened[s] = t.opened[s].union(region{{typeKeys(uint8(n)), everyone[f]}})
					}
				}
			}
		}
	}
}

// queriesOnly leaves the other types out, which never come in under
// invalid: drop.
func (t *translation) queriesOnly() {
	for _, f := range families {
		t.kinds[f] = slices.DeleteFunc(t.kinds[f], func(kind uint8) bool { return !slices.Contains(icmpQueries[f], kind) })
	}
	t.result.ICMP = icmpList(t.kinds)
}

// icmpList names the types of both families. Those without a name nobody sends.
func icmpList(kinds [2][]uint8) policy.ICMP {
	list := policy.ICMP{Mode: policy.ICMPList}
	for _, f := range families {
		for _, kind := range kinds[f] {
			name := icmpTypes()[f][kind]
			if other, ok := counterpart(f, kind); ok && !slices.Contains(kinds[f.other()], other) {
				name = [...]string{"ipv4/", "ipv6/"}[f] + strconv.Itoa(int(kind))
			}
			ty, err := policy.ParseICMPType(name)
			if err == nil && !slices.Contains(list.Types, ty) {
				list.Types = append(list.Types, ty)
			}
		}
	}
	if len(list.Types) == 0 {
		list.Mode = policy.ICMPDrop
	}
	return list
}

// chooseInvalid finds what is to become of INVALID packets. Those that the rest
// of the policy would let in must have come in before.
func (t *translation) chooseInvalid() {
	would, all := true, true
	for _, s := range t.spotsOf(t.filtered) {
		every, lets := t.arriving(s)[invalid], t.inputs[s][invalid]
		would = would && lets.contains(t.opened[s].union(t.limited[s]).intersect(every))
		all = all && lets.contains(every)
	}
	if t.result.Input == policy.Accept {
		would = all
	}
	switch {
	case all && t.result.Input != policy.Accept:
		t.result.Invalid = policy.InvalidAccept
	case would:
		t.result.Invalid = policy.InvalidLog
	default:
		t.result.Invalid = policy.InvalidDrop
		if t.result.ICMP.Mode == policy.ICMPList {
			t.queriesOnly()
		}
	}
}
