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
	"github.com/portcullis-firewall/portcullis/loader/hook"
	"github.com/portcullis-firewall/portcullis/loader/pin"
)

// switchover makes a change of policy one step, however many hooks there are. While the links are updated one by one,
// each runs a relay: a program that goes on to the old one or to the new one, by a switch that all relays read. The
// switch is one store. So a command that is killed leaves either policy whole, and the next one, which finds the switch
// pinned, brings the links to that.
type switchover struct {
	pins      pin.Dir
	switchMap *ebpf.Map // the switch
	relays    []relay
}

// relay stands in for the program of an attachment.
type relay struct {
	*hook.Attachment
	direction string
	old, new  *ebpf.Program // of that direction
}

// section is what the programs of the hook are called in the object.
func (r *relay) section() string {
	switch r.Kind {
	case hook.XDP, hook.XDPGeneric:
		return bpf.FirewallProgPortcullisXdp
	case hook.TCXIn, hook.ClsactIn:
		return bpf.FirewallProgPortcullisIn
	}
	return bpf.FirewallProgPortcullisOut
}

// newSwitchover makes the switch, as long as the old policy is in force.
func newSwitchover(p pin.Dir) (_ *switchover, err error) {
	if err := os.RemoveAll(p.Switchover()); err != nil {
		return nil, err
	}
	if err := os.Mkdir(p.Switchover(), 0o700); err != nil {
		return nil, err
	}
	switchMap, err := ebpf.NewMap(&ebpf.MapSpec{Name: "switch", Type: ebpf.Array, KeySize: 4, ValueSize: 4, MaxEntries: 1})
	if err != nil {
		return nil, fmt.Errorf("create map switch: %w", err)
	}
	if err := switchMap.Pin(p.Switch()); err != nil {
		switchMap.Close()
		return nil, err
	}
	return &switchover{pins: p, switchMap: switchMap}, nil
}

// add puts a relay in front of a hook. It is loaded as the programs that it goes on to, or the kernel would not let it.
func (s *switchover) add(r relay, spec *ebpf.ProgramSpec) error {
	old, err := s.runningProgram(&r)
	if err != nil {
		return fmt.Errorf("%s: open pinned program: %w", r.Interface, err)
	}
	r.old = old
	s.relays = append(s.relays, r)
	choice, err := ebpf.NewMap(&ebpf.MapSpec{Name: "relay", Type: ebpf.ProgramArray, KeySize: 4, ValueSize: 4, MaxEntries: 2})
	if err != nil {
		return fmt.Errorf("create map relay: %w", err)
	}
	defer choice.Close()
	for i, prog := range []*ebpf.Program{old, r.new} {
		if err := choice.Put(uint32(i), prog); err != nil {
			return fmt.Errorf("%s: put a program into a relay: %w", r.Interface, err)
		}
	}
	// The kernel empties an array of programs that nobody holds open or has pinned.
	if err := choice.Pin(filepath.Join(s.pins.Switchover(), pin.Escape(r.Interface)+"_"+r.Kind)); err != nil {
		return err
	}
	stand := relaySpec(spec, s.switchMap, choice)
	if r.direction == pin.InFrags {
		stand.Flags |= unix.BPF_F_XDP_HAS_FRAGS
	}
	prog, err := ebpf.NewProgram(stand)
	if err != nil {
		return fmt.Errorf("%s: load relay: %w", r.Interface, err)
	}
	defer prog.Close()
	return r.Update(prog)
}

// runningProgram opens the program that the hook runs. Where somebody has removed its pin, the kernel still knows it.
func (s *switchover) runningProgram(r *relay) (*ebpf.Program, error) {
	prog, err := ebpf.LoadPinnedProgram(pin.Program(s.pins.Policy(), r.Interface, r.direction), nil)
	if !errors.Is(err, fs.ErrNotExist) {
		return prog, err
	}
	id, err := r.ProgramID()
	if err != nil {
		return nil, err
	}
	return ebpf.NewProgramFromID(id)
}

// relaySpec is a program that stands in for one of spec. What must not happen, that it finds no program, drops.
func relaySpec(spec *ebpf.ProgramSpec, switchMap, choice *ebpf.Map) *ebpf.ProgramSpec {
	const xdpDrop, tcShot = 1, 2 // XDP_DROP and TC_ACT_SHOT
	drop := int32(xdpDrop)
	if spec.Type == ebpf.SchedCLS {
		drop = tcShot
	}
	return &ebpf.ProgramSpec{
		Name:       "portcullis_relay",
		Type:       spec.Type,
		AttachType: spec.AttachType,
		Flags:      spec.Flags,
		License:    spec.License,
		Instructions: asm.Instructions{
			asm.Mov.Reg(asm.R6, asm.R1),
			asm.LoadMapValue(asm.R2, switchMap.FD(), 0),
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
func (s *switchover) turn(toNew bool) error {
	value := uint32(0)
	if toNew {
		value = 1
	}
	if err := s.switchMap.Put(uint32(0), value); err != nil {
		return fmt.Errorf("switch the policy: %w", err)
	}
	return nil
}

// end lets every hook run the program that its relay goes on to, and takes the relays away.
func (s *switchover) end() error {
	switched, err := pin.IsSwitched(s.switchMap)
	if err != nil {
		return err
	}
	for _, r := range s.relays {
		prog := r.old
		if switched {
			prog = r.new
		}
		if err := r.Update(prog); err != nil {
			return err
		}
	}
	return os.RemoveAll(s.pins.Switchover())
}

func (s *switchover) Close() {
	s.switchMap.Close()
	for _, r := range s.relays {
		r.old.Close()
	}
}
