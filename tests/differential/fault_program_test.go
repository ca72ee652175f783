// SPDX-License-Identifier: Apache-2.0

package differential

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/btf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"github.com/portcullis-firewall/portcullis/bpf"
)

// hook is where a program of the running filter sits. A changed program can take its place, over the same maps and with
// the same constants, as the kernel tells them.
type hook struct {
	program string // its name in the object
	link    link.Link
	spec    *ebpf.CollectionSpec
	maps    map[string]*ebpf.Map
	whole   *ebpf.Program    // unchanged
	running asm.Instructions // of whole, as the verifier leaves them
}

// mutation changes the instructions of a program.
type mutation func(asm.Instructions) (asm.Instructions, error)

func unchanged(program asm.Instructions) (asm.Instructions, error) { return program, nil }

// hooks are those of the server's eth0: where it filters, and where flows begin. Without TCX there are no links at the
// second one, whose program could be replaced.
func (s *side) hooks(t testing.TB) (in, out *hook) {
	t.Helper()
	if old, _ := filepath.Glob(filepath.Join(s.lab.PinPath, "*/links/eth0/clsact_out")); old != nil {
		t.Skip("the kernel has no TCX")
	}
	open := func(kinds ...string) *hook {
		for _, kind := range kinds {
			pins, err := filepath.Glob(filepath.Join(s.lab.PinPath, "*/links/eth0", kind))
			if err != nil || len(pins) == 0 {
				continue
			}
			h, err := openHook(pins[0])
			if err != nil {
				t.Fatalf("%s: %v", kind, err)
			}
			t.Cleanup(h.close)
			return h
		}
		t.Fatalf("below %s no link of the kinds %q is pinned", s.lab.PinPath, kinds)
		return nil
	}
	return open("xdp", "xdp_generic", "tcx_in"), open("tcx_out")
}

func openHook(pin string) (_ *hook, err error) {
	h := &hook{maps: make(map[string]*ebpf.Map)}
	defer func() {
		if err != nil {
			h.close()
		}
	}()
	if h.link, err = link.LoadPinnedLink(pin, nil); err != nil {
		return nil, err
	}
	info, err := h.link.Info()
	if err != nil {
		return nil, err
	}
	running, err := ebpf.NewProgramFromID(info.Program)
	if err != nil {
		return nil, err
	}
	defer running.Close()
	program, err := running.Info()
	if err != nil {
		return nil, err
	}
	h.program = program.Name
	if h.spec, err = bpf.LoadFirewall(); err != nil {
		return nil, err
	}
	for name := range h.spec.Programs {
		if name != h.program {
			delete(h.spec.Programs, name)
		}
	}
	ids, _ := program.MapIDs()
	for _, id := range ids {
		m, err := ebpf.NewMapFromID(id)
		if err != nil {
			return nil, err
		}
		info, err := m.Info()
		if err != nil {
			return nil, err
		}
		spec := h.spec.Maps[info.Name]
		if spec == nil {
			return nil, fmt.Errorf("the object has no map %q", info.Name)
		}
		spec.MaxEntries = info.MaxEntries
		h.maps[info.Name] = m
	}
	if h.whole, err = h.load(unchanged); err != nil {
		return nil, err
	}
	h.running, err = verified(h.whole)
	return h, err
}

func (h *hook) close() {
	if h.link != nil {
		h.link.Close()
	}
	if h.whole != nil {
		h.whole.Close()
	}
	for _, m := range h.maps {
		m.Close()
	}
}

// errRejected is the verifier's: such a program never runs.
var errRejected = errors.New("the verifier rejects it")

var types = sync.OnceValue(btf.NewCache)

// load loads a changed program.
func (h *hook) load(change mutation) (_ *ebpf.Program, err error) {
	spec := h.spec.Copy()
	program := spec.Programs[h.program]
	if program.Instructions, err = change(program.Instructions); err != nil {
		return nil, err
	}
	collection, err := ebpf.NewCollectionWithOptions(spec, ebpf.CollectionOptions{
		MapReplacements: h.maps,
		Programs:        ebpf.ProgramOptions{LogDisabled: true},
		Cache:           types(),
	})
	for _, code := range []error{unix.EACCES, unix.EINVAL, unix.E2BIG, unix.EPERM} {
		if errors.Is(err, code) {
			return nil, fmt.Errorf("%w: %w", errRejected, err)
		}
	}
	if err != nil {
		return nil, err
	}
	defer collection.Close()
	return collection.DetachProgram(h.program), nil
}

// replace puts a changed program in the place of the whole one. It tells whether the kernel runs anything else by it:
// what the constants switch off, the verifier takes out.
func (h *hook) replace(change mutation) (differs bool, err error) {
	program, err := h.load(change)
	if err != nil {
		return false, err
	}
	defer program.Close()
	instructions, err := verified(program)
	if err != nil {
		return false, err
	}
	return !same(instructions, h.running), h.link.Update(program)
}

// restore puts the whole program back.
func (h *hook) restore() error { return h.link.Update(h.whole) }

func verified(program *ebpf.Program) (asm.Instructions, error) {
	info, err := program.Info()
	if err != nil {
		return nil, err
	}
	return info.Instructions()
}

// same tells that two programs do the same, word for word.
func same(a, b asm.Instructions) bool {
	return slices.EqualFunc(a, b, func(a, b asm.Instruction) bool {
		return a.OpCode == b.OpCode && a.Dst == b.Dst && a.Src == b.Src && a.Offset == b.Offset && a.Constant == b.Constant
	})
}

// place is where in the C an instruction comes from.
type place struct {
	file, text string
	number     uint32
}

func (p place) String() string { return fmt.Sprintf("%s:%d: %s", p.file, p.number, p.text) }

// places gives the place of each instruction. Only the first one of a line says so itself.
func places(program asm.Instructions) []place {
	all := make([]place, len(program))
	var last place
	for i, instruction := range program {
		if line, ok := instruction.Source().(*btf.Line); ok {
			last = place{filepath.Base(line.FileName()), strings.TrimSpace(line.Line()), line.LineNumber()}
		}
		all[i] = last
	}
	return all
}

// opposite is the jump that is taken when this one is not.
var opposite = map[asm.JumpOp]asm.JumpOp{
	asm.JEq: asm.JNE, asm.JGT: asm.JLE, asm.JGE: asm.JLT, asm.JSGT: asm.JSLE, asm.JSGE: asm.JSLT,
	asm.JNE: asm.JEq, asm.JLE: asm.JGT, asm.JLT: asm.JGE, asm.JSLE: asm.JSGT, asm.JSLT: asm.JSGE,
}

func isConditional(i asm.Instruction) bool {
	_, ok := opposite[i.OpCode.JumpOp()]
	return ok && i.OpCode.Class().IsJump()
}

func invert(i *asm.Instruction) { i.OpCode = i.OpCode.SetJumpOp(opposite[i.OpCode.JumpOp()]) }
