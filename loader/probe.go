// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/features"
	"golang.org/x/sys/unix"

	"github.com/portcullis-firewall/portcullis/bpf"
	"github.com/portcullis-firewall/portcullis/maps"
	"github.com/portcullis-firewall/portcullis/policy"
)

// Support is what this kernel can do with the datapath.
type Support struct {
	Compiled bool  // by the JIT
	Frags    error // why it takes no multi-buffer XDP program, which a large MTU needs
}

// Probe loads the programs as Up would, and lets go of them again. Nothing is attached, so no packet meets one. Where a
// filter runs, its programs have been loaded, and it takes the smallest alone to tell whether they are compiled.
func Probe(p *policy.Policy, running bool) (Support, error) {
	s, err := probe(p, running)
	return s, permissionError(err)
}

func probe(p *policy.Policy, running bool) (s Support, err error) {
	spec, err := bpf.LoadFirewall()
	if err != nil {
		return s, err
	}
	helpers := helpersOf(spec)
	small := p.Clone()
	small.MaxFlows = policy.MinMaxFlows
	maps.Resize(spec, small)
	set, err := maps.NewSet(spec, nil)
	if err != nil {
		return s, explain(err, helpers)
	}
	defer set.Close()
	f := newFactory(spec, set)
	tools, err := f.tools(p)
	if err != nil {
		return s, explain(err, helpers)
	}
	defer tools.Close()
	info, err := tools.clock.Info()
	if err != nil {
		return s, err
	}
	size, err := info.JitedSize()
	s.Compiled = err == nil && size > 0
	if running {
		return s, nil
	}
	constants := maps.Constants{Policy: p, HZ: 100, Ethernet: true, Features: maps.FeaturesOf(p.Open)}
	load := func(name string) error {
		prog, err := f.load(name, &constants, "", "")
		if err == nil {
			prog.Close()
		}
		return err
	}
	for _, name := range []string{bpf.FirewallProgPortcullisXdp, bpf.FirewallProgPortcullisIn, bpf.FirewallProgPortcullisOut} {
		if err := load(name); err != nil {
			return s, explain(err, helpers)
		}
	}
	constants.MultiBuffer = true
	s.Frags = load(bpf.FirewallProgPortcullisXdp)
	return s, nil
}

// helper is a function of the kernel that a program of some type calls.
type helper struct {
	program  ebpf.ProgramType
	function asm.BuiltinFunc
}

func helpersOf(spec *ebpf.CollectionSpec) (out []helper) {
	for _, prog := range spec.Programs {
		for _, ins := range prog.Instructions {
			h := helper{prog.Type, asm.BuiltinFunc(ins.Constant)}
			if ins.IsBuiltinCall() && !slices.Contains(out, h) {
				out = append(out, h)
			}
		}
	}
	return out
}

// explain adds to the verifier's words which of the kernel's helpers are not there.
func explain(err error, helpers []helper) error {
	var missing []string
	for _, h := range helpers {
		err := features.HaveProgramHelper(h.program, h.function)
		if name := h.function.String(); errors.Is(err, ebpf.ErrNotSupported) && !slices.Contains(missing, name) {
			missing = append(missing, name)
		}
	}
	if len(missing) == 0 {
		return err
	}
	return fmt.Errorf("this kernel has no %s: %w", strings.Join(missing, ", "), err)
}

// needed are the capabilities that a filter takes, but for CAP_SYS_ADMIN, which stands for all of them.
var needed = []struct {
	name string
	bit  uint
}{
	{"CAP_BPF", unix.CAP_BPF},
	{"CAP_NET_ADMIN", unix.CAP_NET_ADMIN},
	{"CAP_PERFMON", unix.CAP_PERFMON},
}

// lacking returns the capabilities that are needed and this process has not.
func lacking() (names []string) {
	text, err := os.ReadFile("/proc/thread-self/status")
	if err != nil {
		return nil
	}
	var effective uint64
	for line := range strings.Lines(string(text)) {
		if value, ok := strings.CutPrefix(line, "CapEff:"); ok {
			if effective, err = strconv.ParseUint(strings.TrimSpace(value), 16, 64); err != nil {
				return nil
			}
		}
	}
	if effective>>unix.CAP_SYS_ADMIN&1 != 0 {
		return nil
	}
	for _, c := range needed {
		if effective>>c.bit&1 == 0 {
			names = append(names, c.name)
		}
	}
	return names
}

// permissionError says which capability is missing where the kernel refused something for it. Its own words, the
// verifier's above all, say everything but that.
func permissionError(err error) error {
	var verifier *ebpf.VerifierError
	if err == nil || !errors.Is(err, fs.ErrPermission) && !errors.As(err, &verifier) {
		return err
	}
	names := lacking()
	switch len(names) {
	case 0:
		return err
	case 1:
		return fmt.Errorf("the capability %s is missing: run portcullis as root, or give it that one, too", names[0])
	}
	return fmt.Errorf("the capabilities %s are missing: run portcullis as root, or give it those, too", strings.Join(names, ", "))
}
