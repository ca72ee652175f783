// SPDX-License-Identifier: Apache-2.0

// Package pin keeps a filter in a bpf filesystem: the layout of its pins, their owner and lock, and the recovery from a
// command that was killed.
package pin

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/portcullis-firewall/portcullis/policy"
)

// Schema is the version of what is pinned: the layout of the directories and of every map. A program finds only what
// it understands.
const Schema = "v6"

// Dir is the directory below which one filter is pinned:
//
//	BASE/SCHEMA/maps/          state that outlives a policy
//	BASE/SCHEMA/policy/        maps and programs of the policy in force
//	BASE/SCHEMA/next/          the same of the policy that is being applied, and in state/ the state that it goes on with
//	BASE/SCHEMA/standby/       the same of the policy before, to be used again
//	BASE/SCHEMA/switchover/    what switches from the one policy to the other
//	BASE/SCHEMA/links/IFACE/   how the interface is filtered: a pin for each direction, called by the kind of its hook,
//	                           and the mode that was asked for
//	BASE/SCHEMA/links/PATTERN/ interfaces that are to be filtered when they appear: see pattern.go
type Dir struct {
	Base    string
	Version string // another than Schema; empty for ours
}

// At returns the directory of a pin path, which has to be absolute: later commands, from other directories, will have to
// find the same place.
func At(path string) (Dir, error) {
	switch {
	case !filepath.IsAbs(path):
		return Dir{}, fmt.Errorf("the pin path %q is relative: write an absolute one, such as %s/%s", path, defaultBPFFS, filepath.Base(path))
	case filepath.Clean(path) == defaultBPFFS:
		return Dir{}, fmt.Errorf("the pin path %s is the whole bpf filesystem: choose a directory below it", path)
	}
	return Dir{Base: filepath.Clean(path)}, nil
}

// Root returns the directory of this version's pins.
func (d Dir) Root() string { return filepath.Join(d.Base, cmp.Or(d.Version, Schema)) }

// Maps returns the directory of the state that outlives a policy.
func (d Dir) Maps() string { return filepath.Join(d.Root(), "maps") }

// Policy returns the directory of the policy in force.
func (d Dir) Policy() string { return filepath.Join(d.Root(), "policy") }

// Next returns the directory of the policy that is being applied.
func (d Dir) Next() string { return filepath.Join(d.Root(), "next") }

// NextState returns the directory of the state that the next policy goes on with.
func (d Dir) NextState() string { return filepath.Join(d.Next(), "state") }

// Standby returns the directory of the policy before the one in force.
func (d Dir) Standby() string { return filepath.Join(d.Root(), "standby") }

// Swap returns the mark of a change that is being made in the maps of the policy in force: see maps.Swap.
func (d Dir) Swap() string { return filepath.Join(d.Policy(), "swap") }

// SwapRunning returns what is recorded of the policy once that change is made.
func (d Dir) SwapRunning() string { return filepath.Join(d.Policy(), "swap_running") }

// Switchover returns the directory of what switches to the next policy.
func (d Dir) Switchover() string { return filepath.Join(d.Root(), "switchover") }

// Switch returns the pin of the switch itself.
func (d Dir) Switch() string { return filepath.Join(d.Switchover(), "switch") }

// Links returns the directory with one directory for each filtered interface.
func (d Dir) Links() string { return filepath.Join(d.Root(), "links") }

// Link returns the directory of an interface's links.
func (d Dir) Link(iface string) string { return filepath.Join(d.Links(), Escape(iface)) }

// Watched returns the directories that change when a command begins or ends a filter, replaces its policy, or takes an
// interface on or off, and when somebody removes the pin of a link.
func (d Dir) Watched() []string {
	dirs := []string{d.Base, d.Root(), d.Links()}
	names, err := d.Interfaces()
	if err != nil {
		return dirs // it is gone, or will be listed next time
	}
	for _, name := range names {
		dirs = append(dirs, d.Link(name))
	}
	return dirs
}

// Escape returns a name that a bpf filesystem takes, which reserves dots.
func Escape(name string) string {
	return strings.NewReplacer("%", "%25", ".", "%2E").Replace(name)
}

func unescape(name string) string {
	return strings.NewReplacer("%2E", ".", "%25", "%").Replace(name)
}

// Directions of a program, as its pin is called. Multi-buffer support is part of the name: a program can go on only to
// one with the support that it was loaded with itself.
const (
	Out     = "out"
	In      = "in"
	InFrags = "in_frags"
)

const programPrefix = "prog_"

// Program returns the pin of an interface's program, in the directory of a policy.
func Program(dir, iface, direction string) string {
	return filepath.Join(dir, programPrefix+Escape(iface)+"_"+direction)
}

// ProgrammedInterfaces returns the interfaces that the policy in force has programs for.
func (d Dir) ProgrammedInterfaces() (names []string, err error) {
	entries, err := os.ReadDir(d.Policy())
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	for _, e := range entries {
		if name, ok := strings.CutPrefix(e.Name(), programPrefix); ok {
			if name, ok = strings.CutSuffix(name, "_"+Out); ok {
				names = append(names, unescape(name))
			}
		}
	}
	return names, nil
}

