// SPDX-License-Identifier: Apache-2.0

package iptables

import (
	"fmt"
	"slices"

	"github.com/portcullis-firewall/portcullis/policy"
)

const (
	// maxPrefixes bounds the sources of one rule of the policy, and maxTo the
	// addresses to which it lets in.
	maxPrefixes = 256
	maxTo       = 256
	// maxPortless bounds how many protocols without ports one rule is taken
	// apart for.
	maxPortless = 16
)

// opening is what one rule of the policy will open.
type opening struct {
	keys  []keys // of one protocol, or all
	on    []iface
	from  [2]addresses
	to    [2][]int // places
	limit policy.Limit
	rules []*rule // that the limit is of
	name  string
}

// merged is the name of an opening that another's name stands for, too.
const merged = "+"

var allKeys = keys{0, lastKey}

func (o *opening) covers(p *opening) bool {
	if !slices.ContainsFunc(p.on, func(in iface) bool { return !slices.Contains(o.on, in) }) && o.limit == p.limit && o.holds(p.keys) {
		for _, f := range families {
			if !o.from[f].contains(p.from[f]) || slices.ContainsFunc(p.to[f], func(i int) bool { return !slices.Contains(o.to[f], i) }) {
				return false
			}
		}
		return true
	}
	return false
}

