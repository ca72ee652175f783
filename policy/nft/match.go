// SPDX-License-Identifier: Apache-2.0

package nft

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/portcullis-firewall/portcullis/policy"
	"github.com/portcullis-firewall/portcullis/policy/addrset"
	"github.com/portcullis-firewall/portcullis/policy/iptables"
)

// maxConcat bounds how many elements of a set of several fields a rule is taken
// apart into.
const maxConcat = 256

// comesAndGoes is what cannot be told of a set that packets, or time, change.
const comesAndGoes = "@%s, whose members come and go,"

// question is a match of one field.
type question struct {
	field  string
	values []expr // literals, prefixes and ranges; for bits, which of them
	bits   bool   // the values are bits of one number
	op     string
	text   string // of the whole, for what is not understood
}

func (q question) not() bool { return q.op == "!=" }

// members are the elements of a set, by name or not. A set that packets or time
// change is named, too.
func (t *table) members(e expr) (list []element, changing string, ok bool) {
	switch e.kind {
	case isSet:
		return e.elements, "", true
	case isSetName:
		s := t.sets[e.text]
		if s == nil {
			return nil, "", false
		}
		if s.changes {
			changing = s.name
		}
		return s.elements, changing, true
	}
	return nil, "", false
}

// match narrows terms by a match. Several that come of it stand for any of them.
func (t *table) match(of *terms, s statement) []*terms {
	if s.left.kind == isConcat {
		return t.matchConcat(of, s)
	}
	q := question{op: s.op, text: s.String()}
	switch s.right.kind {
	case isLiteral, isPrefix, isRange:
		q.values = []expr{s.right}
	case isList:
		q.values, q.bits = s.right.of, true
	case isSet, isSetName:
		list, changing, ok := t.members(s.right)
		if !ok {
			of.doubt("%s", q.text)
			return []*terms{of}
		}
		if changing != "" {
			of.implied(s.left)
			of.doubt(comesAndGoes, changing)
			return []*terms{of}
		}
		any := false
		for _, el := range list {
			any = any || el.key.kind == isAny
			q.values = append(q.values, el.key)
		}
		if any {
			of.never = of.never || q.not()
			return []*terms{of}
		}
		if len(list) == 0 {
			of.implied(s.left)
			of.never = of.never || !q.not()
			return []*terms{of}
		}
	default:
		of.doubt("%s", q.text)
		return []*terms{of}
	}
	switch s.left.kind {
	case isField:
		q.field = s.left.text
		exact := s.right.kind == isSet || s.right.kind == isSetName
		of.ask(q, exact)
	case isMasked:
		of.askMasked(q, s.left)
	default:
		of.doubt("%s", q.text)
	}
	return []*terms{of}
}

// matchConcat is about several fields at once.
func (t *table) matchConcat(of *terms, s statement) (out []*terms) {
	text := s.String()
	list, changing, ok := t.members(s.right)
	if s.right.kind == isConcat {
		list, ok = []element{{key: s.right}}, true
	}
	for _, f := range s.left.of {
		of.implied(f)
	}
	if changing != "" {
		of.doubt(comesAndGoes, changing)
		return []*terms{of}
	}
	if !ok || s.op == "!=" || len(list) > maxConcat {
		of.doubt("%s", text)
		return []*terms{of}
	}
	for _, el := range list {
		one := of.clone()
		out = append(out, one.askAll(s.left, el.key, text)...)
	}
	return out
}

// askAll narrows terms by one element of a set, or of a verdict map.
func (of *terms) askAll(left, key expr, text string) []*terms {
	fields, keys := []expr{left}, []expr{key}
	if left.kind == isConcat {
		fields, keys = left.of, key.of
		if key.kind != isConcat {
			keys = []expr{key}
		}
	}
	if len(fields) != len(keys) {
		of.doubt("%s", text)
		return []*terms{of}
	}
	for i, f := range fields {
		switch {
		case keys[i].kind == isAny:
		case f.kind == isField && slices.Contains([]exprKind{isLiteral, isPrefix, isRange}, keys[i].kind):
			of.ask(question{field: f.text, values: []expr{keys[i]}, text: text}, true)
		default:
			of.implied(f)
			of.doubt("%s", text)
		}
	}
	return []*terms{of}
}

