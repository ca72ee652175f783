// SPDX-License-Identifier: Apache-2.0

package pin

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/portcullis-firewall/portcullis/policy"
)

// A pattern has a directory among the links as an interface has: it keeps the mode that was asked for, and which
// interfaces were released. One that a pattern has brought says so in its own directory. All of these are symbolic links,
// since a bpf filesystem has no other place for a word.
const (
	broughtName    = "pattern"
	renamedName    = "renamed"
	releasedPrefix = "released_"
)

// Patterns returns the patterns of interfaces that are to be filtered.
func (d Dir) Patterns() ([]string, error) {
	names, err := d.Linked()
	return slices.DeleteFunc(names, func(name string) bool { return !policy.IsPattern(name) }), err
}

// Named returns what is to be filtered as it was named: interfaces and patterns, and nothing that was brought.
func (d Dir) Named() ([]string, error) {
	names, err := d.Linked()
	return slices.DeleteFunc(names, d.IsBrought), err
}

// IsBrought reports whether nobody has named an interface: a pattern has brought it, or a device that has another name now.
func (d Dir) IsBrought(iface string) bool {
	return d.Pattern(iface) != "" || d.RenamedFrom(iface) != ""
}

// RenamedFrom returns the name by which the device of an interface was named that has been renamed since, or "".
func (d Dir) RenamedFrom(iface string) string {
	from, err := os.Readlink(filepath.Join(d.Link(iface), renamedName))
	if err != nil {
		return ""
	}
	return from
}

// SetRenamedFrom records by which name the device of an interface was named; "" says that it was by this one.
func (d Dir) SetRenamedFrom(iface, from string) error { return d.setWord(iface, renamedName, from) }

// Pattern returns the pattern that has brought an interface, or "" for one that was named.
func (d Dir) Pattern(iface string) string {
	pattern, err := os.Readlink(filepath.Join(d.Link(iface), broughtName))
	if err != nil {
		return ""
	}
	return pattern
}

// SetPattern records which pattern has brought an interface; "" says that it was named.
func (d Dir) SetPattern(iface, pattern string) error { return d.setWord(iface, broughtName, pattern) }

// Bringing returns that of the patterns by which an interface is to be filtered, or "" for none: none matches it, or it
// was released.
func (d Dir) Bringing(patterns []string, iface string) string {
	for _, pattern := range patterns {
		if policy.MatchInterface(pattern, iface) && !d.isReleased(pattern, iface) {
			return pattern
		}
	}
	return ""
}

func (d Dir) released(pattern, iface string) string {
	return filepath.Join(d.Link(pattern), releasedPrefix+Escape(iface))
}

func (d Dir) isReleased(pattern, iface string) bool {
	_, err := os.Lstat(d.released(pattern, iface))
	return err == nil
}

// HasReleased reports whether something was released from a pattern.
func (d Dir) HasReleased(pattern string) bool {
	entries, err := os.ReadDir(d.Link(pattern))
	return err == nil && slices.ContainsFunc(entries, func(e os.DirEntry) bool { return strings.HasPrefix(e.Name(), releasedPrefix) })
}

// Release keeps patterns from bringing an interface again.
func (d Dir) Release(iface string) error {
	patterns, err := d.Patterns()
	if err != nil {
		return err
	}
	for _, pattern := range patterns {
		if !policy.MatchInterface(pattern, iface) || d.isReleased(pattern, iface) {
			continue
		}
		if err := os.Symlink(pattern, d.released(pattern, iface)); err != nil {
			return fmt.Errorf("%s: release it from %s: %w", iface, pattern, err)
		}
	}
	return nil
}

// Regain lets a pattern bring all that matches it, also what was released.
func (d Dir) Regain(pattern string) error {
	entries, err := os.ReadDir(d.Link(pattern))
	if err != nil {
		return err
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), releasedPrefix) {
			if err := os.Remove(filepath.Join(d.Link(pattern), e.Name())); err != nil {
				return err
			}
		}
	}
	return nil
}
