// SPDX-License-Identifier: Apache-2.0

package iptables

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/portcullis-firewall/portcullis/policy"
)

// queues are targets by which another program, or module, decides about a packet.
var queues = []string{"NFQUEUE", "QUEUE", "TARPIT", "CHAOS", "DELUDE", "SYNPROXY"}

// canStay reports whether netfilter can go on doing what a rule does: all of it is known, and nothing that it leads to,
// or keeps from what is behind it, lets in more.
func (w *walker) canStay(r *rule, behind []*rule, stack []string) bool {
	next := w.chains[r.target]
	switch {
	case r.maybe && !r.suspect || r.hides || r.stray || len(r.unsure) != r.own || r.limit != nil:
		return false
	case r.target == "RETURN":
		return len(stack) > 1 && !w.accept(behind, stack)
	case next != nil && next.isUsers():
		return !r.goesTo && !slices.Contains(stack, r.target) && !w.accept(next.rules, append(slices.Clone(stack), r.target))
	}
	return r.drops() || slices.Contains(queues, r.target)
}

// accept reports whether some of these rules, or where they lead, let anything in.
func (w *walker) accept(rules []*rule, stack []string) bool {
	return slices.ContainsFunc(rules, func(r *rule) bool {
		next := w.chains[r.target]
		*w.steps++
		switch {
		case next == nil || !next.isUsers():
			return r.target == "ACCEPT"
		case r.goesTo || slices.Contains(stack, r.target):
			return true // who knows
		}
		return w.accept(next.rules, append(slices.Clone(stack), r.target))
	})
}

// leave takes out of what a rule matches what is left to netfilter: there it is dropped, or it goes on as if the rule
// had not been for it, or had been for it if that is a RETURN. The rest is returned.
func (w *walker) leave(r *rule, behind []*rule, sure, perhaps packets, live, out *packets, stack []string) (packets, packets) {
	left := perhaps
	switch {
	case !w.canStay(r, behind, stack):
		return sure, perhaps
	case slices.Contains(queues, r.target), w.forward && r.drops() && r.isEngines():
		left = sure.union(perhaps)
	case r.drops() && r.onlyBroadcast():
		left = perhaps.union(packets{toBroadcast: sure[toBroadcast]})
	}
	// Of INVALID packets, and of TCP in midstream, the policy says enough.
	left[invalid], left[midstream] = nil, nil
	if left.empty() {
		return sure, perhaps
	}
	dropped := left
	switch next := w.chains[r.target]; {
	case r.target == "RETURN":
		dropped = left.subtract(w.ghosts(behind, left, stack))
		*out = out.union(left)
		*live = live.subtract(left)
	case next != nil && next.isUsers():
		dropped = left.subtract(w.ghosts(next.rules, left, append(slices.Clone(stack), r.target)))
	}
	w.left.add(r, w.at, dropped)
	return sure.subtract(left), perhaps.subtract(left)
}

// ghosts plays packets through rules to see which come out, and nothing else.
func (w *walker) ghosts(rules []*rule, live packets, stack []string) packets {
	aside := *w
	aside.log, aside.left = nil, nil
	var accepted packets
	return aside.walk(rules, live, true, &accepted, stack).union(accepted)
}

// onlyBroadcast reports whether a rule is for what goes to a broadcast, whatever its address, and for no other packet that
// begins something.
func (r *rule) onlyBroadcast() bool {
	return r.level[begins] == nothing && r.level[toBroadcast] == all && r.to == nil && r.certain()
}

// owner is a program that makes and fills chains, or sets, of its own.
type owner struct {
	name    string
	chains  func(name string) bool
	remains string // what to know
	engine  bool   // it runs containers or virtual machines, and routes for them
}

func hasPrefix(prefixes ...string) func(string) bool {
	return func(name string) bool {
		return slices.ContainsFunc(prefixes, func(p string) bool { return strings.HasPrefix(name, p) })
	}
}

var owners = []owner{
	{"Docker", hasPrefix("DOCKER"), "it goes on filling them; which ports of containers are reached, \"portcullis open\" says", true},
	{"kube-proxy", hasPrefix("KUBE-"), "they stay with it", true},
	{"the cluster's network", hasPrefix("CNI-", "cali-", "cali:", "CILIUM_", "OLD_CILIUM_", "FLANNEL-", "WEAVE-", "AZURE-", "AWS-", "ANTREA-"), "they stay with it", true},
	{"Podman", hasPrefix("NETAVARK", "CNI-HOSTPORT"), "they stay with it", true},
	{"libvirt", hasPrefix("LIBVIRT_"), "they stay with it", true},
	{"fail2ban", hasPrefix("f2b-", "fail2ban-"), "whom it bans now is in the policy where the rules name addresses; the package has an action by which it bans with Portcullis from now on", false},
	{"CrowdSec", hasPrefix("crowdsec", "CROWDSEC"), "\"portcullis bouncer\" does the same", false},
	{"sshguard", hasPrefix("sshguard"), "it goes on filling it", false},
	{"Tailscale", hasPrefix("ts-input", "ts-forward", "ts-postrouting"), "they stay with it", false},
}

