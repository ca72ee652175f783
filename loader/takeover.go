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

// readableSchema is the older one whose flow table this version can read.
const readableSchema = "v3"

// inherit enters the flows of an older version. Where they cannot be read, those of sockets and of netfilter have to do.
func (c *change) inherit() error {
	if c.older == nil || c.older.Version != readableSchema || c.unreadable {
		return nil
	}
	var entering error
	err := maps.FlowsOfV3(c.older.Maps(), func(flow *bpf.FirewallSeed) error {
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
	if err := a.Update(prog); err != nil {
		before.Close()
		return err
	}
	c.onUndo(func() error {
		defer before.Close()
		return a.Update(before)
	})
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
