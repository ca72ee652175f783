// SPDX-License-Identifier: Apache-2.0

package iptables

import (
	"slices"
	"strconv"
	"strings"

	"github.com/portcullis-firewall/portcullis/policy"
)

const (
	noAnswer      = "Portcullis drops without an answer: whoever tries waits instead of being refused"
	noInputAnswer = "Portcullis drops this without an answer: whoever tries waits. To refuse on every closed port, write input: reject"
	otherAnswer   = "input: reject answers TCP with a reset, and all else with an ICMP error that says that the port is unreachable"
	noSilence     = "what it drops is answered, too, under input: reject"
	noState       = "an open port keeps no state: TCP that begins no connection gets to the socket, which refuses it"
	answersCome   = "answers to what this host itself sends there come in all the same"
	staysUp       = "a connection that is up, or that this host begins, is not cut by it: only what begins is dropped"
	allGoesOut    = "Portcullis lets out everything"
)

// report lists the lines of which the policy lacks something, and those that it
// says in another way.
func (t *translation) report() {
	t.reportKept(t.letsInSome)
	t.routes.reportKept(t.routes.letsThroughSome)
	for _, r := range t.input.walked {
		d := t.input.deeds[r]
		switch {
		case t.staying[r], r.isBlock:
		case r.dress != "" && r.drops():
			t.note(r.place, "%s is not told apart: whoever sends so may send otherwise, so it shuts nobody out", r.dress)
		case r.target == "ACCEPT":
			t.reportAccept(r, d)
		case r.passes():
			t.reportPassing(r)
		default:
			t.reportAnswer(r, d)
			t.reportDoubt(r, d)
			t.reportCut(r, d)
		}
	}
	t.reportReplies()
	t.reportForward()
	t.noteOwners()
	t.noteOtherFamily()
	t.reportRest()
}

// reportAccept lists what an ACCEPT let in and the policy does not.
func (t *translation) reportAccept(r *rule, d *deeds) {
	missing, perhaps, bounded := make(map[spot]region), make(map[spot]region), make(map[spot]region)
	refused := false
	by, isBounded := t.bounded[r]
	for _, s := range t.spotsOf(t.filtered) {
		opened := t.opened[s]
		for _, c := range []cell{begins, toGroup, toBroadcast} {
			missing[s] = missing[s].union(d.accepted[s][c].subtract(opened))
			perhaps[s] = perhaps[s].union(d.let[s][c].subtract(opened))
		}
		if r.limit != nil {
			bounded[s] = perhaps[s]
			if isBounded {
				bounded[s] = bounded[s].subtract(t.regionOf(by, s))
			}
		}
		refused = refused || len(d.accepted[s][invalid].intersect(opened)) > 0
	}
	switch {
	case !isEmpty(missing):
		t.lost(r.place, "%s", t.whyMissing(missing))
	case isBounded && isEmpty(bounded):
		t.noteLimit(r, by)
	case r.limit != nil && r.understood() && !isEmpty(bounded):
		t.lost(r.place, "its limit is one count, and what it is for would take more than one rule of the policy, or comes there in doubt, so this is not opened%s", t.hint(bounded))
	case !isEmpty(perhaps) && r.isDHCP():
		t.note(r.place, "answers of DHCP servers come in by themselves")
	case !isEmpty(perhaps) && !r.certain():
		t.lost(r.place, "%s cannot be said in a policy, so this is not opened%s", r.doubts(), t.hint(perhaps))
	case !isEmpty(perhaps):
		t.lost(r.place, "whether packets get to this rule cannot be said in a policy, so it is not opened%s", t.hint(perhaps))
	case !r.certain():
		t.note(r.place, "lets in nothing that does not come in anyway; %s is left out", r.doubts())
	}
	if refused && t.result.Invalid == policy.InvalidDrop {
		t.note(r.place, "lets in INVALID packets, too, which other rules drop: invalid: drop is for all")
	}
}

// isDHCP reports whether a rule is for what DHCP servers answer.
func (r *rule) isDHCP() bool {
	if len(r.unsure) != 1 || r.protocol == nil || r.protocol.not || r.protocol.value != int(policy.UDP) || r.ports == nil || r.ports.not {
		return false
	}
	client, server := uint16(68), "--sport 67"
	if r.home == v6 {
		client, server = 546, "--sport 547"
	}
	return slices.Equal(r.ports.value, []portRange{{client, client}}) && r.unsure[0] == server
}

// noteLimit says in what a limit of a policy differs.
func (t *translation) noteLimit(r *rule, by policy.Rule) {
	if !r.limit.masked && (r.home == v6 || t.home[v6] == v4) {
		t.note(r.place, "in IPv6 the limit is for a /64 and not for each address")
	}
	if slices.ContainsFunc(by.Ports, func(p policy.PortRange) bool { return p.Protocol == policy.TCP }) && r.level[midstream] != nothing {
		t.note(r.place, "only TCP that begins a connection counts: what belongs to none gets to the socket, which refuses it")
	}
	if slices.ContainsFunc(by.Ports, func(p policy.PortRange) bool { return p.Protocol != policy.TCP }) {
		t.note(r.place, "an open port keeps no state: each packet of other protocols than TCP counts, if it is no answer")
	}
}

