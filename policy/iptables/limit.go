// SPDX-License-Identifier: Apache-2.0

package iptables

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/portcullis-firewall/portcullis/policy"
)

// limit is a -m hashlimit that counts as the limit of a policy does.
type limit struct {
	policy.Limit
	name   string // rules with the same name share what they count
	masked bool   // in IPv6 a /64 is one source to it, too
	above  bool   // it matches what exceeds the limit, and not what keeps to it
}

// hashlimit is the options of one -m hashlimit, as they are written.
type hashlimit struct {
	rate, mode, name, mask string
	burst                  string
	above                  bool   // it matches what exceeds the rate
	bad                    string // what of it no limit of a policy has
}

// hashlimitOption reads one option of the module.
func (p *optionParser) hashlimitOption(option string, args []string) bool {
	if len(args) != 1 {
		return false
	}
	h := p.hash
	switch option {
	case "--hashlimit", "--hashlimit-upto", "--hashlimit-above":
		h.rate = args[0]
		h.above = (option == "--hashlimit-above") != p.not
	case "--hashlimit-burst":
		h.burst = args[0]
	case "--hashlimit-mode":
		h.mode = args[0]
	case "--hashlimit-name":
		h.name = args[0]
	case "--hashlimit-srcmask":
		h.mask = args[0]
	case "--hashlimit-htable-size", "--hashlimit-htable-max", "--hashlimit-htable-expire", "--hashlimit-htable-gcinterval":
	default:
		h.bad = option
	}
	return true
}

// limits finds the limit of a policy that lets in no more than the module.
func (p *optionParser) limits() {
	h := p.hash
	if h == nil {
		return
	}
	l, ok := parseLimit(h.rate, h.burst)
	switch wide := p.home == v4 && h.mask != "" && h.mask != "32"; {
	case h.bad != "":
		p.doubt("-m hashlimit %s", h.bad)
	case h.mode != "srcip":
		p.doubt("-m hashlimit --hashlimit-mode %s (a limit of a policy is for each source)", h.mode)
	case !ok || h.name == "":
		p.doubt("-m hashlimit of %s, burst %s", h.rate, h.burst)
	case wide || p.home == v6 && !slices.Contains([]string{"", "64", "128"}, h.mask):
		p.doubt("-m hashlimit --hashlimit-srcmask %s (a limit of a policy is for each address, or each /64)", h.mask)
	case p.counted != "":
		p.doubt("-m hashlimit, which counts before %s is asked,", p.counted)
	default:
		p.limit = &limit{l, h.name, h.mask == "64", h.above}
	}
}

// parseLimit reads a rate such as 6/min, and a burst. Units may be short.
func parseLimit(rate, burst string) (policy.Limit, bool) {
	number, unit, hasUnit := strings.Cut(rate, "/")
	if !hasUnit {
		unit = "second"
	}
	per := time.Duration(0)
	for _, u := range []struct {
		name string
		per  time.Duration
	}{{"second", time.Second}, {"minute", time.Minute}, {"hour", time.Hour}, {"day", 24 * time.Hour}} {
		if unit != "" && strings.HasPrefix(u.name, strings.ToLower(unit)) {
			per, unit = u.per, u.name
		}
	}
	if burst == "" {
		burst = strconv.Itoa(policy.DefaultBurst)
	}
	n, err1 := strconv.ParseUint(number, 10, 32)
	b, err2 := strconv.ParseUint(burst, 10, 32)
	l := policy.Limit{Count: uint32(n), Per: per, Burst: uint32(b)}
	if err1 != nil || err2 != nil || per == 0 || number[0] == '0' || burst[0] == '0' { // which may be in base 8
		return l, false
	}
	_, err := policy.ParseRule("all limit " + l.String())
	return l, err == nil
}

// near is a limit in place of -m recent: as many in the same time. It is zero
// if there is none.
func near(seconds, hits string) policy.Limit {
	s, err1 := strconv.ParseUint(seconds, 10, 32)
	h, err2 := strconv.ParseUint(hits, 10, 16)
	if err1 != nil || err2 != nil || s == 0 || h < 2 {
		return policy.Limit{}
	}
	l := policy.Limit{Count: uint32((h - 1) * 60 / s), Per: time.Minute, Burst: uint32(h - 1)}
	if l.Count == 0 {
		l.Count, l.Per = uint32((h-1)*3600/s), time.Hour
	}
	return l
}

