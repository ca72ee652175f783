// SPDX-License-Identifier: Apache-2.0

package iptables

import (
	"cmp"
	"net/netip"
	"slices"
	"strings"

	"github.com/portcullis-firewall/portcullis/policy"
)

const (
	// maxPrefixes bounds what becomes of one port with many sources.
	maxPrefixes = 256
	// maxRule is the length of a rule's text that the loader takes, 254, less some.
	maxRule = 240
)

// opening is what one or more rules of the policy will open.
type opening struct {
	keys
	from [2]addresses
	name string
}

// merged is the name of an opening that another's name stands for, too.
const merged = "+"

func (o *opening) covers(p *opening) bool {
	return o.first <= p.first && p.last <= o.last && o.from[v4].contains(p.from[v4]) && o.from[v6].contains(p.from[v6])
}

// widen takes everybody for who is there: sources that nobody has need not be
// told apart.
func (o *opening) widen() {
	for _, f := range families {
		if o.from[f].contains(everyone[f].subtract(martians[f])) {
			o.from[f] = everyone[f]
		}
	}
}

func (o *opening) ports() policy.PortRange {
	return policy.PortRange{Protocol: policy.Protocols[o.first>>16], First: uint16(o.first), Last: uint16(o.last)}
}

// openings are what each rule lets in, in their order, as far as the policy can
// say it: a rule that was written for both families is one again.
func (t *translation) openings() []*opening {
	var found []*opening
	names := make(map[key]string)
	for _, r := range t.input.walked {
		d := t.input.deeds[r]
		for _, f := range families {
			own := d.accepted[f][begins]
			if len(own) == 0 {
				continue
			}
			// As it was written, not less what rules before it have let in already.
			if d.base && r.certain() && r.level[begins] == all {
				own = own.union(r.matches(f))
			}
			found = addOpenings(found, f, own.intersect(t.lets[f].beginning(f)))
			for port, name := range r.names {
				names[portKey(policy.ProtocolIndex(policy.Protocol(r.protocol.value)), port)] = name
			}
		}
	}
	for _, o := range found {
		o.widen()
	}
	// Whole rules that others have in them add nothing.
	kept := slices.Clone(found)
	for _, o := range found {
		if slices.Contains(kept, o) {
			kept = slices.DeleteFunc(kept, func(p *opening) bool { return p != o && o.covers(p) })
		}
	}
	giveNames(kept, names)
	return slices.DeleteFunc(kept, func(o *opening) bool { return o.name == merged })
}

// addOpenings adds what is open in one family, to that of the other for the
// same ports.
func addOpenings(to []*opening, f family, open region) []*opening {
	for _, s := range open.only(ported) {
		for i := s.first >> 16; i <= s.last>>16; i++ {
			k := keys{max(s.first, i<<16|1), min(s.last, i<<16|0xffff)} // port 0 belongs to nobody
			if k.first > k.last {
				continue
			}
			at := slices.IndexFunc(to, func(o *opening) bool { return o.keys == k })
			if at < 0 {
				at = len(to)
				to = append(to, &opening{keys: k})
			}
			to[at].from[f] = to[at].from[f].union(s.from)
		}
	}
	return to
}

// giveNames gives ports the names by which rules called them, if these mean the
// same to the policy.
func giveNames(list []*opening, names map[key]string) {
	for _, o := range list {
		name := names[o.first]
		if name == "" || o.first != o.last || o.name != "" {
			continue
		}
		if parts := partsOf(name, list, o); parts != nil {
			for _, p := range parts {
				p.name = merged
			}
			o.name = name
			continue
		}
		name += "/" + o.ports().Protocol.String()
		if r, err := policy.ParseRule(name); err == nil && slices.Equal(r.Ports, []policy.PortRange{o.ports()}) {
			o.name = name
		}
	}
}

// partsOf are the openings that a service's name stands for, if all are there
// and for the same sources as o.
func partsOf(name string, list []*opening, o *opening) (parts []*opening) {
	r, err := policy.ParseRule(name)
	if err != nil {
		return nil
	}
	for _, p := range r.Ports {
		i := slices.IndexFunc(list, func(q *opening) bool {
			return q.ports() == p && q.name == "" && slices.Equal(q.from[v4], o.from[v4]) && slices.Equal(q.from[v6], o.from[v6])
		})
		if i < 0 {
			return nil
		}
		parts = append(parts, list[i])
	}
	return parts
}

// rules are the texts of an opening, as many as the length of one demands, or
// none if that would be too many.
func (o *opening) rules() []string {
	what := cmp.Or(o.name, o.ports().String())
	if slices.Equal(o.from[v4], everyone[v4]) && slices.Equal(o.from[v6], everyone[v6]) {
		return []string{what}
	}
	var sources []netip.Prefix
	for _, f := range families {
		own := o.from[f].prefixes()
		if wider := o.from[f].union(martians[f]).prefixes(); len(own) > 0 && len(wider) < len(own) {
			own = wider
		}
		sources = append(sources, own...)
	}
	if len(sources) > maxPrefixes {
		return nil
	}
	var out []string
	var line strings.Builder
	for _, p := range sources {
		text := p.String()
		if p.IsSingleIP() {
			text = p.Addr().String()
		}
		if line.Len()+len(text) >= maxRule {
			out = append(out, line.String())
			line.Reset()
		}
		if line.Len() == 0 {
			line.WriteString(what + " from " + text)
		} else {
			line.WriteString("," + text)
		}
	}
	return append(out, line.String())
}