func isEmpty(of map[spot]region) bool {
	for _, r := range of {
		if len(r) > 0 {
			return false
		}
	}
	return true
}

// whyMissing says why what a rule lets in for certain is not in the policy.
func (t *translation) whyMissing(missing map[spot]region) string {
	var icmp, portless, ports bool
	toAll, mixed := true, false
	for s, of := range missing {
		icmp = icmp || len(of.only(keys{icmpKeys, otherKeys - 1})) > 0
		portless = portless || len(of.only(keys{otherKeys, lastKey})) > 0
		ports = ports || len(of.only(ported)) > 0
		toAll = toAll && t.begun(s).contains(of)
		mixed = mixed || s.in == rest && len(of) > 0
	}
	var why []string
	switch {
	case !toAll:
		why = append(why, "it is let in to some addresses only: other rules drop what is sent to one host, to groups or to broadcast, which a policy does not tell apart")
	case mixed && (ports || portless) && len(t.filtered) > 1:
		why = append(why, "it is not let in by all interfaces ("+list(t.filtered)+"), and a rule cannot be for those without a name")
	case ports:
		why = append(why, "its sources, or the addresses that it is sent to, would make too long a rule of the policy")
	case portless:
		why = append(why, "it would take too many rules of the policy, one for each protocol")
	}
	if icmp {
		why = append(why, "a policy lets in ICMP by type, from everybody: not from some sources, nor by code")
	}
	return strings.Join(why, "; ")
}

// hint says what would open it without the condition.
func (t *translation) hint(what map[spot]region) string {
	if rules := t.rulesFor(what, ""); rules != "" {
		return "; without it, it would be " + rules
	}
	return ""
}

// rulesFor are the rules of a policy that open something, with a clause at their end, if they are short.
func (t *translation) rulesFor(what map[spot]region, clause string) string {
	own := make(map[spot]region)
	for s, of := range what {
		own[s] = of
	}
	var found []string
	whole := &rule{}
	if t.through {
		whole.limit = &limit{} // what it would be does not come through yet
	}
	for _, o := range t.decompose(whole, own) {
		o.widen()
		if text := t.text(o); text != "" {
			found = append(found, text+clause)
		}
	}
	return shortList(found)
}

// shortList quotes rules, unless they are long.
func shortList(rules []string) string {
	quoted := make([]string, len(rules))
	for i, text := range rules {
		quoted[i] = strconv.Quote(text)
	}
	const short = 100
	if text := strings.Join(quoted, ", "); len(text) <= short {
		return text
	}
	return ""
}

// reportDoubt is about jumps, and what drops, that are not understood: what they
// could take away is not opened.
func (t *translation) reportDoubt(r *rule, d *deeds) {
	lost := make(map[spot]region)
	for _, s := range t.spotsOf(t.filtered) {
		for _, c := range []cell{begins, toGroup, toBroadcast} {
			lost[s] = lost[s].union(d.doubted[s][c].intersect(t.may[s][c]).subtract(t.opened[s]))
		}
	}
	if r.certain() && (r.to == nil || isEmpty(lost)) {
		return
	}
	why := r.doubts()
	if why == "" {
		why = "where it is sent"
	}
	if isEmpty(lost) {
		t.note(r.place, "%s cannot be said in a policy, but without it no more would come in", why)
		return
	}
	hint := t.hint(lost)
	if rules := t.rulesFor(lost, " limit "+r.near.String()); r.near.Count > 0 && rules != "" {
		hint = "; to let it in up to a limit, write " + rules + " under open, which is near it, but lets in some of what a source that never stops sends"
	}
	t.lost(r.place, "%s cannot be said in a policy: what may be dropped by it is not opened%s", why, hint)
}

// reportPassing is about rules that decide nothing.
func (t *translation) reportPassing(r *rule) {
	switch logs := slices.Contains([]string{"LOG", "NFLOG", "ULOG"}, r.target); {
	case logs && r.onlyInvalid() && t.result.Invalid == policy.InvalidLog: // that is what invalid: log says
	case logs && r.onlyInvalid():
		t.note(r.place, "invalid packets are dropped and counted by kind; only under invalid: log are they kept for \"portcullis log\"")
	case logs:
		t.note(r.place, "Portcullis counts what it drops, by reason, and logs only invalid packets")
	case r.target == "":
		t.note(r.place, "has no target, so it only counts, or remembers for other rules")
	case ownerOf(r) != nil: // said once for all
	default:
		t.lost(r.place, "Portcullis has nothing like %s; no packet is dropped by it", r.target)
	}
}

