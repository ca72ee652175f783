// SPDX-License-Identifier: Apache-2.0

package nft

import (
	"slices"
	"strconv"
	"strings"
	"sync"
)

// parseRule reads the words of a rule. From one that is not understood on, all
// is one statement that may match or not, up to the verdict.
func parseRule(words []token) (out []statement) {
	v := &values{words: words}
	ended := false
	for v.at < len(v.words) {
		before := v.at
		s, ok := v.statement()
		if ended && (!ok || s.kind != isPassing || s.text != "") { // which nft refuses
			v.at = before
			last := len(out) - 1
			return append(out[:last:last], statement{kind: isUnknown, text: quoted(textOf(v.words[before:])) + " behind a verdict"}, out[last])
		}
		if !ok || v.at == before {
			v.at = before
			return append(out, v.doubtful()...)
		}
		if s.kind == isPassing && s.text == "" {
			continue
		}
		out = append(out, s)
		ended = s.kind == isVerdict && s.verdict.name != "continue"
	}
	return out
}

// doubtful is the rest of a rule that is not understood: whatever it asks, and
// its verdict, which is the last one that can be found.
func (v *values) doubtful() []statement {
	end, found := len(v.words), statement{}
	depth := 0
	for i := v.at; i < len(v.words); i++ {
		switch w := v.words[i]; {
		case w.is("{"):
			depth++
		case w.is("}"):
			depth--
		case depth > 0 || w.quoted:
		case slices.Contains([]string{"accept", "drop", "reject", "return", "continue", "queue", "jump", "goto"}, w.text):
			end = i
			found = statement{kind: isVerdict, verdict: verdict{name: w.text}}
			if i+1 < len(v.words) && v.words[i+1].is("{") { // a chain without a name
				found.verdict = verdict{name: whoKnows}
			} else if i+1 < len(v.words) && (w.text == "jump" || w.text == "goto") {
				found.verdict.chain = v.words[i+1].text
			}
		case w.is("log") && found.kind != isVerdict:
			found = statement{kind: isLog, text: "log"}
		case w.is("vmap"), w.is("synproxy"), w.is("tproxy"), w.is("fwd"), w.is("target") && i > v.at && v.words[i-1].is("xt"):
			end, found = i, statement{kind: isVerdict, verdict: verdict{name: whoKnows}}
		}
	}
	if rest := v.words[v.at:]; found.verdict.name == whoKnows || found.kind != isVerdict && !decidesNothing(rest) {
		// A statement that is not known, or perhaps a verdict that is written wrong.
		of := unknownTo(textOf(rest))
		if found.verdict.name != whoKnows {
			of.with = ", which is not known (write accept, drop or reject, if that is meant),"
		}
		return []statement{{kind: isVerdict, verdict: of}}
	}
	out := []statement{{kind: isUnknown, text: textOf(v.words[v.at:end])}}
	if found.kind != isMatch {
		out = append(out, found)
	}
	return out
}

// unknownTo is the verdict of a statement that may do anything.
func unknownTo(text string) verdict {
	const longest = 120
	if len(text) > longest {
		text = text[:longest] + "…"
	}
	return verdict{name: whoKnows, chain: text}
}

// whoKnows is the verdict of what may do anything; in place of a chain it has
// the statement.
const whoKnows = "vmap"

// vocabulary are words of statements that match or change something, and decide
// nothing.
var vocabulary = sync.OnceValue(func() map[string]bool {
	out := make(map[string]bool)
	for _, w := range strings.Fields(`set map and or xor lshift rshift exists missing numgen random inc mod offset jhash symhash seed option maxseg
		size sack-permitted window sack0 sack1 sack2 sack3 sack timestamp tsval tsecr count left right length rt mtu classid nexthop ipsec
		in out spnum reqid spi saddr daddr socket transparent wildcard cgroupv2 level osf ttl loose skip name version exthdr hbh rt0 frag dst
		mh srh hdrlength nexthdr reserved more-fragments quota over until used bytes kbytes mbytes packets last never helper timeout
		expectation event label secmark log prefix group flags all counter original reply proto-src proto-dst comment nop eol fastopen
		md5sig mptcp subtype addr ra rr lsrr ssrr ptr value gre vxlan geneve vni rate limit burst arp operation htype ptype hlen plen igmp
		mrt`) {
		out[w] = true
	}
	for first, seconds := range fields {
		out[first] = true
		for _, second := range seconds {
			out[second] = true
		}
	}
	for _, w := range short {
		out[w] = true
	}
	return out
})

