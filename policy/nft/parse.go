// SPDX-License-Identifier: Apache-2.0

package nft

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/portcullis-firewall/portcullis/policy/iptables"
)

// parser reads a file for "nft -f", or what "nft list ruleset" prints.
type parser struct {
	file, text string
	tokens     []token
	at         int
	rules      *ruleset
	include    Include
	depth      int // of files that include one another
}

// maxDepth bounds how deep files may include one another, as nft does.
const maxDepth = 16

// parseText adds what a file says to a ruleset.
func parseText(file iptables.File, into *ruleset, include Include, depth int) error {
	text := strings.ReplaceAll(strings.ToValidUTF8(string(file.Data), "\ufffd"), "\r\n", "\n")
	tokens, err := lex(file.Name, text)
	if err != nil {
		return err
	}
	if tokens, err = expand(file.Name, tokens); err != nil {
		return err
	}
	p := &parser{file: file.Name, text: text, tokens: tokens, rules: into, include: include, depth: depth}
	for p.skipEnds(); p.at < len(p.tokens); p.skipEnds() {
		if err := p.command(); err != nil {
			return err
		}
	}
	return nil
}

func (p *parser) skipEnds() {
	for p.at < len(p.tokens) && p.tokens[p.at].ends() {
		p.at++
	}
}

// peek is the next token; behind the last there are ends of commands.
func (p *parser) peek() token {
	if p.at < len(p.tokens) {
		return p.tokens[p.at]
	}
	return token{text: "\n", line: p.tokens[len(p.tokens)-1].line}
}

func (p *parser) next() token {
	t := p.peek()
	p.at++
	return t
}

func (p *parser) accept(text string) bool {
	if p.peek().is(text) {
		p.at++
		return true
	}
	return false
}

func (p *parser) fail(t token, format string, args ...any) error {
	return fmt.Errorf("%s:%d: %s: give what \"nft list ruleset\" prints instead", p.file, t.line, fmt.Sprintf(format, args...))
}

func (p *parser) expect(text string) error {
	if t := p.peek(); !p.accept(text) {
		return p.fail(t, "%q where %q was expected", strings.TrimSpace(t.text), text)
	}
	return nil
}

// position is where a token stands, with what is written up to the end of the
// command, on one line.
func (p *parser) position(t token) iptables.Position {
	return iptables.Position{File: p.file, Line: t.line, Text: strings.Join(strings.Fields(p.text[t.start:t.end]), " ")}
}

// named is the position of something that has a name.
func (p *parser) named(text string, at token) iptables.Position {
	return iptables.Position{File: p.file, Line: at.line, Text: text}
}

// span is the position of several tokens.
func (p *parser) span(of []token) iptables.Position {
	if len(of) == 0 {
		return iptables.Position{File: p.file, Line: p.peek().line}
	}
	first, last := of[0], of[len(of)-1]
	return p.position(token{line: first.line, start: first.start, end: max(first.end, last.end)})
}

// families are those that may stand in front of the name of a table.
var families = []string{"ip", "ip6", "inet", "arp", "bridge", "netdev"}

// tableName reads [FAMILY] NAME.
func (p *parser) tableName() (family, name string) {
	family = "ip"
	if slices.Contains(families, p.peek().text) && !p.tokens[min(p.at+1, len(p.tokens)-1)].ends() && !p.tokens[min(p.at+1, len(p.tokens)-1)].is("{") {
		family = p.next().text
	}
	return family, p.next().text
}

// command reads one command.
func (p *parser) command() error {
	t := p.next()
	if t.quoted {
		return p.fail(t, "%q is no command", t.text)
	}
	switch verb := t.text; verb {
	case "add", "create", "insert", "delete", "destroy", "flush", "replace":
		return p.change(t, verb, p.next())
	case "table", "chain", "rule", "set", "map", "element", "counter", "quota", "limit", "flowtable", "ct", "secmark", "synproxy":
		return p.change(t, "add", t)
	case "list", "reset", "monitor", "describe":
		p.skipCommand()
		return nil
	case "include":
		return p.includeFile(t)
	}
	return p.fail(t, "%q is no command", strings.TrimSpace(t.text))
}

