// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"golang.org/x/sys/unix"

	"github.com/portcullis-firewall/portcullis/bpf"
)

// gates make a change of policy one step, however many hooks there are. While the links are updated one by one, each
// runs a gate: a program that goes on to the old one or to the new one, by a switch that all gates read. The switch
// is one store. So a command that is killed leaves either policy whole, and the next one, which finds the switch
// pinned, brings the links to that.
type gates struct {
	pins   pins
	turned *ebpf.Map // the switch
	hooks  []hook
	old    []*ebpf.Program // of the hooks
}

// hook is an attachment whose program is replaced by another of the same direction.
type hook struct {
	*attachment
	direction string
	new       *ebpf.Program
}

// section is what the programs of a hook are called in the object.
func (h *hook) section() string {
	switch h.kind {
	case kindXDP, kindGeneric:
		return bpf.FirewallProgPortcullisXdp
	case kindTCXIn, kindClsactIn:
		return bpf.FirewallProgPortcullisIn
	}
	return bpf.FirewallProgPortcullisOut
}

func (p pins) gateSwitch() string { return filepath.Join(p.gates(), "switch") }

// newGates makes the switch, as long as the old policy is in force.
func newGates(p pins) (_ *gates, err error) {
	if err := os.RemoveAll(p.gates()); err != nil {
		return nil, err
	}
	if err := os.Mkdir(p.gates(), 0o700); err != nil {
		return nil, err
	}
	turned, err := ebpf.NewMap(&ebpf.MapSpec{Name: "switch", Type: ebpf.Array, KeySize: 4, ValueSize: 4, MaxEntries: 1})
	if err != nil {
		return nil, fmt.Errorf("create map switch: %w", err)
	}
	if err := turned.Pin(p.gateSwitch()); err != nil {
		turned.Close()
		return nil, err
	}
	return &gates{pins: p, turned: turned}, nil
}

// openGates finds the gates of a command that was killed, and returns nil where there are none.
func openGates(p pins) (*gates, error) {
	turned, err := ebpf.LoadPinnedMap(p.gateSwitch(), nil)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("open pinned map switch: %w", err)
	}
	return &gates{pins: p, turned: turned}, nil
}

// put puts a gate in front of a hook. It is loaded as the programs that it goes on to, or the kernel would not let it.
func (g *gates) put(h hook, spec *ebpf.ProgramSpec) error {
	old, err := ebpf.LoadPinnedProgram(program(g.pins.policy(), h.iface, h.direction), nil)
	if err != nil {
		return fmt.Errorf("%s: open pinned program: %w", h.iface, err)
	}
	g.hooks, g.old = append(g.hooks, h), append(g.old, old)
	choice, err := ebpf.NewMap(&ebpf.MapSpec{Name: "gate", Type: ebpf.ProgramArray, KeySize: 4, ValueSize: 4, MaxEntries: 2})
	if err != nil {
		return fmt.Errorf("create map gate: %w", err)
	}
	defer choice.Close()
	for i, prog := range []*ebpf.Program{old, h.new} {
		if err := choice.Put(uint32(i), prog); err != nil {
			return fmt.Errorf("%s: put a program into a gate: %w", h.iface, err)
		}
	}
	// The kernel empties an array of programs that nobody holds open or has pinned.
	if err := choice.Pin(filepath.Join(g.pins.gates(), escape(h.iface)+"_"+h.kind)); err != nil {
		return err
	}
	stand := gate(spec, g.turned, choice)
	if h.direction == directionInFrags {
		stand.Flags |= unix.BPF_F_XDP_HAS_FRAGS
	}
	prog, err := ebpf.NewProgram(stand)
	if err != nil {
		return fmt.Errorf("%s: load gate: %w", h.iface, err)
	}
	defer prog.Close()
	return h.update(prog)
}

// gate is a program that stands in for one of spec. What must not happen, that it finds no program, drops.
func gate(spec *ebpf.ProgramSpec, turned, choice *ebpf.Map) *ebpf.ProgramSpec {
	const xdpDrop, tcShot = 1, 2 // XDP_DROP and TC_ACT_SHOT
	drop := int32(xdpDrop)
	if spec.Type == ebpf.SchedCLS {
		drop = tcShot
	}
	return &ebpf.ProgramSpec{
		Name:       "portcullis_gate",
		Type:       spec.Type,
		AttachType: spec.AttachType,
		Flags:      spec.Flags,
		License:    spec.License,
		Instructions: asm.Instructions{
			asm.Mov.Reg(asm.R6, asm.R1),
			asm.LoadMapValue(asm.R2, turned.FD(), 0),
			asm.LoadMem(asm.R3, asm.R2, 0, asm.Word),
			asm.LoadMapPtr(asm.R2, choice.FD()),
			asm.Mov.Reg(asm.R1, asm.R6),
			asm.FnTailCall.Call(),
			asm.Mov.Imm(asm.R0, drop),
			asm.Return(),
		},
	}
}

// turn puts the new policy in force at every hook at once, or the old one again.
func (g *gates) turn(toNew bool) error {
	value := uint32(0)
	if toNew {
		value = 1
	}
	if err := g.turned.Put(uint32(0), value); err != nil {
		return fmt.Errorf("switch the policy: %w", err)
	}
	return nil
}

// isTurned tells whether the new policy is in force.
func (g *gates) isTurned() (bool, error) {
	var value uint32
	if err := g.turned.Lookup(uint32(0), &value); err != nil {
		return false, fmt.Errorf("ask which policy is in force: %w", err)
	}
	return value != 0, nil
}

// takeAway lets every hook run the program that its gate goes on to, and takes the gates away.
func (g *gates) takeAway() error {
	turned, err := g.isTurned()
	if err != nil {
		return err
	}
	for i, h := range g.hooks {
		prog := g.old[i]
		if turned {
			prog = h.new
		}
		if err := h.update(prog); err != nil {
			return err
		}
	}
	return os.RemoveAll(g.pins.gates())
}

func (g *gates) Close() {
	g.turned.Close()
	for _, prog := range g.old {
		prog.Close()
	}
}
