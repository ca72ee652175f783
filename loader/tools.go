// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"path/filepath"
	"time"
	"unsafe"

	"github.com/cilium/ebpf"

	"github.com/portcullis-firewall/portcullis/bpf"
	"github.com/portcullis-firewall/portcullis/loader/hook"
	"github.com/portcullis-firewall/portcullis/maps"
	"github.com/portcullis-firewall/portcullis/policy"
)

// tools are the programs that no interface runs: the sweep, the one that enters flows, and the clock.
type tools struct {
	sweep, enter, clock *ebpf.Program
}

// toolPins are the names of their pins.
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
		*prog, err = f.load(name, &maps.Constants{Policy: p}, "", pin)
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
	if err := bpf.RunSyscallProgram(prog.FD(), context); err != nil {
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

// measureTime is long enough to tell 250 ticks a second from 300 with a tick's error at each end.
const measureTime = 100 * time.Millisecond

// jiffies returns the time of the datapath's clock.
func jiffies(clock *ebpf.Program) (uint64, error) {
	out := make([]byte, 8)
	if err := bpf.RunSyscallProgram(clock.FD(), out); err != nil {
		return 0, fmt.Errorf("read the datapath's clock: %w", err)
	}
	return binary.NativeEndian.Uint64(out), nil
}

// measureHZ returns how many jiffies a second has. The kernel exports it nowhere, and its configuration is not always at
// hand.
func measureHZ(clock *ebpf.Program) (uint32, error) {
	before, err := jiffies(clock)
	if err != nil {
		return 0, err
	}
	start := time.Now()
	time.Sleep(measureTime)
	after, err := jiffies(clock)
	if err != nil {
		return 0, err
	}
	rate := float64(after-before) / time.Since(start).Seconds()
	best := uint32(0)
	for _, hz := range []uint32{100, 250, 300, 1000} {
		if best == 0 || math.Abs(float64(hz)-rate) < math.Abs(float64(best)-rate) {
			best = hz
		}
	}
	return best, nil
}
