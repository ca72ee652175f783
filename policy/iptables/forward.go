// SPDX-License-Identifier: Apache-2.0

package iptables

import (
	"regexp"
	"slices"
	"strings"

	"github.com/portcullis-firewall/portcullis/policy"
)

// way is one through this host.
type way struct{ in, out iface }

// routes is what the rules say of packets that are routed. Of its translation,
// the interfaces that are filtered are those by which such packets come in, be
// there a filter or not, and the openings are rules of forward.
type routes struct {
	*translation
	ways   []way            // that the filter sees: in or out by an interface of its own
	lets   map[spot]packets // what is let through for certain, by way
	passed [2]packets       // what perhaps is
	silent []iface          // those behind which answers do not come
	guests []iface          // bridges of containers, behind which all may begin
	own    map[*rule]bool   // rules of a container engine about ports that it publishes

	established bool // whoever is behind an interface without a filter may begin
}

// maxWalks bounds how many times packets are played through FORWARD.
const maxWalks = 1200

// forward chooses what becomes of routed packets.
func (t *translation) forward() error {
	f := &routes{translation: &translation{
		ruleset: t.ruleset, interfaces: t.interfaces, home: t.home, classes: t.classes, through: true, result: t.result, staying: t.staying, left: t.leftToNetfilter(),
		inputs: make(map[spot]packets), opened: make(map[spot]region), limited: make(map[spot]region), bounded: make(map[*rule]policy.Rule),
		input: &journal{deeds: make(map[*rule]*deeds)},
	}, lets: make(map[spot]packets), own: make(map[*rule]bool)}
	t.routes = f
	inward, outward := t.seenWays()
	f.ways = slices.Concat(inward, outward)
	for _, family := range families {
		f.findPlaces(family, "FORWARD", min(maxPlaces, max(4, maxWalks/len(f.ways))))
	}
	if err := f.walk(); err != nil {
		return err
	}
	if f.letsEverything() {
		t.result.Forward = policy.ForwardAccept
		return nil
	}
	f.findGuests()
	exact, possible := f.beginsOutward(outward)
	if f.established = exact; f.established {
		t.result.Forward = policy.ForwardEstablished
	}
	rules := f.choose(t.filtered)
	if !exact && possible && len(f.missing(nil, t.filtered)) > 0 {
		// The word says more than rules can.
		f.established, t.result.Forward = true, policy.ForwardEstablished
		rules = f.choose(t.filtered)
	}
	for _, r := range rules {
		t.result, _ = t.result.WithRule(r)
	}
	f.result = t.result
	return nil
}

// seenWays are those that the filter sees, and of these the ones by which only
// what leaves is seen.
func (t *translation) seenWays() (inward, outward []way) {
	for _, in := range t.filtered {
		for _, out := range t.classes {
			inward = append(inward, way{in, out})
			// Without a name, only that of the default route is filtered, which
			// may be any.
			if !slices.Contains(t.filtered, out) || len(t.result.Interfaces) == 0 && out != in {
				outward = append(outward, way{out, in})
			}
		}
	}
	return inward, outward
}

// spotsBy are all places by one way.
func (f *routes) spotsBy(w way) (out []spot) {
	for _, s := range f.spotsOf([]iface{w.in}) {
		s.out = w.out
		out = append(out, s)
	}
	return out
}

// from are the spots of what may leave by any interface, for one at which this
// is not told apart.
func (f *routes) from(s spot) (out []spot) {
	for _, w := range f.ways {
		if w.in == s.in {
			s.out = w.out
			if !slices.Contains(out, s) {
				out = append(out, s)
			}
		}
	}
	return out
}

func (f *routes) walk() error {
	for _, w := range f.ways {
		for _, s := range f.spotsBy(w) {
			if _, done := f.lets[s]; done {
				continue
			}
			walker := f.walkerAt(s)
			walker.log = f.input
			accepted, err := walker.run("FORWARD", f.arriving(s))
			if err != nil {
				return err
			}
			f.lets[s] = accepted
			walker.may, walker.log = true, nil
			may, err := walker.run("FORWARD", f.arriving(s))
			if err != nil {
				return err
			}
			f.passed[s.family] = f.passed[s.family].union(may)
		}
	}
	return nil
}

// full reports whether all packets of some kinds are let through by a way.
func (f *routes) full(w way, kinds ...cell) bool {
	return !slices.ContainsFunc(f.spotsBy(w), func(s spot) bool {
		every, lets := f.arriving(s), f.lets[s]
		return slices.ContainsFunc(kinds, func(c cell) bool { return !lets[c].contains(every[c]) })
	})
}

func (f *routes) letsEverything() bool {
	return !slices.ContainsFunc(f.ways, func(w way) bool { return !f.full(w, begins, midstream, answers, related, invalid) })
}

// guestDevice is the name of a bridge of containers or virtual machines.
var guestDevice = pattern(`^(docker\d+|docker_gwbridge|br-[0-9a-f]{12}|podman\d+|cni-podman\d+|cni\d+|virbr\d+|lxcbr\d+|lxdbr\d+|incusbr\d+)$`)

// engineChain is the name of a chain that a container engine fills.
var engineChain = pattern(`^(DOCKER|CNI-|NETAVARK)`)

func matches(p func() *regexp.Regexp, text string) bool { return p().MatchString(text) }

