// SPDX-License-Identifier: Apache-2.0

package iptables

import "slices"

// spot is where packets of one family come in to this host, or go through it:
// by an interface, to one of the sets of addresses that rules tell apart.
type spot struct {
	in     iface
	family family
	to     int   // index into the places of the family
	out    iface // of what goes through, where it is told apart
}

// maxPlaces bounds how many sets of addresses are told apart. A rule about
// others is in doubt.
const maxPlaces = 24

// Nothing comes to the loopbacks from outside, nor to the others that no card of a host has. Those of class E are routed.
var (
	loopbacks   = [...]addresses{prefixes("0.0.0.0/8", "127.0.0.0/8"), prefixes("::/127")}
	unreachable = [...]addresses{loopbacks[v4].union(prefixes("240.0.0.0/4")).subtract(broadcast), loopbacks[v6].union(prefixes("::ffff:0:0/96"))}
)

// unreached are the addresses to which no packet comes that a chain is about.
func (t *translation) unreached(f family) addresses {
	if t.through {
		return loopbacks[f]
	}
	return unreachable[f]
}

// unreachedParts are these, and each span of them.
func (t *translation) unreachedParts(f family) []addresses {
	parts := []addresses{t.unreached(f), loopbacks[f]}
	for _, s := range t.unreached(f) {
		parts = append(parts, addresses{s})
	}
	return parts
}

// findBroadcasts finds addresses that look like those of a subnet's broadcast, and to which rules only drop: TCP to them
// reaches no socket.
func (t *translation) findBroadcasts(chain string) {
	home := t.home[v4]
	if home != v4 {
		return
	}
	t.broadcasts = broadcast
	var others addresses
	for _, name := range t.inOrder(home, chain) {
		for _, r := range t.chains[home][name].rules {
			if r.to == nil || r.to.not {
				continue
			}
			if len(r.to.value) == 1 && isBroadcast(r.to.value[0]) && (r.drops() || r.passes()) {
				t.broadcasts = t.broadcasts.union(r.to.value)
			} else if r.target == "ACCEPT" {
				others = others.union(r.to.value)
			}
		}
	}
	if len(t.broadcasts.intersect(others)) > len(broadcast.intersect(others)) {
		t.broadcasts = broadcast
	}
}

func isBroadcast(s span) bool { return s.first == s.last && s.first.Is4() && s.first.As4()[3] == 255 }

// findPlaces splits the addresses to which packets may come into those that
// the rules of a chain tell apart, as long as these are not too many.
func (t *translation) findPlaces(f family, chain string, most int) {
	places := []addresses{everyone[f].subtract(t.unreached(f))}
	split := func(by addresses) {
		var parts []addresses
		for _, p := range places {
			if in, out := p.intersect(by), p.subtract(by); len(in) > 0 && len(out) > 0 {
				parts = append(parts, out, in)
			} else {
				parts = append(parts, p)
			}
		}
		if len(parts) <= most {
			places = parts
		}
	}
	split(groups[f])
	if f == v4 {
		split(broadcast)
		if t.findBroadcasts(chain); !t.through {
			split(t.broadcasts)
		}
	}
	home := t.home[f]
	for _, name := range t.inOrder(home, chain) {
		for _, r := range t.chains[home][name].rules {
			if r.to != nil && home == f {
				split(r.to.value)
			}
		}
	}
	t.places[f] = places
}

// inOrder are the chains that packets can get to from one of netfilter's own.
func (t *translation) inOrder(f family, from string) []string {
	reached := t.reachable(f, from)
	var names []string
	for name := range reached {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// arrivingAt are the packets that there can be to a place.
func (t *translation) arrivingAt(f family, place addresses) packets {
	p := toThisHost(f)
	if t.through {
		p = throughThisHost(f)
	}
	switch {
	case groups[f].contains(place):
		return packets{toGroup: p[toGroup]}
	case f == v4 && (broadcast.contains(place) || !t.through && t.broadcasts.contains(place)):
		return packets{toBroadcast: p[toBroadcast]}
	}
	p[toGroup] = nil
	return p
}

// begun is what may begin something at one place. Any of its addresses may be
// that of a broadcast, so both kinds have to be let in.
func (p packets) begun(possible packets) region {
	all := possible[begins].union(possible[toGroup]).union(possible[toBroadcast])
	for _, c := range []cell{begins, toGroup, toBroadcast} {
		all = all.subtract(possible[c].subtract(p[c]))
	}
	return all
}

// spotsOf are all ways in by some interfaces.
func (t *translation) spotsOf(ifaces []iface) (out []spot) {
	for _, in := range ifaces {
		for _, f := range families {
			for i := range t.places[f] {
				out = append(out, spot{in: in, family: f, to: i})
			}
		}
	}
	return out
}

func (t *translation) arriving(s spot) packets {
	return t.arrivingAt(s.family, t.places[s.family][s.to])
}

// begun is what may begin something at a spot, by the rules.
func (t *translation) begun(s spot) region { return t.inputs[s].begun(t.arriving(s)) }

// letIn reports whether packets that may begin something all come in at a spot.
func (t *translation) letIn(s spot, what region) bool {
	possible := t.arriving(s)
	return t.begun(s).contains(what.intersect(possible.begun(possible)))
}

// everywhere is what comes in of a family by every interface of the policy, to
// every address, and what of that may begin something.
func (t *translation) everywhere(f family) (all packets, begun region) {
	all = toThisHost(f)
	begun = all[begins]
	for _, s := range t.spotsOf(t.filtered) {
		if s.family == f {
			possible := t.arriving(s)
			all = all.subtract(possible.subtract(t.inputs[s]))
			begun = begun.subtract(possible.begun(possible).subtract(t.begun(s)))
		}
	}
	return all, begun
}