// ufwLimits takes what ufw writes for "limit" for a limit: a rule that notes the sender, one that sends who was noted too
// often to a chain that refuses, and one that sends the others to a chain that accepts. Ports of several rules have a
// count each here.
func (s *ruleset) ufwLimits(f family, prefix string) {
	for _, name := range []string{prefix + "-user-input", prefix + "-user-forward"} {
		c := s.chains[f][name]
		if c == nil {
			continue
		}
		for i, r := range c.rules[:max(0, len(c.rules)-1)] {
			accept := c.rules[i+1]
			if r.target != prefix+"-user-limit" || accept.target != prefix+"-user-limit-accept" || r.near.Count == 0 || len(r.unsure) != 1 {
				continue
			}
			r.unsure, r.own = nil, 0
			r.limit = &limit{Limit: r.near, name: fmt.Sprintf("%s, rule %d", name, i), above: true}
			r.target, accept.target = "DROP", "ACCEPT"
			s.note(r.place, "becomes limit %s, which does not count what it drops: a source that never stops is let in at that rate, and not shut out until it does", r.near)
		}
	}
}

const limitOfAll = "-m limit, which is one for all sources together and not for each,"

// splitLimits takes a limit of all sources together for one of each, where a port is opened by it: no source gets in more
// often than by the rules, but all of them may. That is said, and only done where it is asked for.
func (t *translation) splitLimits() {
	if !t.options.Keep {
		return
	}
	for _, f := range families {
		for name, c := range t.chains[f] {
			for _, r := range c.rules {
				if r.target != "ACCEPT" || r.ofAll.Count == 0 || r.limit != nil || len(r.unsure) != 1 || r.unsure[0] != limitOfAll || r.ports == nil ||
					r.level[begins] == nothing || !t.reachable(f, "INPUT")[name] {
					continue
				}
				r.unsure, r.own = nil, 0
				r.limit = &limit{Limit: r.ofAll, name: fmt.Sprintf("-m limit of line %d", r.line)}
				t.lost(r.place, "its limit is one for all sources together, and becomes one for each: who keeps to it is let in, however many they are")
			}
		}
	}
}

// turnLimits takes DROP of what exceeds a limit, where an ACCEPT behind it is for all that the limit is of, for ACCEPT of
// what keeps to it and DROP of the rest: the same packets are counted and accepted. Other rules of this kind are in doubt.
func (t *translation) turnLimits() {
	for _, f := range families {
		for _, c := range t.chains[f] {
			for i := len(c.rules) - 1; i >= 0; i-- {
				r := c.rules[i]
				if r.limit == nil || !r.limit.above {
					continue
				}
				if r.target != "DROP" || !r.understood() || !acceptedBehind(r, c.rules[i+1:]) {
					r.doubtItself("-m hashlimit of what exceeds the limit, with no ACCEPT of the same behind it,")
					r.limit = nil
					continue
				}
				others := *r
				others.limit = nil
				r.target = "ACCEPT"
				c.rules = slices.Insert(c.rules, i+1, &others)
			}
		}
	}
}

// acceptedBehind reports whether all that a rule matches, and that goes on behind it, comes to an ACCEPT.
func acceptedBehind(r *rule, rules []*rule) bool {
	for _, next := range rules {
		switch {
		case next.passes(), next.isApartFrom(r):
		default:
			return next.target == "ACCEPT" && next.certain() && next.includes(r)
		}
	}
	return false
}

// includes reports whether a rule of the same chain matches all that another one does.
func (r *rule) includes(o *rule) bool {
	same := func(a, b *test[string]) bool { return a == nil || b != nil && *a == *b }
	if !same(r.in, o.in) || !same(r.out, o.out) || r.to != nil || r.asksLocal {
		return false
	}
	for c := range r.level {
		if r.level[c] != all && o.level[c] != nothing {
			return false
		}
	}
	for _, f := range families {
		if !r.matches(f).contains(o.matches(f)) {
			return false
		}
	}
	return true
}

// isApartFrom reports whether no packet matches both rules, by its protocol, port and source.
func (r *rule) isApartFrom(o *rule) bool {
	for _, f := range families {
		if len(r.matches(f).intersect(o.matches(f))) > 0 {
			return false
		}
	}
	return true
}

// checkLimits doubts limits that count more than what one rule lets in here.
func (t *translation) checkLimits() {
	for _, f := range families {
		count := make(map[string]int)
		for _, c := range t.chains[f] {
			for _, r := range c.rules {
				if r.limit != nil {
					count[r.limit.name]++
				}
			}
		}
		routed, out := t.reachable(f, "FORWARD"), t.reachable(f, "OUTPUT")
		for name, c := range t.chains[f] {
			for _, r := range c.rules {
				switch {
				case r.limit == nil:
				case count[r.limit.name] > 1:
					r.doubt("the count that it shares with other rules (--hashlimit-name %s)", r.limit.name)
				case (routed[name] || out[name]) && c.isUsers():
					r.doubt("a count of more than what comes to this host")
				case r.target != "ACCEPT":
					r.doubt("a limit of what goes to %s", fmt.Sprintf("%q", r.target))
				}
			}
		}
	}
}
