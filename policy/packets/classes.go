// SPDX-License-Identifier: Apache-2.0

package packets

import (
	"slices"
	"strings"

	"github.com/portcullis-firewall/portcullis/policy"
)

// others stands among the interfaces of a change for those that neither policy names.
const others = "other interfaces"

const (
	unnamed     = "\x00" // no interface is called so: for what stands for any other
	mostClasses = 256    // that overlapping patterns make
)

// interfaceClass is interfaces for which the same names and patterns stand, and so the same rules.
type interfaceClass struct{ name, example string }

// classes is all interfaces by the names and patterns of two policies. The last class is the others.
type classes struct {
	patterns []string
	list     []interfaceClass
	byKey    map[string]int // places in list
}

// classesOf returns a class for each name and pattern, one for the interfaces of several patterns, and one for all others.
func classesOf(old, new *policy.Policy) *classes {
	c := &classes{byKey: make(map[string]int)}
	for _, p := range []*policy.Policy{old, new} {
		for _, r := range p.Open {
			c.patterns = append(c.patterns, r.On...)
		}
		for pattern := range p.InputOn {
			c.patterns = append(c.patterns, pattern)
		}
	}
	if len(c.patterns) > 0 {
		c.patterns = slices.Concat(c.patterns, old.Interfaces, new.Interfaces)
	}
	slices.Sort(c.patterns)
	c.patterns = slices.Compact(c.patterns)
	var wild []string
	for _, pattern := range c.patterns {
		c.add(pattern)
		if policy.IsPattern(pattern) {
			wild = append(wild, pattern)
		}
	}
	for i := 0; i < len(wild) && len(c.list) < mostClasses; i++ {
		for _, other := range wild[:i] {
			if both, ok := intersection(wild[i], other); ok && c.add(both) {
				wild = append(wild, both)
			}
		}
	}
	slices.SortFunc(c.list, func(a, b interfaceClass) int { return strings.Compare(a.name, b.name) })
	for i, class := range c.list {
		c.byKey[c.key(class.example)] = i
	}
	c.byKey[c.key(unnamed)] = len(c.list)
	c.list = append(c.list, interfaceClass{others, unnamed})
	return c
}

// add adds the class of a pattern, unless there is one of the same interfaces.
func (c *classes) add(pattern string) bool {
	class := interfaceClass{pattern, strings.ReplaceAll(pattern, "*", unnamed)}
	key := c.key(class.example)
	if _, have := c.byKey[key]; have {
		return false
	}
	c.byKey[key] = len(c.list)
	c.list = append(c.list, class)
	return true
}

// key is the same for two interfaces if and only if the same patterns stand for them.
func (c *classes) key(iface string) string {
	key := make([]byte, len(c.patterns))
	for i, pattern := range c.patterns {
		if policy.MatchInterface(pattern, iface) {
			key[i] = 1
		}
	}
	return string(key)
}

// of returns the place of the class of an interface, or -1.
func (c *classes) of(iface string) int {
	if i, ok := c.byKey[c.key(iface)]; ok {
		return i
	}
	return -1
}

// names returns the classes of a change, or nothing if it has all, and those that these names stand for, too.
func (c *classes) names(within []bool) (on, not []string) {
	if !slices.Contains(within, false) {
		return nil, nil
	}
	for i, class := range c.list {
		if within[i] {
			on = append(on, class.name)
		}
	}
	for i, class := range c.list {
		if !within[i] && policy.MatchAnyInterface(on, class.example) {
			not = append(not, class.name)
		}
	}
	return on, not
}

// intersection returns a pattern of interfaces that two patterns stand for, if there are any.
func intersection(a, b string) (both string, ok bool) {
	head := func(p string) string { return p[:strings.IndexByte(p, '*')] }
	tail := func(p string) string { return p[strings.LastIndexByte(p, '*')+1:] }
	middle := func(p string) string {
		first, last := strings.IndexByte(p, '*'), strings.LastIndexByte(p, '*')
		return p[first : last+1]
	}
	first, last := head(a), tail(a)
	if other := head(b); len(other) > len(first) {
		first = other
	}
	if other := tail(b); len(other) > len(last) {
		last = other
	}
	if !strings.HasPrefix(first, head(a)) || !strings.HasPrefix(first, head(b)) ||
		!strings.HasSuffix(last, tail(a)) || !strings.HasSuffix(last, tail(b)) {
		return "", false
	}
	both = first + strings.ReplaceAll(middle(a)+middle(b), "**", "*") + last
	return both, true
}
