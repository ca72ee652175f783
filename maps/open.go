// SPDX-License-Identifier: Apache-2.0

package maps

import (
	"github.com/portcullis-firewall/portcullis/policy"
)

// AddRules puts rules in force behind those that are. All have to be open to everybody: then no other port than
// theirs changes, and of these only what nobody else has opened, so there is nothing to compile.
func (s *Set) AddRules(rules []Rule) error {
	for _, r := range rules {
		if err := s.ResetCounter(RuleReason(r.ID)); err != nil {
			return err
		}
		if err := s.PutRule(r); err != nil {
			return err
		}
	}
	ports, err := s.ports()
	if err != nil {
		return err
	}
	for _, r := range rules {
		for _, p := range r.Rule.Ports {
			for port := int(p.First); port <= int(p.Last); port++ {
				ports.open(policy.PortIndex(p.Protocol, uint16(port)), r.ID)
			}
		}
	}
	return nil
}