// headers are the protocols that a field of them implies.
var headers = map[string]int{"tcp": 6, "udp": 17, "dccp": 33, "esp": 50, "ah": 51, "comp": 108, "sctp": 132, "udplite": 136}

// implied narrows terms to packets that have a field at all.
func (of *terms) implied(e expr) {
	if e.kind != isField {
		return
	}
	header, _, _ := strings.Cut(e.text, " ")
	number, known := headers[header]
	switch {
	case header == "ip":
		of.only(iptables.IPv4)
	case header == "ip6":
		of.only(iptables.IPv6)
	case header == "icmp":
		of.only(iptables.IPv4)
		of.among(protocolsOf(1))
	case header == "icmpv6":
		of.only(iptables.IPv6)
		of.among(protocolsOf(58))
	case known:
		of.among(protocolsOf(number))
	}
}

// ask narrows terms by what is asked of one field. A set of bits is asked for
// exactly.
func (of *terms) ask(q question, exact bool) {
	of.implied(expr{kind: isField, text: q.field})
	ok := false
	switch q.field {
	case "meta iifname", "meta iif":
		ok = of.askNames(&of.in, q)
	case "meta oifname", "meta oif":
		ok = of.askNames(&of.out, q)
	case "meta nfproto":
		ok = of.askFamily(q, map[string]int{"ipv4": 0, "ipv6": 1, "2": 0, "10": 1})
	case "meta protocol", "ether type":
		ok = of.askFamily(q, map[string]int{"ip": 0, "ip6": 1, "2048": 0, "0x0800": 0, "34525": 1, "0x86dd": 1, "arp": -1, "vlan": -1, "8021q": -1})
	case "meta l4proto", "ip protocol", "ip6 nexthdr":
		ok = of.askProtocol(q)
		of.nextHeader = of.nextHeader || q.field == "ip6 nexthdr"
	case "tcp dport", "udp dport", "sctp dport", "udplite dport", "th dport":
		ok = of.askPorts(q)
	case "tcp sport", "udp sport":
		ok = of.askSourcePorts(q)
	case "ip saddr":
		ok = of.askAddresses(&of.from, iptables.IPv4, q)
	case "ip6 saddr":
		ok = of.askAddresses(&of.from, iptables.IPv6, q)
	case "ip daddr":
		ok = of.askAddresses(&of.to, iptables.IPv4, q)
	case "ip6 daddr":
		ok = of.askAddresses(&of.to, iptables.IPv6, q)
	case "icmp type", "icmpv6 type":
		ok = of.askICMP(q)
	case "icmp code", "icmpv6 code":
		ok = of.askCode(q)
	case "ct state":
		ok = of.askState(q)
	case "ct status":
		ok = len(q.values) == 1 && q.values[0].text == "dnat" && slices.Contains([]string{"", "==", "in"}, q.op)
		of.redirected = of.redirected || ok
	case "tcp flags":
		ok = of.askFlags(q, exact)
	case "meta pkttype":
		ok = of.askPacketType(q)
	case "fib daddr type":
		ok = of.askDestination(q)
	}
	if !ok {
		of.doubt("%s", q.text)
	}
}

// isEquality reports whether the values are what the field has to be, or must
// not be.
func (q question) isEquality() bool {
	return slices.Contains([]string{"", "==", "!=", "in"}, q.op) && !q.bits
}