// decidesNothing reports whether words, which have no verdict, are all such as
// stand in statements that decide nothing. Behind an operator there may be any.
func decidesNothing(words []token) bool {
	depth, isValue := 0, false
	for i, w := range words {
		known := isValue || w.quoted || depth > 0 || strings.HasPrefix(w.text, "@") || isAddress(w.text) ||
			w.text != "" && (w.text[0] >= '0' && w.text[0] <= '9' || strings.IndexByte(wordRunes, w.text[0]) < 0) || vocabulary()[w.text]
		switch {
		case w.is("{"):
			depth++
		case w.is("}"):
			depth--
		case !known:
			return false
		}
		isValue = !w.quoted && (w.text == "set" && i > 0 || operators[w.text] != "")
	}
	return len(words) > 1
}

func textOf(words []token) string {
	texts := make([]string, len(words))
	for i, w := range words {
		if texts[i] = w.text; w.quoted {
			texts[i] = quoted(w.text)
		}
	}
	return strings.ReplaceAll(strings.Join(texts, " "), " , ", ", ")
}

// statement reads one statement.
func (v *values) statement() (statement, bool) {
	w := v.next()
	if w.quoted {
		return statement{}, false
	}
	switch w.text {
	case "accept", "drop", "return", "continue":
		return statement{kind: isVerdict, verdict: verdict{name: w.text}}, true
	case "jump", "goto":
		if v.peek().is("{") {
			return statement{}, false
		}
		return statement{kind: isVerdict, verdict: verdict{name: w.text, chain: v.next().text}}, true
	case "queue":
		v.at = len(v.words)
		return statement{kind: isVerdict, verdict: verdict{name: w.text}}, true
	case "reject":
		return v.reject(), true
	case "comment":
		if isVerdictWord(v.next()) {
			return statement{}, false
		}
		return statement{kind: isPassing}, true
	case "notrack":
		return statement{kind: isPassing, text: w.text}, true
	case "counter":
		return v.counter()
	case "log":
		return v.log()
	case "limit":
		return v.limit()
	case "flow":
		if !v.accept("add") && !v.accept("offload") || !strings.HasPrefix(v.peek().text, "@") {
			return statement{}, false
		}
		v.next()
		return statement{kind: isPassing, text: w.text}, true
	case "dup":
		ok := v.accept("to")
		if ok {
			_, ok = v.value()
		}
		if ok && v.accept("device") {
			_, ok = v.value()
		}
		return statement{kind: isPassing, text: w.text}, ok
	case "masquerade", "snat", "dnat", "redirect":
		return v.rest(w), true
	case "meter":
		return v.meter()
	case "set", "add", "update", "delete":
		return v.update(w.text)
	case "mark", "priority", "nftrace":
		if v.peek().is("set") {
			return v.assignment(w.text)
		}
	case "ct":
		if v.peek().is("count") {
			v.next()
			return v.count()
		}
	}
	v.at--
	return v.match()
}

// rest takes all that is left for the statement: none of these has anything but
// what belongs to it behind it, save a comment.
func (v *values) rest(w token) statement {
	start := v.at - 1
	for v.at < len(v.words) && !v.peek().is("comment") {
		if isVerdictWord(v.peek()) || v.peek().is("counter") {
			break
		}
		v.at++
	}
	kind := isPassing
	if w.text == "dnat" || w.text == "redirect" {
		kind = isNAT
	}
	return statement{kind: kind, text: textOf(v.words[start:v.at])}
}

