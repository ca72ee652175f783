// SPDX-License-Identifier: Apache-2.0

// Package packets compares policies by the packets that their rules let in and through, not by their texts.
package packets

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/portcullis-firewall/portcullis/policy"
	"github.com/portcullis-firewall/portcullis/policy/addrset"
)

// Change is a difference between two policies: packets to some ports, on some interfaces, for which other sources,
// addresses or limits count.
type Change struct {
	Forward bool // of packets that are routed, and not for this host
	Ports   []policy.PortRange
	What    string   // Ports as a rule names them
	On      []string // interfaces by which they come in, or patterns of them; nil for all
	Old     Admission
	New     Admission
}

// others stands in On for the interfaces that no rule names.
const others = "other interfaces"

// String returns the change as "80/tcp on eth0: from 203.0.113.0/24 -> anybody". Where there are too many networks to be
// named it ends with those that come and go: "(+ 192.0.2.0/24)". Where there are too many grants, those that stay are only
// counted.
func (c Change) String() string {
	old, new, stay := c.Old, c.New, ""
	if max(len(old), len(new)) > mostShown {
		old, new = without(c.Old, c.New), without(c.New, c.Old)
		if same := len(c.Old) - len(old); same > 0 {
			stay = fmt.Sprintf(", beside %s others that stay", count(same))
		}
	}
	text := fmt.Sprintf("%s: %s -> %s%s", c.Where(), old.text(mostShown), new.text(mostShown), stay)
	if gone, come := c.Difference(); c.Old.isFolded() || c.New.isFolded() {
		var parts []string
		if len(come) > 0 {
			parts = append(parts, "+ "+fold(come))
		}
		if len(gone) > 0 {
			parts = append(parts, "- "+fold(gone))
		}
		if len(parts) > 0 {
			text += " (" + strings.Join(parts, ", ") + ")"
		}
	}
	return text
}

// Where returns the ports, and the interfaces if they are not all: "80/tcp on eth0".
func (c Change) Where() string {
	if len(c.On) == 0 {
		return c.What
	}
	return c.What + " on " + strings.Join(c.On, ",")
}

// Difference returns the sources that can reach nothing any more, and those that could reach nothing before.
func (c Change) Difference() (gone, come []netip.Prefix) {
	old, new := c.Old.any(), c.New.any()
	return addrset.Prefixes(addrset.Subtract(old, new)), addrset.Prefixes(addrset.Subtract(new, old))
}

// Diff returns how the packets differ that rules let in, and then those that they let through. There is no change if and
// only if the rules of both policies let in and through the same.
func Diff(old, new *policy.Policy) []Change {
	out := diff(withRules(old, old.InputRules()), withRules(new, new.InputRules()))
	through := diff(withRules(old, old.ForwardRules()), withRules(new, new.ForwardRules()))
	for i := range through {
		through[i].Forward = true
	}
	return append(out, through...)
}

func withRules(p *policy.Policy, rules []policy.Rule) *policy.Policy {
	return &policy.Policy{Interfaces: p.Interfaces, Open: rules}
}

// diff is Diff of rules of one kind.
func diff(old, new *policy.Policy) []Change {
	d := &differ{clauses: make(map[policy.RuleKey]int), admissions: make(map[string]Admission), names: make(map[string]string)}
	d.old, d.new = d.sides(old), d.sides(new)
	d.learnNames(new.Open)
	d.learnNames(old.Open)
	var out []Change
	classes := interfaceClasses(old, new)
	for _, class := range classes {
		for _, c := range d.changes(class) {
			same := slices.IndexFunc(out, func(o Change) bool {
				return slices.Equal(o.Ports, c.Ports) && equal(o.Old, c.Old) && equal(o.New, c.New)
			})
			if same < 0 {
				out = append(out, c)
			} else {
				out[same].On = append(out[same].On, c.On...)
			}
		}
	}
	for i := range out {
		if len(out[i].On) == len(classes) {
			out[i].On = nil
		}
	}
	return out
}

func equal(a, b Admission) bool {
	return slices.EqualFunc(a, b, func(x, y Grant) bool {
		return compareGrants(x, y) == 0 && (x.From == nil) == (y.From == nil) && (x.To == nil) == (y.To == nil)
	})
}

