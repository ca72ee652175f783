// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"

	"github.com/portcullis-firewall/portcullis/bpf"
	"github.com/portcullis-firewall/portcullis/maps"
	"github.com/portcullis-firewall/portcullis/policy"
)

// What every version keeps in the same way, so that a later one can take a filter over: where the links are pinned
// (PIN/vN/links) and the programs (PIN/vN/policy). All else a version knows only of itself.

// Sentinel errors; the errors returned wrap them and say more.
var (
	// ErrOlderSchema: what runs was pinned by an older version. Up takes it over.
	ErrOlderSchema = errors.New("the filter that runs is of an older version of portcullis")
	// ErrNewerSchema: what runs was pinned by a newer version.
	ErrNewerSchema = errors.New("the filter that runs is of a newer version of portcullis")
)

// otherVersion finds the pins of a filter that another version has put on interfaces.
func (p pins) otherVersion() (other pins, ok bool) {
	roots, _ := filepath.Glob(filepath.Join(p.base, "v[0-9]*"))
	for _, root := range roots {
		other := pins{base: p.base, version: filepath.Base(root)}
		if names, err := other.interfaces(); err == nil && len(names) > 0 && other.version != Schema {
			return other, true
		}
	}
	return pins{}, false
}

// notRunning is the error for a pin path under which this version finds no filter of its own.
func (p pins) notRunning(what string) error {
	other, ok := p.otherVersion()
	if !ok {
		return fmt.Errorf("%w (%s)", ErrNotRunning, what)
	}
	if number(other.version) > number(Schema) {
		return fmt.Errorf("%w (pins %s, and this one knows %s): use that one, or \"portcullis down\" first", ErrNewerSchema, other.version, Schema)
	}
	return fmt.Errorf("%w (pins %s, and this one keeps %s): \"portcullis up\" takes it over", ErrOlderSchema, other.version, Schema)
}

func number(version string) int {
	n, _ := strconv.Atoi(strings.TrimPrefix(version, "v"))
	return n
}

// isOnHost tells whether the program of an attachment is at its hook in this network namespace, and not on a device of
// the same number in another one.
func (t *target) isOnHost(a *attachment) (bool, error) {
	id, err := a.programID()
	if err != nil {
		return false, err
	}
	var attach ebpf.AttachType
	switch a.kind {
	case kindXDP, kindGeneric:
		xdp := t.device.Attrs().Xdp
		return xdp != nil && xdp.Attached && ebpf.ProgramID(xdp.ProgId) == id, nil
	case kindTCXIn:
		attach = ebpf.AttachTCXIngress
	case kindTCXOut:
		attach = ebpf.AttachTCXEgress
	default:
		return a.filterExists()
	}
	result, err := link.QueryPrograms(link.QueryOptions{Target: a.index, Attach: attach})
	if err != nil {
		return false, fmt.Errorf("%s: list programs: %w", a.iface, err)
	}
	return slices.ContainsFunc(result.Programs, func(p link.AttachedProgram) bool { return p.ID == id }), nil
}

// find is the package's find, which also looks for what an older version has attached.
func (c *change) find(t *target, kinds []string) (*attachment, error) {
	a, err := find(c.pins, t.name(), t.device.Attrs().Index, kinds)
	if err != nil || a != nil || c.older == nil {
		return a, err
	}
	if a, err = find(*c.older, t.name(), t.device.Attrs().Index, kinds); err != nil || a == nil {
		return nil, err
	}
	if here, err := t.isOnHost(a); err != nil || !here {
		return nil, errors.Join(err, fmt.Errorf("%w: choose another --pin-path here than %s", ErrOtherNamespace, c.pins.base))
	}
	return a, nil
}

