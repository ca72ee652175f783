// SPDX-License-Identifier: Apache-2.0

package maps

import (
	"crypto/sha256"
	"net/netip"
	"slices"

	"github.com/portcullis-firewall/portcullis/policy"
	"github.com/portcullis-firewall/portcullis/policy/addrset"
)

// OwnBlockList is the name of the list of what a policy blocks by itself: it is no name that a list can have.
const OwnBlockList = "block:"

// BlockListsOf returns the lists that a policy blocks, those of the policy itself as one, and what it trusts. It reports
// whether all that they hold is known: of a policy in force it is not.
func BlockListsOf(p *policy.Policy) (lists []BlockList, trust []netip.Prefix, known bool) {
	own := -1
	known = true
	for _, s := range p.Block {
		known = known && s.IsKnown()
		switch {
		case s.List != "":
			lists = append(lists, BlockList{Name: s.List, Digest: digestOf(s), Prefixes: s.Prefixes()})
			continue
		case own < 0:
			own = len(lists)
			lists = append(lists, BlockList{Name: OwnBlockList})
		}
		lists[own].Prefixes = append(lists[own].Prefixes, s.Prefixes()...)
	}
	if own >= 0 {
		lists[own].Digest = sha256.Sum256([]byte(policy.NewNetworks(lists[own].Prefixes).Digest))
	}
	for _, s := range p.Trust {
		known = known && s.IsKnown()
		trust = append(trust, s.Prefixes()...)
	}
	return lists, trust, known
}

// digestOf returns a digest of what is blocked by a list.
func digestOf(s policy.Source) [32]byte {
	text := s.Holds.Digest
	for _, p := range s.Holds.Spared {
		text += " " + p.String()
	}
	return sha256.Sum256([]byte(text))
}

// Keeps reports whether a ruleset blocks by the same lists already, in the same order.
func (r *Ruleset) Keeps(lists []BlockList) (bool, error) {
	have, err := r.orderedLists()
	return slices.EqualFunc(have, lists, func(a BlockListInForce, b BlockList) bool {
		return a.Name == b.Name && a.Digest == b.Digest
	}), err
}

// EachBlocked calls visit with what is blocked, by list, as the fewest networks. What several lists hold is the first one's.
func (r *Ruleset) EachBlocked(visit func(list string, network netip.Prefix)) error {
	b, err := r.Blocking()
	if err != nil || b.block == nil {
		return err
	}
	b.block.eachRange(func(is4 bool, first, last address, value uint32) {
		for _, p := range addrset.Prefixes([]addrset.Range{{First: first.netip(is4), Last: last.netip(is4)}}) {
			visit(b.lists[value-1].Name, p)
		}
	})
	return nil
}
