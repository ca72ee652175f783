// SPDX-License-Identifier: Apache-2.0

package dryrun

import (
	"slices"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"

	"github.com/portcullis-firewall/portcullis/bpf"
	"github.com/portcullis-firewall/portcullis/maps"
)

// writers are what a program that leaves no trace does not call.
var writers = []asm.BuiltinFunc{
	asm.FnMapUpdateElem, asm.FnMapDeleteElem, asm.FnMapPushElem, asm.FnRingbufReserve, asm.FnRingbufSubmit, asm.FnRingbufOutput,
	asm.FnPerfEventOutput, asm.FnSkbOutput, asm.FnXdpOutput, asm.FnSpinLock,
}

// What is written by an instruction or a function for that purpose is left out. What is written by plain stores,
// tests/packets looks for in the maps.
func TestNothingIsWrittenForOthers(t *testing.T) {
	atomicIn := func(spec *ebpf.CollectionSpec, name string) (atomics int, calls []asm.BuiltinFunc) {
		for _, ins := range spec.Programs[name].Instructions {
			if ins.OpCode.Class() == asm.StXClass && ins.OpCode.Mode() == asm.AtomicMode {
				atomics++
			}
			if f := asm.BuiltinFunc(ins.Constant); ins.IsBuiltinCall() && slices.Contains(writers, f) {
				calls = append(calls, f)
			}
		}
		return atomics, calls
	}
	dry, err := bpf.LoadExplain()
	if err != nil {
		t.Fatal(err)
	}
	live, err := bpf.LoadFirewall()
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{bpf.FirewallProgPortcullisXdp, bpf.FirewallProgPortcullisIn} {
		if atomics, calls := atomicIn(dry, name); atomics > 0 || len(calls) > 0 {
			t.Errorf("a dry run of %s has %d atomic instructions, and calls %v", name, atomics, calls)
		}
		if atomics, calls := atomicIn(live, name); atomics == 0 || len(calls) == 0 {
			t.Errorf("%s has %d atomic instructions, and calls %v: what does this test look at?", name, atomics, calls)
		}
	}
}

// Both objects have the same maps, but for what a dry run finds out, and the same constants.
func TestBothObjectsAreLoadedAlike(t *testing.T) {
	dry, err := bpf.LoadExplain()
	if err != nil {
		t.Fatal(err)
	}
	live, err := bpf.LoadFirewall()
	if err != nil {
		t.Fatal(err)
	}
	for name, m := range live.Maps {
		if name == ".rodata" { // each program has its own, of which the variables below are a part
			continue
		}
		if other := dry.Maps[name]; other == nil || other.Type != m.Type || other.KeySize != m.KeySize || other.ValueSize != m.ValueSize {
			t.Errorf("map %s is %v, and in a dry run %v", name, m, other)
		}
	}
	for name, m := range dry.Maps {
		if live.Maps[name] == nil && !slices.Contains(maps.PrivateMaps(), name) {
			t.Errorf("a dry run has a map of its own that is not private: %s", m)
		}
	}
	for name, v := range live.Variables {
		if other := dry.Variables[name]; other == nil || other.SectionName != v.SectionName || other.Size() != v.Size() {
			t.Errorf("variable %s is %v, and in a dry run %v", name, v, other)
		}
	}
}