// findGuests finds the bridges behind which all may begin, as they may under
// any policy, and what an engine says of the ports that it publishes there.
func (f *routes) findGuests() {
	for _, in := range f.classes {
		if in.isName() && matches(guestDevice, string(in)) && !slices.ContainsFunc(f.ways, func(w way) bool {
			return w.in == in && w.out != in && !matches(guestDevice, string(w.out)) && !f.full(w, begins, midstream, answers) ||
				w.out == in && !f.full(w, answers)
		}) {
			f.guests = append(f.guests, in)
		}
	}
	for _, family := range families {
		for name, c := range f.chains[family] {
			for _, r := range c.rules {
				f.own[r] = matches(engineChain, name) && r.out != nil && !r.out.not && matches(guestDevice, r.out.value)
			}
		}
	}
}

// beginsOutward reports whether whoever is behind an interface without a filter
// may begin outward, and be answered: all of them, or at least those that rules
// name. Bridges of containers do not count.
func (f *routes) beginsOutward(outward []way) (exact, possible bool) {
	exact = true
	for _, w := range outward {
		if slices.Contains(f.guests, w.in) {
			continue
		}
		begun := f.full(w, begins, midstream)
		if !begun && w.in == rest {
			exact = false
			continue
		}
		if !begun || !f.full(w, answers) || !f.full(way{w.out, w.in}, answers) {
			return false, false
		}
		possible = true
	}
	return exact && possible, possible
}

// choose returns the rules of forward that say what the rules let through.
func (f *routes) choose(filtered []iface) (rules []policy.Rule) {
	clear(f.opened)
	clear(f.limited)
	clear(f.bounded)
	f.filtered = nil
	for _, in := range f.classes {
		isWay := slices.ContainsFunc(f.ways, func(w way) bool { return w.in == in })
		if isWay && !slices.Contains(f.guests, in) {
			f.filtered = append(f.filtered, in)
		}
	}
	f.join()
	byWay := f.input
	f.input = f.joined()
	defer func() { f.input = byWay }()
	for _, o := range f.openings() {
		begin := func(in iface) bool { return f.established && !slices.Contains(filtered, in) }
		if !slices.ContainsFunc(o.on, func(in iface) bool { return !begin(in) }) {
			continue
		}
		r, err := policy.Names{Forward: true}.ParseRule(f.text(o))
		if err != nil || o.limit.Count == 0 && !f.isLetIn(r) {
			continue // what it would have let through is found to be missing
		}
		rules = append(rules, r)
		for _, by := range o.rules {
			f.bounded[by] = r
		}
		into := f.opened
		if r.Limit.Count > 0 {
			into = f.limited
		}
		for _, s := range f.spotsOf(f.filtered) {
			into[s] = into[s].union(f.regionOf(r, s))
		}
	}
	return rules
}

// join finds what is let through wherever it leaves, and of which the answers
// come: a rule can say no less.
func (f *routes) join() {
	f.silent = nil
	clear(f.inputs)
	for _, in := range f.filtered {
		answered := true
		for _, w := range f.ways {
			if w.in == in || w.out == in {
				answered = answered && f.full(w, answers)
			}
		}
		if !answered {
			f.silent = append(f.silent, in)
			continue
		}
		for _, s := range f.spotsOf([]iface{in}) {
			lets := f.arriving(s)
			for _, by := range f.from(s) {
				lets = lets.intersect(f.lets[by])
			}
			f.inputs[s] = lets
		}
	}
}

// joined is the journal of what each rule did, wherever packets left.
func (f *routes) joined() *journal {
	out := &journal{walked: f.input.walked, deeds: make(map[*rule]*deeds)}
	for _, r := range f.input.walked {
		d := f.input.deeds[r]
		joined := &deeds{base: d.base}
		for _, s := range f.spotsOf(f.filtered) {
			if slices.Contains(f.silent, s.in) {
				continue
			}
			limited := f.arriving(s)
			for _, by := range f.from(s) {
				joined.accepted.add(s, d.accepted[by])
				limited = limited.intersect(d.limited[by])
			}
			joined.limited.add(s, limited)
		}
		out.deeds[r] = joined
	}
	return out
}

// missing is what is let through, or by a rule if one is named, and begins
// something that the policy does not let through, by way.
func (f *routes) missing(by *rule, filtered []iface) map[spot]region {
	out := make(map[spot]region)
	for s, lets := range f.lets {
		if f.comesAnyway(s, filtered) {
			continue
		}
		if by != nil {
			lets = f.input.deeds[by].accepted[s]
		}
		if left := lets[begins].subtract(f.openedAt(s)); len(left) > 0 {
			out[s] = left
		}
	}
	return out
}

// comesAnyway reports whether what comes by a way passes without a rule.
func (f *routes) comesAnyway(s spot, filtered []iface) bool {
	return slices.Contains(f.guests, s.in) || f.established && !slices.Contains(filtered, s.in) && slices.Contains(filtered, s.out)
}

// openedAt is what the policy lets through at a spot without a limit, wherever
// it leaves.
func (f *routes) openedAt(s spot) region {
	s.out = none
	return f.opened[s]
}

// names lists what some interfaces are called in rules.
func names(of []iface) string { return strings.Join(texts(of), ", ") }
