// SPDX-License-Identifier: Apache-2.0

package iptables

import (
	"maps"
	"slices"
	"strings"

	"github.com/portcullis-firewall/portcullis/policy"
)

// translation makes a policy of a ruleset.
type translation struct {
	*ruleset
	interfaces []string // that were asked for

	home     [2]family // whose rules are taken for a family
	classes  []iface
	filtered []iface // those of the policy
	places   [2][]addresses
	inputs   map[spot]packets // what the rules let in
	steps    int

	may     map[spot]packets // what filtered interfaces perhaps let in
	opened  map[spot]region  // what the policy does
	limited map[spot]region  // and what it does up to a limit
	bounded map[*rule]policy.Rule
	kinds   [2][]uint8 // of ICMP that it lets in, unless it is all
	refused map[iface]bool
	result  *policy.Policy
	input   *journal // about filtered interfaces
	through bool     // it is about what is routed
	routes  *routes

	broadcasts addresses // of IPv4, that rules name as such
	left       *leftover // to netfilter
	staying    map[*rule]bool
}

func (t *translation) translate() error {
	for _, f := range families {
		t.home[f] = f
		if t.told[f] {
			t.unsaid(f)
			continue
		}
		t.home[f] = f.other()
		t.note(place{}, "no rules for %s: those for %s are taken for it, too; name a second file to have its own", f, f.other())
	}
	t.result, t.staying, t.left = policy.Default(), make(map[*rule]bool), t.leftToNetfilter()
	t.dropUntracked()
	t.turnLimits()
	t.splitLimits()
	t.checkLimits()
	t.findBlocks()
	t.leaveLongSets()
	t.findClasses()
	for _, f := range families {
		t.findPlaces(f, "INPUT", maxPlaces)
	}
	if err := t.walkInput(); err != nil {
		return err
	}
	t.choose()
	if err := t.walkFiltered(); err != nil {
		return err
	}
	t.open()
	t.reject()
	t.chooseInvalid()
	if err := t.forward(); err != nil {
		return err
	}
	t.listNamed()
	return nil
}

// listNamed lists the interfaces that the policy names, where it would be for that of the default route alone: what it
// says of another one would count nowhere.
func (t *translation) listNamed() {
	if len(t.result.Interfaces) > 0 {
		return
	}
	names := slices.Collect(maps.Keys(t.result.InputOn))
	for _, r := range t.result.InputRules() {
		names = append(names, r.On...)
	}
	if len(names) == 0 {
		t.noteEverywhere()
		return
	}
	slices.Sort(names)
	names = slices.Compact(names)
	t.result.Interfaces = names
	t.lost(place{}, "the rules hold on every interface, and interfaces lists those that differ (%s): add that of the default route, "+
		"and whatever else is to be filtered, or translate for all of them, such as --interface eth0,eth1", strings.Join(names, ", "))
}

// unsaid takes policies that were not set for drop.
func (t *translation) unsaid(f family) {
	for _, name := range []string{"INPUT", "FORWARD"} {
		if c := t.chains[f][name]; c.policy == "" {
			c.policy = "DROP"
			t.note(place{}, "no policy is set for %s of %s: drop is taken", name, f)
		}
	}
}

// findClasses lists the interfaces that rules tell apart.
func (t *translation) findClasses() {
	var names []string
	for _, f := range families {
		for _, c := range t.chains[f] {
			for _, r := range c.rules {
				for _, tested := range []*test[string]{r.in, r.out} {
					if tested != nil && iface(tested.value) != loopback {
						names = append(names, tested.value)
					}
				}
			}
		}
	}
	slices.Sort(names)
	t.classes = []iface{rest}
	for _, name := range slices.Concat(names, t.interfaces) {
		if i := iface(name); !slices.Contains(t.classes, i) {
			t.classes = append(t.classes, i)
		}
	}
}

// noteEverywhere says what becomes of rules that hold on every interface.
func (t *translation) noteEverywhere() {
	for _, in := range t.filtered {
		if !t.alike(in, rest) {
			named := slices.DeleteFunc(slices.Clone(t.filtered), func(in iface) bool { return !in.isName() })
			t.note(place{}, "the rules let in other things on %s than elsewhere: list all interfaces that are to be filtered under interfaces, "+
				"or translate for one of them, such as --interface %s", in, exampleOf(named))
			break
		}
	}
	t.note(place{}, "the rules hold on every interface, and Portcullis filters only those under interfaces, or that of the default route if there are none")
}

// rulesOf are the chains that are taken for a family: where nothing was said
// about it, those of the other one.
func (t *translation) rulesOf(f family) map[string]*chain { return t.chains[t.home[f]] }

func (t *translation) walkInput() error {
	t.inputs = make(map[spot]packets)
	for _, s := range t.spotsOf(t.classes) {
		w := t.walkerAt(s)
		accepted, err := w.run("INPUT", t.arriving(s))
		if err != nil {
			return err
		}
		t.inputs[s] = accepted
	}
	return nil
}

func (t *translation) walkerAt(s spot) walker {
	return walker{chains: t.rulesOf(s.family), family: s.family, in: s.in, out: s.out, at: s, place: t.places[s.family][s.to],
		forward: t.through, steps: &t.steps, left: t.left}
}

