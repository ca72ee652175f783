// SPDX-License-Identifier: Apache-2.0

package maps

import (
	"fmt"

	"github.com/portcullis-firewall/portcullis/bpf"
	"github.com/portcullis-firewall/portcullis/policy"
)

// Features are the parts of the datapath that not all rules need. Programs are loaded with those that the rules use, so
// that others cost nothing.
type Features uint32

// The features.
const (
	UsesLimits       Features = 1 << iota // a rule has a limit
	UsesAddresses                         // a rule is for some addresses of this host
	UsesForwardRules                      // a rule is about what is routed
)

// ErrFeatures is returned when a rule needs a part of the datapath that the programs were loaded without. Applying the
// policy anew loads it, so it is an ErrNoRoom, too.
var ErrFeatures = fmt.Errorf("%w: the programs were loaded without what this rule needs", ErrNoRoom)

// FeaturesOf returns what rules need.
func FeaturesOf(rules []policy.Rule) (f Features) {
	for _, r := range rules {
		f |= featuresOf(r)
	}
	return f
}

func featuresOf(r policy.Rule) (f Features) {
	if r.Limit.Count > 0 {
		f |= UsesLimits
	}
	switch {
	case r.Forward: // where the destination is asked for anyway
		f |= UsesForwardRules
	case len(r.To) > 0:
		f |= UsesAddresses
	}
	return f
}

// Features returns what the programs of this ruleset are loaded with.
func (r *Ruleset) Features() (Features, error) {
	wire, err := r.settings()
	return Features(wire.Features), err
}

// SetFeatures says what the programs of this ruleset are going to be loaded with.
func (r *Ruleset) SetFeatures(f Features) error {
	wire, err := r.settings()
	if err != nil {
		return err
	}
	wire.Features = uint32(f)
	return r.putSettings(&wire)
}

func (r *Ruleset) checkFeatures(rules []Rule) error {
	have, err := r.Features()
	if err != nil {
		return err
	}
	for _, rule := range rules {
		if missing := featuresOf(rule.Rule) &^ have; missing != 0 {
			return fmt.Errorf("%w: %q", ErrFeatures, rule.Rule)
		}
	}
	return nil
}

func (r *Ruleset) settings() (wire bpf.FirewallSettings, err error) {
	if err := r.byName[bpf.FirewallMapRunning].Lookup(uint32(0), &wire); err != nil {
		return wire, fmt.Errorf("read the policy in force: %w", err)
	}
	return wire, nil
}

func (r *Ruleset) putSettings(wire *bpf.FirewallSettings) error {
	if err := r.byName[bpf.FirewallMapRunning].Put(uint32(0), wire); err != nil {
		return fmt.Errorf("record the policy: %w", err)
	}
	return nil
}