// skipCommand passes over what is left of a command, with the blocks in it.
func (p *parser) skipCommand() (skipped []token) {
	for depth := 0; p.at < len(p.tokens); {
		t := p.peek()
		switch {
		case t.ends() && depth == 0:
			return skipped
		case t.is("{"):
			depth++
		case t.is("}"):
			if depth == 0 {
				return skipped
			}
			depth--
		}
		if p.at++; !t.ends() {
			skipped = append(skipped, t)
		}
	}
	return skipped
}

func (p *parser) includeFile(at token) error {
	name := p.next()
	p.skipCommand()
	if p.include == nil || p.depth >= maxDepth {
		return p.fail(at, "include %q is not followed", name.text)
	}
	files, err := p.include(name.text)
	if err != nil {
		return p.fail(at, "include %q: %v", name.text, err)
	}
	for _, f := range files {
		if err := parseText(f, p.rules, p.include, p.depth+1); err != nil {
			return err
		}
	}
	return nil
}

// change carries out a command that changes what there is.
func (p *parser) change(at token, verb string, what token) error {
	adds := verb == "add" || verb == "create"
	switch kind := what.text; {
	case kind == "ruleset" && verb == "flush":
		p.flushRuleset()
		return nil
	case kind == "table" && adds:
		return p.addTable(at)
	case kind == "table":
		return p.changeTable(at, verb)
	case kind == "chain" && adds:
		t, err := p.inTable(at)
		if err != nil {
			return err
		}
		name := p.next()
		c := t.addChain(name.text, p.named("chain "+name.text, name))
		if p.accept("{") {
			return p.chainBody(c)
		}
		return nil
	case kind == "chain":
		return p.changeChain(at, verb)
	case kind == "rule" && (adds || verb == "insert"), adds && kind == "element", adds && (kind == "set" || kind == "map"):
		t, err := p.inTable(at)
		if err != nil {
			return err
		}
		switch kind {
		case "rule":
			return p.addRule(t, verb)
		case "element":
			name := p.next().text
			return p.elements(t.addSet(name))
		}
		return p.addSet(t)
	case slices.Contains([]string{"counter", "quota", "limit", "flowtable", "ct", "secmark", "synproxy", "counters", "quotas", "limits"}, kind):
		p.skipCommand()
		return nil
	case verb == "flush" && (kind == "set" || kind == "map" || kind == "meter"):
		t, err := p.inTable(at)
		if err != nil {
			return err
		}
		if s := t.sets[p.next().text]; s != nil {
			s.elements = nil
		}
		return nil
	}
	return p.fail(at, "\"%s %s\" is not understood", verb, strings.TrimSpace(what.text))
}

func (p *parser) flushRuleset() {
	family := ""
	if !p.peek().ends() {
		family = p.next().text
	}
	p.rules.tables = slices.DeleteFunc(p.rules.tables, func(t *table) bool { return family == "" || t.family == family })
}

// inTable reads the name of a table that has to be there.
func (p *parser) inTable(at token) (*table, error) {
	family, name := p.tableName()
	t := p.rules.table(family, name)
	if t == nil {
		return nil, p.fail(at, "there is no table %s %s", family, name)
	}
	return t, nil
}

func (p *parser) changeTable(at token, verb string) error {
	family, name := p.tableName()
	t := p.rules.table(family, name)
	switch {
	case t == nil: // as it is when the file is loaded for the first time
	case verb == "flush":
		for _, c := range t.chains {
			c.rules = nil
		}
	case verb == "delete" || verb == "destroy":
		p.rules.tables = slices.DeleteFunc(p.rules.tables, func(other *table) bool { return other == t })
	default:
		return p.fail(at, "\"%s table\" is not understood", verb)
	}
	return nil
}

func (p *parser) changeChain(at token, verb string) error {
	family, name := p.tableName()
	t := p.rules.table(family, name)
	name = p.next().text
	if t == nil || t.chain(name) == nil {
		return nil
	}
	switch verb {
	case "flush":
		t.chain(name).rules = nil
	case "delete", "destroy":
		t.chains = slices.DeleteFunc(t.chains, func(c *chain) bool { return c.name == name })
	default:
		return p.fail(at, "\"%s chain\" is not understood", verb)
	}
	return nil
}

