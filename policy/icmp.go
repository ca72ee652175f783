// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// ICMPMode says how much of ICMP is accepted.
type ICMPMode uint8

// The modes. ICMPAccept is the default.
const (
	ICMPAccept ICMPMode = iota
	ICMPDrop
	ICMPList
)

// ICMP says which ICMP and ICMPv6 messages are accepted when they answer
// nothing. What IPv6 and path MTU discovery cannot live without passes a
// datapath whatever stands here.
type ICMP struct {
	Mode  ICMPMode
	Types []ICMPType // of ICMPList
}

// ICMPType is one entry of a list of types: a name, which stands for the
// message in each family that has it, or a number in one family. It comes from
// [ParseICMPType].
type ICMPType struct {
	text   string
	v4, v6 int16 // -1: the family has no such message
}

// icmpNames lists the messages by the names that iptables and ip6tables use,
// with their IANA type numbers.
var icmpNames = []ICMPType{
	{"echo-request", 8, 128},
	{"echo-reply", 0, 129},
	{"destination-unreachable", 3, 1},
	{"time-exceeded", 11, 3},
	{"parameter-problem", 12, 4},
	{"redirect", 5, 137},
	{"router-solicitation", 10, 133},
	{"router-advertisement", 9, 134},
	{"extended-echo-request", 42, 160},
	{"extended-echo-reply", 43, 161},
	{"source-quench", 4, -1},
	{"timestamp-request", 13, -1},
	{"timestamp-reply", 14, -1},
	{"address-mask-request", 17, -1},
	{"address-mask-reply", 18, -1},
	{"packet-too-big", -1, 2},
	{"mld-listener-query", -1, 130},
	{"mld-listener-report", -1, 131},
	{"mld-listener-done", -1, 132},
	{"mld2-listener-report", -1, 143},
	{"neighbour-solicitation", -1, 135},
	{"neighbour-advertisement", -1, 136},
	{"neighbor-solicitation", -1, 135},
	{"neighbor-advertisement", -1, 136},
	{"node-information-query", -1, 139},
	{"node-information-response", -1, 140},
}

// isICMPName reports whether a word is about ICMP, and no service.
func isICMPName(text string) bool {
	text = strings.ToLower(text)
	if slices.Contains([]string{"ping", "icmp", "icmpv6", "icmp6", "ipv6-icmp"}, text) {
		return true
	}
	return slices.ContainsFunc(icmpNames, func(t ICMPType) bool { return t.text == text })
}

// ParseICMPType reads the name of a message, or ipv4/TYPE or ipv6/TYPE with a
// number from 0 to 255.
func ParseICMPType(text string) (ICMPType, error) {
	lower := strings.ToLower(text)
	for _, t := range icmpNames {
		if t.text == lower {
			return t, nil
		}
	}
	family, number, slash := strings.Cut(lower, "/")
	if slash && (family == "ipv4" || family == "ipv6") {
		n, err := strconv.ParseUint(number, 10, 8)
		if err != nil {
			return ICMPType{}, fmt.Errorf("bad icmp type %s: write a number from 0 to 255 after %s/", quote(text), family)
		}
		t := ICMPType{text: fmt.Sprintf("%s/%d", family, n), v4: -1, v6: -1}
		if family == "ipv4" {
			t.v4 = int16(n)
		} else {
			t.v6 = int16(n)
		}
		return t, nil
	}
	if n, err := strconv.ParseUint(lower, 10, 8); err == nil {
		return ICMPType{}, fmt.Errorf("icmp type %s has no family: write ipv4/%d or ipv6/%d", quote(text), n, n)
	}
	if lower == "ping" {
		return ICMPType{}, fmt.Errorf("unknown icmp type %s: write echo-request", quote(text))
	}
	known := make([]string, len(icmpNames))
	for i, t := range icmpNames {
		known[i] = t.text
	}
	return ICMPType{}, fmt.Errorf("unknown icmp type %s: %s", quote(text),
		didYouMean(text, known, "write a name such as echo-request, or a number such as ipv4/8 or ipv6/128"))
}

// String returns the type as a policy file spells it.
func (t ICMPType) String() string { return t.text }

func (t ICMPType) sameMessages(o ICMPType) bool { return t.v4 == o.v4 && t.v6 == o.v6 }

// Types4 returns the accepted types of ICMP: bit t%64 of word t/64.
func (i ICMP) Types4() [4]uint64 {
	return i.bitmap(func(t ICMPType) int16 { return t.v4 })
}

// Types6 returns the accepted types of ICMPv6: bit t%64 of word t/64.
func (i ICMP) Types6() [4]uint64 {
	return i.bitmap(func(t ICMPType) int16 { return t.v6 })
}

func (i ICMP) bitmap(number func(ICMPType) int16) [4]uint64 {
	var bits [4]uint64
	switch i.Mode {
	case ICMPAccept:
		for w := range bits {
			bits[w] = ^uint64(0)
		}
	case ICMPList:
		for _, t := range i.Types {
			if n := number(t); n >= 0 {
				bits[n/64] |= 1 << (n % 64)
			}
		}
	}
	return bits
}

// Equal reports whether both accept the same messages.
func (i ICMP) Equal(o ICMP) bool {
	return i.Types4() == o.Types4() && i.Types6() == o.Types6()
}

// String returns the value as a policy file spells it.
func (i ICMP) String() string {
	switch {
	case i.Mode == ICMPAccept:
		return "accept"
	case i.Mode == ICMPDrop || len(i.Types) == 0:
		return "drop"
	}
	return "[" + strings.Join(i.names(), ", ") + "]"
}

// names returns the types of a list, and nil if it is a word.
func (i ICMP) names() []string {
	if i.Mode != ICMPList {
		return nil
	}
	names := make([]string, len(i.Types))
	for n, t := range i.Types {
		names[n] = t.text
	}
	return names
}

func (i ICMP) clone() ICMP { return ICMP{i.Mode, slices.Clone(i.Types)} }
