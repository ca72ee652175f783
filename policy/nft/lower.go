// SPDX-License-Identifier: Apache-2.0

package nft

import (
	"fmt"
	"slices"
	"strings"

	"github.com/portcullis-firewall/portcullis/policy/iptables"
)

// lowering says a ruleset in chains of iptables.
type lowering struct {
	rules     *ruleset
	out       *iptables.Rules
	keep      bool            // what only netfilter can drop is left to it
	done      map[string]bool // chains, by family and name
	untracked []untracked
	made      int // chains that were made for what a rule is not
}

// hooks are those of packets to this host and through it, and what iptables
// calls them.
var hooks = []struct{ hook, chain string }{{"input", "INPUT"}, {"forward", "FORWARD"}}

// lower says all tables.
func (l *lowering) lower() error {
	var tables, others []*table
	for _, t := range l.rules.tables {
		switch owner := ownerOf(t); {
		case t.dormant:
			l.out.Note(t.at, "the table is dormant: it does nothing")
		case len(t.chains) == 0:
		case owner != "" && l.keep:
			l.out.Note(t.at, "table %s is %s's, and stays with netfilter: what it drops, it goes on dropping behind Portcullis", t.name, owner)
		case t.family == "arp" || t.family == "bridge" || t.family == "netdev":
			l.out.Note(t.at, "a table of family %s stays with netfilter: keep what loads it", t.family)
			others = append(others, t)
		default:
			tables = append(tables, t)
		}
	}
	for _, t := range tables {
		t.findChanges()
	}
	l.findUntracked(tables)
	filters := false
	for _, f := range iptables.Families {
		told := false
		for _, h := range hooks {
			told = l.hook(f, h.hook, h.chain, tables) || told
		}
		if told {
			filters = true
			l.output(f, tables)
		}
	}
	if !filters {
		return ErrNoRules
	}
	for _, t := range tables {
		l.elsewhere(t)
	}
	for _, t := range others {
		for _, c := range t.chains {
			if c.isBase && t.family != "arp" && !slices.Contains([]string{"output", "postrouting", "egress"}, c.hook) {
				l.drops(t, c, t.reachable(c))
			}
		}
	}
	return nil
}

// findChanges finds the sets that rules put something into. What nft prints does
// not always say that they change.
func (t *table) findChanges() {
	for _, c := range t.chains {
		for _, r := range c.rules {
			for _, s := range r.statements {
				if known := t.sets[s.set]; s.kind == isUpdate && known != nil {
					known.changes = true
				}
			}
		}
	}
}

// isOf reports whether a table is about packets of a family.
func (t *table) isOf(f iptables.Family) bool {
	return t.family == "inet" || t.family == [...]string{"ip", "ip6"}[f]
}

// base is a base chain in its table.
type base struct {
	*chain
	table *table
}

func basesAt(f iptables.Family, hook string, tables []*table) (list []base) {
	for _, t := range tables {
		for _, c := range t.chains {
			if t.isOf(f) && c.isBase && c.hook == hook && c.kind != "nat" {
				list = append(list, base{c, t})
			}
		}
	}
	return list
}

