// SPDX-License-Identifier: Apache-2.0

package maps

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"unsafe"

	"github.com/cilium/ebpf"

	"github.com/portcullis-firewall/portcullis/bpf"
	"github.com/portcullis-firewall/portcullis/policy"
)

// A ruleset has a table of ports for each group of interfaces for which the same rules count: a map that stands for the
// datapath's variable when the programs of such an interface are loaded. All else is common to them. The table of the
// empty group is always there; each says which group it is for.

const (
	portsPin    = "ports"
	tablePrefix = portsPin + "_"
	tableName   = portsMap + " " // and the group, for a table that is not the empty group's
)

var errGroupSize = errors.New("too many rules with \"on\" count for one interface: name the interfaces of several rules alike")

// TablePin returns the name under which the table of a group is pinned.
func TablePin(g policy.Group) string {
	if g == "" {
		return portsPin
	}
	sum := sha256.Sum256([]byte(g))
	return tablePrefix + hex.EncodeToString(sum[:8])
}

// isTablePin reports whether a pin may be the table of a group that is not empty.
func isTablePin(name string) bool {
	sum, ok := strings.CutPrefix(name, tablePrefix)
	return ok && len(sum) == 16 && strings.Trim(sum, "0123456789abcdef") == ""
}

func tableOf(g policy.Group) string {
	if g == "" {
		return portsMap
	}
	return tableName + string(g)
}

// Groups returns the groups that the ruleset has a table for, in order.
func (r *Ruleset) Groups() []policy.Group {
	r.mu.Lock()
	defer r.mu.Unlock()
	groups := []policy.Group{""}
	for _, k := range r.kinds[len(rulesetKinds):] {
		groups = append(groups, policy.Group(strings.TrimPrefix(k.name, tableName)))
	}
	slices.Sort(groups)
	return groups
}

// Table returns the table of a group, in the form that a program load takes in place of the variable.
func (r *Ruleset) Table(g policy.Group) (*ebpf.Map, error) { return r.Map(tableOf(g)) }

// AddTables makes tables for those of the groups that have none. They are empty until the rules are put, and have no pins
// until the ruleset is pinned.
func (r *Ruleset) AddTables(groups []policy.Group) error {
	base, err := r.Map(portsMap)
	if err != nil {
		return err
	}
	for _, g := range groups {
		if r.has(tableOf(g)) {
			continue
		}
		if len(g) >= int(groupSize) {
			return errGroupSize
		}
		info, err := base.Info()
		if err != nil {
			return fmt.Errorf("map %s: %w", base, err)
		}
		// Named as the variable is, by which one is found that has lost its pin.
		spec := &ebpf.MapSpec{
			Name: info.Name, Type: base.Type(), KeySize: base.KeySize(), ValueSize: base.ValueSize(),
			MaxEntries: base.MaxEntries(), Flags: base.Flags(),
		}
		m, err := ebpf.NewMap(spec)
		if err != nil {
			return fmt.Errorf("create a table of ports: %w", err)
		}
		r.putTable(g, m)
		memory, release, err := r.window(tableOf(g), groupOffset, groupOffset+groupSize)
		if err != nil {
			return err
		}
		copy(memory, g)
		release()
	}
	return nil
}

// KeepTables drops the tables of other groups than these and the empty one. Programs that run on one keep it.
func (r *Ruleset) KeepTables(groups []policy.Group) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	var errs []error
	r.kinds = slices.DeleteFunc(r.kinds, func(k kind) bool {
		group, isTable := strings.CutPrefix(k.name, tableName)
		if !isTable || slices.Contains(groups, policy.Group(group)) {
			return false
		}
		r.unmap(k.name)
		errs = append(errs, r.byName[k.name].Close())
		delete(r.byName, k.name)
		if r.dir != "" {
			if err := os.Remove(filepath.Join(r.dir, k.pin)); !errors.Is(err, fs.ErrNotExist) {
				errs = append(errs, err)
			}
		}
		return true
	})
	return errors.Join(errs...)
}

// putTable adds the table of a group.
func (r *Ruleset) putTable(g policy.Group, m *ebpf.Map) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.kinds = append(r.kinds, kind{tableOf(g), TablePin(g)})
	r.put(tableOf(g), m)
}

// openTables adds the tables that are pinned in dir and for which keep says yes.
func (r *Ruleset) openTables(dir string, keep func(*ebpf.Map) bool) error {
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for _, e := range entries {
		if !isTablePin(e.Name()) {
			continue
		}
		path := filepath.Join(dir, e.Name())
		m, err := openPinned(dir, e.Name())
		if err != nil {
			return err
		}
		if !keep(m) {
			m.Close()
			continue
		}
		g, err := groupOf(m)
		if err == nil && (TablePin(g) != e.Name() || r.has(tableOf(g))) {
			err = fmt.Errorf("%s is the table of another group than its name says", path)
		}
		if err != nil {
			m.Close()
			return err
		}
		r.putTable(g, m)
	}
	return nil
}

const (
	groupOffset = unsafe.Offsetof(bpf.FirewallPorts{}.Group)
	groupSize   = unsafe.Sizeof(bpf.FirewallPorts{}.Group)
)

// IsCommon reports whether a map that has a name in the object is the one of all interfaces. Only tables of ports, which
// all bear one name, may be those of a group.
func IsCommon(name string, m *ebpf.Map) bool {
	if name != portsMap {
		return true
	}
	g, err := groupOf(m)
	return err == nil && g == ""
}

// groupOf returns the group that a table says it is for.
func groupOf(m *ebpf.Map) (policy.Group, error) {
	var t group
	defer t.Close()
	clone, err := m.Clone()
	if err != nil {
		return "", err
	}
	t.kinds = []kind{{name: portsMap}}
	t.put(portsMap, clone)
	memory, release, err := t.window(portsMap, groupOffset, groupOffset+groupSize)
	if err != nil {
		return "", err
	}
	defer release()
	text, _, _ := bytes.Cut(memory[:groupSize], []byte{0})
	return policy.Group(text), nil
}
