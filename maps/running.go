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
}

// PutRunning records r.
func (s *Set) PutRunning(r *Running) error {
	wire, err := wirePolicy(r.Policy)
	if err != nil {
		return err
	}
	wire.Netns = r.Netns
	wire.Hz = r.HZ
	wire.ConfigLength = uint32(len(r.Config))
	if len(r.Config) > len(wire.Config) {
		return fmt.Errorf("the path of the config file is longer than %d bytes", len(wire.Config))
	}
	copy(wire.Config[:], r.Config)
	if err := s.byName[Policy][bpf.FirewallMapRunning].Put(uint32(0), wire); err != nil {
		return fmt.Errorf("record the policy: %w", err)
	}
	return nil
}

// wirePolicy is what is recorded of a policy: all but its rules.
func wirePolicy(p *policy.Policy) (wire bpf.FirewallSettings, err error) {
	p = p.Clone()
	p.Open = nil
	text := p.YAML()
	if len(text) > len(wire.Policy) {
		return wire, fmt.Errorf("the policy without its rules is %d bytes, and %d is the most", len(text), len(wire.Policy))
	}
	wire.PolicyLength = uint32(copy(wire.Policy[:], text))
	return wire, nil
}

// Running returns what PutRunning recorded.
func (s *Set) Running() (*Running, error) {
	var wire bpf.FirewallSettings
	if err := s.byName[Policy][bpf.FirewallMapRunning].Lookup(uint32(0), &wire); err != nil {
		return nil, fmt.Errorf("read the policy in force: %w", err)
	}
	p, err := policy.Parse("policy in force", wire.Policy[:min(int(wire.PolicyLength), len(wire.Policy))])
	if err != nil {
		return nil, err
	}
	config := wire.Config[:min(int(wire.ConfigLength), len(wire.Config))]
	return &Running{
		Policy: p,
		Netns:  wire.Netns,
		HZ:     wire.Hz,
		Config: string(config),
	}, nil
}