func (p *parser) addTable(at token) error {
	family, name := p.tableName()
	t := p.rules.addTable(family, name, p.named("table "+family+" "+name, at))
	if !p.accept("{") {
		return nil
	}
	for p.skipEnds(); !p.accept("}"); p.skipEnds() {
		if p.at >= len(p.tokens) {
			return p.fail(at, "the table has no end")
		}
		if err := p.tableEntry(t); err != nil {
			return err
		}
	}
	return nil
}

// tableEntry reads one thing in a table.
func (p *parser) tableEntry(t *table) error {
	entry := p.next()
	switch entry.text {
	case "chain":
		name := p.next()
		c := t.addChain(name.text, p.named("chain "+name.text, name))
		if err := p.expect("{"); err != nil {
			return err
		}
		return p.chainBody(c)
	case "set", "map":
		return p.addSet(t)
	case "flags":
		for _, flag := range p.skipCommand() {
			t.dormant = t.dormant || flag.text == "dormant"
		}
		return nil
	case "include":
		return p.fail(entry, "include inside of a table is not followed")
	case "comment", "counter", "quota", "limit", "flowtable", "ct", "secmark", "synproxy", "meter":
		p.skipCommand()
		return nil
	}
	return p.fail(entry, "%q is not understood in a table", strings.TrimSpace(entry.text))
}

// chainBody reads a chain up to its end.
func (p *parser) chainBody(c *chain) error {
	for p.skipEnds(); !p.accept("}"); p.skipEnds() {
		start := p.peek()
		if p.at >= len(p.tokens) {
			return p.fail(start, "chain %s has no end", c.name)
		}
		switch {
		case start.is("type"):
			if err := p.baseChain(c); err != nil {
				return err
			}
		case start.is("policy"):
			p.at++
			if err := p.chainPolicy(c); err != nil {
				return err
			}
		case start.is("device"), start.is("devices"), start.is("flags"), start.is("comment"), start.is("hw_stats"):
			p.skipCommand()
		case start.is("include"):
			return p.fail(start, "include inside of a chain is not followed")
		default:
			if err := p.ruleBody(c, len(c.rules)); err != nil {
				return err
			}
		}
	}
	return nil
}

// chainPolicy reads what is behind "policy".
func (p *parser) chainPolicy(c *chain) error {
	t := p.next()
	if t.text != "accept" && t.text != "drop" {
		return p.refuse(t, "no policy of a chain", "accept or drop")
	}
	c.policy = t.text
	if behind := p.peek(); !behind.ends() && !behind.is("}") {
		return p.refuse(behind, "too much behind a policy", "a semicolon before it")
	}
	return nil
}

// refuse is about a word that nft refuses, too.
func (p *parser) refuse(t token, why, instead string) error {
	return fmt.Errorf("%s:%d: %q is %s: write %s", p.file, t.line, strings.TrimSpace(t.text), why, instead)
}

// chainTypes and chainHooks are those that nft has.
var (
	chainTypes = []string{"filter", "nat", "route"}
	chainHooks = []string{"prerouting", "input", "forward", "output", "postrouting", "ingress", "egress"}
)

// baseChain reads type filter hook input device eth0 priority 0.
func (p *parser) baseChain(c *chain) error {
	c.isBase = true
	line := p.peek()
	v := &values{words: p.skipCommand()}
	for v.at < len(v.words) {
		switch word := v.next(); word.text {
		case "type":
			if c.kind = v.peek().text; !slices.Contains(chainTypes, c.kind) {
				return p.refuse(v.orAt(line), "no type of a chain", "filter, nat or route")
			}
			v.next()
		case "hook":
			if c.hook = v.peek().text; !slices.Contains(chainHooks, c.hook) {
				return p.refuse(v.orAt(line), "no hook", "one such as input or forward")
			}
			v.next()
		case "device", "devices":
			v.accept("=")
			if _, ok := v.value(); !ok {
				return p.refuse(v.orAt(line), "no device", "the name of an interface")
			}
		case "priority":
			text := v.next().text
			for v.peek().is("+") || v.peek().is("-") || text == "-" || text == "+" {
				text += v.next().text
				if v.at > len(v.words) {
					break
				}
				if last := text[len(text)-1]; last == '+' || last == '-' {
					text += v.next().text
				}
			}
			if next := v.peek().text; len(next) > 1 && (next[0] == '+' || next[0] == '-') && isNumber(next[1:]) {
				text += v.next().text
			}
			var ok bool
			if c.priority, ok = priorityOf(text); !ok {
				return fmt.Errorf("%s:%d: %q is no priority: write a number, or a name such as filter", p.file, word.line, text)
			}
		default:
			return p.refuse(word, "not understood behind the type of a chain", "a semicolon before it, or what \"nft list ruleset\" prints")
		}
	}
	if c.hook == "" {
		return fmt.Errorf("%s:%d: chain %s has a type and no hook: write hook and priority behind it", p.file, line.line, c.name)
	}
	return nil
}

