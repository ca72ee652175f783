// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"errors"
	"fmt"
	"iter"
	"net/netip"
	"slices"
	"time"

	"github.com/portcullis-firewall/portcullis/maps"
	"github.com/portcullis-firewall/portcullis/policy"
)

// blocking returns what the new policy blocks and trusts, and the ruleset whose lists go on counting, or nil.
func (c *change) blocking() (b *maps.Blocking, former *maps.Ruleset, err error) {
	b = c.options.Blocking
	if c.old != nil {
		former = c.old.set.Ruleset
	}
	if b == nil {
		if b, err = c.blockingOfPolicy(former); err != nil {
			return nil, nil, err
		}
	}
	if b == nil && former != nil {
		b, err = former.Blocking()
	}
	if b == nil {
		b = &maps.Blocking{}
	}
	return b, former, err
}

// blockingOfPolicy returns what the new policy blocks and trusts, or nil where that is what is in force.
func (c *change) blockingOfPolicy(former *maps.Ruleset) (*maps.Blocking, error) {
	p := c.options.Policy
	lists, trust, known := maps.BlockListsOf(p)
	if !known {
		return nil, nil
	}
	if former != nil && slices.EqualFunc(p.Trust, c.old.running.Policy.Trust, policy.Source.Equal) {
		same, err := former.Keeps(lists)
		if same || err != nil {
			return nil, err
		}
	}
	return maps.NewBlocking(lists, trust)
}

// putBlocking puts lists in the new ruleset. The gate is open to the sources of the old one, too, until that has gone.
func (c *change) putBlocking(b *maps.Blocking, former *maps.Ruleset) error {
	if former != nil {
		if err := c.set.KeepLists(former); err != nil {
			return err
		}
		same, err := b.SameLists(former)
		if err != nil {
			return err
		}
		c.listsChanged = !same
	}
	return c.set.PutBlocking(b)
}

// putBans bans whom an earlier filter had banned. Without them the host is no worse off than without a filter, so an error
// is a warning.
func (c *change) putBans(hz uint32) error {
	if c.old != nil || c.options.Bans == nil {
		return nil
	}
	clock, err := clockOf(c.tools, hz)
	if err != nil {
		return err
	}
	lost := 0
	err = c.options.Bans(func(bans []maps.Ban) error {
		put, err := c.set.LoadBans(clock, bans)
		c.report.Bans += put
		if errors.Is(err, maps.ErrBansFull) {
			lost += len(bans) - put
			return nil
		}
		return err
	})
	if err != nil {
		c.warn("not all bans are in force again: %v", err)
	}
	if lost > 0 {
		c.warn("%d bans are not in force again: %v", lost, maps.ErrBansFull)
	}
	return nil
}

// PutBlocking replaces what is blocked and trusted in the running filter, in one step. Where the running maps have no room
// for it, the filter gets others.
func (f *Filter) PutBlocking(b *maps.Blocking) error {
	err := f.putBlocking(b)
	if errors.Is(err, ErrNoRoom) {
		return f.putBlockingAnew(b)
	}
	return err
}

func (f *Filter) putBlocking(b *maps.Blocking) error {
	unlock, err := f.change()
	if err != nil {
		return err
	}
	defer unlock()
	if err := f.set.PutBlocking(b); err != nil {
		return err
	}
	return f.set.TidyGate()
}

func (f *Filter) putBlockingAnew(b *maps.Blocking) error {
	rules, err := f.set.Rules()
	if err != nil {
		return err
	}
	if err := f.renew(rules, b); err != nil {
		return fmt.Errorf("make room for the block lists: %w", err)
	}
	return nil
}

// BlockLists returns the block lists in force, in the order of the policy.
func (f *Filter) BlockLists() ([]maps.BlockListInForce, error) { return f.set.BlockLists() }

// EachBlocked calls visit with what is blocked, by list, as the fewest networks.
func (f *Filter) EachBlocked(visit func(list string, network netip.Prefix)) error {
	return f.set.EachBlocked(visit)
}

// BlockedBy returns the name of the block list that blocks an address, and reports whether one does and whether the
// address is trusted: then it is let in all the same.
func (f *Filter) BlockedBy(addr netip.Addr) (list string, blocked, trusted bool, err error) {
	return f.set.BlockedBy(addr)
}

// clock returns the datapath's clock.
func (f *Filter) clock() (maps.Clock, error) {
	t, err := f.tools()
	if err != nil {
		return maps.Clock{}, err
	}
	return clockOf(t, f.running.HZ)
}

func clockOf(t *tools, hz uint32) (maps.Clock, error) {
	c := maps.Clock{Time: time.Now(), HZ: hz} // before the jiffies are read: no ban is to end early
	var err error
	c.Jiffies, err = jiffies(t.clock)
	return c, err
}

// PutBans bans sources at once, and returns how many are. The error is maps.ErrBansFull when there is no room for more.
func (f *Filter) PutBans(bans []maps.Ban) (put int, err error) {
	return f.putBans(f.set.PutBans, bans)
}

func (f *Filter) putBans(put func(maps.Clock, []maps.Ban) (int, error), bans []maps.Ban) (n int, err error) {
	err = f.changeBans(func(clock maps.Clock) error {
		n, err = put(clock, bans)
		return err
	})
	return n, err
}

// changeBans does work under the lock of changes, with the time by which bans end.
func (f *Filter) changeBans(work func(maps.Clock) error) error {
	unlock, err := f.change()
	if err != nil {
		return err
	}
	defer unlock()
	clock, err := f.clock()
	if err != nil {
		return err
	}
	return work(clock)
}

// RemoveBans ends bans, and returns the addresses and networks that were not banned.
func (f *Filter) RemoveBans(prefixes []netip.Prefix) (missing []netip.Prefix, err error) {
	err = f.changeBans(func(clock maps.Clock) error {
		missing, err = f.set.RemoveBans(clock, prefixes)
		return err
	})
	return missing, err
}

// RemoveAllBans ends all bans, closes the gate to their sources, and returns how many were in force.
func (f *Filter) RemoveAllBans() (int, error) { return f.takeOut(f.set.RemoveAllBans) }

// ForgetEndedBans takes bans out that have ended, closes the gate to their sources, and returns how many there were. No
// verdict needs it: it makes room.
func (f *Filter) ForgetEndedBans() (int, error) { return f.takeOut(f.set.ForgetEndedBans) }

func (f *Filter) takeOut(bans func(maps.Clock) (int, error)) (n int, err error) {
	err = f.changeBans(func(clock maps.Clock) error {
		if n, err = bans(clock); err != nil {
			return err
		}
		return f.set.TidyGate()
	})
	return n, err
}

// Bans returns the bans in force, in no order.
func (f *Filter) Bans() iter.Seq2[maps.Ban, error] {
	clock, err := f.clock()
	if err != nil {
		return func(yield func(maps.Ban, error) bool) { yield(maps.Ban{}, err) }
	}
	return f.set.Bans(clock)
}

// BansOf returns the bans in force that hold an address, the address' own first and then the longest network's.
func (f *Filter) BansOf(addr netip.Addr) ([]maps.Ban, error) {
	clock, err := f.clock()
	if err != nil {
		return nil, err
	}
	return f.set.BansOf(clock, addr)
}

// BanReasons returns the reasons for which there are bans or were, with what was dropped by them since the filter began.
func (f *Filter) BanReasons() ([]maps.BanReason, error) { return f.set.BanReasons() }