func isVerdictWord(t token) bool {
	return !t.quoted && slices.Contains([]string{"accept", "drop", "return", "continue", "jump", "goto", "reject"}, t.text)
}

func (v *values) counter() (statement, bool) {
	ok := true
	switch {
	case v.accept("name"):
		ok = !isVerdictWord(v.next())
	case v.accept("packets"):
		ok = isCountOf(v.next()) && v.accept("bytes") && isCountOf(v.next())
	}
	return statement{kind: isPassing}, ok
}

func isCountOf(t token) bool {
	_, err := strconv.ParseUint(t.text, 10, 64)
	return err == nil
}

func (v *values) log() (statement, bool) {
	for {
		switch next := v.peek(); {
		case next.is("prefix"), next.is("level"), next.is("group"), next.is("snaplen"), next.is("queue-threshold"):
			v.next()
			if isVerdictWord(v.next()) {
				return statement{}, false
			}
		case next.is("flags"):
			v.next()
			if kind := v.next(); kind.is("tcp") || kind.is("ip") {
				v.next()
				for v.accept(",") {
					v.next()
				}
			}
		default:
			return statement{kind: isLog, text: "log"}, true
		}
	}
}

// reject reads what is behind "reject".
func (v *values) reject() statement {
	s := statement{kind: isVerdict, verdict: verdict{name: "reject"}}
	if !v.accept("with") {
		return s
	}
	kind := v.next().text
	v.accept("type")
	what := v.next().text
	s.verdict.kind, s.verdict.with = kind, rejection(kind, what)
	return s
}

// limit reads rate [over] N/UNIT [burst N packets].
func (v *values) limit() (statement, bool) {
	if v.accept("name") {
		return statement{kind: isUnknown, text: "limit name " + quoted(v.next().text)}, true
	}
	if !v.accept("rate") {
		return statement{}, false
	}
	l := limit{over: v.accept("over")}
	v.accept("until")
	rate := v.next().text
	number, unit, found := strings.Cut(rate, "/")
	l.rate, l.unit = number, unit
	if !found || unit == "" {
		// Bytes are written apart: 10 mbytes/second.
		next := v.next().text
		if cut, ok := strings.CutPrefix(next, "/"); ok && !found && cut != "" {
			l.unit = cut
		} else if name, per, ok := strings.Cut(next, "/"); ok && strings.HasSuffix(name, "bytes") {
			l.unit, l.bytes = per, true
		} else if next == "/" || found {
			if l.unit = next; next == "/" {
				l.unit = v.next().text
			}
		} else {
			return statement{}, false
		}
	}
	if isVerdictWord(token{text: l.unit}) {
		return statement{}, false
	}
	if v.accept("burst") {
		if l.burst = v.next().text; !isNumber(l.burst) {
			return statement{}, false
		}
		if next := v.peek(); next.is("packets") || strings.HasSuffix(next.text, "bytes") {
			v.next()
			l.bytes = l.bytes || !next.is("packets")
		}
	}
	return statement{kind: isLimit, limit: l}, true
}

// count reads what is behind ct count.
func (v *values) count() (statement, bool) {
	text := "ct count "
	if v.accept("over") {
		text += "over "
	}
	most := v.next().text
	return statement{kind: isCount, text: text + most}, isNumber(most)
}

// meter reads meter NAME [size N] { KEY STATEMENT }.
func (v *values) meter() (statement, bool) {
	name := v.next().text
	if v.accept("size") {
		v.next()
	}
	return v.updateBlock("meter "+name, name)
}

// update reads add @NAME { KEY STATEMENT }.
func (v *values) update(verb string) (statement, bool) {
	if verb == "set" { // as it was once written: set add KEY @NAME
		verb = v.next().text
		key, ok := v.fieldOrConcat()
		name, isName := strings.CutPrefix(v.next().text, "@")
		return statement{kind: isUpdate, left: key, set: name, text: verb + " @" + name}, ok && isName
	}
	name, ok := strings.CutPrefix(v.next().text, "@")
	if !ok {
		return statement{}, false
	}
	return v.updateBlock(verb+" @"+name, name)
}

