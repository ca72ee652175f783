// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
)

// What XDP programs return (enum xdp_action in linux/bpf.h).
const (
	xdpDrop = 1
	xdpPass = 2
)

// verdictProgram makes an XDP program that does nothing but return: what everything is measured against.
func verdictProgram(verdict int32) (*ebpf.Program, error) {
	return ebpf.NewProgram(&ebpf.ProgramSpec{
		Name:         "bench_bare",
		Type:         ebpf.XDP,
		License:      "GPL",
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, verdict), asm.Return()},
	})
}
