// SPDX-License-Identifier: Apache-2.0

package nft

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/portcullis-firewall/portcullis/policy/iptables"
)

// jsonReader reads what "nft -j list ruleset" prints.
type jsonReader struct {
	file  string
	rules *ruleset
}

// object is one JSON object with a single key, which says what it is.
type object map[string]json.RawMessage

// only returns the key and the value of an object that has one.
func (o object) only() (string, json.RawMessage) {
	if len(o) != 1 {
		return "", nil
	}
	for key, value := range o {
		return key, value
	}
	return "", nil
}

// jsonTable, jsonChain, jsonSet and jsonRule are the objects of a ruleset, with
// the keys that matter here.
type (
	jsonTable struct {
		Family, Name string
		Flags        json.RawMessage
	}
	jsonChain struct {
		Family, Table, Name string
		Type, Hook, Policy  string
		Prio                json.RawMessage
	}
	jsonSet struct {
		Family, Table, Name string
		Flags               json.RawMessage
		Timeout             json.RawMessage
		Elem                json.RawMessage
	}
	jsonRule struct {
		Family, Table, Chain string
		Expr                 []json.RawMessage
	}
)

func parseJSON(file iptables.File, into *ruleset) error {
	r := &jsonReader{file: file.Name, rules: into}
	var top struct {
		Nftables []json.RawMessage `json:"nftables"`
	}
	if err := json.Unmarshal(file.Data, &top); err != nil {
		return fmt.Errorf("%s: not the JSON of \"nft -j list ruleset\": %w", file.Name, err)
	}
	line, at := 1, 0
	for _, raw := range top.Nftables {
		if i := bytes.Index(file.Data[at:], raw); i >= 0 {
			line += bytes.Count(file.Data[at:at+i], []byte("\n"))
			at += i
		}
		if err := r.object(raw, line); err != nil {
			return err
		}
	}
	return nil
}

func (r *jsonReader) fail(line int, what string) error {
	return fmt.Errorf("%s:%d: %s: give what \"nft -j list ruleset\" prints", r.file, line, what)
}

func (r *jsonReader) object(raw json.RawMessage, line int) error {
	var o object
	if err := json.Unmarshal(raw, &o); err != nil {
		return r.fail(line, "there is something that is no object")
	}
	kind, value := o.only()
	if kind == "add" || kind == "create" { // a command of a file for nft -j -f
		return r.object(value, line)
	}
	at := iptables.Position{File: r.file, Line: line}
	bad := r.fail(line, fmt.Sprintf("a %s is not as it should be", kind))
	switch kind {
	case "metainfo", "counter", "quota", "ct helper", "ct timeout", "ct expectation", "limit", "flowtable", "secmark", "synproxy":
		return nil
	case "table":
		var t jsonTable
		if json.Unmarshal(value, &t) != nil || t.Name == "" {
			return bad
		}
		at.Text = "table " + t.Family + " " + t.Name
		r.rules.addTable(t.Family, t.Name, at).dormant = slices.Contains(texts(t.Flags), "dormant")
	case "chain":
		var c jsonChain
		if json.Unmarshal(value, &c) != nil || c.Name == "" {
			return bad
		}
		t := r.rules.table(c.Family, c.Table)
		if t == nil {
			return r.fail(line, "a chain has no table")
		}
		at.Text = "chain " + c.Family + " " + c.Table + " " + c.Name
		chain := t.addChain(c.Name, at)
		chain.isBase, chain.kind, chain.hook = c.Hook != "", c.Type, c.Hook
		if text := r.scalar(c.Prio); text != "" {
			chain.priority, _ = priorityOf(text)
		}
		if c.Policy != "" {
			if c.Policy != "accept" && c.Policy != "drop" {
				return fmt.Errorf("%s:%d: %q is no policy of a chain: write accept or drop", r.file, line, c.Policy)
			}
			chain.policy = c.Policy
		}
	case "set", "map", "meter", "element":
		var s jsonSet
		if json.Unmarshal(value, &s) != nil || s.Name == "" {
			return bad
		}
		t := r.rules.table(s.Family, s.Table)
		if t == nil {
			return r.fail(line, "a set has no table")
		}
		into := t.addSet(s.Name)
		flags := texts(s.Flags)
		into.changes = into.changes || kind == "meter" || slices.Contains(flags, "dynamic") || slices.Contains(flags, "timeout") || len(s.Timeout) > 0
		if len(s.Elem) == 0 {
			return nil
		}
		e, expires := r.elements(s.Elem)
		if e.kind != isSet {
			return r.fail(line, fmt.Sprintf("the elements of set %s are not understood", s.Name))
		}
		into.changes = into.changes || expires
		into.elements = append(into.elements, e.elements...)
	case "rule":
		var j jsonRule
		if json.Unmarshal(value, &j) != nil {
			return bad
		}
		t := r.rules.table(j.Family, j.Table)
		if t == nil || t.chain(j.Chain) == nil {
			return r.fail(line, "a rule has no chain")
		}
		rule := &rule{at: at}
		for _, raw := range j.Expr {
			rule.statements = append(rule.statements, r.statement(raw)...)
		}
		rule.at.Text = j.Table + " " + j.Chain + ": " + statementsText(rule.statements)
		t.chain(j.Chain).rules = append(t.chain(j.Chain).rules, rule)
	default:
		return r.fail(line, fmt.Sprintf("%q is not understood", kind))
	}
	return nil
}

