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
	"github.com/portcullis-firewall/portcullis/host"
	"github.com/portcullis-firewall/portcullis/loader/hook"
	"github.com/portcullis-firewall/portcullis/loader/pin"
	"github.com/portcullis-firewall/portcullis/maps"
	"github.com/portcullis-firewall/portcullis/policy"
)

// Pins are files, and somebody may remove one. Packets are still filtered, because the programs hold their maps. Root can
// reach a map through a program that uses it (the kernel wants CAP_SYS_ADMIN), so commands go on as if nothing were
// missing, and Up pins everything again.

// ErrDamaged is returned when a pin is missing and what it led to cannot be found elsewhere. Up repairs that.
var ErrDamaged = errors.New("part of what is pinned is missing")

// kernelNameLength is the most that the kernel keeps of a map's name.
const kernelNameLength = 15

// findLost returns how maps are found whose pins are gone: among those of the programs that run.
func findLost(p pin.Dir) maps.Lost {
	return func(name string) (*ebpf.Map, error) {
		var found *ebpf.Map
		for _, prog := range runningPrograms(p) {
			if found == nil {
				found = mapOf(prog, name)
			}
			prog.Close()
		}
		if found == nil {
			return nil, damaged(p, name)
		}
		return found, nil
	}
}

// damaged returns the error for what is nowhere to be found: what is missing, or else the map of a name.
func damaged(p pin.Dir, name ...string) error {
	names := missingFiles(p)
	if len(names) == 0 {
		names = name
	}
	return fmt.Errorf("%w: %s below %s; packets are still filtered, and \"portcullis up\" repairs this",
		ErrDamaged, strings.Join(names, ", "), p.Root())
}

// isAttached reports whether something of ours is on any of the interfaces.
func isAttached(p pin.Dir, names []string) bool {
	return slices.ContainsFunc(names, func(iface string) bool {
		return slices.ContainsFunc(p.Attachments(iface, slices.Concat(hook.Ingress, hook.Egress)), func(a *hook.Attachment) bool {
			alive, err := a.Alive()
			return err == nil && alive && a.Index != 0
		})
	})
}

// checkNamespace refuses pins of which a link is on an interface of another network namespace, where the pins
// themselves cannot tell.
func checkNamespace(p pin.Dir) error {
	names, err := p.Interfaces()
	if err != nil {
		return err
	}
	for _, iface := range names {
		for _, a := range p.Attachments(iface, slices.Concat(hook.Ingress, hook.Egress)) {
			if a.IsClsact() {
				continue // it is looked for in this namespace only
			}
			index := a.Index
			a.Index = 0 // what a link says whose interface is gone
			gone, err := a.Alive()
			if err != nil || gone {
				continue
			}
			a.Index = index
			device, err := host.Device(iface)
			if err == nil {
				var here bool
				if here, err = a.IsOnHost(device); here {
					continue
				}
			}
			if err == nil || errors.Is(err, host.ErrNoDevice) {
				return fmt.Errorf("%w: choose another --pin-path here than %s", ErrOtherNamespace, p.Base)
			}
			return err
		}
	}
	return nil
}

// openDamaged prepares to go on from what is left of a filter whose policy nobody knows any more.
func (c *change) openDamaged(err error) error {
	if c.options.Policy == nil || c.options.KeepRuntime {
		return err // which says what to do
	}
	if err := checkNamespace(c.pins); err != nil {
		return err
	}
	c.damaged, c.report.Updated = true, true
	c.warn("part of what was pinned is missing (%s) and is created again: rules count from 0", strings.Join(missing(c.pins), ", "))
	state := maps.OpenState(c.pins.Maps(), findLost(c.pins))
	if err := state.OpenAll(); err != nil {
		c.warn("the flow table is new, too: only connections that have a socket here, or that netfilter tracks, go on")
		return state.Close()
	}
	c.state = state
	return nil
}

