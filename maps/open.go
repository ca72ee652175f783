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
	for _, r := range rules {
		for _, p := range r.Rule.Ports {
			first, last := policy.PortIndex(p.Protocol, p.First), policy.PortIndex(p.Protocol, p.Last)
			ports, release, err := s.portsBetween(first, last)
			if err != nil {
				return err
			}
			for slot := first; slot <= last; slot++ {
				ports.open(slot, r.ID)
			}
			release()
		}
	}
	return nil
}
