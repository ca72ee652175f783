// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"bytes"
	"os"
	"os/exec"
	"runtime"
	"strings"

	"github.com/safchain/ethtool"
	"golang.org/x/sys/unix"
)

// Machine is what the figures were measured on.
type Machine struct {
	Kernel     string            `json:"kernel"`
	CPU        string            `json:"cpu"`
	CPUs       int               `json:"cpus"`
	Hypervisor bool              `json:"hypervisor"`         // the CPU says that it is a virtual one
	Emulated   bool              `json:"emulated,omitempty"` // it is a program
	Governor   string            `json:"governor"`           // of CPU frequencies
	Memory     uint64            `json:"memory"`             // bytes
	Load       string            `json:"load"`               // of the last minutes, before the run
	Driver     string            `json:"driver"`             // of the interface that receives
	JIT        string            `json:"jit"`                // net.core.bpf_jit_enable
	Programs   map[string]string `json:"programs"`           // versions of what was measured
}

// emulatedCPU is how QEMU names its most capable CPU, and that only without KVM.
const emulatedCPU = "QEMU TCG CPU"

// emulated is what a report says of such a machine.
const emulated = "This CPU is emulated: rates mean nothing here. That every frame was counted does."

// machine asks what can be asked.
func machine(kinds []kind, borrowed *stand) (Machine, error) {
	m := Machine{CPUs: runtime.NumCPU(), Governor: "not shown", Driver: "veth", Programs: make(map[string]string)}
	var name unix.Utsname
	if err := unix.Uname(&name); err != nil {
		return m, err
	}
	m.Kernel = unix.ByteSliceToString(name.Release[:]) + " " + unix.ByteSliceToString(name.Machine[:])
	cpu, _ := os.ReadFile("/proc/cpuinfo")
	for line := range bytes.Lines(cpu) {
		key, value, _ := strings.Cut(string(line), ":")
		switch strings.TrimSpace(key) {
		case "model name":
			m.CPU = strings.TrimSpace(value)
			m.Emulated = strings.HasPrefix(m.CPU, emulatedCPU)
		case "flags":
			m.Hypervisor = strings.Contains(value, " hypervisor")
		}
	}
	var info unix.Sysinfo_t
	if err := unix.Sysinfo(&info); err == nil {
		m.Memory = uint64(info.Totalram) * uint64(info.Unit)
	}
	m.Load = strings.Join(strings.Fields(readLine("/proc/loadavg"))[:3], " ")
	m.JIT = readLine("/proc/sys/net/core/bpf_jit_enable")
	if governor := readLine("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"); governor != "" {
		m.Governor = governor
	}
	if borrowed != nil {
		if err := borrowed.inside.do(func() (err error) {
			tool, err := ethtool.NewEthtool()
			if err != nil {
				return err
			}
			defer tool.Close()
			m.Driver, err = tool.DriverName(borrowed.to.name)
			return err
		}); err != nil {
			return m, err
		}
	}
	for _, k := range kinds {
		switch k.key {
		case keyIptables, keyNft:
			m.Programs[k.key] = versionOf(k.key, "--version")
		case keyXDPFilter:
			m.Programs[k.key] = versionOf(k.key, "load", "--version")
		}
	}
	if installed("iperf3")() == "" {
		m.Programs["iperf3"] = versionOf("iperf3", "--version")
	}
	return m, nil
}

func readLine(path string) string {
	text, _ := os.ReadFile(path)
	line, _, _ := strings.Cut(string(text), "\n")
	return line
}

// versionOf asks a program; xdp-filter answers, and calls that a failure.
func versionOf(program string, args ...string) string {
	out, _ := exec.Command(program, args...).Output()
	line, _, _ := strings.Cut(strings.TrimSpace(string(out)), "\n")
	return strings.TrimSpace(strings.TrimPrefix(line, program+" "))
}
