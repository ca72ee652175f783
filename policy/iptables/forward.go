// SPDX-License-Identifier: Apache-2.0

package iptables

import (
	"slices"

	"github.com/portcullis-firewall/portcullis/policy"
)

// way is one through this host.
type way struct{ in, out iface }

// forward chooses what becomes of routed packets: the stricter of what the two
// families come to.
func (t *translation) forward() error {
	t.routed = &journal{deeds: make(map[*rule]*deeds)}
	t.result.Forward = policy.ForwardAccept
	for _, f := range families {
		one, err := t.forwardOf(f)
		if err != nil {
			return err
		}
		t.result.Forward = min(t.result.Forward, one)
	}
	return nil
}

// ways are those that the filter sees: in or out by an interface of its own.
func (t *translation) ways() (inward, outward []way) {
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

func (t *translation) forwardOf(f family) (policy.ForwardPolicy, error) {
	every := throughThisHost(f)
	inward, outward := t.ways()
	lets := make(map[way]packets)
	all := true
	for _, through := range slices.Concat(inward, outward) {
		w := walker{chains: t.rulesOf(f), family: f, in: through.in, out: through.out, at: spot{family: f}, forward: true, steps: &t.steps, log: t.routed}
		accepted, err := w.run("FORWARD", every)
		if err != nil {
			return 0, err
		}
		lets[through] = accepted
		w.may, w.log = true, nil
		may, err := w.run("FORWARD", every)
		if err != nil {
			return 0, err
		}
		t.passed[f] = t.passed[f].union(may)
		all = all && accepted.contains(every)
	}
	if all {
		return policy.ForwardAccept, nil
	}
	// Under forward: established whoever is behind this host opens outward. So
	// everybody whom a rule names has to be let, and be let have the answers.
	found := policy.ForwardDrop
	for _, through := range outward {
		begun := lets[through][begins].contains(every[begins]) && lets[through][midstream].contains(every[midstream])
		if !begun && through.in == rest {
			continue
		}
		back := way{through.out, through.in}
		if !begun || !lets[through][answers].contains(every[answers]) || !lets[back][answers].contains(every[answers]) {
			return policy.ForwardDrop, nil
		}
		found = policy.ForwardEstablished
	}
	return found, nil
}

// reportForward lists the rules about routed packets of which the policy lacks
// something.
func (t *translation) reportForward() {
	begun := slices.ContainsFunc(t.routed.walked, func(r *rule) bool { return t.routed.deeds[r].lets(begins, midstream) })
	for _, r := range t.routed.walked {
		d := t.routed.deeds[r]
		if r.target == "REJECT" && t.result.Forward != policy.ForwardAccept {
			t.note(r.place, "%s", noAnswer)
		}
		if r.target != "ACCEPT" && !r.passes() && t.atStake(d) {
			why := r.doubts()
			if why == "" {
				why = "where it is sent"
			}
			t.lost(r.place, "%s cannot be said of what is forwarded: what may be dropped by it is not forwarded", why)
		}
		switch {
		case r.target != "ACCEPT" || t.result.Forward == policy.ForwardAccept:
		case t.result.Forward == policy.ForwardDrop:
			if begun && d.lets(begins, midstream, answers) {
				t.lost(r.place, "forward is drop, established (whatever is behind this host may open connections outward) or accept, none of which says this: drop is written")
			}
		case !d.lets(begins, midstream):
		case r.in != nil && !r.in.not && !slices.Contains(t.filtered, iface(r.in.value)) && r.certain() && r.to == nil:
			t.note(r.place, "forward: established lets all that is routed out of %s begin connections, by whatever interface it came",
				list(t.filtered))
		default:
			t.lost(r.place, "forward: established lets nobody outside begin a connection through this host")
		}
	}
}

// atStake reports whether a rule that is not understood perhaps takes what may be
// forwarded.
func (t *translation) atStake(d *deeds) bool {
	for s, p := range d.doubted {
		if !p.intersect(t.passed[s.family]).empty() {
			return true
		}
	}
	return false
}

// lets reports whether a rule let in, or perhaps did, anything of some kinds.
func (d *deeds) lets(kinds ...cell) bool {
	for _, by := range []did{d.accepted, d.let} {
		for _, p := range by {
			if slices.ContainsFunc(kinds, func(c cell) bool { return len(p[c]) > 0 }) {
				return true
			}
		}
	}
	return false
}