// isEngines reports whether a rule stands in a chain of what runs containers or virtual machines.
func (r *rule) isEngines() bool {
	return slices.ContainsFunc(owners, func(o owner) bool { return o.engine && o.chains(r.chain) })
}

// ownerOf returns the program to which a rule belongs, by its chain, by that to which it leads or by a set.
func ownerOf(r *rule) *owner {
	for i, o := range owners {
		if o.chains(r.chain) || o.chains(r.target) || slices.ContainsFunc(r.sets, o.chains) {
			return &owners[i]
		}
	}
	return nil
}

// leftover is what rules drop that is left to netfilter, in the order in which the rules were met.
type leftover struct {
	rules []*rule
	drops map[*rule]*did
}

func (l *leftover) add(r *rule, s spot, dropped packets) {
	if l.drops[r] == nil {
		l.drops[r] = &did{}
		l.rules = append(l.rules, r)
	}
	l.drops[r].add(s, dropped)
}

// of is what a rule drops that is left to netfilter.
func (l *leftover) of(r *rule) did {
	if l == nil || l.drops[r] == nil {
		return nil
	}
	return *l.drops[r]
}

// leftToNetfilter returns a place for what is left, if anything is to be.
func (s *ruleset) leftToNetfilter() *leftover {
	if !s.options.Keep {
		return nil
	}
	return &leftover{drops: make(map[*rule]*did)}
}

// reportKept lists the rules that have to stay: those that drop something that would come in without them.
func (t *translation) reportKept(comes func(s spot, p packets) bool) {
	if t.left == nil {
		return
	}
	var stay []*rule
	for _, r := range t.left.rules {
		for s, p := range t.left.of(r) {
			if !t.staying[r] && comes(s, p) {
				t.staying[r] = true
				stay = append(stay, r)
			}
		}
	}
	for _, r := range stay {
		// What is certain to lead to others that stay needs no word of its own.
		if next := t.rulesOf(r.home)[r.target]; !(r.certain() && next != nil && next.isUsers() && t.someStay(next.rules, []string{r.target})) {
			t.sayStays(r)
		}
	}
}

// someStay reports whether some rules stay, or what they lead to.
func (t *translation) someStay(rules []*rule, stack []string) bool {
	return slices.ContainsFunc(rules, func(r *rule) bool {
		next := t.rulesOf(r.home)[r.target]
		return t.staying[r] || next != nil && next.isUsers() && !slices.Contains(stack, r.target) && t.someStay(next.rules, append(slices.Clone(stack), r.target))
	})
}

// letsInSome reports whether some packets come in by the policy at a spot.
func (t *translation) letsInSome(s spot, p packets) bool {
	if !slices.Contains(t.filtered, s.in) {
		return !p.empty()
	}
	if len(p[answers]) > 0 || len(p[related]) > 0 {
		return true // they always come in
	}
	opened := t.opened[s].union(t.limited[s])
	return slices.ContainsFunc([]cell{begins, toGroup, toBroadcast}, func(c cell) bool { return len(p[c].intersect(opened)) > 0 })
}

// letsThroughSome reports whether some packets come through by the policy at a spot.
func (f *routes) letsThroughSome(s spot, p packets) bool {
	if f.result.Forward != policy.ForwardDrop || slices.Contains(f.guests, s.in) {
		return !p.empty()
	}
	if len(f.result.ForwardRules()) > 0 && len(p[answers])+len(p[related]) > 0 {
		return true
	}
	s.out = none
	opened := f.opened[s].union(f.limited[s])
	return len(p[begins].intersect(opened)) > 0
}

