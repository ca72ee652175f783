// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"strconv"
	"strings"
)

// Protocol is the IANA number of a protocol above IP.
type Protocol uint8

// The protocols whose ports a rule can open.
const (
	TCP     Protocol = 6
	UDP     Protocol = 17
	SCTP    Protocol = 132
	UDPLite Protocol = 136
)

// Protocols lists the protocols in the order of [ProtocolIndex].
var Protocols = [...]Protocol{TCP, UDP, SCTP, UDPLite}

// ProtocolIndex returns the position of p in [Protocols], or -1 for a protocol
// without ports of its own.
func ProtocolIndex(p Protocol) int {
	switch p {
	case TCP:
		return 0
	case UDP:
		return 1
	case SCTP:
		return 2
	case UDPLite:
		return 3
	}
	return -1
}

// String returns the name that follows the slash in a rule.
func (p Protocol) String() string {
	switch p {
	case TCP:
		return "tcp"
	case UDP:
		return "udp"
	case SCTP:
		return "sctp"
	case UDPLite:
		return "udplite"
	}
	return strconv.Itoa(int(p))
}

// parseProtocol returns the protocol with ports of that name.
func parseProtocol(name string) (Protocol, bool) {
	name = strings.ToLower(name)
	for _, p := range Protocols {
		if p.String() == name {
			return p, true
		}
	}
	return 0, false
}

// PortRange is one port or a range of ports of one protocol, both ends
// included. A protocol without ports has the range from 0 to 0.
type PortRange struct {
	Protocol    Protocol
	First, Last uint16
}

// String returns the range in the grammar of a rule, or the protocol if it has
// no ports.
func (p PortRange) String() string {
	if ProtocolIndex(p.Protocol) < 0 && p.Last == 0 {
		return protocolName(p.Protocol)
	}
	return p.numbers() + "/" + p.Protocol.String()
}

func (p PortRange) numbers() string {
	s := strconv.Itoa(int(p.First))
	if p.Last != p.First {
		s += "-" + strconv.Itoa(int(p.Last))
	}
	return s
}

func (p PortRange) contains(proto Protocol, port uint16) bool {
	return p.Protocol == proto && p.First <= port && port <= p.Last
}

func (p PortRange) overlaps(o PortRange) bool {
	return p.Protocol == o.Protocol && p.First <= o.Last && o.First <= p.Last
}