// runningPrograms opens the programs that are attached, as far as that is permitted.
func runningPrograms(p pin.Dir) (programs []*ebpf.Program) {
	names, err := p.Interfaces()
	if err != nil {
		return nil
	}
	for _, iface := range names {
		for _, a := range p.Attachments(iface, slices.Concat(hook.Egress, hook.Ingress)) {
			id, err := a.ProgramID()
			if err != nil {
				continue
			}
			if prog, err := ebpf.NewProgramFromID(id); err == nil {
				programs = append(programs, prog)
			}
		}
	}
	return programs
}

// mapOf opens the map of a program that has a name in the object, but for the tables of groups, or returns nil.
func mapOf(prog *ebpf.Program, name string) *ebpf.Map {
	info, err := prog.Info()
	if err != nil {
		return nil
	}
	short := name[:min(len(name), kernelNameLength)]
	ids, _ := info.MapIDs()
	for _, id := range ids {
		m, err := ebpf.NewMapFromID(id)
		if err != nil {
			continue
		}
		if info, err := m.Info(); err == nil && info.Name == short && maps.IsCommon(name, m) {
			return m
		}
		m.Close()
	}
	return nil
}

// holdMaps binds all maps to an egress program, those too that no program uses: so they can be found without their pins.
func holdMaps(prog *ebpf.Program, set *maps.Set, g policy.Group) error {
	all, err := set.AllOf(g)
	if err != nil {
		return err
	}
	for name, m := range all {
		if err := prog.BindMap(m); err != nil {
			return fmt.Errorf("bind map %s to %s: %w", name, prog, err)
		}
	}
	return nil
}

// loadTools loads the programs that no interface runs, whose pins are gone. The next Up pins them again.
func (f *Filter) loadTools() (*tools, error) {
	spec, err := bpf.LoadFirewall()
	if err != nil {
		return nil, err
	}
	if err := f.set.Measure(spec); err != nil {
		return nil, err
	}
	return newFactory(spec, f.set).tools(f.running.Policy)
}

// Missing returns what should be pinned and is not, as paths below the directory of the pins. For an interface's link,
// of which there are several kinds, that is the directory and the direction.
func (f *Filter) Missing() []string { return append(missing(f.pins), f.missingTables()...) }

func missing(p pin.Dir) []string {
	names := missingFiles(p)
	interfaces, err := p.Interfaces()
	if err != nil {
		return names
	}
	for _, iface := range interfaces {
		names = append(names, missingOf(p, iface)...)
	}
	return names
}

// missingFiles returns what is missing of maps, and of programs that no interface runs.
func missingFiles(p pin.Dir) (names []string) {
	expect := func(dir string, pins []string) {
		for _, name := range pins {
			if _, err := os.Lstat(filepath.Join(dir, name)); err != nil {
				names = append(names, filepath.Base(dir)+"/"+name)
			}
		}
	}
	expect(p.Maps(), maps.StatePins())
	expect(p.Policy(), append(maps.RulesetPins(), toolPins...))
	return names
}

// missingOf returns what is missing of an interface on which something of ours still is.
func missingOf(p pin.Dir, iface string) (names []string) {
	device, err := host.Device(iface)
	if err != nil {
		return nil
	}
	in, errIn := hook.Find(p.Link(iface), iface, device.Attrs().Index, hook.Ingress)
	out, errOut := hook.Find(p.Link(iface), iface, device.Attrs().Index, hook.Egress)
	if errIn != nil || errOut != nil || in == nil && out == nil {
		return nil
	}
	for _, direction := range []struct {
		a          *hook.Attachment
		what       string
		directions []string
	}{{in, "in", []string{pin.In, pin.InFrags}}, {out, "out", []string{pin.Out}}} {
		if direction.a == nil {
			names = append(names, fmt.Sprintf("links/%s (%s)", pin.Escape(iface), direction.what))
			continue
		}
		var found []string
		for _, d := range direction.directions {
			if path := pin.Program(p.Policy(), iface, d); exists(path) {
				found = append(found, path)
			}
		}
		if len(found) == 0 {
			names = append(names, "policy/"+filepath.Base(pin.Program("", iface, direction.directions[0])))
			continue
		}
		for _, path := range found {
			if _, err := pin.LoadedWith(path); err != nil {
				names = append(names, "policy/"+filepath.Base(path)+"_constants")
			}
		}
	}
	return names
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}