// hook says the chains of one hook, and reports whether there are any. A packet
// has to pass all of them, in whatever order: that with the most to accept comes
// last, as what it says is what the policy will.
func (l *lowering) hook(f iptables.Family, hook, into string, tables []*table) bool {
	bases := slices.DeleteFunc(basesAt(f, hook, tables), func(b base) bool { return b.passes() })
	if len(bases) == 0 {
		if all := basesAt(f, hook, tables); len(all) > 0 {
			l.out.SetPolicy(f, into, "ACCEPT", all[0].at)
			return true
		}
		// No chain means that everything passes.
		if other := basesAt(f, hooks[0].hook, tables); hook == "forward" && len(other) > 0 {
			l.out.SetPolicy(f, into, "ACCEPT", iptables.Position{})
			return true
		}
		if other := basesAt(f, "forward", tables); hook == "input" && len(other) > 0 {
			l.out.SetPolicy(f, into, "ACCEPT", iptables.Position{})
			return true
		}
		return false
	}
	slices.SortStableFunc(bases, func(a, b base) int { return a.accepts() - b.accepts() })
	for i, b := range bases {
		c := &copied{lowering: l, family: f, table: b.table, accept: []string{"-j", "ACCEPT"}, policy: "ACCEPT"}
		name := into
		if i > 0 {
			name = nameOf(b.table, b.chain, into, i)
		}
		if i+1 < len(bases) {
			next := bases[i+1]
			c.suffix = fmt.Sprintf(", passed on by %s %d", into, i+1)
			c.accept = []string{"-g", nameOf(next.table, next.chain, into, i+1)}
		}
		verdict := "ACCEPT"
		if b.policy == "drop" {
			verdict = "DROP"
		}
		if len(bases) == 1 {
			l.out.SetPolicy(f, into, verdict, b.at)
			c.rulesOf(b.chain, name)
			continue
		}
		// What comes to the end of its rules, or returns, meets the policy.
		inner := nameOf(b.table, b.chain, into+" rules", i)
		l.out.SetPolicy(f, into, "DROP", iptables.Position{})
		l.out.Append(f, name, b.at, []string{"-j", inner})
		end := c.accept
		if verdict == "DROP" {
			end = []string{"-j", "DROP"}
		}
		l.out.Append(f, name, b.at, end)
		l.out.AddChain(f, inner)
		c.rulesOf(b.chain, inner)
	}
	return true
}

// nameOf is a name that no chain of a table has.
func nameOf(t *table, c *chain, what string, i int) string {
	return fmt.Sprintf("%s in %s %s, %s %d", c.name, t.family, t.name, what, i)
}

// passes reports whether a base chain lets everything pass, without a look at
// other chains.
func (c *chain) passes() bool {
	if c.policy == "drop" {
		return false
	}
	for _, r := range c.rules {
		for _, s := range r.statements {
			if s.kind == isVerdict && s.verdict.name != "accept" && s.verdict.name != "continue" && s.verdict.name != "return" || s.kind == isVerdictMap {
				return false
			}
		}
	}
	return true
}

// accepts is how many verdicts of the table of a base chain accept.
func (b base) accepts() (n int) {
	for _, c := range b.table.chains {
		for _, r := range c.rules {
			for _, s := range r.statements {
				if s.verdict.name == "accept" {
					n++
				}
			}
		}
	}
	return n
}

// output says what is dropped of what this host sends.
func (l *lowering) output(f iptables.Family, tables []*table) {
	for _, b := range basesAt(f, "output", tables) {
		if b.policy == "drop" {
			l.out.SetPolicy(f, "OUTPUT", "DROP", b.at)
		}
		c := &copied{lowering: l, family: f, table: b.table, accept: []string{"-j", "ACCEPT"}}
		c.rulesOf(b.chain, "OUTPUT")
	}
}

// elsewhere is about chains of other hooks, which stay, and ones to which
// nothing leads.
func (l *lowering) elsewhere(t *table) {
	reached := make(map[*chain]bool)
	var nat []*chain
	for _, c := range t.chains {
		if !c.isBase {
			continue
		}
		found := t.reachable(c)
		for _, other := range found {
			reached[other] = true
		}
		switch {
		case c.hook == "prerouting" && c.kind == "nat":
			nat = append(nat, found...)
		case slices.Contains([]string{"input", "forward", "output"}, c.hook) && c.kind != "nat":
			continue
		}
		if some := slices.ContainsFunc(found, func(c *chain) bool { return len(c.rules) > 0 }); some || c.policy == "drop" {
			l.out.Note(c.at, "chain %s, of hook %s, stays with netfilter: keep what loads it", c.name, c.hook)
		}
		if slices.Contains([]string{"prerouting", "ingress", "input"}, c.hook) {
			l.drops(t, c, found)
		}
	}
	for _, c := range t.chains {
		for _, r := range c.rules {
			if slices.ContainsFunc(r.statements, func(s statement) bool { return s.text == "notrack" }) {
				l.out.Lost(r.at, "a policy does not tell packets that are not tracked from new ones, as rules that ask for ct state do")
			}
		}
	}
	for _, c := range nat {
		for _, r := range c.rules {
			if slices.ContainsFunc(r.statements, func(s statement) bool { return s.kind == isNAT }) {
				l.redirected(t, r)
			}
		}
	}
	for _, c := range t.chains {
		if !c.isBase && !reached[c] && len(c.rules) > 0 {
			l.out.Note(c.at, "no chain leads to %s", c.name)
		}
	}
}