// texts are the strings of a list, or the one string that stands for it.
func texts(raw json.RawMessage) []string {
	var list []string
	if json.Unmarshal(raw, &list) == nil {
		return list
	}
	var one string
	_ = json.Unmarshal(raw, &one)
	return []string{one}
}

// scalar is a text, or a number as text, or "".
func (r *jsonReader) scalar(raw json.RawMessage) string {
	var text string
	if json.Unmarshal(raw, &text) == nil {
		return text
	}
	var n json.Number
	if json.Unmarshal(raw, &n) == nil {
		return n.String()
	}
	return ""
}

// unknown is a statement that may match or not.
func unknown(raw json.RawMessage) []statement {
	const longest = 120
	var b bytes.Buffer
	if json.Compact(&b, raw) != nil || b.Len() > longest {
		b.Truncate(min(b.Len(), longest))
	}
	return []statement{{kind: isUnknown, text: b.String()}}
}

// unknownVerdict is a statement that may do anything.
func unknownVerdict(raw json.RawMessage) []statement {
	return []statement{{kind: isVerdict, verdict: unknownTo(unknown(raw)[0].text)}}
}

// statement reads one statement of a rule; most come to one.
func (r *jsonReader) statement(raw json.RawMessage) []statement {
	var o object
	if json.Unmarshal(raw, &o) != nil {
		return unknown(raw)
	}
	kind, value := o.only()
	switch kind {
	case "accept", "drop", "continue", "return":
		return []statement{{kind: isVerdict, verdict: verdict{name: kind}}}
	case "jump", "goto", "queue", "reject":
		v, ok := r.verdict(kind, value)
		if !ok {
			return unknownVerdict(raw)
		}
		return []statement{{kind: isVerdict, verdict: v}}
	case "counter", "comment", "last":
		return nil
	case "log":
		return []statement{{kind: isLog, text: "log"}}
	case "notrack", "masquerade", "snat", "dup", "flow", "ct helper", "ct timeout", "ct expectation", "mangle":
		return []statement{{kind: isPassing, text: kind}}
	case "dnat", "redirect":
		return []statement{{kind: isNAT, text: kind}}
	case "match":
		return r.match(raw, value)
	case "vmap":
		var m struct{ Key, Data json.RawMessage }
		if json.Unmarshal(value, &m) == nil {
			return []statement{{kind: isVerdictMap, left: r.expr(m.Key), right: r.expr(m.Data)}}
		}
		return unknownVerdict(raw)
	case "limit":
		var l struct {
			Rate  json.Number
			Per   string
			Burst json.Number
			Inv   bool
			Unit  string `json:"rate_unit"`
		}
		if json.Unmarshal(value, &l) == nil && l.Per != "" {
			bytes := l.Unit != "" && l.Unit != "packets"
			return []statement{{kind: isLimit, limit: limit{rate: l.Rate.String(), unit: l.Per, burst: l.Burst.String(), over: l.Inv, bytes: bytes}}}
		}
	case "ct count":
		var c struct {
			Val json.Number
			Inv bool
		}
		if json.Unmarshal(value, &c) == nil {
			over := ""
			if c.Inv {
				over = "over "
			}
			return []statement{{kind: isCount, text: "ct count " + over + c.Val.String()}}
		}
	case "set", "map", "meter":
		return r.update(raw, kind, value)
	case "quota":
		return unknown(raw)
	}
	return unknownVerdict(raw)
}

