// SPDX-License-Identifier: Apache-2.0

package iptables

import (
	"errors"
	"slices"
)

// ErrTooComplicated is returned for rules that would take too long.
var ErrTooComplicated = errors.New("the rules are too many, or too entangled, to be translated")

// maxSteps bounds the work that rules can make: one for each rule that packets
// come to, and for each span of sources that it takes apart.
const maxSteps = 20_000_000

// walker plays packets through the chains of one family.
type walker struct {
	chains  map[string]*chain
	family  family
	in, out iface
	at      spot
	place   addresses // to which they are sent
	forward bool      // they are routed, so tests of what is local mean nothing
	steps   *int
	may     bool      // whatever is in doubt goes both ways: what comes in is what may come in
	log     *journal  // nil: only what comes in is of interest
	left    *leftover // nil: nothing is left to netfilter
}

// journal is what each rule did, over all walks of interest.
type journal struct {
	walked []*rule // in the order in which they were met
	deeds  map[*rule]*deeds
}

// deeds is what one rule did, by spot.
type deeds struct {
	accepted did  // for certain
	let      did  // perhaps
	limited  did  // for certain, as far as its limit goes
	dropped  did  // for certain, or perhaps
	doubted  did  // what it perhaps matched
	base     bool // it stands in a chain of netfilter's own
}

type did map[spot]packets

func (d *did) add(s spot, p packets) {
	if *d == nil {
		*d = make(did)
	}
	if !p.empty() {
		(*d)[s] = (*d)[s].union(p)
	}
}

func (j *journal) of(r *rule) *deeds {
	if j.deeds[r] == nil {
		j.deeds[r] = &deeds{}
		j.walked = append(j.walked, r)
	}
	return j.deeds[r]
}

// run plays the packets through a chain of netfilter's own and returns those
// that are accepted.
func (w *walker) run(name string, from packets) (accepted packets, err error) {
	c := w.chains[name]
	left := w.walk(c.rules, from, true, &accepted, []string{name})
	if c.policy == "ACCEPT" {
		accepted = accepted.union(left)
		w.let(c.asRule(), left, packets{})
	}
	if *w.steps > maxSteps {
		return packets{}, ErrTooComplicated
	}
	return accepted, nil
}

// walk plays packets through rules and returns those that come out at the end.
// Of uncertain packets nobody knows whether they got here: they can be lost but
// not accepted.
func (w *walker) walk(rules []*rule, live packets, certain bool, accepted *packets, stack []string) (out packets) {
	for i, r := range rules {
		if live.empty() || *w.steps > maxSteps {
			break
		}
		sure, perhaps := w.hits(r, live)
		if w.log != nil {
			d := w.log.of(r)
			d.base = len(stack) == 1
			d.doubted.add(w.at, perhaps)
			if r.limit != nil && certain && r.target == "ACCEPT" {
				d.limited.add(w.at, sure)
			}
		}
		if r.limit != nil {
			sure, perhaps = packets{}, sure.union(perhaps)
		}
		if sure.empty() && perhaps.empty() {
			continue
		}
		if w.left != nil && !w.may {
			if sure, perhaps = w.leave(r, rules[i+1:], sure, perhaps, &live, &out, stack); sure.empty() && perhaps.empty() {
				continue
			}
		}
		after := func(uncertain packets) {
			if !w.may && !uncertain.empty() {
				out = out.union(w.walk(rules[i+1:], uncertain, false, accepted, stack))
			}
		}
		next := w.chains[r.target]
		loops := slices.Contains(stack, r.target)
		switch {
		case r.target == "ACCEPT":
			if w.may {
				*accepted = accepted.union(perhaps)
			} else if !certain {
				sure, perhaps = packets{}, sure.union(perhaps)
			}
			live = live.subtract(sure)
			*accepted = accepted.union(sure)
			w.let(r, sure, perhaps)
		case r.passes():
		case r.target == "RETURN":
			live = live.subtract(sure).subtract(w.gone(perhaps))
			out = out.union(sure)
			if w.may {
				out = out.union(perhaps)
			}
			after(perhaps)
		case next != nil && next.isUsers() && !loops:
			live = live.subtract(sure).subtract(w.gone(perhaps))
			deeper := append(slices.Clone(stack), r.target)
			back := w.walk(next.rules, sure, certain, accepted, deeper)
			unsureBack := w.walk(next.rules, perhaps, false, accepted, deeper)
			if r.goesTo {
				out = out.union(back)
				if w.may {
					out = out.union(unsureBack)
				}
				after(unsureBack)
			} else {
				live = live.union(back).union(unsureBack)
			}
		default:
			switch {
			case loops:
				r.doubt("chain %s, which leads to itself,", r.target)
			case !r.drops():
				r.doubtItself("target %s", r.target)
			}
			if w.may && !r.drops() {
				*accepted = accepted.union(sure).union(perhaps) // who knows
			}
			live = live.subtract(sure).subtract(w.gone(perhaps))
			if w.log != nil {
				w.log.of(r).dropped.add(w.at, sure.union(perhaps))
			}
		}
	}
	return out.union(live)
}

// gone is what perhaps goes another way.
func (w *walker) gone(perhaps packets) packets {
	if w.may {
		return packets{}
	}
	return perhaps
}

// hits is what a rule matches of packets, and what it perhaps does.
func (w *walker) hits(r *rule, live packets) (sure, perhaps packets) {
	*w.steps++
	if !r.applies(w.in, w.out) || r.isBlock || r.dress != "" && r.drops() {
		return sure, perhaps
	}
	sent, known := r.sentTo(w)
	if !sent {
		return sure, perhaps
	}
	m := r.matches(w.family)
	for c := range live {
		for _, s := range live[c] {
			*w.steps += len(s.from)
		}
		switch hit := live[c].intersect(m); {
		case r.level[c] == nothing:
		case r.level[c] == some || !known || !r.understood() || w.forward && r.asksLocal:
			perhaps[c] = hit
		default:
			sure[c] = hit
		}
	}
	return sure, perhaps
}

func (w *walker) let(r *rule, sure, perhaps packets) {
	if w.log == nil {
		return
	}
	d := w.log.of(r)
	d.accepted.add(w.at, sure)
	d.let.add(w.at, perhaps)
}

// sentTo reports whether packets may be sent to where the rule says, and
// whether that is known.
func (r *rule) sentTo(w *walker) (may, known bool) {
	switch {
	case r.to == nil || w.family != r.home && r.to.not:
		return true, true
	case w.family != r.home:
		return false, true
	}
	inside, apart := r.to.value.contains(w.place), len(r.to.value.intersect(w.place)) == 0
	if r.to.not {
		inside, apart = apart, inside
	}
	return !apart, inside || apart
}

func (r *rule) drops() bool { return r.target == "DROP" || r.target == "REJECT" }

// passing are the targets behind which packets go on.
var passing = []string{"", "LOG", "NFLOG", "ULOG", "MARK", "CONNMARK", "CONNSECMARK", "SECMARK", "SET", "TRACE", "AUDIT", "CLASSIFY",
	"DSCP", "TOS", "TCPMSS", "CHECKSUM", "TTL", "HL", "LED", "IDLETIMER", "RATEEST", "TEE"}

func (r *rule) passes() bool { return slices.Contains(passing, r.target) }
