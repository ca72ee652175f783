// SPDX-License-Identifier: Apache-2.0

package hook

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/vishvananda/netlink"
)

// Program is a program at one hook of an interface.
type Program struct {
	Kind    string   // one of the kinds of attachment; XDPGeneric is listed as XDP
	Program uint32   // its id, or 0 for a filter that is no BPF program
	Name    string   // as its author called it, or the kind of filter
	Ours    bool     // of the filter that the caller asked about
	Holders []string // processes that have somebody else's program open
}

// List returns what is attached to an interface, each direction in the order in which it runs. Dir is where the links of
// our filter are pinned.
func List(dir, iface string) ([]Program, error) {
	l, err := netlink.LinkByName(iface)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", iface, err)
	}
	var list []Program
	if xdp := l.Attrs().Xdp; xdp != nil && xdp.Attached {
		list = append(list, Program{Kind: XDP, Program: xdp.ProgId, Name: programName(xdp.ProgId)})
	}
	for _, kind := range []string{TCXIn, ClsactIn, TCXOut, ClsactOut} {
		found, err := (&Attachment{dir, iface, l.Attrs().Index, kind}).list()
		if err != nil {
			return nil, err
		}
		list = append(list, found...)
	}
	ours := pinnedPrograms(dir, iface)
	for i := range list {
		p := &list[i]
		if p.Ours = p.Program != 0 && slices.Contains(ours, p.Program); !p.Ours && p.Program != 0 {
			p.Holders = holders(p.Program)
		}
	}
	return list, nil
}

// list returns what is attached at the TC hook of the attachment.
func (a *Attachment) list() (list []Program, err error) {
	if !a.IsClsact() {
		ids, err := a.tcxPrograms()
		for _, id := range ids {
			list = append(list, Program{Kind: a.Kind, Program: uint32(id), Name: programName(uint32(id))})
		}
		return list, err
	}
	filters, err := a.filters()
	for _, f := range filters {
		p := Program{Kind: a.Kind, Name: f.Type()}
		if b, ok := f.(*netlink.BpfFilter); ok {
			p.Program, p.Name = uint32(b.Id), b.Name
		}
		list = append(list, p)
	}
	return list, err
}

// pinnedPrograms returns the ids of the programs that are pinned as attached to an interface.
func pinnedPrograms(dir, iface string) (ids []uint32) {
	for _, kind := range slices.Concat(Ingress, Egress) {
		if id, err := (&Attachment{Dir: dir, Interface: iface, Kind: kind}).ProgramID(); err == nil {
			ids = append(ids, uint32(id))
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

// holders returns the processes that have a program, or a link to it, open.
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
