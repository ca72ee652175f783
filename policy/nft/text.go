// SPDX-License-Identifier: Apache-2.0

package nft

import (
	"cmp"
	"slices"
	"strconv"
	"strings"

	"github.com/portcullis-firewall/portcullis/policy/iptables"
)

// String is the expression as nft writes it.
func (e expr) String() string {
	switch e.kind {
	case isPrefix:
		return e.of[0].String() + "/" + strconv.Itoa(e.bits)
	case isRange:
		return e.of[0].String() + "-" + e.of[1].String()
	case isList:
		return joined(e.of, ",")
	case isConcat:
		return joined(e.of, " . ")
	case isMasked:
		return e.of[0].String() + " & " + e.of[1].String()
	case isSetName:
		return "@" + e.text
	case isAny:
		return "*"
	case isSet:
		texts := make([]string, len(e.elements))
		for i, el := range e.elements {
			texts[i] = el.String()
		}
		const most = 8
		if len(texts) > most {
			texts = append(texts[:most:most], "…")
		}
		return "{ " + strings.Join(texts, ", ") + " }"
	}
	return e.text
}

func (e element) String() string {
	if e.value == nil {
		return e.key.String()
	}
	return e.key.String() + " : " + e.value.String()
}

func joined(of []expr, by string) string {
	texts := make([]string, len(of))
	for i, e := range of {
		texts[i] = e.String()
	}
	return strings.Join(texts, by)
}

func (v verdict) String() string {
	if v.name == whoKnows {
		return v.chain
	}
	return strings.TrimSpace(v.name + " " + v.chain)
}

func (l limit) String() string {
	text := "limit rate "
	if l.over {
		text += "over "
	}
	text += l.rate + "/" + l.unit
	if l.burst != "" {
		text += " burst " + l.burst
		if l.bytes {
			return text + " bytes"
		}
		text += " packets"
	}
	return text
}

// String is the statement as nft writes it.
func (s statement) String() string {
	switch s.kind {
	case isMatch:
		op := ""
		if s.op != "" && s.op != "==" && s.op != "in" || s.left.kind == isMasked {
			op = cmp.Or(s.op, "==") + " "
		}
		return strings.TrimPrefix(s.left.String(), "meta ") + " " + op + s.right.String()
	case isVerdict:
		return s.verdict.String()
	case isVerdictMap:
		return s.left.String() + " vmap " + s.right.String()
	case isLimit:
		return s.limit.String()
	case isUpdate:
		return s.text + " { " + strings.TrimSpace(s.left.String()+" "+statementsText(s.inner)) + " }"
	}
	return s.text
}

func statementsText(list []statement) string {
	var texts []string
	for _, s := range list {
		if text := s.String(); text != "" {
			texts = append(texts, text)
		}
	}
	return strings.Join(texts, " ")
}

// quoted is a name as nft takes it.
func quoted(name string) string { return `"` + name + `"` }

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
