// SPDX-License-Identifier: Apache-2.0

package maps

import (
	"fmt"

	"github.com/portcullis-firewall/portcullis/bpf"
	"github.com/portcullis-firewall/portcullis/policy"
)

// Running is what a running filter was told, beside its rules.
type Running struct {
	Policy *policy.Policy // without rules, which are in Rules, and interfaces
	Netns  uint64         // cookie of the network namespace
	HZ     uint32         // jiffies a second
	Config string         // file that the policy came from
}

// PutRunning records running.
func (r *Ruleset) PutRunning(running *Running) error {
	wire, err := wirePolicy(running.Policy)
	if err != nil {
		return err
	}
	wire.Netns = running.Netns
	wire.Hz = running.HZ
	wire.ConfigLength = uint32(len(running.Config))
	if len(running.Config) > len(wire.Config) {
		return fmt.Errorf("the path of the config file is longer than %d bytes", len(wire.Config))
	}
	copy(wire.Config[:], running.Config)
	if err := r.byName[bpf.FirewallMapRunning].Put(uint32(0), wire); err != nil {
		return fmt.Errorf("record the policy: %w", err)
	}
	return nil
}

// wirePolicy returns what is recorded of a policy: all but its rules, and its interfaces, which have pins.
func wirePolicy(p *policy.Policy) (wire bpf.FirewallSettings, err error) {
	text := p.CompleteYAML()
	if len(text) > len(wire.Policy) {
		return wire, fmt.Errorf("the policy without its rules is %d bytes, and %d is the most: shorten the list of icmp types", len(text), len(wire.Policy))
	}
	wire.PolicyLength = uint32(copy(wire.Policy[:], text))
	return wire, nil
}

// Running returns what PutRunning recorded.
func (r *Ruleset) Running() (*Running, error) {
	var wire bpf.FirewallSettings
	if err := r.byName[bpf.FirewallMapRunning].Lookup(uint32(0), &wire); err != nil {
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
