// SPDX-License-Identifier: Apache-2.0

package iptables

import (
	"slices"
	"strconv"

	"github.com/portcullis-firewall/portcullis/policy"
)

// open fills in what is let in.
func (t *translation) open() {
	full := true
	for _, f := range families {
		full = full && t.lets[f].beginning(f).contains(toThisHost(f)[begins])
	}
	if full {
		t.result.Input = policy.Accept
		for _, f := range families {
			t.opened[f] = toThisHost(f)[begins]
		}
		return
	}
	t.openICMP()
	for _, o := range t.openings() {
		for _, text := range o.rules() {
			r, err := policy.ParseRule(text)
			if err != nil {
				continue // what it would have opened is found to be missing
			}
			t.result, _ = t.result.WithRule(r)
		}
	}
	for _, r := range t.result.Open {
		for _, f := range families {
			t.opened[f] = t.opened[f].union(regionOf(r, f))
		}
	}
}

// regionOf is what a rule of the policy opens.
func regionOf(r policy.Rule, f family) region {
	from := everyone[f]
	if len(r.From) > 0 {
		var spans []span
		for _, p := range r.From {
			if familyOf(p.Addr()) == f {
				spans = append(spans, spanOf(p))
			}
		}
		from = join(spans)
	}
	var ks []keys
	for _, p := range r.Ports {
		i := policy.ProtocolIndex(p.Protocol)
		ks = append(ks, keys{portKey(i, p.First), portKey(i, p.Last)})
	}
	return product(ks, from)
}

// openICMP lets in the types that come in whole: each code, from everybody. A
// type that is no query is INVALID when nobody asked.
func (t *translation) openICMP() {
	queries := true
	for _, f := range families {
		lets, every := t.lets[f].beginning(f), toThisHost(f)
		for n := range 256 {
			kind := uint8(n)
			if slices.Contains(icmpQueries[f], kind) {
				whole := lets.contains(every[begins].only(typeKeys(kind)))
				queries = queries && whole
				if whole {
					t.kinds[f] = append(t.kinds[f], kind)
				}
			} else if of := every[invalid].only(typeKeys(kind)); len(of) > 0 && t.lets[f][invalid].contains(of) {
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
				t.opened[f] = t.opened[f].union(region{{typeKeys(uint8(n)), everyone[f]}})
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
	for _, f := range families {
		every := toThisHost(f)[invalid]
		would = would && t.lets[f][invalid].contains(t.opened[f].intersect(every))
		all = all && t.lets[f][invalid].contains(every)
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
