// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

const (
	icmpv4 Protocol = 1
	icmpv6 Protocol = 58

	// allWord opens every protocol and port.
	allWord = "all"
	// numberWord comes before the number of a protocol, as in proto/89.
	numberWord = "proto"
)

// namedProtocols are the protocols without ports that go by a name. The first
// name of a number is the one that is shown. l2tp is not among them: to
// /etc/services that is 1701/udp.
var namedProtocols = []struct {
	name   string
	number Protocol
}{
	{"igmp", 2},
	{"ipip", 4},
	{"ipencap", 4},
	{"6in4", 41},
	{"ipv6", 41},
	{"rsvp", 46},
	{"gre", 47},
	{"esp", 50},
	{"ah", 51},
	{"eigrp", 88},
	{"ospf", 89},
	{"etherip", 97},
	{"pim", 103},
	{"ipcomp", 108},
	{"vrrp", 112},
	{"carp", 112},
}

// protocolName returns the name of a protocol without ports as a rule has it.
func protocolName(p Protocol) string {
	switch p {
	case icmpv4:
		return "icmp"
	case icmpv6:
		return "icmpv6"
	}
	for _, n := range namedProtocols {
		if n.number == p {
			return n.name
		}
	}
	return numberWord + "/" + strconv.Itoa(int(p))
}

// protocolNames lists the words that may stand for a protocol in a rule.
func protocolNames() []string {
	names := []string{allWord}
	for _, p := range Protocols {
		names = append(names, p.String())
	}
	for _, n := range namedProtocols {
		names = append(names, n.name)
	}
	return names
}

// allPorts is what "all" opens. It is shared, and never changed.
var allPorts = func() []PortRange {
	ports := make([]PortRange, 256)
	for i := range ports {
		ports[i].Protocol = Protocol(i)
		if ProtocolIndex(ports[i].Protocol) >= 0 {
			ports[i].Last = 65535
		}
	}
	return ports
}()

func isAll(ports []PortRange) bool {
	return len(ports) == len(allPorts) && (&ports[0] == &allPorts[0] || slices.Equal(ports, allPorts))
}

// oneProtocol reports whether ranges are the ports of one protocol.
func oneProtocol(ports []PortRange) bool {
	return len(ports) == 1 || ProtocolIndex(ports[0].Protocol) >= 0 &&
		!slices.ContainsFunc(ports, func(p PortRange) bool { return p.Protocol != ports[0].Protocol })
}

// portsText returns ranges as a rule has them: "80,443/tcp", "gre" or "all". What
// is of several protocols is listed, which no rule can be: see [Rule.Spelled].
func portsText(ports []PortRange) string {
	if len(ports) == 0 {
		return ""
	}
	if isAll(ports) {
		return allWord
	}
	texts := make([]string, len(ports))
	if len(ports) > 1 && oneProtocol(ports) {
		for i, p := range ports {
			texts[i] = p.numbers()
		}
		return strings.Join(texts, ",") + "/" + ports[0].Protocol.String()
	}
	for i, p := range ports {
		texts[i] = p.String()
	}
	return strings.Join(texts, ",")
}

// parseProtocolWord reads the word for a protocol: gre, proto/89, tcp for all its
// ports, or all. It returns nothing for any other word.
func parseProtocolWord(w word) (name string, ports []PortRange, bad *RuleError) {
	text := strings.ToLower(w.text)
	if text == allWord {
		return "", allPorts, nil
	}
	if text == "icmp" || text == "icmpv6" || text == "ipv6-icmp" {
		return "", nil, icmpError(w)
	}
	if p, ok := parseProtocol(text); ok {
		return p.String(), []PortRange{{p, 1, 65535}}, nil
	}
	for _, n := range namedProtocols {
		if n.name == text {
			return "", []PortRange{{n.number, 0, 0}}, nil
		}
	}
	number, ok := strings.CutPrefix(text, numberWord+"/")
	if !ok {
		return "", nil, nil
	}
	n, err := strconv.ParseUint(number, 10, 8)
	p := Protocol(n)
	switch {
	case err != nil:
		return "", nil, w.errorf("bad protocol number in %s: write %s/0 to %s/255", quote(w.text), numberWord, numberWord)
	case strconv.Itoa(int(n)) != number:
		return "", nil, w.errorf("protocol number in %s starts with a zero: write %s/%d", quote(w.text), numberWord, n)
	case p == icmpv4 || p == icmpv6:
		return "", nil, icmpError(w)
	case ProtocolIndex(p) >= 0:
		return "", nil, w.errorf("%s is %s, which has ports: write %s for all of them, or a port such as 80/%s", quote(w.text), p, p, p)
	}
	return "", []PortRange{{p, 0, 0}}, nil
}

func icmpError(w word) *RuleError {
	return w.errorf("no rule for %s: the key icmp says what of it is accepted, such as icmp: [echo-request]", quote(w.text))
}

// portlessName returns the name of a protocol without ports, if word is one.
func portlessName(word string) (string, bool) {
	word = strings.ToLower(word)
	for _, n := range namedProtocols {
		if n.name == word {
			return n.name, true
		}
	}
	return "", false
}

// noPorts is the error for a port of a protocol that has none.
func (w word) noPorts(name string) *RuleError {
	return w.errorf("protocol %s has no ports: write %s alone", fmt.Sprintf("%q", name), name)
}
