// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
	"golang.org/x/sys/unix"

	"github.com/portcullis-firewall/portcullis/bpf"
	"github.com/portcullis-firewall/portcullis/maps"
	"github.com/portcullis-firewall/portcullis/policy"
)

// factory loads programs over one set of maps.
type factory struct {
	spec    *ebpf.CollectionSpec
	set     *maps.Set
	cache   *btf.Cache
	standby string                               // where programs to be used again are pinned, or ""
	inSet   map[policy.Group]map[ebpf.MapID]bool // the maps of set, with the table of each group
	many    map[string]*ebpf.Program             // that are loaded once for many devices
	held    map[ebpf.ProgramID]bool              // that hold all maps
}

// mostOwnPrograms is how many interfaces get programs of their own, which know their device. Of more, those that differ by
// that alone share one: the verifier takes a tenth of a second for each, and to look the device up some nanoseconds.
const mostOwnPrograms = 8

// loadOnce is load, which it calls once for many devices. The caller closes what it returns.
func (f *factory) loadOnce(name string, constants *maps.Constants, g policy.Group, pin string) (*ebpf.Program, error) {
	if !constants.ManyDevices {
		return f.load(name, constants, g, pin)
	}
	shared := *constants
	shared.MAC, shared.RunSlot, shared.Page = [6]byte{}, 0, 0
	key := fmt.Sprintf("%s %t %t %s %q", name, shared.MultiBuffer, shared.Ethernet, settingsKey(shared.Policy), g)
	prog := f.many[key]
	if prog == nil {
		var err error
		if prog, err = f.load(name, &shared, g, pin); err != nil {
			return nil, err
		}
		if f.many == nil {
			f.many = make(map[string]*ebpf.Program)
		}
		f.many[key] = prog
	}
	return prog.Clone()
}

// holds reports whether a program has been asked for before.
func (f *factory) holds(prog *ebpf.Program) bool {
	info, err := prog.Info()
	if err != nil {
		return false
	}
	id, _ := info.ID()
	if f.held == nil {
		f.held = make(map[ebpf.ProgramID]bool)
	}
	held := f.held[id]
	f.held[id] = true
	return held
}

// Close closes the programs for many devices.
func (f *factory) Close() {
	for _, prog := range f.many {
		prog.Close()
	}
}

func newFactory(spec *ebpf.CollectionSpec, set *maps.Set) *factory {
	return &factory{spec: spec, set: set, cache: btf.NewCache(), inSet: make(map[policy.Group]map[ebpf.MapID]bool)}
}

// load loads one program for interfaces of a group, or finds it among the standby's under the name of its pin. The
// specification stays as it is, so the next interface begins from the same.
func (f *factory) load(name string, constants *maps.Constants, g policy.Group, pin string) (*ebpf.Program, error) {
	spec := f.spec.Copy()
	for other := range spec.Programs {
		if other != name {
			delete(spec.Programs, other)
		}
	}
	if err := constants.Set(spec); err != nil {
		return nil, err
	}
	if constants.MultiBuffer {
		spec.Programs[name].Flags |= unix.BPF_F_XDP_HAS_FRAGS
	}
	if prog := f.reuse(pin, spec, g); prog != nil {
		return prog, nil
	}
	all, err := f.set.AllOf(g)
	if err != nil {
		return nil, err
	}
	coll, err := ebpf.NewCollectionWithOptions(spec, ebpf.CollectionOptions{
		MapReplacements: all,
		Cache:           f.cache,
	})
	if err != nil {
		return nil, fmt.Errorf("load %s: %w", name, err)
	}
	defer coll.Close()
	return coll.DetachProgram(name), nil
}

// The maps and programs of the policy before the one in force are kept as a standby. A policy that differs from it in
// rules alone, for which its maps have room, needs no new programs, whose verification takes most of the time: the
// standby's maps are filled anew while no packet meets them. Beside them an empty directory is called by the object that they were loaded from.

const sectionConstants = ".rodata"

func objectDir(dir string) string { return filepath.Join(dir, "object_"+bpf.FirewallDigest()) }

// openStandby takes the standby for the new policy, where there is one of this object.
func (c *change) openStandby() error {
	if _, err := os.Stat(objectDir(c.pins.Standby())); err != nil || c.old == nil || !maps.WaitForPackets() {
		return nil
	}
	c.factory.standby = c.pins.Standby()
	if err := c.set.Adopt(c.pins.Standby()); err != nil {
		return err
	}
	// Which may have more room than the policy asks for.
	if err := c.set.Measure(c.factory.spec); err != nil {
		return err
	}
	return c.set.Empty() // or both policies' sources would have to find room
}

// reuse opens the standby's program that is pinned under a name, if spec would be loaded as just that.
func (f *factory) reuse(name string, spec *ebpf.CollectionSpec, g policy.Group) *ebpf.Program {
	if f.standby == "" {
		return nil
	}
	prog, err := ebpf.LoadPinnedProgram(filepath.Join(f.standby, name), nil)
	if err != nil {
		return nil
	}
	// Programs of XDP and of TC have the same constants, and may have had the same name.
	sameType := false
	for _, p := range spec.Programs {
		sameType = sameType || p.Type == prog.Type()
	}
	if !sameType || !f.isLoadedFrom(prog, spec, g) {
		prog.Close()
		return nil
	}
	return prog
}

// isLoadedFrom reports whether a program of this object has the constants of spec and uses no maps but the set's, and of
// their tables that of a group.
func (f *factory) isLoadedFrom(prog *ebpf.Program, spec *ebpf.CollectionSpec, g policy.Group) bool {
	info, err := prog.Info()
	if err != nil {
		return false
	}
	inSet := f.inSet[g]
	if inSet == nil {
		if inSet, err = f.set.IDsOf(g); err != nil {
			return false
		}
		f.inSet[g] = inSet
	}
	ids, _ := info.MapIDs()
	// What is not of the set can only be the constants: of the same object, so they lie where they lie in spec.
	ids = slices.DeleteFunc(ids, func(id ebpf.MapID) bool { return inSet[id] })
	if len(ids) != 1 {
		return false
	}
	m, err := ebpf.NewMapFromID(ids[0])
	if err != nil {
		return false
	}
	defer m.Close()
	constants, err := m.LookupBytes(uint32(0))
	if err != nil {
		return false
	}
	for _, v := range spec.Variables {
		if v.SectionName != sectionConstants {
			continue
		}
		if end := v.Offset + v.Size(); uint64(end) > uint64(len(constants)) || !bytes.Equal(constants[v.Offset:end], v.Value) {
			return false
		}
	}
	return true
}