// RemovePrograms removes the programs that the policy in force has for an interface.
func (d Dir) RemovePrograms(iface string) error {
	var errs []error
	for _, direction := range []string{Out, In, InFrags} {
		for _, suffix := range []string{"", ConstantsSuffix} {
			if err := os.Remove(Program(d.Policy(), iface, direction) + suffix); !errors.Is(err, fs.ErrNotExist) {
				errs = append(errs, err)
			}
		}
	}
	return errors.Join(errs...)
}

// Interfaces returns the interfaces that are to be filtered, be they there or not: those that were named, and those that a
// pattern has brought.
func (d Dir) Interfaces() ([]string, error) {
	names, err := d.Linked()
	return slices.DeleteFunc(names, policy.IsPattern), err
}

// Linked returns the interfaces that are to be filtered, and the patterns: all that have a directory among the links.
func (d Dir) Linked() ([]string, error) {
	entries, err := os.ReadDir(d.Links())
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var names []string
	for _, e := range entries {
		names = append(names, unescape(e.Name()))
	}
	return names, nil
}

// modeName is the file among an interface's links that keeps the mode which was asked for, as the target of a symbolic
// link: a bpf filesystem has no other place for a word.
const modeName = "mode"

// Mode returns the mode that was asked for an interface, or "" for none.
func (d Dir) Mode(iface string) string {
	mode, err := os.Readlink(filepath.Join(d.Link(iface), modeName))
	if err != nil {
		return ""
	}
	return mode
}

// SetMode keeps the mode that was asked for an interface: it outlives the interface.
func (d Dir) SetMode(iface, mode string) error { return d.setWord(iface, modeName, mode) }

// setWord keeps a word among an interface's links, or forgets it where it is "".
func (d Dir) setWord(iface, name, word string) error {
	path := filepath.Join(d.Link(iface), name)
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%s: forget the %s: %w", iface, name, err)
	}
	if word == "" {
		return nil
	}
	if err := os.Symlink(word, path); err != nil {
		return fmt.Errorf("%s: record the %s: %w", iface, name, err)
	}
	return nil
}

// Others returns the directories of other pin paths at which something is pinned, in every bpf filesystem.
func (d Dir) Others() (others []Dir) {
	seen := map[string]bool{d.Base: true}
	for _, m := range mounts() {
		for _, below := range []string{"", "*", "*/*"} {
			links, _ := filepath.Glob(filepath.Join(m.path, below, "v[0-9]*", "links"))
			for _, dir := range links {
				root := filepath.Dir(dir)
				other := Dir{Base: filepath.Dir(root)}
				if version := filepath.Base(root); version != Schema {
					other.Version = version
				}
				if !seen[other.Base] {
					seen[other.Base] = true
					others = append(others, other)
				}
			}
		}
	}
	return others
}

// Prepare creates the directories, mounts a bpf filesystem for them if there is none, and checks that they are ours alone.
func (d Dir) Prepare(ctx context.Context) error {
	if err := mountBPFFS(ctx, d.Base); err != nil {
		return err
	}
	dirs := []string{d.Base, d.Root(), d.Maps(), d.Links()}
	if d.lacksLinks() {
		dirs = dirs[:3] // see Recover
	}
	for _, dir := range dirs {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return fmt.Errorf("make pin directory: %w", err)
		}
	}
	if err := d.CheckOwner(); err != nil {
		return err
	}
	// Whoever may open it could hold its lock.
	return closeToOthers(d.Base)
}

// CheckOwner refuses directories that somebody else may write to: he could open the host.
func (d Dir) CheckOwner() error {
	for _, dir := range []string{d.Base, d.Root()} {
		var st unix.Stat_t
		if err := unix.Lstat(dir, &st); err != nil {
			return fmt.Errorf("%s: %w", dir, err)
		}
		if int(st.Uid) != os.Geteuid() || st.Mode&0o022 != 0 || st.Mode&unix.S_IFMT != unix.S_IFDIR {
			return fmt.Errorf("%s is not a directory that only its owner, uid %d, may write: remove it, or choose another --pin-path", dir, os.Geteuid())
		}
	}
	return nil
}

// Forget removes what is left of a filter that no longer runs.
func (d Dir) Forget(ctx context.Context) error {
	if err := d.removeRoot(); err != nil {
		return err
	}
	return d.Prepare(ctx)
}

// removeRoot removes what this version has pinned. The policy goes first: without links, one would be taken for a filter
// whose links somebody has removed.
func (d Dir) removeRoot() error {
	if err := os.RemoveAll(d.Policy()); err != nil {
		return err
	}
	return os.RemoveAll(d.Root())
}

// Remove removes everything that is pinned, and the bpf filesystem that was mounted for it.
func (d Dir) Remove() error {
	if err := d.removeRoot(); err != nil {
		return err
	}
	// The base may hold another version's pins, or be a mount of its own.
	if os.Remove(d.Base) == nil {
		return nil
	}
	return unmount(d.Base)
}
