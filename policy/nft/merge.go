// SPDX-License-Identifier: Apache-2.0

package nft

import (
	"slices"
	"strings"

	"github.com/portcullis-firewall/portcullis/policy/iptables"
)

// hintOf stands before what would be opened.
const hintOf = "; without it, it would be "

// mergeFamilies makes one finding of two that differ only in the family of the
// packets that would be let in.
func mergeFamilies(list []iptables.Finding) (out []iptables.Finding) {
	for _, f := range list {
		why, rules, hinted := strings.Cut(f.Why, hintOf)
		i := slices.IndexFunc(out, func(other iptables.Finding) bool {
			otherWhy, _, otherHinted := strings.Cut(other.Why, hintOf)
			return hinted && otherHinted && f.Line > 0 && other.File == f.File && other.Line == f.Line && other.Text == f.Text && otherWhy == why
		})
		if i < 0 {
			out = append(out, f)
			continue
		}
		_, before, _ := strings.Cut(out[i].Why, hintOf)
		out[i].Why = why + hintOf + bothFamilies(before, rules)
	}
	return out
}

// bothFamilies are the rules of two lists, of which those for all of IPv4 and all
// of IPv6 are one.
func bothFamilies(a, b string) string {
	list := strings.Split(a, ", ")
	for _, rule := range strings.Split(b, ", ") {
		everybody := strings.Replace(strings.Replace(rule, " from ::/0", "", 1), " from 0.0.0.0/0", "", 1)
		of4, of6 := strings.TrimSuffix(everybody, `"`)+` from 0.0.0.0/0"`, strings.TrimSuffix(everybody, `"`)+` from ::/0"`
		i := slices.IndexFunc(list, func(other string) bool {
			return other != rule && (other == of4 && rule == of6 || other == of6 && rule == of4)
		})
		if i >= 0 {
			list[i] = everybody
		} else if !slices.Contains(list, rule) {
			list = append(list, rule)
		}
	}
	return strings.Join(list, ", ")
}
