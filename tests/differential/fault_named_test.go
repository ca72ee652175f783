// SPDX-License-Identifier: Apache-2.0

package differential

import (
	"fmt"
	"strings"

	"github.com/cilium/ebpf/asm"

	"github.com/portcullis-firewall/portcullis/loader"
)

// fault is a mistake that the datapath could have, made in the compiled program. It is found by the line of C that it
// stands in, so that it stays the same mistake when the compiler or the rest of the program changes.
type fault struct {
	name   string
	in     *world // where it shows
	egress bool   // in the program that sees what goes out
	change func(loader.Mode) mutation
}

var faults = []fault{
	{"every packet passes", &noICMP, false, always(pass)},
	{"every packet is dropped", &noICMP, false, always(drops)},
	{"drop and pass are exchanged", &noICMP, false, inverting("is_drop(reason + watched)")},
	{"no port is listed", &noICMP, false, reading("if (!(ports.listed[", 0)},
	{"no port is open", &noICMP, false, masking("if (port.rule)", 0)},
	{"every port is open", &noICMP, false, both(reading("if (!(ports.listed[", -1), masking("if (port.rule)", 1))},
	{"nothing that goes out begins a flow", &noICMP, true, always(pass)},
	{"flows are over as soon as they begin", &noICMP, false, reading("return time < flow->expires", 0)},
	{"flows never end", &short, false, reading("return time < flow->expires", -1)},
	{"TCP flags that make no sense are taken, others are not", &noICMP, false, inverting("if (!tcp_flags_valid(tcp->flags))")},
	{"ICMP errors are related to the wrong packets", &noICMP, false, inverting("a[1] == b[1] && a[2] == b[2] && a[3] == b[3]")},
	{"refused ICMP is let in", &noICMP, false, inverting("if (icmp_accepted(packet))")},
	{"what is for others is taken for ours", &forwardEstablished, false, inverting("if (!is_local(family, addr))")},
}

// What the programs return, from linux/bpf.h and linux/pkt_cls.h.
func pass(mode loader.Mode) int32 {
	if mode == loader.ModeTC {
		return -1
	}
	return 2
}

func drops(mode loader.Mode) int32 {
	if mode == loader.ModeTC {
		return 2
	}
	return 1
}

// always makes the program return one verdict, whatever comes.
func always(verdict func(loader.Mode) int32) func(loader.Mode) mutation {
	return func(mode loader.Mode) mutation {
		return func(program asm.Instructions) (asm.Instructions, error) {
			first := asm.Mov.Imm(asm.R0, verdict(mode))
			first.Metadata = program[0].Metadata
			return asm.Instructions{first, asm.Return()}, nil
		}
	}
}

// inverting takes the other branch of every conditional jump in the lines that have the text.
func inverting(text string) func(loader.Mode) mutation {
	return changing(text, "conditional jump", isConditional, invert)
}

// reading makes what the lines with the text read from memory, but not from the stack, a constant.
func reading(text string, value int32) func(loader.Mode) mutation {
	reads := func(i asm.Instruction) bool { return i.OpCode.Class() == asm.LdXClass && i.Src != asm.RFP }
	return changing(text, "read from memory", reads, func(i *asm.Instruction) {
		constant := asm.Mov.Imm(i.Dst, value)
		constant.Metadata = i.Metadata
		*i = constant
	})
}

// masking makes half of a word a constant.
func masking(text string, value int32) func(loader.Mode) mutation {
	const half = 0xffff
	masks := func(i asm.Instruction) bool {
		return i.OpCode.ALUOp() == asm.And && i.OpCode.Source() == asm.ImmSource && i.Constant == half
	}
	return changing(text, "mask of half a word", masks, func(i *asm.Instruction) {
		constant := asm.Mov.Imm(i.Dst, value)
		constant.Metadata = i.Metadata
		*i = constant
	})
}

func both(first, then func(loader.Mode) mutation) func(loader.Mode) mutation {
	return func(mode loader.Mode) mutation {
		return func(program asm.Instructions) (asm.Instructions, error) {
			changed, err := first(mode)(program)
			if err != nil {
				return nil, err
			}
			return then(mode)(changed)
		}
	}
}

func changing(text, what string, which func(asm.Instruction) bool, change func(*asm.Instruction)) func(loader.Mode) mutation {
	return func(loader.Mode) mutation {
		return func(program asm.Instructions) (asm.Instructions, error) {
			changed := 0
			for i, from := range places(program) {
				if strings.Contains(from.text, text) && which(program[i]) {
					change(&program[i])
					changed++
				}
			}
			if changed == 0 {
				return nil, fmt.Errorf("the program has no %s in a line with %q: name the line that does this now", what, text)
			}
			return program, nil
		}
	}
}