// without returns the grants of an admission that another has not; both are sorted.
func without(a, b Admission) (out Admission) {
	for _, g := range a {
		if _, found := slices.BinarySearchFunc(b, g, compareGrants); !found {
			out = append(out, g)
		}
	}
	return out
}

// side is a rule of one policy, with a number for what it says besides ports and interfaces.
type side struct {
	rule   policy.Rule
	slots  []policy.SlotRange // joined: those of "all" are few
	clause int
}

type differ struct {
	old, new   []side
	clauses    map[policy.RuleKey]int
	rules      []policy.Rule // one of each clause
	admissions map[string]Admission
	names      map[string]string // of ports, as rules have them
}

func (d *differ) sides(p *policy.Policy) []side {
	out := make([]side, len(p.Open))
	for i, r := range p.Open {
		who := r
		who.Ports, who.On = nil, nil
		key := who.Key()
		n, ok := d.clauses[key]
		if !ok {
			n = len(d.rules)
			d.clauses[key] = n
			d.rules = append(d.rules, who)
		}
		ranges, err := r.SlotRanges()
		if err != nil {
			continue // opens nothing
		}
		out[i] = side{r, ranges, n}
	}
	return out
}

func (d *differ) learnNames(rules []policy.Rule) {
	for _, r := range rules {
		if key := portsText(sorted(r.Ports)); d.names[key] == "" {
			d.names[key] = r.What()
		}
	}
}

// border is where a rule of a side begins or ends to count, among the slots of all ports.
type border struct {
	at, clause int
	of         int // 0 the old side, 1 the new one
	step       int // 1 or -1
}

func (d *differ) changes(class interfaceClass) []Change {
	var borders []border
	for of, sides := range [2][]side{d.old, d.new} {
		for _, s := range sides {
			if !s.rule.AppliesOn(class.example) {
				continue
			}
			for _, r := range s.slots {
				borders = append(borders, border{r.First, s.clause, of, 1}, border{r.End, s.clause, of, -1})
			}
		}
	}
	slices.SortFunc(borders, func(a, b border) int { return a.at - b.at })
	var active [2]counts
	var out []Change
	index := make(map[[2]string]int)
	for i := 0; i < len(borders); {
		at := borders[i].at
		for ; i < len(borders) && borders[i].at == at; i++ {
			active[borders[i].of].add(borders[i].clause, borders[i].step)
		}
		if i == len(borders) || slices.Equal(active[0].list, active[1].list) {
			continue
		}
		was, is := active[0].key(), active[1].key()
		before, after := d.admission(was, active[0].list), d.admission(is, active[1].list)
		if equal(before, after) {
			continue
		}
		ports := portsOf(at, borders[i].at-1)
		// Other clauses may let in the same.
		pair := [2]string{before.key(), after.key()}
		n, ok := index[pair]
		if !ok {
			n = len(out)
			index[pair] = n
			out = append(out, Change{On: []string{class.name}, Old: before, New: after})
		}
		out[n].Ports = append(out[n].Ports, ports...)
	}
	for i := range out {
		out[i].Ports = joinPorts(out[i].Ports)
		out[i].What = d.what(out[i].Ports)
	}
	return out
}

// counts is which clauses apply, each once and sorted, and how often.
type counts struct {
	list  []int
	often map[int]int
}

func (c *counts) add(clause, step int) {
	if c.often == nil {
		c.often = make(map[int]int)
	}
	c.often[clause] += step
	place, found := slices.BinarySearch(c.list, clause)
	switch n := c.often[clause]; {
	case n == 0 && found:
		c.list = slices.Delete(c.list, place, place+1)
	case n > 0 && !found:
		c.list = slices.Insert(c.list, place, clause)
	}
}

func (c *counts) key() string {
	b := make([]byte, 0, 4*len(c.list))
	for _, n := range c.list {
		b = binary.BigEndian.AppendUint32(b, uint32(n))
	}
	return string(b)
}

