// SPDX-License-Identifier: Apache-2.0

package iptables

import (
	"net/netip"
	"slices"
	"strings"

	"github.com/portcullis-firewall/portcullis/policy"
)

// text is an opening as a rule of the policy, or "" if no rule can say it.
func (t *translation) text(o *opening) string {
	on, ok1 := t.onClause(o)
	to, ok2 := t.toClause(o)
	from, ok3 := o.fromClause(to != "")
	if !ok1 || !ok2 || !ok3 {
		return ""
	}
	text := o.what() + on + from + to
	if o.limit.Count > 0 {
		text += " limit " + o.limit.String()
	}
	return text
}

func (o *opening) what() string {
	if o.name != "" {
		return o.name
	}
	if o.keys[0] == allKeys {
		return "all"
	}
	return policy.Rule{Ports: o.ports()}.String()
}

// onClause names interfaces. Those without a name of their own are meant only
// where all are.
func (t *translation) onClause(o *opening) (string, bool) {
	if len(o.on) == len(t.filtered) {
		return "", true
	}
	var on []iface
	for _, in := range o.on {
		others := slices.ContainsFunc(t.filtered, func(i iface) bool { return i.within(in) && !slices.Contains(o.on, i) })
		if in != rest && !others {
			on = append(on, in)
		}
	}
	var names []string
	for _, in := range on {
		// A pattern stands for what it matches.
		if !slices.ContainsFunc(on, func(i iface) bool { return i != in && in.within(i) }) {
			names = append(names, in.pattern())
		}
	}
	return " on " + strings.Join(names, ","), len(names) > 0
}

func (t *translation) toClause(o *opening) (string, bool) {
	everywhere := true
	for _, f := range families {
		everywhere = everywhere && (len(o.from[f]) == 0 || len(o.to[f]) == len(t.places[f]))
	}
	if everywhere {
		return "", true
	}
	var all []netip.Prefix
	for _, f := range families {
		if len(o.from[f]) == 0 {
			continue
		}
		var to, free addresses
		for i, place := range t.places[f] {
			possible := t.arrivingAt(f, place)
			switch {
			case slices.Contains(o.to[f], i) && !o.free(possible):
				to = to.union(place)
			case slices.Contains(o.to[f], i):
				free = free.union(place)
			}
		}
		if len(o.to[f]) == len(t.places[f]) {
			to = everyone[f]
		}
		all = append(all, shorter(to, append(t.unreachedParts(f), free.union(t.unreached(f)), free)...)...)
	}
	return " to " + commas(all), len(all) > 0 && len(all) <= maxTo
}

// free reports whether nothing of what is opened can come in where some packets
// do.
func (o *opening) free(possible packets) bool {
	begun := possible.begun(possible)
	return !slices.ContainsFunc(o.keys, func(k keys) bool { return len(begun.only(k)) > 0 })
}

// shorter returns the fewest networks that make up a set, with or without one of
// others that make no difference.
func shorter(of addresses, others ...addresses) []netip.Prefix {
	best := of.prefixes()
	for _, other := range others {
		if wider := of.union(other).prefixes(); len(of) > 0 && len(wider) < len(best) {
			best = wider
		}
	}
	return best
}

// fromClause names sources, or those that are not among them, whichever is
// shorter. A clause "to" leaves out the other family by itself.
func (o *opening) fromClause(to bool) (string, bool) {
	var from, except []netip.Prefix
	anyone := true
	for _, f := range families {
		if len(o.from[f]) == 0 {
			anyone = anyone && to
			continue
		}
		base, less := o.sources(f)
		from, except = append(from, base...), append(except, less...)
		anyone = anyone && len(base) == 1 && base[0].Bits() == 0
	}
	if len(from)+len(except) > maxPrefixes {
		return "", false
	}
	text := ""
	if !anyone {
		text = " from " + commas(from)
	}
	if len(except) > 0 {
		text += " except " + commas(except)
	}
	return text, true
}

// sources are those of one family: from some networks, except from others.
func (o *opening) sources(f family) (from, except []netip.Prefix) {
	set := o.from[f]
	from = shorter(set, martians[f])
	if len(from) == 1 {
		return from, nil
	}
	first, last := set[0].first, set[len(set)-1].last
	around := netip.PrefixFrom(first, 0).Masked()
	for bits := first.BitLen(); bits > 0; bits-- {
		if p := netip.PrefixFrom(first, bits).Masked(); p.Contains(last) {
			around = p
			break
		}
	}
	for _, base := range []addresses{everyone[f], {spanOf(around)}} {
		gap := base.subtract(set)
		for _, less := range [][]netip.Prefix{gap.subtract(martians[f]).prefixes(), gap.prefixes()} {
			if 1+len(less) < len(from)+len(except) {
				from, except = base.prefixes(), less
			}
		}
	}
	return from, except
}

func commas(prefixes []netip.Prefix) string {
	texts := make([]string, len(prefixes))
	for i, p := range prefixes {
		texts[i] = policy.PrefixText(p)
	}
	return strings.Join(texts, ",")
}
