// SPDX-License-Identifier: Apache-2.0

package packets

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/portcullis-firewall/portcullis/policy"
	"github.com/portcullis-firewall/portcullis/policy/addrset"
)

// Admission is who may use a port: grants of which no two hold for the same packet. The same packets always make the
// same admission, whatever rules they come from. None is nobody.
type Admission []Grant

// Grant lets sources reach addresses of the host.
type Grant struct {
	From  []netip.Prefix // nil for everybody
	To    []netip.Prefix // nil for every address
	Limit policy.Limit   // the zero Limit for none
}

// Allows reports whether packets from src to dst are let in, and within which limit.
func (a Admission) Allows(src, dst netip.Addr) (limit policy.Limit, ok bool) {
	for _, g := range a {
		if contains(g.From, src) && contains(g.To, dst) {
			return g.Limit, true
		}
	}
	return policy.Limit{}, false
}

func contains(prefixes []netip.Prefix, addr netip.Addr) bool {
	return prefixes == nil || slices.ContainsFunc(prefixes, func(p netip.Prefix) bool { return p.Contains(addr) })
}

// String returns the admission as "nobody", "anybody" or "from 203.0.113.0/24 limit 6/minute".
func (a Admission) String() string { return a.text(len(a)) }

// text is String with so many grants at most, and the number of the others.
func (a Admission) text(most int) string {
	if len(a) == 0 {
		return "nobody"
	}
	shown := a[:min(len(a), most)]
	texts := make([]string, len(shown), len(shown)+1)
	for i, g := range shown {
		texts[i] = g.String()
	}
	if more := len(a) - len(shown); more > 0 {
		texts = append(texts, "and "+count(more)+" more")
	}
	return strings.Join(texts, "; ")
}

// isFolded reports whether String counts networks that it does not name.
func (a Admission) isFolded() bool {
	return slices.ContainsFunc(a, func(g Grant) bool {
		_, _, shown := shortest(g.From)
		return !shown || len(g.To) > mostShown
	})
}

// String returns the grant as "anybody", "anybody except 192.0.2.1" or "from 203.0.113.0/24 limit 6/minute".
func (g Grant) String() string {
	words := []string{"anybody"}
	if g.From != nil {
		switch from, except, _ := shortest(g.From); {
		case !g.isFromAnybody(from):
			words[0] = "from " + sourcesText(g.From)
		case len(except) > 0:
			words = append(words, "except "+fold(except))
		}
	}
	if g.To != nil {
		words = append(words, "to "+fold(g.To))
	}
	if g.Limit.Count > 0 {
		words = append(words, "limit "+g.Limit.String())
	}
	return strings.Join(words, " ")
}

// isFromAnybody reports whether networks are everybody who can come: a destination has the family of its source.
func (g Grant) isFromAnybody(from []netip.Prefix) bool {
	families := len(addrset.Everything)
	if g.To != nil {
		families = 1
	}
	return len(from) == families && !slices.ContainsFunc(from, func(p netip.Prefix) bool { return p.Bits() > 0 })
}

// mostShown is how many networks are named before they are only counted, and how many grants.
const mostShown = 6

func fold(prefixes []netip.Prefix) string {
	if len(prefixes) > mostShown {
		return fmt.Sprintf("%s networks", count(len(prefixes)))
	}
	texts := make([]string, len(prefixes))
	for i, p := range prefixes {
		texts[i] = policy.PrefixText(p)
	}
	return strings.Join(texts, ",")
}

// admissionOf returns who is let in by rules, of which the ports and interfaces do not count here.
func admissionOf(rules []policy.Rule) Admission {
	sources := make([][]addrset.Range, len(rules))
	for i, r := range rules {
		if r.Unconditional() {
			return Admission{{}}
		}
		sources[i] = sourcesOf(r)
	}
	// Sources that the same rules let in may do the same: find out once what that is.
	byRules := make(map[string]string)
	byReach := make(map[string][]addrset.Range)
	grants := make(map[string][]Grant)
	for _, p := range addrset.Overlay(sources) {
		// The destination has the family of the source.
		key := fmt.Sprint(p.First.BitLen(), p.In)
		reach, ok := byRules[key]
		if !ok {
			to := destinations(rules, p.In, p.First.BitLen())
			reach = fmt.Sprint(to)
			byRules[key], grants[reach] = reach, to
		}
		byReach[reach] = append(byReach[reach], p.Range)
	}
	var out Admission
	for what, ranges := range byReach {
		from := addrset.Prefixes(addrset.Join(ranges))
		if slices.Equal(from, []netip.Prefix{addrset.Prefixes(addrset.Everything[:1])[0], addrset.Prefixes(addrset.Everything[1:])[0]}) {
			from = nil
		}
		for _, g := range grants[what] {
			g.From = from
			out = append(out, g)
		}
	}
	slices.SortFunc(out, compareGrants)
	return out
}

// sourcesOf returns the sources that a rule lets in.
func sourcesOf(r policy.Rule) []addrset.Range {
	from := addrset.Everything
	if len(r.From) > 0 {
		from = addrset.Of(r.From)
	}
	return addrset.Subtract(from, addrset.Of(r.Except))
}

// destinations returns what the rules at the given places let a source of a family reach, without sources.
func destinations(rules []policy.Rule, places []int, bits int) []Grant {
	to := make([][]addrset.Range, len(places))
	for i, place := range places {
		to[i] = addrset.Everything
		if r := rules[place]; len(r.To) > 0 {
			to[i] = addrset.Of(r.To)
		}
	}
	byLimit := make(map[policy.Limit][]addrset.Range)
	for _, p := range addrset.OverlayFamily(to, bits) {
		best := rules[places[p.In[0]]].Limit
		for _, i := range p.In[1:] {
			if l := rules[places[i]].Limit; l.Compare(best) > 0 {
				best = l
			}
		}
		byLimit[best] = append(byLimit[best], p.Range)
	}
	var out []Grant
	for limit, ranges := range byLimit {
		to := addrset.Prefixes(addrset.Join(ranges))
		if len(to) == 1 && to[0].Bits() == 0 {
			to = nil
		}
		out = append(out, Grant{To: to, Limit: limit})
	}
	slices.SortFunc(out, compareGrants)
	return out
}

func compareGrants(a, b Grant) int {
	return cmp.Or(
		comparePrefixes(a.From, b.From), comparePrefixes(a.To, b.To),
		cmp.Compare(a.Limit.Count, b.Limit.Count), cmp.Compare(a.Limit.Per, b.Limit.Per), cmp.Compare(a.Limit.Burst, b.Limit.Burst),
	)
}

func comparePrefixes(a, b []netip.Prefix) int {
	return slices.CompareFunc(a, b, func(x, y netip.Prefix) int {
		return cmp.Or(x.Addr().Compare(y.Addr()), cmp.Compare(x.Bits(), y.Bits()))
	})
}

// any returns the sources that may reach something.
func (a Admission) any() []addrset.Range {
	var all []netip.Prefix
	for _, g := range a {
		if g.From == nil {
			return addrset.Everything
		}
		all = append(all, g.From...)
	}
	return addrset.Of(all)
}

// count returns a number with its digits in groups.
func count(n int) string {
	text := strconv.Itoa(n)
	for i := len(text) - 3; i > 0; i -= 3 {
		text = text[:i] + "," + text[i:]
	}
	return text
}