func (d *differ) admission(key string, clauses []int) Admission {
	a, ok := d.admissions[key]
	if !ok {
		rules := make([]policy.Rule, len(clauses))
		for i, n := range clauses {
			rules[i] = d.rules[n]
		}
		a = admissionOf(rules)
		d.admissions[key] = a
	}
	return a
}

// key is the same for two admissions if and only if they are equal.
func (a Admission) key() string {
	var b []byte
	for _, g := range a {
		for _, list := range [][]netip.Prefix{g.From, g.To} {
			b = binary.BigEndian.AppendUint32(b, uint32(len(list)))
			for _, p := range list {
				b = append(append(b, byte(p.Addr().BitLen()), byte(p.Bits())), p.Addr().AsSlice()...)
			}
		}
		b = fmt.Appendf(b, "%d/%d/%d", g.Limit.Count, g.Limit.Per, g.Limit.Burst)
	}
	return string(b)
}

const protocolSlots = 4 << 16 // behind the ports, a slot for each protocol without any

// slots returns the first and the last slot of a range of ports, among those of all protocols.
func slots(p policy.PortRange) (first, last int) {
	class := policy.ProtocolIndex(p.Protocol)
	if class < 0 {
		return protocolSlots + int(p.Protocol), protocolSlots + int(p.Protocol)
	}
	return class<<16 | int(p.First), class<<16 | int(p.Last)
}

// portsOf is the inverse of slots.
func portsOf(first, last int) []policy.PortRange {
	var out []policy.PortRange
	for first <= last {
		if first >= protocolSlots {
			out = append(out, policy.PortRange{Protocol: policy.Protocol(first - protocolSlots)})
			first++
			continue
		}
		class := first >> 16
		end := min(last, class<<16|0xffff)
		out = append(out, policy.PortRange{Protocol: policy.Protocols[class], First: uint16(first), Last: uint16(end)})
		first = end + 1
	}
	return out
}

// joinPorts joins ranges that touch; they come in the order of their slots.
func joinPorts(ranges []policy.PortRange) []policy.PortRange {
	var out []policy.PortRange
	for _, r := range ranges {
		if n := len(out); n > 0 && out[n-1].Protocol == r.Protocol && int(out[n-1].Last)+1 == int(r.First) {
			out[n-1].Last = r.Last
			continue
		}
		out = append(out, r)
	}
	return out
}

// what returns ports as a rule names them, or as ranges.
func (d *differ) what(ports []policy.PortRange) string {
	if name := d.names[portsText(ports)]; name != "" {
		return name
	}
	texts := make([]string, len(ports))
	for i, p := range ports {
		texts[i] = cmp.Or(d.names[p.String()], p.String())
	}
	return strings.Join(texts, ",")
}

func portsText(ports []policy.PortRange) string {
	texts := make([]string, len(ports))
	for i, p := range ports {
		texts[i] = p.String()
	}
	return strings.Join(texts, ",")
}

func sorted(ports []policy.PortRange) []policy.PortRange {
	out := slices.Clone(ports)
	slices.SortFunc(out, func(a, b policy.PortRange) int {
		first, _ := slots(a)
		second, _ := slots(b)
		return first - second
	})
	return joinPorts(out)
}

// interfaceClass is interfaces for which the same rules count.
type interfaceClass struct{ name, example string }

// interfaceClasses returns the interfaces that either policy names, the patterns, and one class for all others.
func interfaceClasses(old, new *policy.Policy) []interfaceClass {
	seen := make(map[string]bool)
	var out []interfaceClass
	add := func(name string) {
		if !seen[name] {
			seen[name] = true
			out = append(out, interfaceClass{name, strings.ReplaceAll(name, "*", unnamed)})
		}
	}
	for _, p := range []*policy.Policy{old, new} {
		for _, r := range p.Open {
			for _, name := range r.On {
				add(name)
			}
		}
	}
	if len(out) > 0 {
		for _, p := range []*policy.Policy{old, new} {
			for _, name := range p.Interfaces {
				add(name)
			}
		}
	}
	slices.SortFunc(out, func(a, b interfaceClass) int { return strings.Compare(a.name, b.name) })
	return append(out, interfaceClass{others, unnamed})
}

const unnamed = "\x00" // no interface is called so: for what stands for any other