// walkFiltered walks again through the interfaces of the policy, and notes what
// each rule does.
func (t *translation) walkFiltered() error {
	t.input = &journal{deeds: make(map[*rule]*deeds)}
	t.may = make(map[spot]packets)
	for _, s := range t.spotsOf(t.filtered) {
		w := t.walkerAt(s)
		w.log = t.input
		if _, err := w.run("INPUT", t.arriving(s)); err != nil {
			return err
		}
		w.may, w.log = true, nil
		may, err := w.run("INPUT", t.arriving(s))
		if err != nil {
			return err
		}
		t.may[s] = may
	}
	return nil
}

// choose finds the interfaces that the policy is about.
func (t *translation) choose() {
	if len(t.interfaces) > 0 {
		t.result.Interfaces = t.interfaces
		for _, name := range t.interfaces {
			t.filtered = append(t.filtered, iface(name))
		}
	} else {
		t.guess()
	}
}

// guess goes by the names in rules. An interface by which all may come in needs
// no filter. Without names the policy is for the interface of the default
// route, whichever that is, so it has to hold for those that no rule names.
func (t *translation) guess() {
	var named, wild, guests []iface
	for _, in := range t.classes {
		switch {
		case in == rest:
		case !in.isName():
			wild = append(wild, in)
		case !t.letsAll(in) && matches(guestDevice, string(in)) && !t.alike(in, rest):
			guests = append(guests, in)
		case !t.letsAll(in):
			named = append(named, in)
		case t.letsEverything(in):
			t.note(place{}, "%s is not filtered, as all may come in by it", in)
		default:
			t.note(place{}, "%s is not filtered, as all that begins something may come in by it: so do INVALID packets, and others that the rules drop", in)
		}
	}
	if len(named) > 0 || t.letsAll(rest) {
		named = append(named, guests...)
	} else if len(guests) > 0 {
		// A policy that names them alone would filter no card.
		t.lost(place{}, "%s, a bridge of containers or virtual machines, is not filtered, so what is behind it reaches every port of this host: "+
			"to filter it, too, translate for all interfaces, such as --interface eth0,%s", list(guests), exampleOf(guests))
	}
	if len(named) > 0 && (t.letsAll(rest) || !t.letsSome(rest)) {
		t.filtered = named
		for _, in := range wild {
			switch {
			case t.letsAll(in) || !t.letsSome(in) && !t.letsAll(rest):
			case slices.ContainsFunc(t.classes, func(i iface) bool { return !slices.Contains(named, i) && i.within(in) && i != in }):
				t.lost(place{}, "other rules tell apart what is meant by %s: add those interfaces that are to be filtered", in)
			default:
				t.filtered = append(t.filtered, in)
			}
		}
		for _, in := range t.filtered {
			t.result.Interfaces = append(t.result.Interfaces, in.pattern())
		}
		t.noteElsewhere()
		return
	}
	wild = slices.DeleteFunc(wild, func(in iface) bool {
		if t.letsEverything(in) {
			t.note(place{}, "%s is not filtered, as all may come in by it", in.pattern())
			return true
		}
		return false
	})
	t.filtered = slices.Concat([]iface{rest}, named, wild)
}

func exampleOf(named []iface) iface {
	if len(named) > 0 {
		return named[0]
	}
	return "eth0"
}

// noteElsewhere says what the rules did on interfaces that they do not name.
func (t *translation) noteElsewhere() {
	if t.letsAll(rest) {
		return
	}
	for _, f := range families {
		at := place{}
		if c := t.chains[f]["INPUT"]; c.policy == "DROP" {
			at = c.policyAt
		}
		if t.told[f] {
			t.note(at, "on interfaces other than %s everything comes in now, as Portcullis filters only those that it names", list(t.filtered))
		}
	}
}

func (t *translation) alike(a, b iface) bool {
	for _, s := range t.spotsOf([]iface{a}) {
		p, q := t.inputs[s], t.inputs[spot{in: b, family: s.family, to: s.to}]
		if !p.contains(q) || !q.contains(p) {
			return false
		}
	}
	return true
}

// texts are names as rules of iptables have them.
func texts(list []iface) []string {
	out := make([]string, len(list))
	for i, in := range list {
		out[i] = string(in)
	}
	return out
}

// list names interfaces in a sentence.
func list(of []iface) string {
	names := texts(of)
	if i := slices.Index(of, rest); i >= 0 {
		names[i] = "others"
	}
	return strings.Join(names, ", ")
}

// letsAll reports whether all that begins something comes in by an interface.
func (t *translation) letsAll(in iface) bool {
	for _, s := range t.spotsOf([]iface{in}) {
		if possible := t.arriving(s); !t.begun(s).contains(possible.begun(possible)) {
			return false
		}
	}
	return true
}

func (t *translation) letsEverything(in iface) bool {
	for _, s := range t.spotsOf([]iface{in}) {
		if !t.inputs[s].contains(t.arriving(s)) {
			return false
		}
	}
	return true
}

// letsSome reports whether anything comes in but ICMP.
func (t *translation) letsSome(in iface) bool {
	for _, s := range t.spotsOf([]iface{in}) {
		if b := t.begun(s); len(b.only(ported)) > 0 || len(b.only(keys{otherKeys, lastKey})) > 0 {
			return true
		}
	}
	return false
}
