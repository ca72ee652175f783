// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/portcullis-firewall/portcullis/host"
	"github.com/portcullis-firewall/portcullis/loader/pin"
	"github.com/portcullis-firewall/portcullis/maps"
	"github.com/portcullis-firewall/portcullis/policy"
)

// Interfaces for which the same rules count share a table of ports, over which their programs are loaded. So to open a rule
// on one interface alone may take another table, and with it another program; what changes no group changes tables alone.

// grouping says which interfaces share a table. It has one rule for each list of interfaces that rules name, but for those
// about what is routed, which have none.
type grouping []policy.Rule

func newGrouping(rules []policy.Rule) (g grouping) {
	seen := make(map[string]bool)
	for i := range rules {
		g = g.with(&rules[i], seen)
	}
	return g
}

func groupingOf(rules []maps.Rule) (g grouping) {
	seen := make(map[string]bool)
	for i := range rules {
		g = g.with(&rules[i].Rule, seen)
	}
	return g
}

// with returns a grouping that knows the interfaces of a rule, too, unless they were seen.
func (g grouping) with(r *policy.Rule, seen map[string]bool) grouping {
	if r.Forward || len(r.On) == 0 {
		return g
	}
	key := strings.Join(r.On, ",")
	if seen[key] {
		return g
	}
	seen[key] = true
	return append(g, policy.Rule{On: r.On})
}

func (g grouping) of(iface string) policy.Group { return policy.GroupOf(g, iface) }

// mostExpected bounds the tables for interfaces that rules name and a pattern may bring: each takes a megabyte.
const mostExpected = 16

// expected returns names that may come to be filtered: those given, patterns among them, which stand for an interface that
// no rule knows better, and the interfaces and patterns of rules that one of the given patterns may bring.
func (g grouping) expected(names []string) []string {
	patterns := slices.DeleteFunc(slices.Clone(names), func(name string) bool { return !policy.IsPattern(name) })
	out := slices.Clone(names)
	for _, r := range g {
		for _, on := range r.On {
			if policy.MatchAnyInterface(patterns, on) && !slices.Contains(out, on) && len(out) < len(names)+mostExpected {
				out = append(out, on)
			}
		}
	}
	return out
}

// groups returns the groups of names, each once.
func (g grouping) groups(names []string) (groups []policy.Group) {
	for _, name := range names {
		if group := g.of(name); !slices.Contains(groups, group) {
			groups = append(groups, group)
		}
	}
	return groups
}

// makeTables makes the tables that the targets need, and interfaces that are waited for, and no others.
func (c *change) makeTables() error {
	c.grouping = newGrouping(c.options.Policy.Open)
	names, err := c.pins.Linked()
	if err != nil {
		return err
	}
	for _, t := range c.targets { // those of an older version have no directory yet
		names = append(names, t.name())
	}
	groups := c.grouping.groups(c.grouping.expected(names))
	return errors.Join(c.set.KeepTables(groups), c.set.AddTables(groups))
}

// settingsFor returns a policy without its rules, as it counts on an interface.
func settingsFor(p *policy.Policy, iface string) *policy.Policy {
	settings := *p
	settings.Open = nil
	return settings.For(iface)
}

// class is the same for interfaces whose programs differ by their device alone. It is a name for the programs that are kept
// ready; "" is that of interfaces which no rule and no setting names.
func class(p *policy.Policy, iface string, g policy.Group) string {
	own, common := settingsKey(settingsFor(p, iface)), settingsKey(settingsFor(p, ""))
	if g == "" && own == common {
		return ""
	}
	return "_" + shortSum(maps.TablePin(g)+"\n"+own)
}

// settingsKey is the same for two interfaces whose settings are, of those that may differ.
func settingsKey(settings *policy.Policy) string {
	return shortSum(fmt.Sprintf("%s\n%s\n%s", settings.Input, settings.Invalid, settings.ICMP.String()))
}

func shortSum(text string) string {
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:8])
}

// errRegroup is ErrNoRoom: rules need tables that are not there.
var errRegroup = fmt.Errorf("%w: they make other groups of interfaces", ErrNoRoom)

// checkGroups returns errRegroup unless every interface keeps its group when rules come in the place of others, and its
// programs are loaded over the table of that.
func (f *Filter) checkGroups(before, after []maps.Rule) error {
	was, next := groupingOf(before), groupingOf(after)
	names, err := f.pins.Linked()
	if err != nil || len(was)+len(next) == 0 && len(f.set.Groups()) == 1 {
		return err
	}
	tables := f.set.Groups()
	for _, name := range next.expected(names) {
		if group := next.of(name); was.of(name) != group || !slices.Contains(tables, group) || f.isElsewhere(name, group) {
			return errRegroup
		}
	}
	return nil
}

// isElsewhere reports whether an interface has programs for another group, or with other settings, as after it was renamed.
func (f *Filter) isElsewhere(iface string, g policy.Group) bool {
	loaded, err := pin.LoadedWith(pin.Program(f.pins.Policy(), iface, pin.Out))
	return err == nil && !f.isFor(loaded, iface, g)
}

// isFor reports whether a program is loaded for interfaces of a group that have the settings of one.
func (f *Filter) isFor(loaded pin.Constants, iface string, g policy.Group) bool {
	return loaded.Table == maps.TablePin(g) &&
		(loaded.Settings == "" || loaded.Settings == settingsKey(settingsFor(f.running.Policy, iface)))
}

// elsewhere returns the interfaces that run by the rules and settings of another name, as one that was renamed does until the next Up.
func (f *Filter) elsewhere() (names []string) {
	rules, err := f.set.RulesOnInterfaces()
	linked, errLinked := f.pins.Linked()
	if err != nil || errLinked != nil {
		return nil // which whoever asks for them is told
	}
	g := groupingOf(rules)
	return slices.DeleteFunc(linked, func(name string) bool {
		_, err := host.Device(name)
		return err != nil || !f.isElsewhere(name, g.of(name))
	})
}

// missingTables returns the pins of tables that interfaces need and that are not there. One that was renamed does not need
// its own yet.
func (f *Filter) missingTables() (names []string) {
	rules, err := f.set.RulesOnInterfaces()
	linked, errLinked := f.pins.Linked()
	if err != nil || errLinked != nil {
		return nil // which whoever asks for them is told
	}
	tables, all := f.set.Groups(), groupingOf(rules)
	linked = slices.DeleteFunc(linked, func(name string) bool { return f.isElsewhere(name, all.of(name)) })
	for _, g := range all.groups(linked) {
		if !slices.Contains(tables, g) {
			names = append(names, "policy/"+maps.TablePin(g))
		}
	}
	return names
}