func (r *jsonReader) verdict(kind string, value json.RawMessage) (verdict, bool) {
	v := verdict{name: kind}
	switch kind {
	case "jump", "goto":
		var to struct{ Target string }
		if json.Unmarshal(value, &to) != nil || to.Target == "" {
			return v, false
		}
		v.chain = to.Target
	case "reject":
		var how struct{ Type, Expr string }
		if json.Unmarshal(value, &how) == nil && how.Type != "" {
			with := how.Type
			if with == "tcp reset" {
				with = "tcp"
			}
			v.kind, v.with = with, rejection(with, how.Expr)
		}
	}
	return v, true
}

func (r *jsonReader) match(raw, value json.RawMessage) []statement {
	var m struct {
		Op          string
		Left, Right json.RawMessage
	}
	if json.Unmarshal(value, &m) != nil {
		return unknown(raw)
	}
	s := statement{kind: isMatch, left: r.expr(m.Left), op: m.Op, right: r.expr(m.Right)}
	if s.left.kind == isOther || s.right.kind == isOther {
		return unknown(raw)
	}
	return []statement{s}
}

// update reads a statement that puts what a packet has into a set.
func (r *jsonReader) update(raw json.RawMessage, kind string, value json.RawMessage) []statement {
	var u struct {
		Op, Set, Map, Name string
		Elem, Key          json.RawMessage
		Stmt               json.RawMessage
	}
	if json.Unmarshal(value, &u) != nil {
		return unknown(raw)
	}
	s := statement{kind: isUpdate, set: strings.TrimPrefix(u.Set+u.Map, "@"), text: u.Op + " " + u.Set + u.Map}
	key := u.Elem
	if kind == "meter" {
		s.set, s.text, key = u.Name, "meter "+u.Name, u.Key
	}
	var wrapped struct {
		Elem *struct{ Val json.RawMessage }
	}
	if json.Unmarshal(key, &wrapped) == nil && wrapped.Elem != nil {
		key = wrapped.Elem.Val
	}
	if s.left = r.expr(key); s.left.kind == isOther {
		return unknown(raw)
	}
	list := []json.RawMessage{u.Stmt}
	if len(u.Stmt) == 0 || json.Unmarshal(u.Stmt, &list) != nil && u.Stmt[0] != '{' {
		list = nil
	}
	for _, inner := range list {
		for _, st := range r.statement(inner) {
			if st.kind != isPassing {
				s.inner = append(s.inner, st)
			}
		}
	}
	return []statement{s}
}

// expr reads an expression.
func (r *jsonReader) expr(raw json.RawMessage) expr {
	if len(raw) == 0 {
		return expr{kind: isOther}
	}
	other := expr{kind: isOther, text: unknown(raw)[0].text}
	switch raw[0] {
	case '"', '-', '0', '1', '2', '3', '4', '5', '6', '7', '8', '9':
		text := r.scalar(raw)
		switch {
		case text == "*":
			return expr{kind: isAny, text: text}
		case len(text) > 1 && text[0] == '@':
			return expr{kind: isSetName, text: text[1:]}
		}
		return literal(text)
	case '[':
		return r.all(isList, raw)
	case '{':
	default:
		return other
	}
	var o object
	if json.Unmarshal(raw, &o) != nil {
		return other
	}
	kind, value := o.only()
	switch kind {
	case "payload", "meta", "ct", "fib":
		return r.field(kind, value)
	case "concat":
		return r.all(isConcat, value)
	case "|":
		e := r.all(isList, value)
		if e.kind == isList {
			e.of = slices.Concat(flat(e.of[0]), slices.Concat(mapped(e.of[1:], flat)...))
		}
		return e
	case "&":
		if e := r.all(isMasked, value); e.kind == isMasked && len(e.of) == 2 {
			return e
		}
	case "range":
		if e := r.all(isRange, value); e.kind == isRange && len(e.of) == 2 {
			return e
		}
	case "set":
		e, _ := r.elements(value)
		return e
	case "prefix":
		var p struct {
			Addr json.RawMessage
			Len  int
		}
		if json.Unmarshal(value, &p) == nil {
			return expr{kind: isPrefix, of: []expr{r.expr(p.Addr)}, bits: p.Len}
		}
	case "elem":
		var e struct{ Val json.RawMessage }
		if json.Unmarshal(value, &e) == nil {
			return r.expr(e.Val)
		}
	}
	return other
}