func (o *opening) holds(ks []keys) bool {
	return product(o.keys, everyone[v4]).contains(product(ks, everyone[v4]))
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

// ports are the keys of one port, or more.
func (o *opening) ports() (out []policy.PortRange) {
	for _, k := range o.keys {
		if k.first >= otherKeys {
			out = append(out, policy.PortRange{Protocol: policy.Protocol(k.first - otherKeys)})
			continue
		}
		out = append(out, policy.PortRange{Protocol: policy.Protocols[k.first>>16], First: uint16(k.first), Last: uint16(k.last)})
	}
	return out
}

// openings are what each rule lets in, in their order, as far as the policy can
// say it: a rule that was written for both families is one again.
func (t *translation) openings() []*opening {
	var found, bounded []*opening
	names := make(map[key]string)
	for _, r := range t.input.walked {
		d := t.input.deeds[r]
		for _, o := range t.decompose(r, t.openedBy(r, d)) {
			t.spread(o)
			found = addOpening(found, o)
		}
		if r.limit != nil && r.understood() {
			if o := t.boundedBy(r, d); o != nil {
				bounded = addOpening(bounded, o)
			}
		}
		for port, name := range r.names {
			names[portKey(policy.ProtocolIndex(policy.Protocol(r.protocol.value)), port)] = name
		}
	}
	// Whole rules that others have in them add nothing.
	kept := slices.Clone(found)
	for _, o := range found {
		o.widen()
	}
	for _, o := range found {
		if slices.Contains(kept, o) {
			kept = slices.DeleteFunc(kept, func(p *opening) bool { return p != o && o.covers(p) })
		}
	}
	for _, o := range bounded {
		o.widen()
	}
	kept = append(kept, bounded...)
	giveNames(kept, names)
	return slices.DeleteFunc(kept, func(o *opening) bool { return o.name == merged })
}

// openedBy is what a rule lets in without a limit, as it was written and not
// less what rules before it have let in already.
func (t *translation) openedBy(r *rule, d *deeds) map[spot]region {
	own := make(map[spot]region)
	for s, p := range d.accepted {
		if of := p.begun(t.arriving(s)); len(of) > 0 {
			own[s] = of
		}
	}
	if len(own) == 0 {
		return nil
	}
	for _, s := range t.spotsOf(t.filtered) {
		w := t.walkerAt(s)
		if sent, known := r.sentTo(&w); d.base && r.certain() && sent && known && r.applies(s.in, none) && t.levels(r, s) {
			own[s] = own[s].union(r.matches(s.family))
		}
		own[s] = own[s].intersect(t.begun(s))
	}
	return own
}

// levels reports whether the rule is for all that may begin something at a spot.
func (t *translation) levels(r *rule, s spot) bool {
	possible := t.arriving(s)
	for _, c := range []cell{begins, toGroup, toBroadcast} {
		if len(possible[c]) > 0 && r.level[c] != all {
			return false
		}
	}
	return true
}

// boundedBy is what a rule lets in up to its limit, which has to be one rule of
// the policy: two would count twice.
func (t *translation) boundedBy(r *rule, d *deeds) *opening {
	own := make(map[spot]region)
	for _, s := range t.spotsOf(t.filtered) {
		p := d.limited[s]
		if len(p[answers]) > 0 {
			r.doubt("a limit of more than what begins something")
			return nil
		}
		if of := p.begun(t.arriving(s)); len(of.subtract(t.begun(s))) > 0 {
			own[s] = of
		}
	}
	list := t.decompose(r, own)
	if len(list) != 1 {
		return nil
	}
	list[0].limit, list[0].rules = r.limit.Limit, []*rule{r}
	return list[0]
}

// spread lets an opening count wherever what it opens comes in anyway, so that
// it needs fewer clauses.
func (t *translation) spread(o *opening) {
	wider := *o
	try := func() {
		for _, s := range t.spotsOf(wider.on) {
			if slices.Contains(wider.to[s.family], s.to) && !t.letIn(s, product(o.keys, o.from[s.family])) {
				wider = *o
				return
			}
		}
		*o = wider
	}
	for _, f := range families {
		wider.to[f] = t.allPlaces(f)
		try()
	}
	wider.on = t.filtered
	try()
}

func (t *translation) allPlaces(f family) []int {
	out := make([]int, len(t.places[f]))
	for i := range out {
		out[i] = i
	}
	return out
}

// addOpening adds an opening to one for the same ports, interfaces and
// addresses.
func addOpening(to []*opening, o *opening) []*opening {
	for _, have := range to {
		fits := slices.Equal(have.keys, o.keys) && slices.Equal(have.on, o.on) && have.limit == o.limit
		for _, f := range families {
			apart := len(have.from[f]) == 0 || len(o.from[f]) == 0
			fits = fits && (apart || o.limit.Count == 0 && slices.Equal(have.to[f], o.to[f]))
		}
		if !fits {
			continue
		}
		for _, f := range families {
			if len(have.from[f]) == 0 {
				have.to[f] = o.to[f]
			}
			have.from[f] = have.from[f].union(o.from[f])
		}
		have.rules = append(have.rules, o.rules...)
		return to
	}
	return append(to, o)
}

// giveNames gives ports the names by which rules called them, if these mean the
// same to the policy.
func giveNames(list []*opening, names map[key]string) {
	for _, o := range list {
		name := names[o.keys[0].first]
		if name == "" || len(o.keys) > 1 || o.keys[0].first != o.keys[0].last || o.name != "" {
			continue
		}
		if parts := partsOf(name, list, o); parts != nil {
			for _, p := range parts {
				p.name = merged
			}
			o.name = name
			continue
		}
		name += "/" + o.ports()[0].Protocol.String()
		if r, err := policy.ParseRule(name); err == nil && slices.Equal(r.Ports, o.ports()) {
			o.name = name
		}
	}
}

// partsOf are the openings that a service's name stands for, if all are there
// and for the same sources as o. Those with limits count for themselves.
func partsOf(name string, list []*opening, o *opening) (parts []*opening) {
	r, err := policy.ParseRule(name)
	if err != nil || o.limit.Count > 0 && len(r.Ports) > 1 {
		return nil
	}
	for _, p := range r.Ports {
		i := slices.IndexFunc(list, func(q *opening) bool {
			return slices.Equal(q.ports(), []policy.PortRange{p}) && q.name == "" && q.limit == o.limit && q.clauses() == o.clauses()
		})
		if i < 0 {
			return nil
		}
		parts = append(parts, list[i])
	}
	return parts
}

func (o *opening) clauses() string { return fmt.Sprint(o.on, o.from, o.to) }

// openingsOf are rules of a policy for the ports of one rule, from its sources.
func openingsOf(r *rule) string {
	var list []string
	o := opening{}
	for _, f := range families {
		o.from[f] = r.sources(f)
	}
	for _, k := range r.keys(r.home) {
		if k.last <= ported.last && k.first&0xffff != 0 {
			o.keys = append(o.keys, k)
		}
	}
	if len(o.keys) == 0 {
		return ""
	}
	o.widen()
	if from, ok := o.fromClause(false); ok {
		list = append(list, o.what()+from)
	}
	return shortList(list)
}
