// SPDX-License-Identifier: Apache-2.0

package iptables

import (
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
)

// source reads -s and --src-range.
func (p *optionParser) source(read func(family, string) (addresses, error), text string) bool {
	set, err := read(p.home, text)
	if err != nil || p.from != nil {
		return false
	}
	p.from = &test[addresses]{set, p.not}
	return true
}

var (
	groups    = [...]addresses{prefixes("224.0.0.0/4"), prefixes("ff00::/8")}
	broadcast = addresses{spanOf(netip.MustParsePrefix("255.255.255.255/32"))}
)

// sentTo reads -d and --dst-range.
func (p *optionParser) sentTo(read func(family, string) (addresses, error), text string) bool {
	set, err := read(p.home, text)
	switch {
	case err != nil || p.to != nil:
		return false
	case set.contains(everyone[p.home]):
		if p.not {
			p.exactly(false)
		}
		return true
	}
	p.to = &test[addresses]{set, p.not}
	return true
}

func (p *optionParser) icmpType(text string) bool {
	if text == "any" || text == "255/255" || text == "255" && p.home == v4 {
		return !p.not
	}
	m, ok := parseICMPType(p.home, text)
	if m.code == 0 && slices.Contains(icmpQueries[p.home], m.kind) {
		m.code = -1 // queries have no other code
	}
	if !ok || p.icmp != nil {
		return false
	}
	p.icmp = &test[icmpMessage]{m, p.not}
	return true
}

// What words of --ctstate and --dst-type stand for. Nothing that goes by a rule
// for UNTRACKED is asked for here: rules of the raw table are listed.
var (
	states = map[string][]cell{
		"NEW": {begins, toGroup, toBroadcast, midstream}, "ESTABLISHED": {answers}, "RELATED": {related}, "INVALID": {invalid},
		"UNTRACKED": {}, "DNAT": {}, "SNAT": {},
	}
	destinations = map[string][]cell{
		"LOCAL": {begins, midstream, answers, related, invalid}, "MULTICAST": {toGroup}, "BROADCAST": {toBroadcast},
	}
	// frameTypes go by the destination of the frame. TCP and SCTP in a frame to all or to a group reach no socket, and for
	// the rest a frame is taken to go where its packet goes.
	frameTypes = map[string][]cell{
		"UNICAST": destinations["LOCAL"], "HOST": destinations["LOCAL"], "MULTICAST": destinations["MULTICAST"],
		"BROADCAST": destinations["BROADCAST"],
	}
)

func (p *optionParser) cells(words map[string][]cell, text string) bool {
	var among []cell
	for one := range strings.SplitSeq(text, ",") {
		cells, ok := words[strings.ToUpper(one)]
		if !ok {
			return false
		}
		among = append(among, cells...)
	}
	p.exactly(p.not, among...)
	return true
}

const (
	fin = 1 << iota
	syn
	rst
	psh
	ack
	urg
)

var flagBits = sync.OnceValue(func() map[string]int {
	return map[string]int{"FIN": fin, "SYN": syn, "RST": rst, "PSH": psh, "ACK": ack, "URG": urg, "ALL": 63, "NONE": 0, "": 0}
})

func parseFlags(text string) (bits int, ok bool) {
	if n, err := strconv.ParseUint(text, 0, 6); err == nil {
		return int(n), true
	}
	for name := range strings.SplitSeq(text, ",") {
		b, ok := flagBits()[strings.ToUpper(name)]
		if !ok {
			return 0, false
		}
		bits |= b
	}
	return bits, true
}

// possibleFlags are those that a packet can have by what connection tracking
// calls it, beside PSH: tcp_valid_flags of Linux 6.12, and any if INVALID.
var possibleFlags = sync.OnceValue(func() map[cell][]int {
	flags := map[cell][]int{
		begins:    {syn, syn | urg},
		midstream: {ack, ack | urg},
		answers:   {syn, syn | urg, syn | ack, rst, rst | ack, fin | ack, fin | ack | urg, ack, ack | urg},
	}
	for f := range 64 {
		flags[invalid] = append(flags[invalid], f)
	}
	return flags
})

// flags reads --tcp-flags MASK SET.
func (p *optionParser) flags(args []string) bool {
	if len(args) != 2 {
		return false
	}
	mask, ok1 := parseFlags(args[0])
	set, ok2 := parseFlags(args[1])
	if !ok1 || !ok2 {
		return false
	}
	p.narrow(func(c cell) level {
		matched, tried := 0, 0
		for _, f := range possibleFlags()[c] {
			for _, pushed := range []int{f, f | psh} {
				tried++
				if (pushed&mask == set) != p.not {
					matched++
				}
			}
		}
		switch matched {
		case 0:
			return nothing
		case tried:
			return all
		}
		return some
	})
	return true
}