func (v *values) updateBlock(text, name string) (statement, bool) {
	if !v.accept("{") {
		return statement{}, false
	}
	s := statement{kind: isUpdate, set: name, text: text}
	var ok bool
	if s.left, ok = v.fieldOrConcat(); !ok {
		return s, false
	}
	for v.accept("timeout") || v.accept("expires") {
		v.next()
	}
	for !v.accept("}") {
		if v.at >= len(v.words) {
			return s, false
		}
		if v.accept(":") { // what a map gets
			for v.at < len(v.words) && !v.peek().is("}") {
				v.at++
			}
			continue
		}
		inner, ok := v.statement()
		if !ok {
			return s, false
		}
		if inner.kind != isPassing {
			s.inner = append(s.inner, inner)
		}
	}
	return s, true
}

// assignment reads set VALUE, which changes a mark and no verdict.
func (v *values) assignment(what string) (statement, bool) {
	v.next()
	before := v.at
	value, ok := v.field()
	if !ok {
		v.at = before
		value, ok = v.value()
	}
	if ok && (v.peek().is("and") || v.peek().is("or") || v.peek().is("&") || v.peek().is("|") || v.peek().is("xor") || v.peek().is("map")) {
		return statement{}, false
	}
	return statement{kind: isPassing, text: what + " set " + value.String()}, ok
}

// operators are those of a match, and how else they are written.
var operators = map[string]string{"==": "==", "!=": "!=", "<": "<", ">": ">", "<=": "<=", ">=": ">=", "!": "!",
	"eq": "==", "ne": "!=", "lt": "<", "gt": ">", "le": "<=", "ge": ">="}

// match reads a field, an operator and a value, or a verdict map.
func (v *values) match() (statement, bool) {
	left, ok := v.fieldOrConcat()
	if !ok {
		return statement{}, false
	}
	switch next := v.peek(); {
	case next.is("set") && left.kind == isField:
		return v.assignment(left.text)
	case next.is("vmap"):
		v.next()
		right, ok := v.value()
		return statement{kind: isVerdictMap, left: left, right: right}, ok
	}
	op := ""
	if next := v.peek(); !next.quoted && operators[next.text] != "" {
		op = operators[v.next().text]
	}
	if missing := v.peek(); op == "" && (missing.is("missing") || missing.is("exists")) {
		return statement{}, false
	}
	right, ok := v.list()
	if left.kind == isField && left.text == "tcp flags" {
		return v.flagsOf(left, op, right, ok)
	}
	return statement{kind: isMatch, left: left, op: op, right: right}, ok
}

// flagsOf reads "tcp flags syn / syn,ack", which is "tcp flags & (syn | ack) ==
// syn".
func (v *values) flagsOf(left expr, op string, right expr, ok bool) (statement, bool) {
	mask := expr{}
	masked := false
	if v.accept("/") {
		var ok2 bool
		mask, ok2 = v.list()
		masked, ok = true, ok && ok2
	} else if last := len(right.of) - 1; right.kind == isList || right.kind == isLiteral {
		text := right.text
		if right.kind == isList {
			text = right.of[last].text
		}
		if value, first, found := strings.Cut(text, "/"); found { // without blanks
			masked = true
			mask = expr{kind: isList, of: []expr{literal(first)}}
			if right.kind == isList {
				return statement{}, false
			}
			right = literal(value)
			for v.accept(",") {
				mask.of = append(mask.of, literal(v.next().text))
			}
		}
	}
	if masked {
		if op == "" {
			op = "=="
		}
		left = expr{kind: isMasked, of: []expr{left, mask}}
	}
	return statement{kind: isMatch, left: left, op: op, right: right}, ok
}
