// SPDX-License-Identifier: Apache-2.0

package nft

import (
	"slices"

	"github.com/portcullis-firewall/portcullis/policy/iptables"
)

// ruleset is what is in force when all has been read.
type ruleset struct {
	tables []*table
}

type table struct {
	family, name string
	at           iptables.Position
	dormant      bool
	chains       []*chain
	sets         map[string]*set
}

type chain struct {
	name     string
	at       iptables.Position
	isBase   bool
	kind     string // filter, nat or route
	hook     string
	priority int
	policy   string // accept or drop
	rules    []*rule
}

// set is a named set, or a map.
type set struct {
	name     string
	changes  bool // packets, or time, change what is in it
	elements []element
}

// element is one member of a set, or one entry of a map.
type element struct {
	key   expr
	value *verdict // of a verdict map
	other bool     // it is an entry of a map of other values
}

type rule struct {
	at         iptables.Position
	statements []statement
}

// statementKind says what a statement does.
type statementKind int

const (
	isMatch statementKind = iota
	isVerdict
	isVerdictMap
	isLimit
	isUpdate // of a set by a packet, or a meter
	isCount  // ct count
	isLog
	isNAT     // dnat and redirect
	isPassing // whatever does not change which way a packet goes
	isUnknown // whatever is not understood, and may match or not
)

type statement struct {
	kind    statementKind
	left    expr // of a match; the key of a verdict map or an update
	op      string
	right   expr
	verdict verdict
	limit   limit
	set     string      // that is updated
	inner   []statement // of an update
	text    string
}

// verdict is accept, drop, reject, return, continue, jump, goto or queue.
type verdict struct {
	name  string
	chain string // of jump and goto
	kind  string // of reject: icmp, icmpv6, icmpx or tcp, which say what packets it is for
	with  string // of reject: the option of iptables
}

// limit is limit rate.
type limit struct {
	rate, unit string
	burst      string
	over       bool
	bytes      bool
}

// exprKind says what an expression is.
type exprKind int

const (
	isField   exprKind = iota // such as "ip saddr"
	isLiteral                 // a number, an address, a name
	isPrefix                  // of[0]/bits
	isRange                   // of[0]-of[1]
	isList                    // a,b or a|b: bits
	isSet                     // {a, b}
	isSetName                 // @name
	isConcat                  // a . b
	isMasked                  // of[0] & of[1]
	isAny                     // *
	isOther                   // not understood
)

type expr struct {
	kind     exprKind
	text     string // of a field, a literal, a set's name, or what is not understood
	bits     int
	of       []expr
	elements []element // of a set
}

func literal(text string) expr { return expr{kind: isLiteral, text: text} }

func (s *ruleset) table(family, name string) *table {
	i := slices.IndexFunc(s.tables, func(t *table) bool { return t.family == family && t.name == name })
	if i < 0 {
		return nil
	}
	return s.tables[i]
}

// addTable returns a table, which it makes if there is none.
func (s *ruleset) addTable(family, name string, at iptables.Position) *table {
	if t := s.table(family, name); t != nil {
		return t
	}
	t := &table{family: family, name: name, at: at, sets: make(map[string]*set)}
	s.tables = append(s.tables, t)
	return t
}

func (t *table) chain(name string) *chain {
	i := slices.IndexFunc(t.chains, func(c *chain) bool { return c.name == name })
	if i < 0 {
		return nil
	}
	return t.chains[i]
}

func (t *table) addChain(name string, at iptables.Position) *chain {
	if c := t.chain(name); c != nil {
		return c
	}
	c := &chain{name: name, at: at, policy: "accept"}
	t.chains = append(t.chains, c)
	return c
}

func (t *table) addSet(name string) *set {
	if t.sets[name] == nil {
		t.sets[name] = &set{name: name}
	}
	return t.sets[name]
}

// terminates reports whether no statement behind a verdict is come to.
func (v verdict) terminates() bool {
	return slices.Contains([]string{"accept", "drop", "reject", "queue", "return", "goto"}, v.name)
}
