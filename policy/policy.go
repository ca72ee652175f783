// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"fmt"
	"maps"
	"slices"
	"time"
)

// The bounds of [Policy.MaxFlows]. The default is what netfilter's conntrack
// uses on a host of the same size.
const (
	DefaultMaxFlows = 262144
	MinMaxFlows     = 1024
	MaxMaxFlows     = 16777216
)

// Policy is everything a policy file says. Treat it as immutable: take a copy
// from [Policy.WithRule] or [Policy.WithoutRule] instead of changing one that
// somebody else may hold.
//
// What is said for single interfaces, by names or patterns of them, counts
// there instead: see [Policy.For].
type Policy struct {
	Interfaces []string // names, or patterns of them
	Input      Verdict
	InputOn    map[string]Verdict
	Forward    ForwardPolicy
	ICMP       ICMP
	ICMPOn     map[string]ICMP
	Lists      []List   // what the rules may name; they hold the networks themselves
	Block      []Source // from whom nothing comes in, before all rules
	Trust      []Source // who is never blocked
	Open       []Rule   // about what is for this host, and about what is routed
	Invalid    InvalidPolicy
	InvalidOn  map[string]InvalidPolicy
	Log        Log                      // what the agent writes to the journal
	WatchOnly  bool                     // nothing is dropped: what would be, is counted and passes
	MaxFlows   int                      // 0 means DefaultMaxFlows
	Timeouts   map[string]time.Duration // those that a file sets; read with Timeout
}

// Default returns the policy of a file that leaves every key out: nothing is
// open, and replies and ICMP are accepted.
func Default() *Policy { return &Policy{MaxFlows: DefaultMaxFlows} }

// Timeout returns the timeout of that name, as set or by default. It is 0 for
// a name that is not in [Timeouts].
func (p *Policy) Timeout(name string) time.Duration {
	if d, ok := p.Timeouts[name]; ok {
		return d
	}
	d, _ := defaultTimeout(name)
	return d
}

// FlowLimit returns the most flows that the table keeps: MaxFlows, or its
// default.
func (p *Policy) FlowLimit() int {
	if p.MaxFlows == 0 {
		return DefaultMaxFlows
	}
	return p.MaxFlows
}

// Clone returns a copy that shares nothing with p but the immutable rules and
// lists.
func (p *Policy) Clone() *Policy {
	c := *p
	c.Interfaces = slices.Clone(p.Interfaces)
	c.InputOn = maps.Clone(p.InputOn)
	c.ICMP = p.ICMP.clone()
	c.ICMPOn = maps.Clone(p.ICMPOn)
	for pattern, icmp := range c.ICMPOn {
		c.ICMPOn[pattern] = icmp.clone()
	}
	c.Lists = slices.Clone(p.Lists)
	c.Block, c.Trust = slices.Clone(p.Block), slices.Clone(p.Trust)
	c.InvalidOn = maps.Clone(p.InvalidOn)
	c.Open = slices.Clone(p.Open)
	c.Timeouts = maps.Clone(p.Timeouts)
	return &c
}

// InputRules returns the rules about what is for this host.
func (p *Policy) InputRules() []Rule { return rulesOfKind(p.Open, false) }

// ForwardRules returns the rules about what is routed.
func (p *Policy) ForwardRules() []Rule { return rulesOfKind(p.Open, true) }

// NamesForward reports whether a forward rule names an interface, so that these rules alone count for guests behind it.
func (p *Policy) NamesForward(iface string) bool {
	return slices.ContainsFunc(p.Open, func(r Rule) bool { return r.Forward && MatchAnyInterface(r.On, iface) })
}

func rulesOfKind(rules []Rule, forward bool) []Rule {
	other := func(r Rule) bool { return r.Forward != forward }
	if !slices.ContainsFunc(rules, other) {
		return slices.Clip(rules)
	}
	return slices.DeleteFunc(slices.Clone(rules), other)
}

// Equal reports whether both policies decide the same on every packet. The
// order of rules and interfaces does not count, nor how they are written.
func (p *Policy) Equal(o *Policy) bool { return len(Diff(p, o)) == 0 }

// Find returns the rule that equals r, as it is written in the policy.
func (p *Policy) Find(r Rule) (Rule, bool) {
	for _, have := range p.Open {
		if have.Equal(r) {
			return have, true
		}
	}
	return Rule{}, false
}

// Overlapping returns the rules that open some of what r opens, r's equal
// among them.
func (p *Policy) Overlapping(r Rule) []Rule {
	var out []Rule
	for _, have := range p.Open {
		if have.Overlaps(r) {
			out = append(out, have)
		}
	}
	return out
}

// WithRule returns a copy with r added at the end. If an equal rule is there
// already, it returns p itself and false.
func (p *Policy) WithRule(r Rule) (with *Policy, added bool) {
	if _, ok := p.Find(r); ok {
		return p, false
	}
	c := p.Clone()
	c.Open = append(c.Open, r)
	return c, true
}

// WithoutRule returns a copy without the rule that equals r, and that rule as
// it was written. Other rules may keep some of its ports open: ask Overlapping
// of the copy. If no rule equals r, the error is [ErrNotOpen], or a
// [*CoveredError] if other rules open some of what r would.
func (p *Policy) WithoutRule(r Rule) (without *Policy, removed Rule, err error) {
	without, gone, _, err := p.WithoutRules([]Rule{r})
	if err != nil {
		return nil, Rule{}, err
	}
	if len(gone) == 0 {
		return nil, Rule{}, fmt.Errorf("close %s: %w", quote(r.String()), ErrNotOpen)
	}
	return without, gone[0], nil
}
