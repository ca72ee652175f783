// SPDX-License-Identifier: Apache-2.0

package iptables

import (
	"slices"
	"strings"

	"github.com/portcullis-firewall/portcullis/policy"
)

const (
	noStateForward = "a forward rule keeps no state: TCP that begins no connection gets to the host behind, which refuses it"
	ownOfEngine    = "ports that are published for containers are let in by \"portcullis open\", whatever forward says"
)

// reportForward lists the rules about routed packets of which the policy lacks
// something.
func (t *translation) reportForward() {
	f := t.routes
	for _, r := range f.input.walked {
		d := f.input.deeds[r]
		if r.isBlock || f.left.of(r) != nil {
			continue
		}
		if r.target == "REJECT" && t.result.Forward != policy.ForwardAccept {
			t.note(r.place, "%s", noAnswer)
		}
		if r.target != "ACCEPT" && !r.passes() && f.atStake(d) {
			why := r.doubts()
			if why == "" {
				why = "where it is sent"
			}
			t.lost(r.place, "%s cannot be said of what is forwarded: what may be dropped by it is not forwarded", why)
		}
		if r.target == "ACCEPT" && t.result.Forward != policy.ForwardAccept {
			f.reportAccept(r, d, t.filtered)
		}
	}
	if t.result.Forward == policy.ForwardAccept {
		return
	}
	for s, lets := range f.lets {
		at := s
		at.out = none
		opened := f.opened[at].union(f.limited[at])
		if !lets[midstream].contains(opened.intersect(f.arriving(s)[midstream])) {
			t.note(place{}, "%s", noStateForward)
		}
	}
	for _, in := range f.classes {
		if matches(guestDevice, string(in)) && !slices.Contains(f.guests, in) && !named(t.result, in) {
			t.lost(place{}, "what is behind %s, a bridge of containers, may begin outward where no forward rule names it: the rules do not let all of that through", in)
		}
	}
	if len(f.guests) > 0 {
		t.note(place{}, "what is behind %s, as containers are, begins outward whatever forward says, and %s", names(f.guests), ownOfEngine)
	}
}

// named reports whether a forward rule of a policy names an interface.
func named(p *policy.Policy, in iface) bool {
	return slices.ContainsFunc(p.ForwardRules(), func(r policy.Rule) bool { return len(r.On) > 0 && r.AppliesOn(string(in)) })
}

// reportAccept lists what an ACCEPT lets through and the policy does not.
func (f *routes) reportAccept(r *rule, d *deeds, filtered []iface) {
	missing := f.missing(r, filtered)
	perhaps, bounded := make(map[spot]region), make(map[spot]region)
	by, isBounded := f.bounded[r]
	begun := false
	for s := range f.lets {
		begun = begun || len(d.accepted[s][begins]) > 0
		if f.comesAnyway(s, filtered) {
			continue
		}
		perhaps[s] = d.let[s][begins].subtract(f.openedAt(s))
		if bounded[s] = perhaps[s]; isBounded {
			at := s
			at.out = none
			bounded[s] = bounded[s].subtract(f.regionOf(by, at))
		}
	}
	switch {
	case f.own[r] && !(isEmpty(missing) && isEmpty(perhaps)):
		f.note(r.place, "%s", ownOfEngine)
	case !isEmpty(missing):
		f.lost(r.place, "%s", f.whyMissing(r, missing))
	case isBounded && isEmpty(bounded):
		f.noteLimit(r, by)
	case r.limit != nil && r.understood() && !isEmpty(bounded):
		f.lost(r.place, "its limit is one count, and what it is for would take more than one rule of forward, or comes there in doubt, so this is not let through%s", f.hint(f.anywhere(bounded)))
	case !isEmpty(perhaps) && !r.certain():
		f.lost(r.place, "%s cannot be said in a policy, so this is not let through%s", r.doubts(), f.hint(f.anywhere(perhaps)))
	case !isEmpty(perhaps):
		f.lost(r.place, "whether packets get to this rule cannot be said in a policy, so it is not let through%s", f.hint(f.anywhere(perhaps)))
	case f.established && begun && r.in != nil && !r.in.not && !slices.Contains(filtered, iface(r.in.value)) && r.certain() && r.to == nil:
		f.note(r.place, "forward: established lets all that is routed out of %s begin connections, by whatever interface it came", list(filtered))
	}
}

// anywhere is what goes by some ways, wherever it leaves.
func (f *routes) anywhere(what map[spot]region) map[spot]region {
	out := make(map[spot]region)
	for s, of := range what {
		s.out = none
		if len(of) > 0 && slices.Contains(f.filtered, s.in) {
			out[s] = out[s].union(of)
		}
	}
	return out
}

// whyMissing says why what a rule lets through for certain is not in the policy.
func (f *routes) whyMissing(r *rule, missing map[spot]region) string {
	var icmp, portless, ports, partly bool
	var silent []iface
	for s, of := range missing {
		icmp = icmp || len(of.only(keys{icmpKeys, otherKeys - 1})) > 0
		portless = portless || len(of.only(keys{otherKeys, lastKey})) > 0
		ports = ports || len(of.only(ported)) > 0
		for _, by := range f.from(s) {
			partly = partly || !f.lets[by][begins].contains(of)
		}
		if slices.Contains(f.silent, s.in) && !slices.Contains(silent, s.in) {
			silent = append(silent, s.in)
		}
	}
	slices.Sort(silent)
	var why []string
	switch {
	case len(silent) > 0:
		why = append(why, "the answers to it are not all let through ("+list(silent)+"), and a forward rule always lets them")
	case partly && r.out != nil:
		return "-o " + r.out.value + " cannot be said: a forward rule lets through by whatever interface it leaves, so this is not let through" + f.hint(f.anywhere(missing))
	case partly:
		return "it is let through by some of the interfaces by which it may leave, and a forward rule is for all: this is not let through"
	case ports:
		why = append(why, "its sources, or the addresses or interfaces that it is for, would make too long a rule of forward, or are those without a name")
	case portless:
		why = append(why, "it would take too many rules of forward, one for each protocol, or is for interfaces without a name")
	}
	if icmp && len(why) == 0 {
		why = append(why, "a forward rule lets ICMP through only where it lets all through")
	}
	return strings.Join(why, "; ")
}

// atStake reports whether a rule that is not understood perhaps takes what may be
// forwarded.
func (f *routes) atStake(d *deeds) bool {
	for s, p := range d.doubted {
		if !p.intersect(f.passed[s.family]).empty() {
			return true
		}
	}
	return false
}
