// SPDX-License-Identifier: Apache-2.0

package iptables

import (
	"slices"

	"github.com/portcullis-firewall/portcullis/policy"
)

// reject chooses what becomes of what nothing lets in: it is refused where a
// REJECT has the last word.
func (t *translation) reject() {
	if t.result.Input == policy.Accept {
		return
	}
	t.refused = make(map[iface]bool)
	for _, in := range t.filtered {
		t.refused[in] = t.closes(in)
	}
	t.result.Input = policy.Reject
	for _, in := range t.filtered {
		if !t.refused[in] {
			t.result.Input = policy.Drop
		}
	}
	if t.result.Input == policy.Reject {
		return
	}
	for _, in := range t.filtered {
		alone := !slices.ContainsFunc(t.filtered, func(i iface) bool { return i.within(in) && !t.refused[i] })
		if in != rest && t.refused[in] && alone {
			if t.result.InputOn == nil {
				t.result.InputOn = make(map[string]policy.Verdict)
			}
			t.result.InputOn[in.pattern()] = policy.Reject
		}
	}
}

// closes reports whether what no rule takes for itself is refused on an
// interface: some of each kind is, and nothing is left to a DROP for all or to
// the policy of the chain.
func (t *translation) closes(in iface) bool {
	for _, s := range t.spotsOf([]iface{in}) {
		possible := t.arriving(s)
		if len(possible[begins]) == 0 {
			continue
		}
		left := possible[begins].subtract(t.inputs[s][begins])
		var refused region
		for _, r := range t.input.walked {
			dropped := t.input.deeds[r].dropped[s][begins]
			switch {
			case r.target != "ACCEPT" && !r.drops() && !r.passes() && len(t.input.deeds[r].doubted[s][begins]) > 0:
				return false // who knows where it goes
			case r.target == "REJECT" && r.understood():
				refused = refused.union(dropped)
			case r.drops() && r.protocol == nil && r.from == nil && r.to == nil && len(dropped) > 0:
				return false
			}
			if r.certain() { // else some go on, who knows where to
				left = left.subtract(dropped)
			}
		}
		if len(left) > 0 {
			return false
		}
		for _, kind := range []keys{{0, 1<<16 - 1}, {1 << 16, 2<<16 - 1}, {otherKeys, lastKey}} {
			if len(refused.only(kind)) == 0 {
				return false
			}
		}
	}
	return true
}

// reportAnswer says how a refusal, or a silence, differs.
func (t *translation) reportAnswer(r *rule, d *deeds) {
	answered, silent, drops, met := false, false, false, false
	for _, s := range t.spotsOf(t.filtered) {
		met = met || !d.dropped[s].empty()
		if len(d.dropped[s][begins].subtract(t.opened[s])) == 0 {
			continue
		}
		drops = true
		answered = answered || t.refused[s.in]
		silent = silent || !t.refused[s.in]
	}
	tcpOnly := r.protocol != nil && !r.protocol.not && r.protocol.value == int(policy.TCP)
	asWritten := tcpOnly && r.rejectWith == "tcp-reset" || r.protocol != nil && !tcpOnly && !r.protocol.not &&
		slices.Contains([]string{"", "icmp-port-unreachable", "icmp6-port-unreachable", "port-unreach"}, r.rejectWith)
	switch {
	case !met: // nothing comes there from outside
	case r.target == "REJECT" && (silent || !drops):
		t.note(r.place, "%s", noInputAnswer)
	case r.target == "REJECT" && !asWritten:
		t.note(r.place, "%s", otherAnswer)
	case r.target == "DROP" && answered:
		t.note(r.place, "%s", noSilence)
	}
}
