// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"fmt"
	"path/filepath"
	"unsafe"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
	"golang.org/x/sys/unix"

	"github.com/portcullis-firewall/portcullis/bpf"
	"github.com/portcullis-firewall/portcullis/maps"
	"github.com/portcullis-firewall/portcullis/policy"
)

// factory loads programs over one set of maps.
type factory struct {
	spec  *ebpf.CollectionSpec
	set   *maps.Set
	cache *btf.Cache
	spare string              // where programs to be used again are pinned, or ""
	inSet map[ebpf.MapID]bool // the maps of set
}

// load loads one program, or finds it among the spare's under the name of its pin. The specification stays as it is, so
// the next interface begins from the same.
func (f *factory) load(name string, constants *maps.Constants, pin string) (*ebpf.Program, error) {
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
	if prog := f.reuse(pin, spec); prog != nil {
		return prog, nil
	}
	coll, err := ebpf.NewCollectionWithOptions(spec, ebpf.CollectionOptions{
		MapReplacements: f.set.Replacements(),
		Cache:           f.cache,
	})
	if err != nil {
		return nil, fmt.Errorf("load %s: %w", name, err)
	}
	defer coll.Close()
	return coll.DetachProgram(name), nil
}

// What the tools are pinned as.
const (
	pinClock = "clock"
	pinSweep = "sweep"
)

// tools are the programs that no interface runs: the sweep and the clock.
type tools struct {
	sweep, clock *ebpf.Program
}

// tools loads them with the sizes that the sweep has to know, and without HZ, which the clock is there to find out.
func (f *factory) tools(p *policy.Policy) (t *tools, err error) {
	t = &tools{}
	constants := &maps.Constants{Policy: p}
	if t.clock, err = f.load(bpf.FirewallProgPortcullisClock, constants, pinClock); err != nil {
		return nil, err
	}
	if t.sweep, err = f.load(bpf.FirewallProgPortcullisSweep, constants, pinSweep); err != nil {
		t.Close()
		return nil, err
	}
	return t, nil
}

func openTools(dir string) (t *tools, err error) {
	t = &tools{}
	if t.clock, err = ebpf.LoadPinnedProgram(filepath.Join(dir, pinClock), nil); err != nil {
		return nil, fmt.Errorf("open pinned program: %w", err)
	}
	if t.sweep, err = ebpf.LoadPinnedProgram(filepath.Join(dir, pinSweep), nil); err != nil {
		t.Close()
		return nil, fmt.Errorf("open pinned program: %w", err)
	}
	return t, nil
}

// runSweep walks the flow tables once.
func (t *tools) runSweep(args *bpf.FirewallSweep) error {
	context := unsafe.Slice((*byte)(unsafe.Pointer(args)), unsafe.Sizeof(*args))
	if _, err := t.sweep.Run(&ebpf.RunOptions{Context: context, ContextOut: context}); err != nil {
		return fmt.Errorf("sweep the flow tables: %w", err)
	}
	return nil
}

// announce makes the flow filter know of flows that were written from user space.
func (t *tools) announce() error { return t.runSweep(&bpf.FirewallSweep{}) }

func (t *tools) pin(dir string) error {
	if err := pinProgram(t.clock, filepath.Join(dir, pinClock)); err != nil {
		return err
	}
	return pinProgram(t.sweep, filepath.Join(dir, pinSweep))
}

// pinProgram pins a program beside the pins that it has: a Program moves its own.
func pinProgram(prog *ebpf.Program, path string) error {
	clone, err := prog.Clone()
	if err != nil {
		return err
	}
	defer clone.Close()
	if err := clone.Pin(path); err != nil {
		return fmt.Errorf("pin program: %w", err)
	}
	return nil
}

func (t *tools) Close() {
	t.sweep.Close()
	t.clock.Close()
}
