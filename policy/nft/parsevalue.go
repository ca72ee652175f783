// SPDX-License-Identifier: Apache-2.0

package nft

import (
	"slices"
	"strings"
)

// values reads the words of a rule, or of a set.
type values struct {
	words   []token
	at      int
	depth   int
	expires bool // an element of a set has a time, or counts something
}

// maxNesting bounds sets within sets.
const maxNesting = 20

func (v *values) peek() token {
	if v.at < len(v.words) {
		return v.words[v.at]
	}
	return token{}
}

func (v *values) next() token {
	t := v.peek()
	v.at++
	return t
}

func (v *values) accept(text string) bool {
	if v.at < len(v.words) && v.peek().is(text) {
		v.at++
		return true
	}
	return false
}

// fields are what can be asked of a packet, in two words.
var fields = map[string][]string{
	"ip":      {"version", "hdrlength", "dscp", "ecn", "length", "id", "frag-off", "ttl", "protocol", "checksum", "saddr", "daddr"},
	"ip6":     {"version", "dscp", "ecn", "flowlabel", "length", "nexthdr", "hoplimit", "saddr", "daddr"},
	"tcp":     {"sport", "dport", "sequence", "ackseq", "doff", "reserved", "flags", "window", "checksum", "urgptr"},
	"udp":     {"sport", "dport", "length", "checksum"},
	"udplite": {"sport", "dport", "csumcov", "checksum"},
	"sctp":    {"sport", "dport", "vtag", "checksum"},
	"dccp":    {"sport", "dport", "type"},
	"th":      {"sport", "dport"},
	"icmp":    {"type", "code", "checksum", "id", "sequence", "gateway", "mtu"},
	"icmpv6":  {"type", "code", "checksum", "parameter-problem", "packet-too-big", "id", "sequence", "max-delay"},
	"ah":      {"nexthdr", "hdrlength", "reserved", "spi", "sequence"},
	"esp":     {"spi", "sequence"},
	"comp":    {"nexthdr", "flags", "cpi"},
	"ether":   {"saddr", "daddr", "type"},
	"vlan":    {"id", "cfi", "dei", "pcp", "type"},
	"ct": {"state", "status", "mark", "expiration", "helper", "label", "zone", "direction", "l3proto", "protocol", "bytes", "packets",
		"avgpkt", "id", "secmark"},
	"meta": {"length", "protocol", "nfproto", "l4proto", "iif", "iifname", "iiftype", "iifkind", "iifgroup", "oif", "oifname", "oiftype",
		"oifkind", "oifgroup", "sdif", "sdifname", "skuid", "skgid", "nftrace", "rtclassid", "ibriport", "ibrname", "obriport", "obrname",
		"pkttype", "cpu", "mark", "priority", "random", "secmark", "cgroup", "ipsec", "time", "day", "hour", "secpath"},
}

// short are the fields of meta that are written without it.
var short = []string{"iif", "iifname", "iiftype", "iifgroup", "oif", "oifname", "oiftype", "oifgroup", "mark", "skuid", "skgid", "nftrace",
	"rtclassid", "pkttype", "cpu", "cgroup", "priority", "protocol"}

// fieldOrConcat reads a field, several with dots between, or one with a mask.
func (v *values) fieldOrConcat() (expr, bool) {
	first, ok := v.field()
	if !ok {
		return first, false
	}
	list := []expr{first}
	for v.accept(".") {
		e, ok := v.field()
		if !ok {
			return e, false
		}
		list = append(list, e)
	}
	if len(list) > 1 {
		return expr{kind: isConcat, of: list}, true
	}
	if v.accept("&") || v.accept("and") {
		mask, ok := v.list()
		return expr{kind: isMasked, of: []expr{first, mask}}, ok
	}
	for _, op := range []string{"|", "^", "or", "xor", "<<", ">>", "lshift", "rshift"} {
		if v.peek().is(op) {
			return first, false
		}
	}
	return first, true
}

func (v *values) field() (expr, bool) {
	if v.accept("(") {
		e, ok := v.fieldOrConcat()
		return e, ok && v.accept(")")
	}
	w := v.next()
	if w.quoted {
		return expr{}, false
	}
	switch second := v.peek(); {
	case w.text == "fib":
		return v.fib()
	case strings.HasPrefix(w.text, "@"):
		return v.payload(w.text)
	case !second.quoted && slices.Contains(fields[w.text], second.text):
		v.next()
		return expr{kind: isField, text: w.text + " " + second.text}, true
	case slices.Contains(short, w.text):
		return expr{kind: isField, text: "meta " + w.text}, true
	}
	return expr{}, false
}

// payload reads @th,16,16, which is how some versions write th dport.
func (v *values) payload(base string) (expr, bool) {
	var numbers []string
	for v.accept(",") {
		numbers = append(numbers, v.next().text)
	}
	text := base + "," + strings.Join(numbers, ",")
	switch {
	case len(numbers) != 2:
		return expr{}, false
	case text == "@th,16,16":
		text = "th dport"
	case text == "@th,0,16":
		text = "th sport"
	}
	return expr{kind: isField, text: text}, true
}

