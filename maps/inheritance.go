// SPDX-License-Identifier: Apache-2.0

package maps

import (
	"github.com/cilium/ebpf"

	"github.com/portcullis-firewall/portcullis/bpf"
)

// inheritance is an earlier ledger that a new one goes on from. Programs count in it until others have taken their place,
// so it is read twice: what came in meanwhile is added at the end.
type inheritance struct {
	read         func() (*Ledger, error)
	before       *Ledger // that was added
	pages, rules bool    // what of it is inherited
}

// inherit adds what an earlier ledger has.
func (s *State) inherit(i inheritance) error {
	i.before = &Ledger{}
	s.inherited = append(s.inherited, i)
	return s.InheritRest()
}

// Inherits reports whether this state goes on from an earlier ledger.
func (s *State) Inherits() bool { return len(s.inherited) > 0 }

// InheritRest adds what has come in since an earlier ledger was read. To be called when nothing counts in it any more.
func (s *State) InheritRest() error {
	for n := range s.inherited {
		i := &s.inherited[n]
		now, err := i.read()
		if err != nil {
			return err
		}
		if err := s.addLedger(i, now); err != nil {
			return err
		}
		i.before = now
	}
	return nil
}

// addLedger adds what is new in a ledger. Pages and rules that have begun anew leave what their predecessors count.
func (s *State) addLedger(i *inheritance, now *Ledger) error {
	if i.pages {
		offsets, err := s.Map(bpf.FirewallMapLedgerOffsets)
		if err != nil {
			return err
		}
		last := offsets.MaxEntries() - 1
		for n := range min(uint32(len(now.pages)), last) {
			if s.begunPages.has(uint16(n)) {
				continue
			}
			gain := now.pages[n]
			gain.subtract(i.before.Page(n))
			if err := addTo(offsets, n, gain, (*Page).add); err != nil {
				return err
			}
		}
		gain := now.total
		gain.subtract(&i.before.total)
		if err := addTo(offsets, last, gain, (*Page).add); err != nil {
			return err
		}
	}
	if !i.rules {
		return nil
	}
	offsets, err := s.Map(bpf.FirewallMapRuleOffsets)
	if err != nil {
		return err
	}
	for n := range min(len(now.rules), int(offsets.MaxEntries())) {
		id := uint16(n)
		gain := now.Rule(id).minus(i.before.Rule(id))
		if gain == (Tally{}) || s.begunRules.has(id) {
			continue
		}
		if err := addTo(offsets, uint32(n), gain, func(sum, t *Tally) { sum.Add(*t) }); err != nil {
			return err
		}
	}
	return nil
}

func addTo[T any](m *ebpf.Map, key uint32, gain T, add func(sum, value *T)) error {
	var have T
	if err := m.Lookup(key, &have); err != nil {
		return err
	}
	add(&have, &gain)
	return m.Put(key, have)
}

// inheritFrom goes on from the ledger of an earlier state, as far as that has other maps.
func (s *State) inheritFrom(old *State, pages, rules bool) error {
	if !pages && !rules {
		return nil
	}
	if pages {
		if err := copyAssigned(old, s); err != nil {
			return err
		}
	}
	return s.inherit(inheritance{read: old.Ledger, pages: pages, rules: rules})
}

// copyAssigned copies the pages of devices whose programs may stand at more than one.
func copyAssigned(from, to *State) error {
	m, err := from.Map(bpf.FirewallMapLedgerPages)
	if err != nil {
		return err
	}
	target, err := to.Map(bpf.FirewallMapLedgerPages)
	if err != nil {
		return err
	}
	var index, page uint32
	it := m.Iterate()
	for it.Next(&index, &page) {
		if err := target.Put(index, page); err != nil {
			return err
		}
	}
	return it.Err()
}