func mapped[A, B any](list []A, f func(A) B) []B {
	out := make([]B, len(list))
	for i, a := range list {
		out[i] = f(a)
	}
	return out
}

// all reads a list of expressions.
func (r *jsonReader) all(kind exprKind, raw json.RawMessage) expr {
	var list []json.RawMessage
	if json.Unmarshal(raw, &list) != nil || len(list) == 0 {
		return expr{kind: isOther}
	}
	e := expr{kind: kind}
	for _, one := range list {
		part := r.expr(one)
		if part.kind == isOther {
			return part
		}
		e.of = append(e.of, part)
	}
	return e
}

// elements reads the elements of a set, and whether any has a time.
func (r *jsonReader) elements(raw json.RawMessage) (e expr, expires bool) {
	var list []json.RawMessage
	if json.Unmarshal(raw, &list) != nil {
		list = []json.RawMessage{raw} // of a single one
	}
	e = expr{kind: isSet, elements: []element{}}
	for _, one := range list {
		var pair []json.RawMessage
		el := element{}
		if json.Unmarshal(one, &pair) == nil && len(pair) == 2 {
			one = pair[0]
			if el.value, el.other = r.mapped(pair[1]); el.value == nil && !el.other {
				return expr{kind: isOther}, false
			}
		}
		var wrapped struct{ Elem map[string]json.RawMessage }
		if len(one) > 0 && one[0] == '{' && json.Unmarshal(one, &wrapped) == nil && wrapped.Elem != nil {
			for key := range maps.Keys(wrapped.Elem) {
				expires = expires || !slices.Contains([]string{"val", "comment", "counter"}, key)
			}
		}
		if el.key = r.expr(one); el.key.kind == isOther {
			return el.key, false
		}
		e.elements = append(e.elements, el)
	}
	return e, expires
}

// mapped reads what a map has for a key: a verdict, or something else.
func (r *jsonReader) mapped(raw json.RawMessage) (*verdict, bool) {
	var o object
	if len(raw) == 0 || raw[0] != '{' || json.Unmarshal(raw, &o) != nil {
		return nil, true
	}
	kind, value := o.only()
	switch kind {
	case "accept", "drop", "continue", "return":
		return &verdict{name: kind}, false
	case "jump", "goto", "queue":
		v, ok := r.verdict(kind, value)
		if !ok {
			return nil, false
		}
		return &v, false
	}
	return nil, true
}

// field reads what is asked of a packet.
func (r *jsonReader) field(kind string, raw json.RawMessage) expr {
	var f struct {
		Protocol, Field, Base string
		Offset, Len           int
		Key, Dir              string
		Result                string
		Flags                 json.RawMessage
	}
	if json.Unmarshal(raw, &f) != nil {
		return expr{kind: isOther}
	}
	text := ""
	switch {
	case kind == "payload" && f.Protocol != "":
		text = f.Protocol + " " + f.Field
	case kind == "payload" && f.Base == "th" && f.Offset == 16 && f.Len == 16:
		text = "th dport"
	case kind == "payload" && f.Base == "th" && f.Offset == 0 && f.Len == 16:
		text = "th sport"
	case kind == "payload":
		text = fmt.Sprintf("@%s,%d,%d", f.Base, f.Offset, f.Len)
	case kind == "fib":
		text = "fib"
		for i, flag := range texts(f.Flags) {
			if i > 0 {
				text += " ."
			}
			text += " " + flag
		}
		text += " " + f.Result
	case kind == "ct" && f.Dir != "":
		text = "ct " + f.Dir + " " + f.Key
	default:
		text = kind + " " + f.Key
	}
	return expr{kind: isField, text: text}
}