// orAt is the next word, or else nothing, at another's place.
func (v *values) orAt(other token) token {
	if v.at < len(v.words) {
		return v.words[v.at]
	}
	return token{line: other.line}
}

// priorities are the names of some places at a hook.
var priorities = map[string]int{"raw": -300, "mangle": -150, "dstnat": -100, "filter": 0, "security": 50, "srcnat": 100, "out": 100}

// priorityOf reads a number, a name, or a name and an offset.
func priorityOf(text string) (int, bool) {
	for name, base := range priorities {
		if offset, ok := strings.CutPrefix(text, name); ok {
			if offset == "" {
				return base, true
			}
			n, err := strconv.Atoi(strings.TrimPrefix(offset, "+"))
			return base + n, err == nil
		}
	}
	n, err := strconv.Atoi(text)
	return n, err == nil
}

// addRule reads a rule that is not inside of its chain.
func (p *parser) addRule(t *table, verb string) error {
	name := p.next()
	c := t.chain(name.text)
	if c == nil {
		return p.fail(name, "there is no chain %s in table %s %s", name.text, t.family, t.name)
	}
	at := len(c.rules)
	if verb == "insert" {
		at = 0
	}
	if where := p.peek(); where.is("position") || where.is("handle") || where.is("index") {
		return p.fail(where, "a rule by its %s is not understood", where.text)
	}
	return p.ruleBody(c, at)
}

// ruleBody reads a rule up to the end of its command.
func (p *parser) ruleBody(c *chain, index int) error {
	before := p.at
	words := p.skipCommand()
	if len(words) == 0 {
		t := p.next()
		return p.fail(t, "%q is not understood", strings.TrimSpace(t.text))
	}
	if p.at == before {
		p.at++
	}
	r := &rule{at: p.span(words)}
	r.statements = parseRule(words)
	c.rules = slices.Insert(c.rules, index, r)
	return nil
}

// addSet reads a set or a map with its name.
func (p *parser) addSet(t *table) error {
	name := p.next()
	s := t.addSet(name.text)
	if !p.accept("{") {
		return nil
	}
	for p.skipEnds(); !p.accept("}"); p.skipEnds() {
		if p.at >= len(p.tokens) {
			return p.fail(name, "set %s has no end", name.text)
		}
		switch entry := p.next(); entry.text {
		case "elements":
			if err := p.expect("="); err != nil {
				return err
			}
			if err := p.elements(s); err != nil {
				return err
			}
		case "flags":
			for _, flag := range p.skipCommand() {
				s.changes = s.changes || flag.text == "dynamic" || flag.text == "timeout"
			}
		case "timeout":
			s.changes = true
			p.skipCommand()
		case "type", "typeof", "gc-interval", "size", "policy", "auto-merge", "counter", "comment", "quota", "limit", "ct", "last":
			p.skipCommand()
		default:
			return p.fail(entry, "%q is not understood in set %s", strings.TrimSpace(entry.text), name.text)
		}
	}
	return nil
}

// elements reads { … } into a set.
func (p *parser) elements(s *set) error {
	t := p.peek()
	words := p.skipCommand()
	v := &values{words: words}
	e := v.set()
	if e.kind != isSet || v.at != len(v.words) {
		return p.fail(t, "the elements of %s are not understood", s.name)
	}
	s.changes = s.changes || v.expires
	s.elements = append(s.elements, e.elements...)
	return nil
}
