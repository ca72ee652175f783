// SPDX-License-Identifier: Apache-2.0

// Package dryrun runs packets through the datapath without a trace: it decides by the maps of a filter that runs, and
// counts, tracks, charges and answers nothing.
package dryrun

import (
	"fmt"
	"slices"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/portcullis-firewall/portcullis/bpf"
	"github.com/portcullis-firewall/portcullis/maps"
	"github.com/portcullis-firewall/portcullis/policy"
)

// Options say which program of a filter is meant.
type Options struct {
	Constants *maps.Constants
	Group     policy.Group // of the table of ports
	XDP       bool         // or else TC ingress
	Generic   bool         // XDP behind the driver
	Spared    bool         // as if nothing were banned or blocked
}

// Program is a datapath that leaves no trace. It is attached to nothing, and not pinned.
type Program struct {
	prog      *ebpf.Program
	explained maps.Explained
	generic   bool
	xdp       bool
}

// Load loads the program over the maps of a filter.
func Load(set *maps.Set, o Options) (*Program, error) {
	spec, err := bpf.LoadExplain()
	if err != nil {
		return nil, err
	}
	if err := set.Measure(spec); err != nil {
		return nil, err
	}
	if err := o.Constants.Set(spec); err != nil {
		return nil, err
	}
	name := bpf.FirewallProgPortcullisIn
	if o.XDP {
		name = bpf.FirewallProgPortcullisXdp
	}
	for other := range spec.Programs {
		if other != name {
			delete(spec.Programs, other)
		}
	}
	if o.XDP && o.Constants.MultiBuffer {
		spec.Programs[name].Flags |= unix.BPF_F_XDP_HAS_FRAGS
	}
	all, err := set.AllOf(o.Group)
	if err != nil {
		return nil, err
	}
	for _, private := range maps.PrivateMaps() {
		delete(all, private)
	}
	if o.Spared { // behind an empty gate no source is looked for
		delete(all, bpf.FirewallMapSourceGate)
	}
	coll, err := ebpf.NewCollectionWithOptions(spec, ebpf.CollectionOptions{MapReplacements: all})
	if err != nil {
		return nil, fmt.Errorf("load %s for a dry run: %w", name, err)
	}
	defer coll.Close()
	p := &Program{generic: o.Generic, xdp: o.XDP}
	if p.explained, err = maps.TakeExplained(coll); err != nil {
		return nil, err
	}
	p.prog = coll.DetachProgram(name)
	return p, nil
}

// Close takes the program out of the kernel.
func (p *Program) Close() {
	_ = p.prog.Close()
	_ = p.explained.Close()
}

// Frame is a frame that comes in.
type Frame struct {
	Bytes  []byte // with its Ethernet header
	Device uint32 // the index of the interface; 0: lo
	Queue  uint32
}

// xdpMD is struct xdp_md, and skBuff struct __sk_buff.
type (
	xdpMD  struct{ Data, DataEnd, DataMeta, Device, Queue, Egress uint32 }
	skBuff struct {
		_      [10]uint32
		Device uint32
		_      [37]uint32
	}
)

// Run returns what becomes of a frame. Two frames at once are one too many.
func (p *Program) Run(f Frame) (*maps.Explanation, error) {
	if err := p.explained.Clear(p.generic); err != nil {
		return nil, err
	}
	run := &ebpf.RunOptions{Data: slices.Clip(f.Bytes)}
	switch {
	case f.Device == 0:
	case p.xdp:
		run.Context = &xdpMD{DataEnd: uint32(len(f.Bytes)), Device: f.Device, Queue: f.Queue}
	default:
		run.Context = &skBuff{Device: f.Device}
	}
	if _, err := p.prog.Run(run); err != nil {
		return nil, fmt.Errorf("run a packet of %d bytes through the datapath: %w", len(f.Bytes), err)
	}
	return p.explained.Read()
}
