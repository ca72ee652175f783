// SPDX-License-Identifier: Apache-2.0

package maps

import (
	"fmt"

	"github.com/portcullis-firewall/portcullis/bpf"
	"github.com/portcullis-firewall/portcullis/policy"
)

// Running is what a running filter was told, beside its rules.
type Running struct {
	Policy *policy.Policy // Open is empty: the rules in force are in Rules
	Netns  uint64         // cookie of the network namespace
	HZ     uint32         // jiffies a second
	Config string         // file that the policy came from

	Forwarding bool // the host forwarded packets when the programs were loaded
}

// PutRunning records r.
func (s *Set) PutRunning(r *Running) error {
	p := r.Policy.Clone()
	p.Open = nil
	text := p.YAML()
	wire := bpf.FirewallSettings{
		Netns:        r.Netns,
		Hz:           r.HZ,
		Forwarding:   boolWord(r.Forwarding),
		ConfigLength: uint32(len(r.Config)),
		PolicyLength: uint32(len(text)),
	}
	if len(text) > len(wire.Policy) {
		return fmt.Errorf("the policy without its rules is %d bytes, and %d is the most", len(text), len(wire.Policy))
	}
	if len(r.Config) > len(wire.Config) {
		return fmt.Errorf("the path of the config file is longer than %d bytes", len(wire.Config))
	}
	copy(wire.Policy[:], text)
	copy(wire.Config[:], r.Config)
	if err := s.byName[bpf.FirewallMapRunning].Put(uint32(0), wire); err != nil {
		return fmt.Errorf("record the policy: %w", err)
	}
	return nil
}

// Running returns what PutRunning recorded.
func (s *Set) Running() (*Running, error) {
	var wire bpf.FirewallSettings
	if err := s.byName[bpf.FirewallMapRunning].Lookup(uint32(0), &wire); err != nil {
		return nil, fmt.Errorf("read the policy in force: %w", err)
	}
	p, err := policy.Parse("policy in force", wire.Policy[:min(int(wire.PolicyLength), len(wire.Policy))])
	if err != nil {
		return nil, err
	}
	config := wire.Config[:min(int(wire.ConfigLength), len(wire.Config))]
	return &Running{
		Policy:     p,
		Netns:      wire.Netns,
		HZ:         wire.Hz,
		Config:     string(config),
		Forwarding: wire.Forwarding != 0,
	}, nil
}

func boolWord(b bool) uint32 {
	if b {
		return 1
	}
	return 0
}
