// SPDX-License-Identifier: Apache-2.0

package testdp

import (
	"fmt"
	"regexp"

	"github.com/cilium/ebpf"
)

// Cost is what the verifier makes of a program.
type Cost struct {
	Verified uint32 // instructions that it went through, along all paths
	Size     int    // instructions that it left
	Stack    string // bytes that each function takes, as the verifier says it: 8+24+352
}

var stackDepth = regexp.MustCompile(`(?m)^stack depth ([0-9+]+)$`)

// Verify loads a program as a host does, on the kernel's clock, and returns its cost.
func Verify(o Options, program string) (Cost, error) {
	spec, _, err := o.spec(false)
	if err != nil {
		return Cost{}, err
	}
	for name := range spec.Programs {
		if name != program {
			delete(spec.Programs, name)
		}
	}
	collection, err := ebpf.NewCollectionWithOptions(spec, ebpf.CollectionOptions{
		Programs: ebpf.ProgramOptions{LogLevel: ebpf.LogLevelStats},
	})
	if err != nil {
		return Cost{}, fmt.Errorf("load %s: %w", program, err)
	}
	defer collection.Close()
	loaded := collection.Programs[program]
	info, err := loaded.Info()
	if err != nil {
		return Cost{}, err
	}
	verified, _ := info.VerifiedInstructions()
	bytes, err := info.TranslatedSize()
	if err != nil {
		return Cost{}, err
	}
	stack := stackDepth.FindStringSubmatch(loaded.VerifierLog)
	if verified == 0 || stack == nil {
		return Cost{}, fmt.Errorf("the kernel does not say what it made of %s: %q", program, loaded.VerifierLog)
	}
	return Cost{Verified: verified, Size: bytes / 8, Stack: stack[1]}, nil
}