// drops lists what a base chain, with those that it leads to, drops of what comes
// in at a hook of which nothing is translated.
func (l *lowering) drops(t *table, base *chain, of []*chain) {
	why := fmt.Sprintf("of what comes in, table %s %s at hook %s drops this in netfilter alone: keep what loads it, as a policy lets it in", t.family, t.name, base.hook)
	for _, c := range of {
		for _, r := range c.rules {
			if t.mayDrop(r) && l.meets(t, r) {
				l.out.Lost(r.at, "%s", why)
			}
		}
	}
	if base.policy == "drop" {
		l.out.Lost(base.at, "%s", strings.Replace(why, "drops this", "drops what no rule accepts", 1))
	}
}

// mayDrop reports whether a verdict of a rule may be one that drops.
func (t *table) mayDrop(r *rule) bool {
	for _, s := range r.statements {
		if s.kind == isVerdict && s.verdict.mayDrop() {
			return true
		}
		if s.kind != isVerdictMap {
			continue
		}
		list, changing, ok := t.members(s.right)
		if !ok || changing != "" || slices.ContainsFunc(list, func(el element) bool { return el.value == nil || el.value.mayDrop() }) {
			return true
		}
	}
	return false
}

func (v verdict) mayDrop() bool {
	return slices.Contains([]string{"drop", "reject", "queue", whoKnows}, v.name)
}

// meets reports whether packets that come from elsewhere may be those of a rule.
func (l *lowering) meets(t *table, r *rule) bool {
	if t.family == "bridge" || t.family == "netdev" {
		return true
	}
	for _, f := range iptables.Families {
		if !t.isOf(f) {
			continue
		}
		c := &copied{lowering: l, family: f, table: t}
		for _, p := range c.packetsOf(r) {
			onlyLoopback := len(p.terms.in.among) == 1 && p.terms.in.among[0] == "lo"
			if !p.terms.never && p.terms.families[f] && !onlyLoopback {
				return true
			}
		}
	}
	return false
}

// redirected is about a rule that leads what comes to this host elsewhere.
func (l *lowering) redirected(t *table, r *rule) {
	for _, f := range iptables.Families {
		if !t.isOf(f) {
			continue
		}
		c := &copied{lowering: l, family: f, table: t}
		for _, p := range c.packetsOf(r) {
			for _, s := range p.terms.spell(f) {
				l.out.Elsewhere(f, "nat", r.at, append(s.options, "-j", "DNAT"))
			}
		}
	}
}

// reachable are the chains that packets of one may get to, itself among them.
func (t *table) reachable(from *chain) (list []*chain) {
	list = []*chain{from}
	for i := 0; i < len(list); i++ {
		for _, name := range t.targets(list[i]) {
			if c := t.chain(name); c != nil && !slices.Contains(list, c) {
				list = append(list, c)
			}
		}
	}
	return list
}

// targets are the names of the chains that the rules of one lead to.
func (t *table) targets(c *chain) (names []string) {
	for _, r := range c.rules {
		for _, s := range r.statements {
			if s.verdict.name != whoKnows {
				names = append(names, s.verdict.chain)
			}
			if s.kind != isVerdictMap {
				continue
			}
			list, _, _ := t.members(s.right)
			for _, el := range list {
				if el.value != nil {
					names = append(names, el.value.chain)
				}
			}
		}
	}
	return slices.DeleteFunc(names, func(name string) bool { return name == "" })
}

// owners are the tables that other programs keep, and what to call these.
var owners = map[string]string{"f2b-table": "fail2ban", "crowdsec": "CrowdSec", "crowdsec6": "CrowdSec", "libvirt_network": "libvirt",
	"docker-bridges": "Docker", "netavark": "Podman", "kube-proxy": "kube-proxy", "incus": "Incus", "lxd": "LXD", "sshguard": "sshguard",
	"podman": "Podman"}

