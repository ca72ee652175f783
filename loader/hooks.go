// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Hook is a program at one hook of an interface.
type Hook struct {
	Kind    string   // xdp, tcx_in, tcx_out, clsact_in or clsact_out
	Program uint32   // its id, or 0 for a filter that is no BPF program
	Name    string   // as its author called it, or the kind of filter
	Ours    bool     // of the filter that is pinned at the path asked about
	Holders []string // processes that have somebody else's program open
}

// Hooks lists what is attached to an interface, each direction in the order in which it runs.
func Hooks(pinPath, iface string) ([]Hook, error) {
	l, err := netlink.LinkByName(iface)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", iface, err)
	}
	p := pins{base: pinPath}
	var hooks []Hook
	if xdp := l.Attrs().Xdp; xdp != nil && xdp.Attached {
		hooks = append(hooks, Hook{Kind: kindXDP, Program: xdp.ProgId, Name: programName(xdp.ProgId)})
	}
	for _, kind := range []string{kindTCXIn, kindClsactIn, kindTCXOut, kindClsactOut} {
		found, err := tcHooks(&attachment{p, iface, l.Attrs().Index, kind})
		if err != nil {
			return nil, err
		}
		hooks = append(hooks, found...)
	}
	ours := p.programs(iface)
	for i := range hooks {
		h := &hooks[i]
		if h.Ours = h.Program != 0 && slices.Contains(ours, h.Program); !h.Ours && h.Program != 0 {
			h.Holders = holders(h.Program)
		}
	}
	return hooks, nil
}

// tcHooks lists what is attached in the way of the attachment.
func tcHooks(a *attachment) (hooks []Hook, err error) {
	where := map[string]ebpf.AttachType{kindTCXIn: ebpf.AttachTCXIngress, kindTCXOut: ebpf.AttachTCXEgress}
	if attach, ok := where[a.kind]; ok {
		list, err := link.QueryPrograms(link.QueryOptions{Target: a.index, Attach: attach})
		if errors.Is(err, link.ErrNotSupported) || errors.Is(err, unix.EINVAL) { // before Linux 6.6
			return nil, nil
		}
		if err != nil {
			return nil, fmt.Errorf("%s: list TCX programs: %w", a.iface, err)
		}
		for _, prog := range list.Programs {
			hooks = append(hooks, Hook{Kind: a.kind, Program: uint32(prog.ID), Name: programName(uint32(prog.ID))})
		}
		return hooks, nil
	}
	list, err := a.filters()
	for _, f := range list {
		h := Hook{Kind: a.kind, Name: f.Type()}
		if b, ok := f.(*netlink.BpfFilter); ok {
			h.Program, h.Name = uint32(b.Id), b.Name
		}
		hooks = append(hooks, h)
	}
	return hooks, err
}

// programs lists the ids of the programs that are pinned as attached to an interface.
func (p pins) programs(iface string) (ids []uint32) {
	for _, kinds := range [][]string{ingressKinds, egressKinds} {
		if a := p.pinned(iface, kinds); a != nil {
			if id, err := a.programID(); err == nil {
				ids = append(ids, uint32(id))
			}
		}
	}
	return ids
}

func programName(id uint32) string {
	prog, err := ebpf.NewProgramFromID(ebpf.ProgramID(id))
	if err != nil {
		return ""
	}
	defer prog.Close()
	info, err := prog.Info()
	if err != nil {
		return ""
	}
	return info.Name
}

// holders lists the processes that have a program, or a link to it, open.
func holders(id uint32) (names []string) {
	line := fmt.Sprintf("prog_id:\t%d\n", id)
	files, _ := filepath.Glob("/proc/[0-9]*/fdinfo/*")
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil || !strings.Contains(string(text), line) {
			continue
		}
		process := filepath.Dir(filepath.Dir(file))
		if comm, err := os.ReadFile(process + "/comm"); err == nil && filepath.Base(process) != strconv.Itoa(os.Getpid()) {
			names = append(names, strings.TrimSpace(string(comm)))
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}
