// SPDX-License-Identifier: Apache-2.0

// Package packets compares policies by the packets that their rules let in and through, not by their texts.
package packets

import (
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
	What    string   // Ports as rules name them, or "all but" those that are left out
	On      []string // interfaces by which they come in, or patterns of them; nil for all
	Not     []string // those that On stands for, too, and that are no part of the change
	Old     Admission
	New     Admission

	names   portNames
	classes *classes
	within  []bool // whether each class is part of the change
}

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
	text := fmt.Sprintf("%s: %s -> %s%s", c.where(mostPorts), old.text(mostShown), new.text(mostShown), stay)
	if c.Old.isFolded() || c.New.isFolded() {
		gone, come := c.Difference()
		var parts []string
		if len(come) > 0 {
			parts = append(parts, "+ "+sourcesText(come))
		}
		if len(gone) > 0 {
			parts = append(parts, "- "+sourcesText(gone))
		}
		if len(parts) > 0 {
			text += " (" + strings.Join(parts, ", ") + ")"
		}
	}
	return text
}

// mostPorts is how many ports and ranges a line names before it only counts them.
const mostPorts = 20

// where returns so many ports at most, and the interfaces if they are not all: "80/tcp on eth0".
func (c Change) where(most int) string {
	what := c.names.text(most)
	if len(c.On) == 0 {
		return what
	}
	where := what + " on " + strings.Join(c.On, ",")
	if len(c.Not) > 0 {
		where += " (not " + strings.Join(c.Not, ",") + ")"
	}
	return where
}

// AppliesOn reports whether packets that come in on an interface are part of the change.
func (c Change) AppliesOn(iface string) bool {
	i := c.classes.of(iface)
	return i >= 0 && c.within[i]
}

// Difference returns the sources that can reach nothing any more, and those that could reach nothing before.
func (c Change) Difference() (gone, come []netip.Prefix) {
	old, new := c.Old.any(), c.New.any()
	return addrset.Prefixes(addrset.Subtract(old, new)), addrset.Prefixes(addrset.Subtract(new, old))
}

// Diff returns how the packets differ that are let in, and then those that are let through: by rules, or because all is
// accepted. There is no change if and only if both policies let in and through the same by these. What the policy of
// ICMP says does not count. Guests are the devices of containers and virtual machines, which begin outward as long as no
// forward rule names their device.
func Diff(old, new *policy.Policy, guests ...string) []Change {
	out := diff(input(old), input(new))
	before, after := routed(old), routed(new)
	for _, device := range guests {
		// Where they may as before, a rule for them would only make what is told longer.
		if old.NamesForward(device) != new.NamesForward(device) || before.Input != after.Input {
			before.Open = withGuests(before.Open, old, device)
			after.Open = withGuests(after.Open, new, device)
		}
	}
	through := diff(before, after)
	for i := range through {
		through[i].Forward = true
	}
	return append(out, through...)
}

// withGuests adds to the rules of a policy that guests behind a device may begin, if they may.
func withGuests(rules []policy.Rule, p *policy.Policy, device string) []policy.Rule {
	if p.NamesForward(device) {
		return rules
	}
	all, err := policy.ParseRule("all")
	if err != nil {
		return rules
	}
	all.Forward, all.On = true, []string{device}
	return append(slices.Clip(rules), all)
}

func input(p *policy.Policy) *policy.Policy {
	return &policy.Policy{Interfaces: p.Interfaces, Input: p.Input, InputOn: p.InputOn, Open: p.InputRules()}
}

// routed returns what a policy says of what is routed, as if it were for this host.
func routed(p *policy.Policy) *policy.Policy {
	out := &policy.Policy{Interfaces: p.Interfaces, Open: p.ForwardRules()}
	if p.Forward == policy.ForwardAccept {
		out.Input = policy.Accept
	}
	return out
}

// diff is Diff of rules of one kind.
func diff(old, new *policy.Policy) []Change {
	d := &differ{clauses: make(map[policy.RuleKey]int), admissions: make(map[string]Admission), names: make(map[string]string)}
	d.policies = [2]*policy.Policy{old, new}
	classes := classesOf(old, new)
	before, after := old.Open, new.Open
	if !slices.ContainsFunc(classes.list, func(c interfaceClass) bool { return old.InputOf(c.example) != new.InputOf(c.example) }) {
		before, after = concerned(before, after)
	}
	d.sides = [2][]side{d.sidesOf(before), d.sidesOf(after)}
	d.learnNames(after)
	d.learnNames(before)
	var out []Change
	index := make(map[string]int)
	for i, class := range classes.list {
		for _, c := range d.changes(class) {
			key := fmt.Sprint(c.Ports) + c.Old.key() + " " + c.New.key()
			same, ok := index[key]
			if !ok {
				same = len(out)
				index[key] = same
				c.classes, c.within = classes, make([]bool, len(classes.list))
				out = append(out, c)
			}
			out[same].within[i] = true
		}
	}
	for i := range out {
		out[i].On, out[i].Not = classes.names(out[i].within)
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
	policies   [2]*policy.Policy
	sides      [2][]side // of the old policy and of the new one
	clauses    map[policy.RuleKey]int
	rules      []policy.Rule // one of each clause
	admissions map[string]Admission
	names      map[string]string // of ports, as rules have them
}

func (d *differ) sidesOf(rules []policy.Rule) []side {
	out := make([]side, len(rules)) // one that opens nothing stays the zero side
	for i, r := range rules {
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
			continue
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

// acceptAll stands for a policy where input is accepted.
var acceptAll = &policy.Policy{Open: []policy.Rule{{Ports: everyPort()}}}

func everyPort() []policy.PortRange { return portsOf(0, protocolSlots+256-1) }

// border is where a rule of a side begins or ends to count, among the slots of all ports.
type border struct {
	at, clause int
	of         int // 0 the old side, 1 the new one
	step       int // 1 or -1
}

func (d *differ) changes(class interfaceClass) []Change {
	var borders []border
	for of, sides := range d.sides {
		if d.policies[of].InputOf(class.example) == policy.Accept {
			sides = d.sidesOf(acceptAll.Open)
		}
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
			out = append(out, Change{Old: before, New: after})
		}
		out[n].Ports = append(out[n].Ports, ports...)
	}
	for i := range out {
		out[i].Ports = joinPorts(out[i].Ports)
		out[i].names = d.portNames(out[i].Ports)
		out[i].What = out[i].names.String()
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

// portsOf is the inverse of slots. The slots of protocols that have ports of their own stand for nothing.
func portsOf(first, last int) []policy.PortRange {
	var out []policy.PortRange
	for first <= last {
		if first >= protocolSlots {
			if p := policy.Protocol(first - protocolSlots); policy.ProtocolIndex(p) < 0 {
				out = append(out, policy.PortRange{Protocol: p})
			}
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
