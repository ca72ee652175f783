// SPDX-License-Identifier: Apache-2.0

package maps

import (
	"fmt"
	"net/netip"

	"github.com/portcullis-firewall/portcullis/bpf"
)

// PutLocal makes prefixes the ones that this host takes packets for: what is new is added first, then the rest goes.
func (s *State) PutLocal(prefixes []netip.Prefix) error {
	m4, err := s.Map(bpf.FirewallMapLocal4)
	if err != nil {
		return err
	}
	m6, err := s.Map(bpf.FirewallMapLocal6)
	if err != nil {
		return err
	}
	keep4, keep6 := make(map[bpf.FirewallLocalKey4]bool), make(map[bpf.FirewallLocalKey6]bool)
	for _, p := range prefixes {
		var err error
		if p.Addr().Is4() {
			key := localKey4(p)
			keep4[key] = true
			err = m4.Put(key, uint8(1))
		} else {
			key := localKey6(p)
			keep6[key] = true
			err = m6.Put(key, uint8(1))
		}
		if err != nil {
			return fmt.Errorf("add local address %s: %w", p, err)
		}
	}
	var one uint8
	var key4 bpf.FirewallLocalKey4
	var gone4 []bpf.FirewallLocalKey4
	for it := m4.Iterate(); it.Next(&key4, &one); {
		if !keep4[key4] {
			gone4 = append(gone4, key4)
		}
	}
	for _, key := range gone4 {
		if err := m4.Delete(key); err != nil {
			return fmt.Errorf("remove local address: %w", err)
		}
	}
	var key6 bpf.FirewallLocalKey6
	var gone6 []bpf.FirewallLocalKey6
	for it := m6.Iterate(); it.Next(&key6, &one); {
		if !keep6[key6] {
			gone6 = append(gone6, key6)
		}
	}
	for _, key := range gone6 {
		if err := m6.Delete(key); err != nil {
			return fmt.Errorf("remove local address: %w", err)
		}
	}
	return nil
}
