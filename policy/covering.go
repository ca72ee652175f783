// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"fmt"
	"net/netip"
	"slices"
)

// Covering returns the rules, others than r itself, that already let in all
// that r does, so that r opens nothing and restricts nothing. It is one rule
// where one does so alone, or else several that do so together. None is the
// usual case.
func (p *Policy) Covering(r Rule) []Rule {
	var several []Rule
	for _, have := range p.Open {
		if !have.Overlaps(r) || have.Equal(r) {
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

// coversAll reports whether rules let every source of r use every port of r.
func coversAll(rules []Rule, r Rule) bool {
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
		for _, port := range starts {
			if port <= int(want.Last) && !coversPort(rules, want.Protocol, uint16(port), r) {
				return false
			}
		}
	}
	return true
}

func coversPort(rules []Rule, proto Protocol, port uint16, r Rule) bool {
	var from []netip.Prefix
	for _, have := range rules {
		if !have.Covers(proto, port) {
			continue
		}
		if have.Anyone() {
			return true
		}
		from = append(from, have.From...)
	}
	return len(from) > 0 && sourcesWithin(r, Rule{From: slices.Clip(from)})
}

// CoveringText returns a sentence about a rule that changes nothing, as
// [Policy.Covering] finds, and "" for one that does.
func (p *Policy) CoveringText(r Rule) string {
	by := p.Covering(r)
	if len(by) == 0 {
		return ""
	}
	what, verb := "opens", "lets"
	if !r.Anyone() {
		what = "restricts"
	}
	if len(by) > 1 {
		verb = "let"
	}
	return fmt.Sprintf("%s %s nothing: %s %s all of it in already, until closed", quote(r.String()), what, quoteRules(by), verb)
}
