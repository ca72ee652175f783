// SPDX-License-Identifier: Apache-2.0

package maps

import (
	"sync/atomic"
	"unsafe"

	"github.com/portcullis-firewall/portcullis/bpf"
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
	memory, err := s.memory(portsMap)
	if err != nil {
		return err
	}
	ports := words(memory)
	for _, r := range rules {
		for _, p := range r.Rule.Ports {
			for port := int(p.First); port <= int(p.Last); port++ {
				openPort(&ports[policy.PortIndex(p.Protocol, uint16(port))], r.ID)
			}
		}
	}
	return nil
}

// openPort gives a port to a rule, if no other has it.
func openPort(word *uint32, rule uint16) {
	for {
		before := atomic.LoadUint32(word)
		entry := *(*bpf.FirewallPort)(unsafe.Pointer(&before))
		if entry.Rule != 0 {
			return
		}
		entry.Rule = rule
		if atomic.CompareAndSwapUint32(word, before, *(*uint32)(unsafe.Pointer(&entry))) {
			return
		}
	}
}
