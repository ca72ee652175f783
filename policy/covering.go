// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"fmt"
	"slices"

	"github.com/portcullis-firewall/portcullis/policy/addrset"
)

// Covering returns the rules, others than r itself, that already let in all
// that r does, so that r opens nothing and restricts nothing. It is one rule
// where one does so alone, or else several that do so together. None is the
// usual case.
func (p *Policy) Covering(r Rule) []Rule {
	var several []Rule
	for _, have := range p.Open {
		if !have.Limit.allowsAll(r.Limit) || !have.Overlaps(r) || have.Equal(r) {
			continue
		}
		if coversAll([]Rule{have}, r) {
			return []Rule{have}
		}
		several = append(several, have)
	}
	if len(several) < 2 || !coversAll(several, r) {
		return nil
	}
	return several
}

// coversAll reports whether rules let in all that r does. Their limits do not
// count.
func coversAll(rules []Rule, r Rule) bool {
	for _, pattern := range r.patterns() {
		var there []Rule
		for _, have := range rules {
			if have.countsOn(pattern) {
				there = append(there, have)
			}
		}
		if len(there) == 0 || !coversPorts(there, r) {
			return false
		}
	}
	return true
}

func coversPorts(rules []Rule, r Rule) bool {
	reaches := newReaches(rules)
	for _, want := range r.Ports {
		// Between two of these ports, the same rules apply to all.
		starts := []int{int(want.First)}
		for _, have := range rules {
			for _, p := range have.Ports {
				if p.overlaps(want) {
					starts = append(starts, max(int(p.First), int(want.First)), int(p.Last)+1)
				}
			}
		}
		slices.Sort(starts)
		for _, port := range slices.Compact(starts) {
			if port <= int(want.Last) && !coversPort(reaches, want.Protocol, uint16(port), r) {
				return false
			}
		}
	}
	return true
}

// ruleReach is a rule with its sources and destinations, which take time to find.
type ruleReach struct {
	Rule
	src, dst []addrset.Range
}

func newReaches(rules []Rule) []ruleReach {
	out := make([]ruleReach, len(rules))
	for i, r := range rules {
		out[i] = ruleReach{Rule: r, src: addrset.Everything, dst: addrset.Everything}
		if !r.everywhere() {
			out[i].src, out[i].dst = r.reach()
		}
	}
	return out
}

func coversPort(rules []ruleReach, proto Protocol, port uint16, r Rule) bool {
	var there []ruleReach
	for _, have := range rules {
		if have.Covers(proto, port) {
			if have.everywhere() {
				return true
			}
			there = append(there, have)
		}
	}
	return len(there) > 0 && !coversLess(there, r)
}

// coversLess reports whether there is a source that r lets in to an address and
// none of the rules does.
func coversLess(rules []ruleReach, r Rule) bool {
	wantSrc, wantDst := r.reach()
	for _, v4 := range []bool{true, false} {
		src := addrset.OfFamily(wantSrc, v4)
		if len(src) == 0 {
			continue
		}
		// Of the destinations, each piece in which the same rules apply is asked for.
		pieces := addrset.OfFamily(wantDst, v4)
		for _, have := range rules {
			dst := addrset.OfFamily(have.dst, v4)
			pieces = append(addrset.Intersect(pieces, dst), addrset.Subtract(pieces, dst)...)
			slices.SortFunc(pieces, func(a, b addrset.Range) int { return a.First.Compare(b.First) })
		}
		for _, piece := range pieces {
			left := src
			for _, have := range rules {
				if len(left) > 0 && addrset.Within([]addrset.Range{piece}, addrset.OfFamily(have.dst, v4)) {
					left = addrset.Subtract(left, addrset.OfFamily(have.src, v4))
				}
			}
			if len(left) > 0 {
				return true
			}
		}
	}
	return false
}

// CoveringText returns a sentence about a rule that changes nothing, as
// [Policy.Covering] finds, and "" for one that does.
func (p *Policy) CoveringText(r Rule) string {
	by := p.Covering(r)
	if len(by) == 0 {
		return ""
	}
	what, verb := "opens", "lets"
	if !r.Unconditional() {
		what = "restricts"
	}
	if len(by) > 1 {
		verb = "let"
	}
	name, way := quote(r.String()), "in"
	if r.Forward {
		name, way = r.noun()+" "+name, "through"
	}
	return fmt.Sprintf("%s %s nothing: %s %s all of it %s already, until closed", name, what, quoteRules(by), verb, way)
}

// portCount is how many ports there are to a protocol.
const portCount = 1 << 16

// RestrictingNothing returns the rules that name sources although others let
// anybody use all of their ports. Its work grows with the number of rules.
func (p *Policy) RestrictingNothing() (out []Rule) {
	if p.Input != Accept {
		out = restrictingNothing(p.InputRules())
	}
	if p.Forward != ForwardAccept {
		out = append(out, restrictingNothing(p.ForwardRules())...)
	}
	return out
}

func restrictingNothing(rules []Rule) []Rule {
	if !slices.ContainsFunc(rules, Rule.IsOpenToAll) {
		return nil
	}
	restricted := slices.DeleteFunc(slices.Clone(rules), Rule.IsOpenToAll)
	if len(restricted) == 0 {
		return nil
	}
	// By protocol: where ranges begin and end, and then how many ports below
	// one are open to anybody.
	open := make(map[Protocol]*[portCount + 1]int)
	for _, r := range rules {
		if !r.IsOpenToAll() {
			continue
		}
		for _, ports := range r.Ports {
			if open[ports.Protocol] == nil {
				open[ports.Protocol] = new([portCount + 1]int)
			}
			open[ports.Protocol][ports.First]++
			open[ports.Protocol][int(ports.Last)+1]--
		}
	}
	for _, counts := range open {
		rules, below := 0, 0
		for port, change := range counts {
			counts[port] = below
			if rules += change; rules > 0 {
				below++
			}
		}
	}
	isOpen := func(ports PortRange) bool {
		counts := open[ports.Protocol]
		return counts != nil && counts[int(ports.Last)+1]-counts[ports.First] == int(ports.Last)-int(ports.First)+1
	}
	return slices.DeleteFunc(restricted, func(r Rule) bool {
		return slices.ContainsFunc(r.Ports, func(ports PortRange) bool { return !isOpen(ports) })
	})
}

// IsOpenToAll reports whether the rule has no condition, be it the interface.
func (r Rule) IsOpenToAll() bool { return r.Unconditional() && len(r.On) == 0 }

// UselessTexts returns sentences about rules that make no difference, as
// what they let in or through comes anyway.
func (p *Policy) UselessTexts() []string {
	out := p.restrictingNothingTexts()
	if rules := p.ForwardRules(); len(rules) > 0 && p.Forward == ForwardAccept {
		out = append(out, fmt.Sprintf("\"forward: accept\" lets everything through, so that its rules (%s) have no effect: write drop or established, or take them out",
			quoteRules(rules)))
	}
	return out
}

// restrictingNothingTexts returns sentences about the rules that
// [Policy.RestrictingNothing] finds, a few of which have one each.
func (p *Policy) restrictingNothingTexts() (sentences []string) {
	const most = 3
	rules := p.RestrictingNothing()
	for _, r := range rules[:min(len(rules), most)] {
		sentences = append(sentences, p.CoveringText(r))
	}
	if more := len(rules) - most; more > 0 {
		what := "rules restrict"
		if more == 1 {
			what = "rule restricts"
		}
		sentences = append(sentences, fmt.Sprintf("%d more %s nothing, as others open their ports to anybody", more, what))
	}
	return sentences
}
