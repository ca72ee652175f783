// SPDX-License-Identifier: Apache-2.0

package maps

import (
	"fmt"

	"github.com/portcullis-firewall/portcullis/bpf"
	"github.com/portcullis-firewall/portcullis/policy"
)

// Fits tells why the maps could not hold a policy, without making any.
func Fits(p *policy.Policy) error {
	spec, err := bpf.LoadFirewall()
	if err != nil {
		return err
	}
	Resize(spec, p)
	if _, err := wirePolicy(p); err != nil {
		return err
	}
	for _, r := range p.Open {
		if _, err := wireRule(Rule{NumberedRule: policy.NumberedRule{Rule: r}}); err != nil {
			return err
		}
	}
	numbered, err := Number(p.Open, nil, spec.Maps[bpf.FirewallMapRules].MaxEntries)
	if err != nil {
		return err
	}
	compiled, err := policy.Compile(numbered, nil)
	if err != nil {
		return err
	}
	var sources4, sources6 uint32
	for _, s := range compiled.Sources {
		if s.Prefix.Addr().Is4() {
			sources4++
		} else {
			sources6++
		}
	}
	if most := spec.Maps[bpf.FirewallMapSources4].MaxEntries; max(sources4, sources6) > most {
		return fmt.Errorf("%w: the rules name %d sources, and %d is the most", ErrNoRoom, max(sources4, sources6), most)
	}
	return nil
}