func (r *rule) onlyInvalid() bool {
	for c, l := range r.level {
		if cell(c) != invalid && l != nothing {
			return false
		}
	}
	return r.level[invalid] != nothing
}

// reportCut is about what a rule drops of connections, and of what only looks
// so.
func (t *translation) reportCut(r *rule, d *deeds) {
	for _, s := range t.spotsOf(t.filtered) {
		cut := d.dropped[s]
		switch {
		case len(cut[answers]) == 0:
		case r.ports != nil && r.certain() && r.from == nil:
			t.note(r.place, "%s", answersCome)
		case r.ports != nil && r.certain(), t.onlyForPorts(r):
			t.note(r.place, "%s", staysUp)
		case r.certain() && r.from != nil && !r.from.not && private[r.home].contains(r.from.value): // who would this host ask there
			t.note(r.place, "%s", answersCome)
		default:
			t.lost(r.place, "%s", answersCome)
		}
		if len(cut[midstream].intersect(t.opened[s].union(t.limited[s]))) > 0 {
			t.note(r.place, "%s", noState)
		}
	}
}

// onlyForPorts reports whether all that leads to a rule's chain is for some ports of this host.
func (t *translation) onlyForPorts(r *rule) bool {
	if !r.certain() || r.from == nil {
		return false
	}
	leads := 0
	for _, c := range t.chains[r.home] {
		for _, jump := range c.rules {
			if jump.target != r.chain {
				continue
			}
			if jump.ports == nil || jump.ports.not || !jump.certain() {
				return false
			}
			leads++
		}
	}
	return leads > 0
}

// reportReplies is about what the policy of a chain cuts of connections.
func (t *translation) reportReplies() {
	for _, s := range t.spotsOf(t.filtered) {
		left := t.arriving(s).subtract(t.inputs[s])
		for _, r := range t.input.walked {
			left = left.subtract(t.input.deeds[r].dropped[s])
		}
		if len(left[answers]) > 0 && t.told[s.family] {
			t.lost(place{}, "the rules for %s do not let in all answers to what this host sends (ESTABLISHED): Portcullis always does", s.family)
		} else if len(left[related]) > 0 && t.told[s.family] {
			t.note(place{}, "ICMP errors about connections (RELATED) always come in")
		}
		if len(left[midstream].intersect(t.opened[s].union(t.limited[s]))) > 0 {
			t.note(place{}, "%s", noState)
		}
	}
}

// reportRest is about rules that packets to this host never meet.
func (t *translation) reportRest() {
	for _, f := range families {
		if !t.told[f] {
			continue
		}
		fromInput, fromForward, fromOutput := t.reachable(f, "INPUT"), t.reachable(f, "FORWARD"), t.reachable(f, "OUTPUT")
		if c := t.chains[f]["OUTPUT"]; c.policy == "DROP" {
			t.lost(c.policyAt, "%s", allGoesOut)
		}
		for name, c := range t.chains[f] {
			for _, r := range c.rules {
				switch {
				case fromInput[name] || fromForward[name]:
					t.reportUnmet(r)
				case fromOutput[name]:
					t.reportOutput(r)
				case !t.ufw:
					t.note(r.place, "no chain leads to %s", name)
				}
			}
		}
	}
}

// reachable are the chains that packets can get to from one of netfilter's own.
func (t *translation) reachable(f family, from string) map[string]bool {
	seen := map[string]bool{from: true}
	for todo := []string{from}; len(todo) > 0; todo = todo[1:] {
		for _, r := range t.chains[f][todo[0]].rules {
			if c := t.chains[f][r.target]; c != nil && c.isUsers() && !seen[r.target] {
				seen[r.target] = true
				todo = append(todo, r.target)
			}
		}
	}
	return seen
}

func (t *translation) reportOutput(r *rule) {
	next := t.chains[r.home][r.target]
	switch {
	case r.target == "ACCEPT" || r.target == "RETURN" || next != nil && next.isUsers():
	case r.passes():
		t.note(r.place, "Portcullis lets out everything, and neither logs nor marks it")
	default:
		t.lost(r.place, "%s", allGoesOut)
	}
}

// reportUnmet is about rules for interfaces that the policy leaves out, and
// those that nothing comes to.
func (t *translation) reportUnmet(r *rule) {
	_, byInput := t.input.deeds[r]
	_, byForward := t.routes.input.deeds[r]
	in := iface("")
	if r.in != nil && !r.in.not {
		in = iface(r.in.value)
	}
	switch {
	case in == loopback && r.drops():
		t.lost(r.place, "lo is never filtered")
	case in == loopback:
	case !byInput && !byForward:
		t.note(r.place, "no packet gets here for certain: it is all decided before")
	case byInput && in.isName() && !t.letsAll(in) && !slices.Contains(t.filtered, in):
		t.lost(r.place, "%s is not among the interfaces of the policy, so it is not filtered", in)
	}
}