// fib reads daddr . iif type.
func (v *values) fib() (expr, bool) {
	flags := []string{v.next().text}
	for v.accept(".") {
		flags = append(flags, v.next().text)
	}
	result := v.next().text
	ok := slices.Contains([]string{"type", "oif", "oifname", "check"}, result)
	return expr{kind: isField, text: "fib " + strings.Join(flags, " . ") + " " + result}, ok
}

// list reads values with commas or bars between, which are bits.
func (v *values) list() (expr, bool) {
	first, ok := v.value()
	if !ok {
		return first, false
	}
	list := []expr{first}
	for v.accept(",") || v.accept("|") || v.accept("or") {
		e, ok := v.value()
		if !ok {
			return e, false
		}
		list = append(list, flat(e)...)
	}
	if len(list) > 1 {
		return expr{kind: isList, of: append(flat(first), list[1:]...)}, true
	}
	return first, true
}

func flat(e expr) []expr {
	if e.kind == isList {
		return e.of
	}
	return []expr{e}
}

// value reads one value, or several with dots between.
func (v *values) value() (expr, bool) {
	first, ok := v.primary()
	if !ok || !v.peek().is(".") {
		return first, ok
	}
	list := []expr{first}
	for v.accept(".") {
		e, ok := v.primary()
		if !ok {
			return e, false
		}
		list = append(list, e)
	}
	return expr{kind: isConcat, of: list}, true
}

func (v *values) primary() (expr, bool) {
	w := v.peek()
	switch {
	case w.text == "" && !w.quoted:
		return expr{}, false
	case w.is("{"):
		e := v.set()
		return e, e.kind == isSet
	case w.is("("):
		v.next()
		e, ok := v.list()
		return e, ok && v.accept(")")
	case w.is("*"):
		v.next()
		return expr{kind: isAny, text: "*"}, true
	}
	v.next()
	if name, isName := strings.CutPrefix(w.text, "@"); isName && !w.quoted {
		return expr{kind: isSetName, text: name}, name != ""
	}
	if isVerdictWord(w) || !w.quoted && len(w.text) == 1 && !strings.Contains(wordRunes, w.text) {
		return expr{}, false
	}
	e := literal(w.text)
	if !w.quoted {
		e = parseLiteral(w.text)
	}
	if v.accept("-") {
		last, ok := v.primary()
		return expr{kind: isRange, of: []expr{e, last}}, ok
	}
	if v.peek().is("/") && e.kind == isLiteral && v.at+1 < len(v.words) && isNumber(v.words[v.at+1].text) {
		v.next()
		return parseLiteral(e.text + "/" + v.next().text), true
	}
	return e, true
}

// parseLiteral reads a word that may hold a range or the length of a prefix.
func parseLiteral(text string) expr {
	if address, bits, ok := strings.Cut(text, "/"); ok && isNumber(bits) && strings.ContainsAny(address, ".:") {
		return expr{kind: isPrefix, of: []expr{literal(address)}, bits: number(bits)}
	}
	first, last, ok := strings.Cut(text, "-")
	isEnd := func(text string) bool { return isNumber(text) || isAddress(text) }
	if ok && isEnd(first) && isEnd(last) {
		return expr{kind: isRange, of: []expr{literal(first), literal(last)}}
	}
	return literal(text)
}

// behindKey is what may stand behind an element.
var behindKey = []string{",", "}", ":", "comment", "timeout", "expires", "counter", "limit", "quota", "ct", "last"}

// set reads { … }, with sets in it taken apart. Of a map that has other values
// than verdicts, only the keys count.
func (v *values) set() expr {
	s := expr{kind: isSet, elements: []element{}}
	v.depth++
	defer func() { v.depth-- }()
	if !v.accept("{") || v.depth > maxNesting {
		return expr{}
	}
	for !v.accept("}") {
		if v.at >= len(v.words) {
			return expr{}
		}
		if v.accept(",") {
			continue
		}
		key, ok := v.value()
		if !ok {
			return expr{}
		}
		if key.kind == isSet {
			s.elements = append(s.elements, key.elements...)
			continue
		}
		el := element{key: key}
		if next := v.peek(); !slices.ContainsFunc(behindKey, next.is) {
			return expr{}
		}
		for !v.peek().is(",") && !v.peek().is("}") && !v.peek().is(":") {
			switch w := v.next(); w.text {
			case "comment":
				v.next()
			case "":
				return expr{}
			case "timeout", "expires", "limit", "quota", "ct":
				v.expires = true
			}
		}
		if v.accept(":") {
			el.value, el.other = v.mapped()
		}
		s.elements = append(s.elements, el)
	}
	return s
}

// mapped reads what a map has for a key: a verdict, or something else.
func (v *values) mapped() (*verdict, bool) {
	w := v.peek()
	if !isVerdictWord(w) && !w.is("queue") {
		for v.at < len(v.words) && !v.peek().is(",") && !v.peek().is("}") {
			v.at++
		}
		return nil, true
	}
	v.next()
	of := verdict{name: w.text}
	if w.text == "jump" || w.text == "goto" {
		of.chain = v.next().text
	}
	return &of, false
}
