// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"errors"
	"fmt"
	"path/filepath"
	"unsafe"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
	"golang.org/x/sys/unix"

	"github.com/portcullis-firewall/portcullis/bpf"
	"github.com/portcullis-firewall/portcullis/loader/hook"
	"github.com/portcullis-firewall/portcullis/maps"
	"github.com/portcullis-firewall/portcullis/policy"
)

// factory loads programs over one set of maps.
type factory struct {
	spec    *ebpf.CollectionSpec
	set     *maps.Set
	cache   *btf.Cache
	standby string              // where programs to be used again are pinned, or ""
	inSet   map[ebpf.MapID]bool // the maps of set
}

// load loads one program, or finds it among the standby's under the name of its pin. The specification stays as it is, so
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
	all, err := f.set.All()
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

// tools are the programs that no interface runs: the sweep, the one that enters flows, and the clock.
type tools struct {
	sweep, enter, clock *ebpf.Program
}

// toolPins are what their pins are called.
var toolPins = []string{"clock", "sweep", "enter"}

// each calls do for every program and where it is kept, by its name in the object and that of its pin.
func (t *tools) each(do func(prog **ebpf.Program, name, pin string) error) error {
	return errors.Join(
		do(&t.clock, bpf.FirewallProgPortcullisClock, toolPins[0]),
		do(&t.sweep, bpf.FirewallProgPortcullisSweep, toolPins[1]),
		do(&t.enter, bpf.FirewallProgPortcullisEnter, toolPins[2]),
	)
}

// tools loads them with the sizes that they have to know, and without HZ, which the clock is there to find out.
func (f *factory) tools(p *policy.Policy) (*tools, error) {
	t := &tools{}
	err := t.each(func(prog **ebpf.Program, name, pin string) (err error) {
		*prog, err = f.load(name, &maps.Constants{Policy: p}, pin)
		return err
	})
	return t.orClose(err)
}

func openTools(dir string) (*tools, error) {
	t := &tools{}
	err := t.each(func(prog **ebpf.Program, _, pin string) (err error) {
		*prog, err = ebpf.LoadPinnedProgram(filepath.Join(dir, pin), nil)
		return err
	})
	return t.orClose(err)
}

func (t *tools) orClose(err error) (*tools, error) {
	if err != nil {
		t.Close()
		return nil, err
	}
	return t, nil
}

// runSweep walks the flow table once.
func (t *tools) runSweep(args *bpf.FirewallSweep) error {
	return run(t.sweep, args)
}

// enterFlows writes flows into the table; without replace, only where none of the same identity is alive.
func (t *tools) enterFlows(flows []maps.Flow, replace bool) error {
	for i := range flows {
		if err := run(t.enter, flows[i].Seed(replace)); err != nil {
			return err
		}
	}
	return nil
}

// run runs a program once, with args as its context, in and out.
func run[T any](prog *ebpf.Program, args *T) error {
	context := unsafe.Slice((*byte)(unsafe.Pointer(args)), unsafe.Sizeof(*args))
	if _, err := prog.Run(&ebpf.RunOptions{Context: context, ContextOut: context}); err != nil {
		return fmt.Errorf("run %s: %w", prog, err)
	}
	return nil
}

func (t *tools) pin(dir string) error {
	return t.each(func(prog **ebpf.Program, _, pin string) error { return hook.PinProgram(*prog, filepath.Join(dir, pin)) })
}

func (t *tools) Close() {
	_ = t.each(func(prog **ebpf.Program, _, _ string) error { return (*prog).Close() })
}
