// SPDX-License-Identifier: Apache-2.0

package iptables

import (
	"net/netip"
	"slices"

	"github.com/portcullis-firewall/portcullis/policy"
)

// private are sources that rules drop because they are forged, on some interfaces: a rule's "except" says that, as a whole
// network of clients may have them elsewhere.
var private = [...]addresses{
	prefixes("0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.168.0.0/16", "224.0.0.0/3"),
	prefixes("::/8", "fc00::/7", "fe80::/10", "ff00::/8"),
}

const (
	// minBlockBits is the shortest prefix of what is taken for a block list, and not for a part of the world.
	minBlockBits = 8
	// maxInline bounds the networks of "block" without a list of their own.
	maxInline = 256
)

// blocks finds the rules at the head of a chain by which nothing comes in from some sources.
type blocks struct {
	*translation
	family   family
	rules    []*rule
	passed   addresses      // who is let in before
	answered map[*rule]bool // behind what lets in answers
	behind   bool           // of such a rule
}

// findBlocks takes what INPUT drops from some sources, before it asks anything else, for the policy's block.
func (t *translation) findBlocks() {
	var held []netip.Prefix
	for _, f := range families {
		if !t.told[f] {
			continue
		}
		b := &blocks{translation: t, family: f, answered: make(map[*rule]bool)}
		b.scan("INPUT", nil)
		var blocked addresses
		for _, r := range b.rules {
			r.isBlock = true
			blocked = blocked.union(r.from.value)
			if b.answered[r] {
				t.note(r.place, "becomes block, so answers from there to what this host begins are dropped, too")
			}
		}
		routed := &blocks{translation: t, family: f, answered: make(map[*rule]bool)}
		routed.scan("FORWARD", nil)
		var stopped addresses
		for _, r := range routed.rules {
			stopped = stopped.union(r.from.value)
		}
		if len(blocked) > 0 && t.mayRoute(f) && !stopped.contains(blocked) {
			t.note(b.rules[0].place, "becomes block, which is for what is routed, too")
		}
		held = append(held, blocked.subtract(martians[f]).prefixes()...)
	}
	switch {
	case len(held) == 0:
	case len(held) > maxInline:
		t.result.Lists = append(t.result.Lists, policy.List{Name: "blocked", Networks: held})
		t.result.Block = []policy.Source{{List: "blocked", Holds: policy.NewNetworks(held)}}
	default:
		for _, p := range held {
			t.result.Block = append(t.result.Block, policy.Source{Network: p})
		}
	}
}

// leaveLongSets doubts rules by sets of more networks than a rule of the policy can name.
func (t *translation) leaveLongSets() {
	for _, f := range families {
		for _, c := range t.chains[f] {
			for _, r := range c.rules {
				if r.longSet != "" && !r.isBlock {
					r.from = nil
					r.doubtItself("set %s, which is too long for a rule,", r.longSet)
				}
			}
		}
	}
}

// scan goes through a chain as far as its rules let in nothing that a block would stop. It reports whether rules behind
// the chain are still for all packets, but for those that it has dropped.
func (b *blocks) scan(name string, stack []string) (through bool) {
	for _, r := range b.chains[b.family][name].rules {
		next := b.chains[b.family][r.target]
		switch {
		case r.passes(), r.in != nil && !r.in.not && iface(r.in.value) == loopback:
		case r.isBlockFor(b.behind) && len(r.from.value.intersect(b.passed)) == 0:
			b.rules = append(b.rules, r)
			b.answered[r] = b.behind
		case r.drops(): // what it drops, a block may
		case r.target == "RETURN" && len(stack) > 0:
			return !b.accept(b.chains[b.family][name].rules, stack) // the rest of the chain is not for all
		case next != nil && next.isUsers() && r.isForAll() && !r.goesTo && !slices.Contains(stack, r.target):
			if !b.scan(r.target, append(slices.Clone(stack), r.target)) {
				return false
			}
		case next != nil && next.isUsers() && !r.goesTo && !slices.Contains(stack, r.target) && !b.accept(next.rules, append(slices.Clone(stack), r.target)):
		case r.target == "ACCEPT" && r.certain() && r.level[begins] == nothing && r.level[toGroup] == nothing && r.level[toBroadcast] == nothing:
			b.behind = true
		case r.target == "ACCEPT" && r.from != nil && !r.from.not:
			b.passed = b.passed.union(r.from.value)
		default:
			return false
		}
	}
	return true
}

func (b *blocks) accept(rules []*rule, stack []string) bool {
	w := walker{chains: b.chains[b.family], steps: &b.steps}
	return w.accept(rules, stack)
}

// isForAll reports whether every packet from outside matches.
func (r *rule) isForAll() bool { return r.from == nil && r.asksNothingElse() }

// asksNothingElse reports whether a rule asks for nothing but a source.
func (r *rule) asksNothingElse() bool {
	everywhere := r.in == nil || r.in.not && iface(r.in.value) == loopback
	return r.certain() && everywhere && r.out == nil && (r.protocol == nil || r.protocol.value < 0 && !r.protocol.not) && r.ports == nil && r.icmp == nil &&
		r.to == nil && !r.asksLocal && r.dress == "" && !slices.ContainsFunc(r.level[:], func(l level) bool { return l != all })
}

// isBlockFor reports whether a rule drops all that comes from some sources. Behind a rule that lets in answers, a block
// takes those away, too, so only a list that is too long for the rules of a policy is one.
func (r *rule) isBlockFor(behindAnswers bool) bool {
	if !r.drops() || r.from == nil || r.from.not || len(r.from.value) == 0 || !r.asksNothingElse() || len(r.from.value.intersect(private[r.home])) > 0 {
		return false
	}
	networks := r.from.value.prefixes()
	return (!behindAnswers || len(networks) > maxPrefixes/2) && !slices.ContainsFunc(networks, func(p netip.Prefix) bool { return p.Bits() < minBlockBits })
}

// mayRoute reports whether anything may begin through this host.
func (t *translation) mayRoute(f family) bool {
	if t.chains[f]["FORWARD"].policy == "ACCEPT" {
		return true
	}
	for name := range t.reachable(f, "FORWARD") {
		if slices.ContainsFunc(t.chains[f][name].rules, func(r *rule) bool { return r.target == "ACCEPT" && r.level[begins] != nothing }) {
			return true
		}
	}
	return false
}
