// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/portcullis-firewall/portcullis/policy/addrset"
)

// Names is what the words of a rule may stand for. The zero Names knows the
// services of [ServicesFile], and no list.
type Names struct {
	Services *Services // nil for those of ServicesFile
	Lists    []List
	Forward  bool // the rules are about what is routed
}

// ParseRule reads one rule, with the names of services from [ServicesFile]:
//
//	WHAT [on IFACE,...] [from SOURCE,...] [except SOURCE,...] [to ADDRESS,...] [limit RATE [burst N]]
//
// WHAT is the name of a service, NAME/PROTO, PORT/PROTO or FIRST-LAST/PROTO,
// several ports of one protocol as in 80,443/tcp, a protocol such as gre or
// proto/89, or all. A name without protocol stands for every protocol that the
// services list for it. IFACE is the name of an interface, or a pattern such as
// wg*. SOURCE and ADDRESS are IPv4 or IPv6 addresses, networks, or lists as
// @office. RATE is how often one source may begin something: 6/minute. The
// clauses may come in any order. An error is a [*RuleError].
func ParseRule(text string) (Rule, error) { return Names{}.ParseRule(text) }

// ParseRule reads a rule as the function [ParseRule] does, with the names that
// n has.
func (n Names) ParseRule(text string) (Rule, error) { return n.parser().rule(text) }

func (n Names) parser() ruleParser {
	in := ruleParser{services: defaultServices, lists: n.Lists, forward: n.Forward}
	if n.Services != nil {
		in.services = func() *Services { return n.Services }
	}
	return in
}

// ruleParser asks for the services only where a rule names one: a number needs no file.
type ruleParser struct {
	services func() *Services
	lists    []List
	forward  bool
}

func (in ruleParser) rule(text string) (Rule, error) {
	r, bad := in.parseRule(text)
	if bad != nil {
		return Rule{}, bad
	}
	return r, nil
}

// word is a piece of the text of a rule that remembers where it was.
type word struct {
	text   string
	offset int
}

func (w word) errorf(format string, args ...any) *RuleError {
	return &RuleError{Offset: w.offset, Token: w.text, Msg: fmt.Sprintf(format, args...)}
}

const blanks = " \t\r\n"

func (w word) trim() word {
	left := strings.TrimLeft(w.text, blanks)
	return word{strings.TrimRight(left, blanks), w.offset + len(w.text) - len(left)}
}

// cut splits off everything before the first of the given bytes.
func (w word) cut(at string) (before, after word, found bool) {
	i := strings.IndexAny(w.text, at)
	if i < 0 {
		return w, word{"", w.offset + len(w.text)}, false
	}
	return word{w.text[:i], w.offset}, word{w.text[i+1:], w.offset + i + 1}, true
}

// clauseWords begin the clauses of a rule, in the order in which they are
// written.
var clauseWords = []string{"on", "from", "except", "to", "limit"}

const burstWord = "burst" // follows a rate

func isClauseWord(text string) bool {
	text = strings.ToLower(text)
	return text == burstWord || slices.Contains(clauseWords, text)
}

// next splits off the next word, or a list with its commas: "a, b" and "a ,b" are
// one.
func (w word) next() (item, rest word) {
	item, rest, _ = w.trim().cut(blanks)
	for {
		rest = rest.trim()
		if rest.text == "" || !strings.HasSuffix(item.text, ",") && rest.text[0] != ',' {
			return item, rest
		}
		if first, _, _ := rest.cut(blanks); isClauseWord(first.text) {
			return item, rest
		}
		more, after, _ := rest.cut(blanks)
		item.text = w.text[item.offset-w.offset : more.offset-w.offset+len(more.text)]
		rest = after
	}
}

const whatExample = "write a service or a port, such as http or 8080/tcp"

func (in ruleParser) parseRule(text string) (Rule, *RuleError) {
	what, rest := word{text, 0}.next()
	if what.text == "" {
		return Rule{}, what.errorf("empty rule \"\": %s", whatExample)
	}
	if isClauseWord(what.text) {
		return Rule{}, what.errorf("no port before %s: %s", quote(what.text), whatExample)
	}
	name, ports, bad := in.parseWhat(what)
	if bad != nil {
		return Rule{}, bad
	}
	p := clauseParser{in: in, rule: Rule{Forward: in.forward, Ports: ports, what: name}, before: what, seen: make(map[string]word)}
	for rest.text != "" {
		if rest, bad = p.clause(rest); bad != nil {
			return Rule{}, bad
		}
	}
	if bad := p.checkAdmits(); bad != nil {
		return Rule{}, bad
	}
	return p.rule, nil
}

// clauseParser reads the clauses of one rule.
type clauseParser struct {
	in     ruleParser
	rule   Rule
	last   string          // the keyword of the last clause
	before word            // what that ended with
	seen   map[string]word // the clauses so far, and the word that began each
}