// sayStays says what a rule that stays is needed for.
func (t *translation) sayStays(r *rule) {
	if ownerOf(r) != nil {
		return // said once for all
	}
	what, with, hint := r.doubts(), "", ""
	what, _, _ = strings.Cut(what, ", which")
	switch {
	case slices.Contains(queues, r.target):
		what = r.target
	case what == "":
		what = "what goes to a broadcast"
	}
	switch {
	case r.target == "RETURN":
		with = fmt.Sprintf(" with what is behind it in %s", r.chain)
	case t.rulesOf(r.home)[r.target] != nil && !r.drops():
		with = fmt.Sprintf(" with chain %s", r.target)
	}
	if len(r.sets) > 0 && t.sets[r.sets[0]] == nil {
		hint = "; name what \"ipset save\" prints, too, to have the set translated"
	}
	t.stay(r.place, "keep this rule in netfilter%s: %s cannot be said in a policy, which lets in what the rule drops%s", with, what, hint)
}

// noteOtherFamily says that what stays for one family is not there for the other one.
func (t *translation) noteOtherFamily() {
	for _, f := range families {
		if !t.told[f] && len(t.staying) > 0 {
			t.note(place{}, "what stays in netfilter is for %s alone: the policy lets in for %s what these rules would drop, until %s has the same rules",
				f.other(), f, [...]string{"iptables", "ip6tables"}[f])
		}
	}
}

// noteOwners says once for each program what becomes of its chains.
func (t *translation) noteOwners() {
	for i := range owners {
		o := &owners[i]
		rules := 0
		chains := make(map[string]bool)
		first := place{}
		for _, f := range families {
			for name, c := range t.chains[f] {
				if o.chains(name) {
					chains[name] = true
				}
				for _, r := range c.rules {
					if ownerOf(r) == o {
						rules++
						if first.line == 0 || r.line < first.line {
							first = r.place
						}
					}
				}
			}
		}
		switch {
		case rules == 0 && len(chains) == 0:
		case len(chains) == 0:
			t.note(place{}, "%s of %s: left to it; %s", count(rules, "rule is", "rules are"), o.name, o.remains)
		default:
			t.note(place{}, "the chains of %s are left to it (%s, %s): %s", o.name, count(len(chains), "chain", "chains"), count(rules, "rule", "rules"), o.remains)
		}
	}
}

// stayingRules are the rules of a family that have to stay in netfilter, as iptables-restore reads them: those of which
// the policy says so, with the ones that lead there or let packets pass them.
func (t *translation) stayingRules(f family) string {
	whole := make(map[string]bool) // chains that stay as they are
	tail := make(map[*rule]bool)   // rules behind a RETURN that stays
	var addWhole func(name string)
	addWhole = func(name string) {
		c := t.chains[f][name]
		if c == nil || !c.isUsers() || whole[name] {
			return
		}
		whole[name] = true
		for _, r := range c.rules {
			addWhole(r.target)
		}
	}
	any := false
	for _, c := range t.chains[f] {
		behind := false
		for _, r := range c.rules {
			if behind {
				tail[r] = true
				addWhole(r.target)
			}
			if t.staying[r] {
				any = true
				addWhole(r.target)
				behind = behind || r.target == "RETURN"
			}
		}
	}
	if !any {
		return ""
	}
	return t.rulesText(f, func(name string, r *rule) bool {
		return name != "OUTPUT" && (whole[name] || tail[r] || t.staying[r] || !r.drops())
	}, func(*chain) string { return "ACCEPT" })
}

// rulesText writes some of the rules of a family as iptables-restore reads them. Rules that were turned into others here
// are written as they were.
func (t *translation) rulesText(f family, want func(name string, r *rule) bool, policy func(c *chain) string) string {
	var b strings.Builder
	b.WriteString("*filter\n")
	for _, name := range builtin {
		verdict := "ACCEPT"
		if name != "OUTPUT" {
			verdict = policy(t.chains[f][name])
		}
		fmt.Fprintf(&b, ":%s %s [0:0]\n", name, verdict)
	}
	names := slices.Sorted(maps.Keys(t.chains[f]))
	for _, name := range names {
		if t.chains[f][name].isUsers() {
			fmt.Fprintf(&b, ":%s - [0:0]\n", name)
		}
	}
	for _, name := range names {
		var last *string
		for _, r := range t.chains[f][name].rules {
			if len(r.args) == 0 {
				continue
			}
			// One rule may be two here: that of a limit.
			if want(name, r) && last != &r.args[0] {
				fmt.Fprintf(&b, "-A %s%s\n", name, savedWords(r.args))
			}
			last = &r.args[0]
		}
	}
	b.WriteString("COMMIT\n")
	return b.String()
}

// savedWords writes words as iptables-restore reads them.
func savedWords(words []string) string {
	var b strings.Builder
	for _, w := range words {
		b.WriteByte(' ')
		if w == "" || strings.ContainsAny(w, " \t\"'\\") {
			w = `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(w) + `"`
		}
		b.WriteString(w)
	}
	return b.String()
}