// ownerOf is the program whose table it is, or "".
func ownerOf(t *table) string {
	name := strings.ToLower(t.name)
	if strings.HasPrefix(name, "f2b-") {
		return owners["f2b-table"]
	}
	if strings.HasPrefix(name, "crowdsec") {
		return owners["crowdsec"]
	}
	return owners[name]
}

// untracked are matches of a rule that keeps packets from connection tracking.
type untracked struct {
	table   *table
	matches []statement
}

// findUntracked finds the rules with notrack that what comes in gets to. What
// leads there may be for fewer packets.
func (l *lowering) findUntracked(tables []*table) {
	for _, t := range tables {
		for _, c := range t.chains {
			if !c.isBase || c.hook != "prerouting" {
				continue
			}
			for _, of := range t.reachable(c) {
				for _, r := range of.rules {
					if i := slices.IndexFunc(r.statements, func(s statement) bool { return s.text == "notrack" }); i >= 0 {
						l.untracked = append(l.untracked, untracked{t, t.matches(r.statements[:i])})
					}
				}
			}
		}
	}
}

// matches are those among statements, with named sets as they are.
func (t *table) matches(of []statement) (out []statement) {
	for _, s := range of {
		switch s.kind {
		case isMatch:
			if list, changing, ok := t.members(s.right); s.right.kind == isSetName && ok && changing == "" {
				s.right = expr{kind: isSet, elements: list}
			} else if s.right.kind == isSetName {
				s = statement{kind: isUnknown, text: s.String()}
			}
			out = append(out, s)
		case isUnknown, isLimit, isCount:
			out = append(out, s)
		}
	}
	return out
}

// dropUntracked appends what a rule that asks for their state drops of packets
// that are not tracked. To the rules of iptables these are new.
func (c *copied) dropUntracked(r *rule, into string) {
	for i, s := range r.statements {
		if len(c.untracked) == 0 || into == "OUTPUT" || s.left.kind != isField || s.left.text != "ct state" || !c.table.takesUntracked(s, r.statements[i+1:]) {
			continue
		}
		for _, u := range c.untracked {
			if !u.table.isOf(c.family) {
				continue
			}
			one := &rule{at: r.at, statements: slices.Concat(u.matches, r.statements[:i], c.table.matches(r.statements[i+1:]))}
			one.statements = append(one.statements, statement{kind: isVerdict, verdict: verdict{name: "drop"}})
			c.ruleOf(one, into)
		}
	}
}

// takesUntracked reports whether a statement about the state matches what is not
// tracked, and what comes of it may drop.
func (t *table) takesUntracked(s statement, behind []statement) bool {
	isIt := func(e expr) bool { return e.text == "untracked" }
	switch s.kind {
	case isMatch:
		values := flat(s.right)
		if list, _, ok := t.members(s.right); ok {
			values = mapped(list, func(el element) expr { return el.key })
		}
		not := s.op == "!=" || s.op == "!"
		return slices.ContainsFunc(values, isIt) != not && t.leadsToDrop(behind)
	case isVerdictMap:
		list, _, _ := t.members(s.right)
		i := slices.IndexFunc(list, func(el element) bool { return isIt(el.key) || el.key.kind == isAny })
		return i >= 0 && list[i].value != nil && t.leadsToDrop([]statement{{kind: isVerdict, verdict: *list[i].value}})
	}
	return false
}

// leadsToDrop reports whether statements have a verdict that may drop, or lead to
// a chain with one.
func (t *table) leadsToDrop(of []statement) bool {
	r := &rule{statements: of}
	if t.mayDrop(r) {
		return true
	}
	for _, name := range t.targets(&chain{rules: []*rule{r}}) {
		c := t.chain(name)
		if c == nil || slices.ContainsFunc(t.reachable(c), func(c *chain) bool { return slices.ContainsFunc(c.rules, t.mayDrop) }) {
			return true
		}
	}
	return false
}
