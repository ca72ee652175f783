// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"slices"
	"strings"
	"time"
)

// Limit bounds how often one source may begin something. The zero Limit bounds
// nothing.
type Limit struct {
	Count uint32        // how many in Per; 0 stands for no limit
	Per   time.Duration // a second, a minute, an hour or a day
	Burst uint32        // how many at once after a pause; never 0 in a limit
}

// DefaultBurst is the burst of a limit that names none, as that of iptables'
// hashlimit.
const DefaultBurst = 5

// MatchInterface reports whether an interface has a name that a pattern
// stands for. In a pattern, * stands for any characters, or none; all else
// stands for itself.
func MatchInterface(pattern, name string) bool {
	first, rest, star := strings.Cut(pattern, "*")
	if !star {
		return pattern == name
	}
	if !strings.HasPrefix(name, first) {
		return false
	}
	name = name[len(first):]
	for {
		part, more, star := strings.Cut(rest, "*")
		if !star {
			return strings.HasSuffix(name, part)
		}
		i := strings.Index(name, part)
		if i < 0 {
			return false
		}
		name, rest = name[i+len(part):], more
	}
}

// IsPattern reports whether the name of an interface stands for any number of
// them.
func IsPattern(name string) bool { return strings.Contains(name, "*") }

// MatchAnyInterface reports whether one of some names and patterns stands for
// an interface.
func MatchAnyInterface(patterns []string, name string) bool {
	return slices.ContainsFunc(patterns, func(pattern string) bool { return MatchInterface(pattern, name) })
}

// AppliesOn reports whether the rule counts for packets that come in on an
// interface.
func (r Rule) AppliesOn(iface string) bool {
	return len(r.On) == 0 || MatchAnyInterface(r.On, iface)
}

// Unconditional reports whether the rule lets everybody in to every address of
// the host, as often as he likes. It may be on some interfaces only.
func (r Rule) Unconditional() bool {
	return r.Anyone() && len(r.Except) == 0 && len(r.To) == 0 && r.Limit.Count == 0
}

// Group stands for the interfaces for which the same rules count. It names the
// "on" clauses that they match; the empty group is that of interfaces that
// match none.
type Group string

const groupSeparator = "\n" // no pattern has it

// onKey is the same for two rules that name the same interfaces.
func (r Rule) onKey() string {
	names := slices.Clone(r.On)
	slices.Sort(names)
	return strings.Join(slices.Compact(names), ",")
}

// GroupOf returns the group of an interface among rules about what is for this
// host.
func GroupOf(rules []Rule, iface string) Group { return groupOf(rules, iface, false) }

// ForwardGroupOf returns the group of an interface among rules about what
// comes in by it and is routed.
func ForwardGroupOf(rules []Rule, iface string) Group { return groupOf(rules, iface, true) }

func groupOf(rules []Rule, iface string, forward bool) Group {
	var clauses []string
	for _, r := range rules {
		if r.Forward == forward && len(r.On) > 0 && r.AppliesOn(iface) {
			clauses = append(clauses, r.onKey())
		}
	}
	slices.Sort(clauses)
	return Group(strings.Join(slices.Compact(clauses), groupSeparator))
}

// In reports whether the rule counts for the interfaces of a group.
func (r Rule) In(g Group) bool {
	return len(r.On) == 0 || g.clauses()[r.onKey()]
}

func (g Group) clauses() map[string]bool {
	clauses := make(map[string]bool)
	for clause := range strings.SplitSeq(string(g), groupSeparator) {
		clauses[clause] = true
	}
	return clauses
}

// GroupsOf returns the groups of interfaces among rules, each once, in order.
// The empty group is always one of them: interfaces that come later may be in
// it.
func GroupsOf(rules []Rule, ifaces []string) []Group {
	groups := []Group{""}
	conditional := slices.DeleteFunc(slices.Clone(rules), func(r Rule) bool { return len(r.On) == 0 })
	if len(conditional) == 0 {
		return groups
	}
	for _, iface := range ifaces {
		groups = append(groups, GroupOf(conditional, iface))
	}
	slices.Sort(groups)
	return slices.Compact(groups)
}

// For returns the policy as it counts for packets that come in on an
// interface: without the rules of other interfaces, and with what is said of
// input, icmp and invalid there. Of several patterns that stand for the
// interface its name itself counts, or else the longest one.
func (p *Policy) For(iface string) *Policy {
	c := p.Clone()
	c.Open = slices.DeleteFunc(c.Open, func(r Rule) bool { return r.Forward || !r.AppliesOn(iface) })
	c.Input = p.InputOf(iface)
	if v, ok := pickPattern(p.ICMPOn, iface); ok {
		c.ICMP = v.clone()
	}
	if v, ok := pickPattern(p.InvalidOn, iface); ok {
		c.Invalid = v
	}
	c.InputOn, c.ICMPOn, c.InvalidOn = nil, nil, nil
	return c
}

// InputOf returns what happens to new packets that come in on an interface and
// that no rule opens.
func (p *Policy) InputOf(iface string) Verdict {
	if v, ok := pickPattern(p.InputOn, iface); ok {
		return v
	}
	return p.Input
}
