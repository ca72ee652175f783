// SPDX-License-Identifier: Apache-2.0

package iptables

import (
	"fmt"
	"slices"

	"github.com/portcullis-firewall/portcullis/policy"
)

// decompose takes what one rule lets in at each spot apart into openings: for
// the same ports from the same sources, at all spots where that is so.
func (t *translation) decompose(r *rule, own map[spot]region) (out []*opening) {
	if len(own) == 0 {
		return nil
	}
	if r.protocol == nil || r.protocol.value < 0 {
		whole := make(map[spot]addresses)
		toHosts := false
		for s, of := range own {
			whole[s] = t.wholly(s, of, r.limit != nil)
			toHosts = toHosts || len(whole[s]) > 0 && len(t.arriving(s)[begins]) > 0
		}
		if toHosts {
			for s, from := range whole {
				own[s] = own[s].subtract(product([]keys{allKeys}, from))
			}
			out = t.at(allKeys, whole)
		}
	}
	each := intervals(own)
	portless := 0
	for _, k := range each {
		if k.first >= otherKeys {
			portless++
		}
	}
	for _, k := range each {
		from := make(map[spot]addresses)
		for s, of := range own {
			if part := of.only(k); len(part) > 0 {
				from[s] = part[0].from
			}
		}
		if k.first >= otherKeys {
			if portless > maxPortless || k.first == otherKeys+key(icmpProtocol[v4]) || k.first == otherKeys+key(icmpProtocol[v6]) {
				continue
			}
		}
		for _, o := range t.at(k, from) {
			i := slices.IndexFunc(out, func(have *opening) bool { return have.follows(o) })
			if i < 0 {
				out = append(out, o)
				continue
			}
			last := &out[i].keys[len(out[i].keys)-1]
			if last.last+1 == k.first {
				last.last = k.last
			} else {
				out[i].keys = append(out[i].keys, k)
			}
		}
	}
	return out
}

// follows reports whether an opening can be one with another for ports behind
// its own.
func (o *opening) follows(next *opening) bool {
	last, first := o.keys[len(o.keys)-1], next.keys[0].first
	return last.last <= ported.last && first <= ported.last && last.last>>16 == first>>16 && o.clauses() == next.clauses()
}

// wholly are the sources of which every packet that may begin something at a
// spot comes in: by a rule with a limit itself, or else by any, if the rule lets
// in all that others have left of it.
func (t *translation) wholly(s spot, own region, itself bool) addresses {
	possible := t.arriving(s)
	every := possible.begun(possible)
	lets := t.begun(s)
	if itself {
		lets = own
	}
	portless := own.only(keys{otherKeys, lastKey})
	if len(possible[begins]) == 0 {
		portless = own.only(keys{portKey(1, 1), portKey(1, 65535)}) // to a group there are only datagrams
	}
	var from addresses
	for _, part := range portless {
		from = from.union(part.from)
	}
	for _, part := range product([]keys{allKeys}, from).intersect(every).subtract(lets) {
		from = from.subtract(part.from)
	}
	return from
}

// intervals are the keys of regions, split where any of them changes, at
// protocols, and without ICMP. Port 0 belongs to nobody.
func intervals(of map[spot]region) (out []keys) {
	var starts []key
	for i := range policy.Protocols {
		starts = append(starts, portKey(i, 1))
	}
	for k := otherKeys; k <= lastKey; k++ {
		starts = append(starts, k)
	}
	var whole region
	for _, r := range of {
		for _, s := range r {
			starts = append(starts, s.first, s.last+1)
			whole = whole.union(region{{s.keys, everyone[v4]}})
		}
	}
	slices.Sort(starts)
	starts = slices.Compact(starts)
	for i, first := range starts {
		last := lastKey
		if i+1 < len(starts) {
			last = starts[i+1] - 1
		}
		isPort := first <= ported.last && first&0xffff != 0
		if (isPort || first >= otherKeys) && first <= lastKey && len(whole.only(keys{first, last})) > 0 {
			if isPort {
				last = min(last, first|0xffff)
			}
			out = append(out, keys{first, last})
		}
	}
	return out
}

// at makes openings of some keys, from sources by spot.
func (t *translation) at(k keys, from map[spot]addresses) (out []*opening) {
	type part struct {
		family family
		from   addresses
		to     []int
		on     []iface
	}
	var parts []*part
	for _, f := range families {
		for _, in := range t.filtered {
			var free []int // where no such packet can come in
			var here []*part
			for i := range t.places[f] {
				s := spot{in: in, family: f, to: i}
				if possible := t.arriving(s); len(possible.begun(possible).only(k)) == 0 {
					free = append(free, i)
					continue
				}
				if len(from[s]) == 0 {
					continue
				}
				at := slices.IndexFunc(here, func(p *part) bool { return slices.Equal(p.from, from[s]) })
				if at < 0 {
					at = len(here)
					here = append(here, &part{family: f, from: from[s]})
				}
				here[at].to = append(here[at].to, i)
			}
			for _, p := range here {
				p.to = append(p.to, free...)
				slices.Sort(p.to)
				at := slices.IndexFunc(parts, func(q *part) bool {
					return q.family == f && slices.Equal(q.from, p.from) && slices.Equal(q.to, p.to)
				})
				if at < 0 {
					at = len(parts)
					parts = append(parts, p)
				}
				parts[at].on = append(parts[at].on, in)
			}
		}
	}
	for _, p := range parts {
		i := slices.IndexFunc(out, func(o *opening) bool { return len(o.from[p.family]) == 0 && slices.Equal(o.on, p.on) })
		if i < 0 {
			i = len(out)
			out = append(out, &opening{keys: []keys{k}, on: p.on})
			for _, f := range families {
				out[i].to[f] = t.allPlaces(f)
			}
		}
		out[i].from[p.family], out[i].to[p.family] = p.from, p.to
	}
	return out
}

// String is for what is compared in clauses.
func (s span) String() string { return fmt.Sprintf("%s-%s", s.first, s.last) }
