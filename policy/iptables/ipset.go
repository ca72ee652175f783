// SPDX-License-Identifier: Apache-2.0

package iptables

import (
	"slices"
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
		default:
			entry, err := parseAddresses(set.family, fields[2])
			if strings.Contains(fields[2], "-") {
				entry, err = parseSpan(set.family, fields[2])
			}
			switch {
			case err != nil:
				s.lost(place{file, i + 1, strings.TrimSpace(line)}, "%s", err)
				set.unlike = "an entry that is not understood"
			case slices.Contains(rest, "nomatch"):
				set.but = set.but.union(entry)
			default:
				held[name] = append(held[name], entry...)
			}
			set.passes = set.passes || slices.Contains(rest, "timeout")
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
	return set
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