// clause reads the next clause.
func (p *clauseParser) clause(w word) (rest word, bad *RuleError) {
	key, rest := w.next()
	keyword := strings.ToLower(key.text)
	if !isClauseWord(keyword) {
		return rest, p.unexpected(key)
	}
	value, after := rest.next()
	if isClauseWord(value.text) {
		value = word{"", value.offset}
	}
	if keyword == burstWord {
		return rest, key.errorf("%s without a rate before it: write limit 6/minute burst 10", quote(key.text))
	}
	if first, twice := p.seen[keyword]; twice {
		how := "keep one"
		if keyword != "limit" {
			how = "join what follows with a comma"
		}
		return rest, key.errorf("%s is there twice: %s", quote(first.text), how)
	}
	p.seen[keyword] = key
	if value.text == "" {
		return rest, key.errorf("%s", p.missingValue(key, keyword))
	}
	p.last, p.before = keyword, value
	r := &p.rule
	switch keyword {
	case "on":
		r.On, bad = parseOn(value)
	case "from":
		r.From, r.lists.from, bad = p.in.parseAddresses(keyword, value)
	case "except":
		r.Except, r.lists.except, bad = p.in.parseAddresses(keyword, value)
	case "to":
		r.To, r.lists.to, bad = p.in.parseAddresses(keyword, value)
	case "limit":
		if r.Limit, bad = parseRate(value); bad != nil {
			return rest, bad
		}
		burst, number, more := burstAfter(after)
		if burst.text == "" {
			break
		}
		if number.text == "" || isClauseWord(number.text) {
			return rest, burst.errorf("no number after %s: write burst 10, or leave %s out", quote(burst.text), quote(burst.text))
		}
		p.before, after = number, more
		r.Limit.Burst, bad = parseBurst(number)
	}
	return after, bad
}

// burstAfter splits off "burst N", if that is what comes.
func burstAfter(w word) (burst, number, rest word) {
	burst, rest = w.next()
	if !strings.EqualFold(burst.text, burstWord) {
		return word{"", w.offset}, word{}, w
	}
	number, rest = rest.next()
	return burst, number, rest
}

func (p *clauseParser) missingValue(key word, keyword string) string {
	word := quote(key.text)
	switch {
	case keyword == "on":
		return "no interface after " + word + ": write on eth0, or leave " + word + " out"
	case keyword == "to" && !p.rule.Forward:
		return "no address after " + word + ": write to 192.0.2.1, an address of this host, or leave " + word + " out"
	case keyword == "limit":
		return "no rate after " + word + ": write limit 6/minute, or leave " + word + " out"
	}
	return "no address after " + word + ": write " + keyword + " 203.0.113.0/24, or leave " + word + " out"
}

// unexpected is the error for a word where a clause should begin.
func (p *clauseParser) unexpected(w word) *RuleError {
	words := append(slices.Clone(clauseWords), burstWord)
	if near := suggest(w.text, words); len(near) > 0 {
		return w.errorf("unexpected %s after %s: %s", quote(w.text), quote(p.before.text), didYouMean(w.text, words, ""))
	}
	switch p.last {
	case "on":
		return w.errorf("unexpected %s: separate interfaces with a comma", quote(w.text))
	case "from", "except", "to":
		return w.errorf("unexpected %s: separate addresses with a comma", quote(w.text))
	}
	return w.errorf("unexpected %s after %s: write %s, or nothing", quote(w.text), quote(p.before.text), joinWords(clauseWords, "or"))
}

// parseOn reads the interfaces of a rule.
func parseOn(list word) (names []string, bad *RuleError) {
	for item := range list.items() {
		if item.text == "" {
			return nil, item.errorf("empty name %s in the list after \"on\": take the comma out", quote(item.text))
		}
		name, err := parsePattern(item.text)
		switch {
		case strings.ContainsFunc(item.text, func(c rune) bool { return c <= ' ' || c >= 0x7f }):
			return nil, item.errorf("interface name %s cannot stand in a rule: write * for its unusual characters", quote(item.text))
		case isClauseWord(item.text):
			return nil, item.errorf("interface name %s begins a clause: write %s", quote(item.text), quote(item.text[:1]+"*"))
		case err != nil:
			return nil, item.errorf("%s", err)
		case strings.Trim(name, "*") == "":
			return nil, item.errorf("%s stands for every interface: leave \"on\" out", quote(name))
		}
		if !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	return names, nil
}

// items are the entries of a list with commas.
func (w word) items() func(func(word) bool) {
	return func(yield func(word) bool) {
		for more := true; more; {
			var item word
			item, w, more = w.cut(",")
			if !yield(item.trim()) {
				return
			}
		}
	}
}

// checkAdmits refuses a rule that can let nothing in.
func (p *clauseParser) checkAdmits() *RuleError {
	r := p.rule
	if r.Forward {
		for _, clause := range []struct {
			keyword  string
			prefixes []netip.Prefix
		}{{"from", r.From}, {"to", r.To}} {
			if len(clause.prefixes) > 0 && addrset.Within(addrset.Of(clause.prefixes), neverRoutedRanges) {
				return p.seen[clause.keyword].errorf("nothing is routed %s %s: such an address is good on one link only", clause.keyword, quote(joinPrefixes(clause.prefixes)))
			}
		}
	}
	if from, given := p.seen["from"]; given && !slices.ContainsFunc(r.From, usableSource) {
		return from.errorf("nobody can come from %s: no other host has such an address", quote(joinPrefixes(r.From)))
	}
	if len(r.Except) > 0 && len(addrset.Subtract(r.sources(), neverRanges)) == 0 {
		all := "all addresses"
		if len(r.From) > 0 {
			all = "all of \"from\""
		}
		return p.seen["except"].errorf("%s takes %s, so that nothing is let in: leave some, or take the rule out", quote("except"), all)
	}
	to, given := p.seen["to"]
	if !given {
		return nil
	}
	if len(addrset.Subtract(addrset.Of(r.To), loopbackRanges)) == 0 {
		return to.errorf("nothing comes in to %s: the loopback is never filtered", quote(joinPrefixes(r.To)))
	}
	if src, _ := r.reach(); len(src) == 0 {
		return to.errorf("sources and destinations are of different families, so that nothing is let in: write both in IPv4, or both in IPv6")
	}
	return nil
}
