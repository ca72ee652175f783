// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/cilium/ebpf"

	"github.com/portcullis-firewall/portcullis/bpf"
	"github.com/portcullis-firewall/portcullis/loader/hook"
	"github.com/portcullis-firewall/portcullis/loader/pin"
	"github.com/portcullis-firewall/portcullis/maps"
	"github.com/portcullis-firewall/portcullis/policy"
)

// find returns what is attached to a target by one of the kinds, also what an older version has attached.
func (c *change) find(t *target, kinds []string) (*hook.Attachment, error) {
	index := t.device.Attrs().Index
	a, err := hook.Find(c.pins.Link(t.name()), t.name(), index, kinds)
	if err != nil || a != nil || c.older == nil {
		return a, err
	}
	if a, err = hook.Find(c.older.Link(t.name()), t.name(), index, kinds); err != nil || a == nil {
		return nil, err
	}
	if here, err := a.IsOnHost(t.device); err != nil || !here {
		return nil, errors.Join(err, fmt.Errorf("%w: choose another --pin-path here than %s", ErrOtherNamespace, c.pins.Base))
	}
	return a, nil
}

// openOlder reads the rules of an older version, so that they go on counting under their numbers.
func (c *change) openOlder() {
	const taken = "what an older version had put there (pins %s) is taken over: connections go on, "
	c.readable = maps.OpenOlder(c.older.Version, c.older.Maps(), c.older.Policy())
	if c.readable == nil || !c.readable.HasCounters() {
		c.warn(taken+"counters begin at 0", c.older.Version)
		return
	}
	rules, lost, err := c.readable.Rules()
	if err != nil {
		c.warn(taken+"counters begin at 0, as its rules cannot be read (%v)", c.older.Version, err)
		return
	}
	c.warn(taken+"and so do counters", c.older.Version)
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

// isOlder reports whether an attachment is an older version's.
func (c *change) isOlder(a *hook.Attachment) bool {
	return a != nil && c.older != nil && filepath.Dir(a.Dir) == c.older.Links()
}

// pinsOf returns the pins that an attachment is among.
func (c *change) pinsOf(a *hook.Attachment) pin.Dir {
	if c.isOlder(a) {
		return *c.older
	}
	return c.pins
}

// swap puts a program in the place of an older version's, or of a plain one that frames have outgrown.
func (c *change) swap(a *hook.Attachment, prog *ebpf.Program) error {
	pins := c.pinsOf(a)
	before, err := pin.ProgramOf(pins.Policy(), a)
	if err != nil {
		return err
	}
	if before == nil {
		return fmt.Errorf("%s: %s keeps no program for %s, so that nothing could be put back: take the filter off by the version that put it there",
			a.Interface, pins.Root(), a.Kind)
	}
	c.replaced = append(c.replaced, before)
	if err := a.Update(prog); err != nil {
		return err
	}
	c.onUndo(func() error { return a.Update(before) })
	return nil
}

// downOther takes off all that another version has attached. The lock is held.
func downOther(p pin.Dir, interfaces []string) (*DownReport, error) {
	other, ok := p.OtherVersion()
	if !ok {
		return nil, p.NotRunning("nothing is attached under " + p.Base)
	}
	names, err := other.Interfaces()
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		if len(interfaces) > 0 && !slices.Contains(interfaces, name) {
			return nil, fmt.Errorf("what runs is pinned by another version (%s), and can only be taken off as a whole: %s", other.Version, strings.Join(names, ", "))
		}
	}
	for _, name := range names {
		for _, a := range other.Attachments(name, slices.Concat(hook.Ingress, hook.Egress)) {
			if err := a.Detach(); err != nil {
				return nil, err
			}
		}
	}
	if err := os.RemoveAll(p.Root()); err != nil {
		return nil, err
	}
	report := newDownReport(names, names)
	report.Others = otherInstances(p)
	return report, other.Remove()
}
