// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"

	"github.com/portcullis-firewall/portcullis/host"
	"github.com/portcullis-firewall/portcullis/loader/pin"
	"github.com/portcullis-firewall/portcullis/policy"
)

// A pattern, such as wg*, brings interfaces into the filter: those that match it now, and those that appear later. Each
// has its own links then, as one that was named; but when it is gone nobody waits for it.

// match is an interface that a pattern brings.
type match struct{ name, pattern string }

// newMatches returns the interfaces that match a pattern and are not filtered yet.
func newMatches(p pin.Dir) (list []match, err error) {
	patterns, err := p.Patterns()
	if err != nil || len(patterns) == 0 {
		return nil, err
	}
	devices, err := host.CompleteList(netlink.LinkList)
	if err != nil && !errors.Is(err, netlink.ErrDumpInterrupted) {
		return nil, fmt.Errorf("list interfaces: %w", err)
	}
	for _, device := range devices {
		name := device.Attrs().Name
		pattern := p.Bringing(patterns, name)
		if pattern != "" && device.Attrs().Flags&net.FlagLoopback == 0 && !exists(p.Link(name)) {
			list = append(list, match{name, pattern})
		}
	}
	return list, nil
}

// bring records that the interfaces are to be filtered which match a pattern and are not yet, and returns them.
func bring(p pin.Dir) (names []string, err error) {
	list, err := newMatches(p)
	if err != nil {
		return nil, err
	}
	for _, m := range list {
		if err := os.Mkdir(p.Link(m.name), 0o700); err != nil {
			return names, err
		}
		names = append(names, m.name)
		if err := p.SetPattern(m.name, m.pattern); err != nil {
			return names, err
		}
	}
	return names, nil
}

// bringsMore reports whether patterns bring interfaces that are not filtered yet, also one that was released from a
// pattern which is named anew.
func (c *change) bringsMore() (bool, error) {
	for _, pattern := range c.options.Interfaces {
		if policy.IsPattern(pattern) && !c.options.Filtered && c.pins.HasReleased(pattern) {
			return true, nil
		}
	}
	list, err := newMatches(c.pins)
	return len(list) > 0, err
}

// forgetGone forgets interfaces that a pattern has brought and that are gone.
func forgetGone(p pin.Dir) error {
	names, err := p.Interfaces()
	if err != nil {
		return err
	}
	for _, name := range names {
		if p.Pattern(name) == "" {
			continue
		}
		if _, err := host.Device(name); !errors.Is(err, host.ErrNoDevice) {
			continue
		}
		if err := forget(p, name); err != nil {
			return fmt.Errorf("forget %s: %w", name, err)
		}
	}
	return nil
}

// addPattern makes interfaces that match a pattern ones that are to be filtered.
func (c *change) addPattern(pattern string) error {
	dir := c.pins.Link(pattern)
	if exists(dir) {
		return c.pins.Regain(pattern)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	c.onUndo(func() error { return os.RemoveAll(dir) })
	return nil
}

// bringTargets makes targets of the interfaces that patterns bring.
func (c *change) bringTargets() error {
	names, err := bring(c.pins)
	for _, name := range names {
		c.onUndo(func() error { return os.RemoveAll(c.pins.Link(name)) })
	}
	if err != nil {
		return err
	}
	for _, name := range names {
		device, err := host.Device(name)
		if errors.Is(err, host.ErrNoDevice) {
			continue // it has just gone
		}
		if err != nil {
			return err
		}
		c.targets = append(c.targets, &target{device: device, mode: c.modeOfPattern(c.pins.Pattern(name))})
	}
	c.warnOfPatterns(c.targets)
	return nil
}

// warnOfPatterns warns of patterns that were named and have brought none of the targets.
func (c *change) warnOfPatterns(targets []*target) {
	for _, pattern := range c.options.Interfaces {
		matches := func(t *target) bool { return policy.MatchInterface(pattern, t.name()) }
		if policy.IsPattern(pattern) && !c.options.Wait && !slices.ContainsFunc(targets, matches) {
			c.warn("no interface matches %s yet: %s", pattern, c.laterText("those that appear", "are"))
		}
	}
}

// laterText returns who filters interfaces that come later.
func (c *change) laterText(which, verb string) string {
	if c.options.Attended {
		return fmt.Sprintf("%s %s filtered", which, verb)
	}
	return fmt.Sprintf("\"portcullis run\" filters %s", which)
}

// letGo ends patterns. What they have brought stays filtered where another pattern brings it, too.
func (c *change) letGo() error {
	for _, pattern := range c.options.LetGo {
		if err := os.RemoveAll(c.pins.Link(pattern)); err != nil {
			return err
		}
	}
	patterns, err := c.pins.Patterns()
	if err != nil {
		return err
	}
	names, err := c.pins.Interfaces()
	if err != nil {
		return err
	}
	off := make(map[string]string) // and what has brought them
	for _, name := range names {
		pattern := c.pins.Pattern(name)
		if pattern == "" || slices.Contains(patterns, pattern) {
			continue
		}
		if other := c.pins.Bringing(patterns, name); other == "" {
			off[name] = pattern
		} else if err := c.pins.SetPattern(name, other); err != nil {
			return err
		}
	}
	if len(off) == 0 {
		return nil
	}
	left := slices.DeleteFunc(slices.Clone(names), func(name string) bool { return off[name] != "" })
	if err := distrustAllBut(c.set, left); err != nil {
		return err
	}
	for _, name := range names {
		if off[name] == "" {
			continue
		}
		if err := takeOff(c.pins, name); err != nil {
			return err
		}
		c.warn("%s is no longer filtered, as %s has brought it", name, off[name])
	}
	return nil
}

// modeOfPattern returns the mode that was asked for with a pattern.
func (c *change) modeOfPattern(pattern string) Mode {
	if slices.Contains(c.options.Interfaces, pattern) {
		return c.options.Mode
	}
	if mode, err := ParseMode(c.pins.Mode(pattern)); err == nil {
		return mode
	}
	return ModeAuto
}

// offByPattern returns those of filtered that names stand for, of which some may be patterns: these before interfaces, which
// they would bring again.
func offByPattern(filtered, names []string) (off []string, err error) {
	for _, name := range names {
		found := false
		for _, have := range filtered {
			if have == name || policy.IsPattern(name) && !policy.IsPattern(have) && policy.MatchInterface(name, have) {
				off, found = append(off, have), true
			}
		}
		if !found {
			return nil, fmt.Errorf("%s: %w: filtered are %s", name, ErrNotFiltered, strings.Join(filtered, ", "))
		}
	}
	slices.Sort(off)
	off = slices.Compact(off)
	slices.SortStableFunc(off, func(a, b string) int { return patternsFirst(a) - patternsFirst(b) })
	return off, nil
}

func patternsFirst(name string) int {
	if policy.IsPattern(name) {
		return 0
	}
	return 1
}

// release takes an interface off, and keeps patterns that stay from bringing it again, or ends a pattern.
func release(p pin.Dir, name string) error {
	if policy.IsPattern(name) {
		return os.RemoveAll(p.Link(name))
	}
	return errors.Join(takeOff(p, name), p.Release(name))
}
