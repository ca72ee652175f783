// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"net/netip"
	"slices"
	"strings"

	"github.com/portcullis-firewall/portcullis/policy/quote"
)

// rules examines whether each rule can let something in here: by an interface that is filtered, and to one of the host's
// own addresses or to a group.
func (e *examination) rules(own []netip.Addr) {
	if e.Policy == nil {
		return
	}
	var nowhere, toNobody, toOurselves []string
	for _, r := range e.Policy.Open {
		if r.Forward { // it may come in by any interface
			if len(r.To) > 0 && len(own) > 0 && !slices.ContainsFunc(r.To, func(to netip.Prefix) bool { return !to.IsSingleIP() || !slices.Contains(own, to.Addr()) }) {
				toOurselves = append(toOurselves, r.String())
			}
			continue
		}
		if len(r.On) > 0 && len(e.Interfaces) > 0 && !slices.ContainsFunc(e.Interfaces, r.AppliesOn) {
			nowhere = append(nowhere, r.String())
		}
		if len(r.To) > 0 && len(own) > 0 && !slices.ContainsFunc(r.To, func(to netip.Prefix) bool { return reaches(to, own) }) {
			toNobody = append(toNobody, r.String())
		}
	}
	if len(nowhere) > 0 {
		e.note("rules", "on no interface that is filtered: %s", few(nowhere))
	}
	if len(toNobody) > 0 {
		e.note("rules", "to no address that this host has: %s", few(toNobody))
	}
	if len(toOurselves) > 0 {
		e.note("rules", "forward rules to addresses of this host, to which nothing is routed: %s; what comes to these is let in by \"portcullis open\" without --forward", few(toOurselves))
	}
}

func reaches(to netip.Prefix, own []netip.Addr) bool {
	return to.Addr().IsMulticast() || to.Addr() == netip.AddrFrom4([4]byte{255, 255, 255, 255}) || slices.ContainsFunc(own, to.Contains)
}

// few returns the first of some rules, quoted.
func few(rules []string) string {
	const most = 3
	texts := make([]string, 0, most)
	for _, text := range rules[:min(most, len(rules))] {
		texts = append(texts, quote.Text(text))
	}
	text := strings.Join(texts, "; ")
	if len(rules) > most {
		text += " and others"
	}
	return text
}