// openOlder reads the rules of an older version, so that they go on counting under their numbers.
func (c *change) openOlder() {
	const taken = "what an older version had put there (pins %s) is taken over: connections go on, "
	c.readable = maps.OpenOlder(c.older.version, c.older.maps(), c.older.policy())
	if c.readable == nil || !c.readable.HasCounters() {
		c.warn(taken+"counters begin at 0", c.older.version)
		return
	}
	rules, lost, err := c.readable.Rules()
	if err != nil {
		c.warn(taken+"counters begin at 0, as its rules cannot be read (%v)", c.older.version, err)
		return
	}
	c.warn(taken+"and so do counters", c.older.version)
	for _, text := range lost {
		c.warn("rule %q of the older version cannot be read (has a name left %s?): it counts from 0", text, policy.ServicesFile)
	}
	c.numbered = true
	c.options.Former = append(c.options.Former, rules...)
	if c.options.KeepRuntime {
		c.keepRuntime(rules)
	}
}

// inheritCounters sets the counters to those of an older version.
func (c *change) inheritCounters() {
	if !c.numbered {
		return
	}
	if err := c.set.Inherit(c.readable); err != nil {
		c.warn("the counters of the older version cannot be read, and begin at 0 (%v)", err)
	}
}

// inherit enters the flows of an older version. Where they cannot be read, those of sockets and of netfilter have to do.
func (c *change) inherit() error {
	if c.readable == nil || c.unreadable {
		return nil
	}
	var entering error
	err := c.readable.Flows(func(flow *bpf.FirewallSeed) error {
		entering = run(c.tools.enter, flow)
		return entering
	})
	if err != nil && entering == nil {
		c.unreadable = true
		c.warn("the flows of the older version cannot be read: only connections with a socket here go on (%v)", err)
		return nil
	}
	return err
}

// isOlder tells that an attachment is an older version's.
func (a *attachment) isOlder() bool { return a != nil && a.pins.version != "" }

// swap puts a program in the place of an older version's.
func (c *change) swap(a *attachment, prog *ebpf.Program) error {
	before, err := a.pins.programOf(a.pins.policy(), a)
	if err != nil {
		return err
	}
	if before == nil {
		return fmt.Errorf("%s: %s keeps no program for %s, so that nothing could be put back: take the filter off by the version that put it there",
			a.iface, a.pins.version, a.kind)
	}
	c.replaced = append(c.replaced, before)
	if err := a.update(prog); err != nil {
		return err
	}
	c.onUndo(func() error { return a.update(before) })
	return nil
}

// adopt moves the links of an older version, which run our programs by now, to where this one keeps them. What is cut
// off here the next command ends.
func (p pins) adopt(older pins) error {
	names, err := older.interfaces()
	if err != nil {
		return err
	}
	for _, name := range names {
		if err := os.MkdirAll(p.link(name, ""), 0o700); err != nil {
			return err
		}
		kinds, err := os.ReadDir(older.link(name, ""))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		for _, kind := range kinds {
			if err := os.Rename(older.link(name, kind.Name()), p.link(name, kind.Name())); err != nil {
				return err
			}
		}
	}
	return os.RemoveAll(older.root())
}

// downOther takes off all that another version has attached.
func downOther(p pins, interfaces []string) (*DownReport, error) {
	unlock, err := p.lock()
	if err != nil {
		return nil, err
	}
	defer unlock()
	other, ok := p.otherVersion()
	if !ok {
		return nil, p.notRunning("nothing is attached under " + p.base)
	}
	names, err := other.interfaces()
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		if len(interfaces) > 0 && !slices.Contains(interfaces, name) {
			return nil, fmt.Errorf("what runs is pinned by another version (%s), and can only be taken off as a whole: %s", other.version, strings.Join(names, ", "))
		}
	}
	for _, name := range names {
		for _, a := range append(other.allPinned(name, ingressKinds), other.allPinned(name, egressKinds)...) {
			if err := a.detach(); err != nil {
				return nil, err
			}
		}
	}
	if err := os.RemoveAll(p.root()); err != nil {
		return nil, err
	}
	return newDownReport(names, names), other.remove()
}
