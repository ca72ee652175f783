// SPDX-License-Identifier: Apache-2.0

package iptables

import (
	"slices"
	"strconv"
	"strings"
)

// ipset is a set of addresses that rules name.
type ipset struct {
	family family
	held   addresses
	but    addresses // entries that are not to match
	unlike string    // why it is no set of addresses
	lists  []string  // the sets that it is a list of
	passes bool      // some of its entries end by themselves
	bits   int       // of an address that count; 0: all
}

// readSets reads what "ipset save" prints.
func (s *ruleset) readSets(file, text string) {
	held := make(map[string][]span)
	for i, line := range strings.Split(text, "\n") {
		fields := strings.Fields(line)
		if len(fields) < 3 || fields[0][0] == '#' {
			continue
		}
		name := fields[1]
		if fields[0] == "create" {
			s.sets[name] = newSet(fields[2], fields[3:])
			continue
		}
		set := s.sets[name]
		if fields[0] != "add" || set == nil {
			s.lost(place{file, i + 1, strings.TrimSpace(line)}, "not understood")
			continue
		}
		switch rest := fields[3:]; {
		case set.unlike != "":
		case set.lists != nil:
			set.lists = append(set.lists, fields[2])
			set.passes = set.passes || slices.Contains(rest, "timeout")
		default:
			entry, err := parseAddresses(set.family, fields[2])
			if strings.Contains(fields[2], "-") {
				entry, err = parseSpan(set.family, fields[2])
			}
			ends := slices.Index(rest, "timeout")
			passes := ends >= 0 && !(ends+1 < len(rest) && rest[ends+1] == "0")
			entry = set.masked(entry)
			switch {
			case err != nil:
				s.lost(place{file, i + 1, strings.TrimSpace(line)}, "%s", err)
				set.unlike = "an entry that is not understood"
			case slices.Contains(rest, "nomatch") && passes:
				set.unlike = "an entry that ends by itself"
			case slices.Contains(rest, "nomatch"):
				set.but = set.but.union(entry)
			default:
				held[name] = append(held[name], entry...)
			}
			set.passes = set.passes || passes
		}
	}
	for name, spans := range held {
		s.sets[name].held = join(spans).subtract(s.sets[name].but)
	}
}

func newSet(kind string, options []string) *ipset {
	set := &ipset{}
	if i := slices.Index(options, "family"); i >= 0 && i+1 < len(options) && options[i+1] == "inet6" {
		set.family = v6
	}
	switch kind {
	case "hash:ip", "hash:net", "bitmap:ip":
	case "list:set":
		set.lists = []string{}
	default:
		set.unlike = kind
	}
	if slices.Contains(options, "bitmask") {
		set.unlike = "bitmask"
	}
	if i := slices.Index(options, "netmask"); i >= 0 {
		bits, err := 0, error(nil)
		if i+1 < len(options) {
			bits, err = strconv.Atoi(options[i+1])
		}
		set.bits = bits
		if err != nil || bits < 1 || bits > everyone[set.family][0].first.BitLen() || !strings.HasSuffix(kind, ":ip") {
			set.unlike = "netmask"
		}
	}
	return set
}

// masked is what entries stand for in a set of networks of one size.
func (s *ipset) masked(entry addresses) addresses {
	if s.bits == 0 {
		return entry
	}
	var out []span
	for _, e := range entry {
		first, err1 := e.first.Prefix(s.bits)
		last, err2 := e.last.Prefix(s.bits)
		if err1 == nil && err2 == nil {
			out = append(out, span{first.Addr(), spanOf(last).last})
		}
	}
	return join(out)
}

// ends reports whether some entries of a set end by themselves.
func ends(sets map[string]*ipset, name string) bool {
	set := sets[name]
	return set != nil && (set.passes || slices.ContainsFunc(set.lists, func(member string) bool {
		return sets[member] != nil && sets[member].passes
	}))
}

// addressesOf are what a set holds for a family, if it holds nothing but addresses.
func addressesOf(sets map[string]*ipset, name string, f family) (held addresses, ok bool) {
	set := sets[name]
	switch {
	case set == nil || set.unlike != "":
		return nil, false
	case set.lists == nil && set.family != f:
		return nil, true
	case set.lists == nil:
		return set.held, true
	}
	for _, member := range set.lists {
		if inner := sets[member]; inner == nil || inner.lists != nil {
			return nil, false
		}
		of, ok := addressesOf(sets, member, f)
		if !ok {
			return nil, false
		}
		held = held.union(of)
	}
	return held, true
}

// matchSet reads --match-set NAME src or dst.
func (p *optionParser) matchSet(args []string) bool {
	if len(args) != 2 {
		return false
	}
	p.sets = append(p.sets, args[0])
	if ends(p.known, args[0]) {
		p.ending, p.endingNot = p.ending || !p.not, p.endingNot || p.not
	}
	held, ok := addressesOf(p.known, args[0], p.home)
	if !ok {
		return false
	}
	switch args[1] {
	case "src":
		if p.from != nil {
			return false
		}
		if len(held) > maxPrefixes {
			p.longSet = args[0]
		}
		p.from = &test[addresses]{held, p.not}
	case "dst":
		if p.to != nil || len(held) == 0 {
			return false
		}
		p.to = &test[addresses]{held, p.not}
	default:
		return false
	}
	return true
}