func (of *terms) askNames(n *names, q question) bool {
	if !q.isEquality() {
		return false
	}
	var list []string
	for _, v := range q.values {
		name := v.text
		if v.kind != isLiteral || isNumber(name) || strings.ContainsAny(name, `+\`) || name == "" || name == "*" || strings.Contains(strings.TrimSuffix(name, "*"), "*") {
			return false
		}
		if prefix, wild := strings.CutSuffix(name, "*"); wild {
			name = prefix + "+"
		}
		list = append(list, name)
	}
	of.never = !n.restrict(list, q.not()) || of.never
	return true
}

func (of *terms) askFamily(q question, words map[string]int) bool {
	if !q.isEquality() {
		return false
	}
	var among [2]bool
	for _, v := range q.values {
		f, known := words[strings.ToLower(v.text)]
		if v.kind != isLiteral || !known {
			return false
		}
		if f >= 0 {
			among[f] = true
		}
	}
	for _, f := range iptables.Families {
		if among[f] == q.not() {
			of.families[f] = false
		}
	}
	of.never = of.never || !of.families[0] && !of.families[1]
	return true
}

func (of *terms) askProtocol(q question) bool {
	if !q.isEquality() {
		return false
	}
	var set protocolSet
	for _, v := range q.values {
		first, last := protocolOf(v.text), protocolOf(v.text)
		if v.kind == isRange {
			first, last = protocolOf(v.of[0].text), protocolOf(v.of[1].text)
		}
		if first <= 0 || last < first || v.kind == isPrefix {
			return false
		}
		for n := first; n <= last; n++ {
			set[n] = true
		}
	}
	if q.not() {
		for n := range set {
			set[n] = !set[n]
		}
	}
	of.among(set)
	return true
}

// askPorts reads ports, ranges and names of them.
func (of *terms) askPorts(q question) bool {
	header, _, _ := strings.Cut(q.field, " ")
	one := ""
	var list []portRange
	for _, v := range q.values {
		first, last := v, v
		if v.kind == isRange {
			first, last = v.of[0], v.of[1]
		} else if v.kind != isLiteral {
			return false
		}
		a, ok1 := of.port(header, first.text)
		b, ok2 := of.port(header, last.text)
		if !ok1 || !ok2 || a > b {
			return false
		}
		if !isNumber(v.text) && v.kind == isLiteral {
			one = strings.ToLower(v.text)
		}
		list = append(list, portRange{a, b})
	}
	of.asksPorts = of.asksPorts || header == "th"
	switch q.op {
	case "<", "<=", ">", ">=":
		if len(list) != 1 || list[0].first != list[0].last || q.bits {
			return false
		}
		n := list[0].first
		list = map[string][]portRange{"<": {{0, n - 1}}, "<=": {{0, n}}, ">": {{n + 1, 65535}}, ">=": {{n, 65535}}}[q.op]
		if list[0].first > list[0].last {
			of.never = true
			return true
		}
	default:
		if !q.isEquality() {
			return false
		}
	}
	named := of.ports == nil && len(list) == 1 && !q.not() && q.isEquality() && header != "th"
	of.restrictPorts(list, q.not())
	if of.portName = ""; named {
		of.portName = one
	}
	return true
}

// askSourcePorts reads ports as iptables does, which knows what to make of them.
func (of *terms) askSourcePorts(q question) bool {
	if !q.isEquality() || q.not() {
		return false
	}
	header, _, _ := strings.Cut(q.field, " ")
	var texts []string
	for _, v := range q.values {
		first, last := v.text, v.text
		if v.kind == isRange {
			first, last = v.of[0].text, v.of[1].text
		}
		a, ok1 := of.port(header, first)
		b, ok2 := of.port(header, last)
		if !ok1 || !ok2 || v.kind == isPrefix {
			return false
		}
		text := strconv.Itoa(a)
		if a != b {
			text += ":" + strconv.Itoa(b)
		}
		texts = append(texts, text)
	}
	of.options = append(of.options, "--sport", strings.Join(texts, ","))
	return true
}

// port reads a number or the name of a service.
func (of *terms) port(header, text string) (int, bool) {
	if isNumber(text) {
		return number(text), number(text) <= 65535
	}
	protocols := []string{header}
	if header == "th" {
		protocols = []string{"tcp", "udp"}
	}
	for _, p := range protocols {
		if r, err := policy.ParseRule(text + "/" + p); err == nil && len(r.Ports) == 1 && r.Ports[0].First == r.Ports[0].Last &&
			len(r.From)+len(r.To)+len(r.On) == 0 {
			return int(r.Ports[0].First), true
		}
	}
	return 0, false
}

func (of *terms) askAddresses(side *[2][]addrset.Range, f iptables.Family, q question) bool {
	if !q.isEquality() {
		return false
	}
	var list []addrset.Range
	for _, v := range q.values {
		r, ok := addressesOf(v)
		if !ok || r.First.Is4() != (f == iptables.IPv4) {
			return false
		}
		list = append(list, r)
	}
	slices.SortFunc(list, func(a, b addrset.Range) int { return a.First.Compare(b.First) })
	of.restrict(side, f, addrset.Join(list), q.not())
	return true
}

// addressesOf are those of an address, a prefix or a range.
func addressesOf(e expr) (r addrset.Range, ok bool) {
	switch e.kind {
	case isLiteral:
		a, err := netip.ParseAddr(e.text)
		return addrset.Range{First: a, Last: a}, err == nil && a.Zone() == ""
	case isPrefix:
		p, err := netip.ParsePrefix(fmt.Sprintf("%s/%d", e.of[0].text, e.bits))
		if err != nil {
			return r, false
		}
		return addrset.RangeOf(p), true
	case isRange:
		a, ok1 := addressesOf(e.of[0])
		b, ok2 := addressesOf(e.of[1])
		r = addrset.Range{First: a.First, Last: b.Last}
		return r, ok1 && ok2 && r.First.BitLen() == r.Last.BitLen() && !r.Last.Less(r.First)
	}
	return r, false
}

// anyCode is that of a type whatever its code.
const anyCode = 1 << 16

func (of *terms) askICMP(q question) bool {
	f := iptables.IPv4
	if strings.HasPrefix(q.field, "icmpv6") {
		f = iptables.IPv6
	}
	if !q.isEquality() {
		return false
	}
	var list []int
	for _, v := range q.values {
		first, last := icmpType(f, v.text), icmpType(f, v.text)
		if v.kind == isRange {
			first, last = icmpType(f, v.of[0].text), icmpType(f, v.of[1].text)
		}
		if first < 0 || last < first || v.kind == isPrefix {
			return false
		}
		for n := first; n <= last; n++ {
			list = append(list, n<<8|anyCode)
		}
	}
	if q.not() {
		all := make([]int, 0, 256)
		for n := range 256 {
			if !slices.Contains(list, n<<8|anyCode) {
				all = append(all, n<<8|anyCode)
			}
		}
		list = all
	}
	of.restrictICMP(f, list)
	return true
}

func icmpType(f iptables.Family, text string) int {
	if isNumber(text) && number(text) < 256 {
		return number(text)
	}
	if n, ok := icmpTypes()[f][text]; ok {
		return n
	}
	return -1
}

// askCode is about the code of types that were asked for before.
func (of *terms) askCode(q question) bool {
	f := iptables.IPv4
	if strings.HasPrefix(q.field, "icmpv6") {
		f = iptables.IPv6
	}
	if !q.isEquality() || q.not() || of.icmp[f] == nil {
		return false
	}
	var list []int
	for _, m := range of.icmp[f] {
		for _, v := range q.values {
			if v.kind != isLiteral || !isNumber(v.text) || number(v.text) > 255 || m&anyCode == 0 {
				return false
			}
			list = append(list, m&0xff00|number(v.text))
		}
	}
	of.icmp[f] = list
	return true
}

func (of *terms) askState(q question) bool {
	// Several states with != are one number, that no packet has.
	if !slices.Contains([]string{"", "==", "!=", "in", "!"}, q.op) || q.bits && (q.op == "==" || q.op == "!=") {
		return false
	}
	var words []string
	for _, v := range q.values {
		if v.kind != isLiteral || !slices.Contains([]string{"new", "established", "related", "invalid", "untracked"}, v.text) {
			return false
		}
		words = append(words, strings.ToUpper(v.text))
	}
	if q.not() || q.op == "!" {
		of.options = append(of.options, "!")
	}
	of.options = append(of.options, "--state", strings.Join(words, ","))
	return true
}

// askDestination is about what kind of address the destination is.
func (of *terms) askDestination(q question) bool {
	if !q.isEquality() {
		return false
	}
	var words []string
	others := false
	for _, v := range q.values {
		if word := strings.ToUpper(v.text); slices.Contains([]string{"LOCAL", "BROADCAST", "MULTICAST"}, word) {
			words = append(words, word)
		} else {
			others = true
		}
	}
	all := slices.Contains(words, "LOCAL") && slices.Contains(words, "BROADCAST") && slices.Contains(words, "MULTICAST")
	switch {
	case others && !all:
		return false
	case q.not():
		of.options = append(of.options, "!")
	}
	of.options = append(of.options, "--dst-type", strings.Join(words, ","))
	return true
}
