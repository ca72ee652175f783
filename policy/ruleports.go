// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

func (in ruleParser) parseWhat(w word) (string, []PortRange, *RuleError) {
	if strings.Contains(w.text, ",") {
		return parsePorts(w)
	}
	if bad := w.slip(); bad != nil {
		return "", nil, bad
	}
	if name, ports, bad := parseProtocolWord(w); ports != nil || bad != nil {
		return name, ports, bad
	}
	left, right, slash := w.cut("/")
	if _, err := strconv.Atoi(right.text); err == nil {
		if p, ok := parseProtocol(left.text); ok {
			return "", nil, w.errorf("protocol before port in %s: write %s/%s", quote(w.text), right.text, p)
		}
	}
	if name, ok := portlessName(left.text); ok && slash {
		return "", nil, w.noPorts(name)
	}
	var protocol Protocol
	if slash {
		p, bad := parseSuffix(right)
		if bad != nil {
			return "", nil, bad
		}
		if strings.EqualFold(left.text, allWord) {
			return "", nil, w.errorf("%s is for every protocol: write %s for all ports of it", quote(allWord), p)
		}
		protocol = p
	}
	if left.text != "" && strings.Trim(left.text, "0123456789-:") == "" {
		pr, bad := parseNumbers(left, protocol, slash)
		if bad != nil {
			return "", nil, bad
		}
		return "", []PortRange{pr}, nil
	}
	return in.parseName(left, protocol, slash)
}

// parseSuffix reads the protocol behind the slash of a port.
func parseSuffix(w word) (Protocol, *RuleError) {
	if p, ok := parseProtocol(w.text); ok {
		return p, nil
	}
	if name, ok := portlessName(w.text); ok {
		return 0, w.noPorts(name)
	}
	return 0, w.errorf("unknown protocol %s: write tcp, udp, sctp or udplite", quote(w.text))
}

// parsePorts reads several ports of one protocol.
func parsePorts(w word) (string, []PortRange, *RuleError) {
	var items []word
	var suffix word
	for item := range w.items() {
		if item.text == "" {
			return "", nil, item.errorf("empty port %s in the list: take the comma out", quote(item.text))
		}
		if strings.ContainsAny(item.text, blanks) {
			return "", nil, item.errorf("unexpected %s: separate ports with commas", quote(item.text))
		}
		if suffix.text != "" {
			return "", nil, suffix.errorf("protocol %s within a list of ports: write it once, behind the last port, as in 80,443/tcp, and one rule for each protocol", quote(suffix.text))
		}
		port, after, slash := item.cut("/")
		if strings.Trim(port.text, "0123456789-:") != "" || port.text == "" {
			return "", nil, item.errorf("%s in a list of ports: write one rule for each service or protocol", quote(item.text))
		}
		if suffix = after; slash && suffix.text == "" {
			_, bad := parseSuffix(suffix)
			return "", nil, bad
		}
		items = append(items, port)
	}
	if suffix.text == "" {
		const short = 40
		example := "80,443"
		if len(w.text) <= short && !strings.ContainsAny(w.text, blanks) {
			example = w.text
		}
		return "", nil, w.errorf("no protocol in %s: write %s/tcp or %s/udp", quote(w.text), example, example)
	}
	protocol, bad := parseSuffix(suffix)
	if bad != nil {
		return "", nil, bad
	}
	ports := make([]PortRange, len(items))
	for i, item := range items {
		if ports[i], bad = parseNumbers(item, protocol, true); bad != nil {
			return "", nil, bad
		}
	}
	return "", canonicalPorts(ports), nil
}

func parseNumbers(w word, protocol Protocol, hasProtocol bool) (PortRange, *RuleError) {
	first, last, isRange := w.cut("-:")
	if !isRange {
		last = first
	}
	var ends [2]uint16
	for i, end := range []word{first, last} {
		if end.text == "" || strings.ContainsAny(end.text, "-:") {
			return PortRange{}, w.errorf("bad range %s: write it as 60000-61000/udp", quote(w.text))
		}
		n, err := strconv.ParseUint(end.text, 10, 64)
		if err != nil || n == 0 || n > 65535 {
			return PortRange{}, end.errorf("port %s is out of range: write a number from 1 to 65535", quote(end.text))
		}
		if end.text[0] == '0' {
			return PortRange{}, end.errorf("port %s starts with a zero: write %d", quote(end.text), n)
		}
		ends[i] = uint16(n)
	}
	// What is wrong is told together with all of what is right to write.
	suffix := func(text string) string {
		if hasProtocol {
			return fmt.Sprintf("write %s/%s", text, protocol)
		}
		return fmt.Sprintf("write %s/tcp or %s/udp", text, text)
	}
	if ends[0] > ends[1] {
		return PortRange{}, w.errorf("range %s runs backwards: %s", quote(w.text), suffix(last.text+"-"+first.text))
	}
	if strings.Contains(w.text, ":") {
		return PortRange{}, w.errorf("range %s with a colon: %s", quote(w.text), suffix(first.text+"-"+last.text))
	}
	if !hasProtocol {
		return PortRange{}, w.errorf("no protocol in %s: %s", quote(w.text), suffix(w.text))
	}
	return PortRange{protocol, ends[0], ends[1]}, nil
}

func (in ruleParser) parseName(w word, protocol Protocol, hasProtocol bool) (string, []PortRange, *RuleError) {
	services := in.services()
	name, listed := services.lookup(w.text)
	if name == "" && isICMPName(w.text) {
		if in.forward {
			return "", nil, w.errorf("%s is no service, and forward rules name no type of ICMP: write %s to let everything through", quote(w.text), quote("all from 203.0.113.0/24"))
		}
		return "", nil, w.errorf("%s is no service: the key \"icmp\" decides about pings and the like, as in icmp: accept or icmp: [echo-request]", quote(w.text))
	}
	if name == "" {
		return "", nil, w.errorf("unknown service %s: %s", quote(w.text),
			didYouMean(w.text, slices.Concat(services.names(), ProtocolNames(), clauseWords), "write a name from "+ServicesFile+" or a port, such as 8080/tcp"))
	}
	var ports []PortRange
	var others []string
	for _, sp := range listed {
		p, ok := parseProtocol(sp.protocol)
		if ok && (!hasProtocol || p == protocol) {
			ports = append(ports, PortRange{p, sp.port, sp.port})
			continue
		}
		others = append(others, sp.protocol)
	}
	switch {
	case len(ports) > 0 && hasProtocol:
		return name + "/" + protocol.String(), ports, nil
	case len(ports) > 0:
		slices.SortFunc(ports, func(a, b PortRange) int { return ProtocolIndex(a.Protocol) - ProtocolIndex(b.Protocol) })
		return name, ports, nil
	case hasProtocol:
		return "", nil, w.errorf("service %s is listed for %s, not for %s: write %d/%s", quote(w.text),
			joinWords(others, "and"), protocol, listed[0].port, protocol)
	}
	return "", nil, w.errorf("service %s is listed for %s only, which has no ports to open: write a port, such as 8080/tcp",
		quote(w.text), joinWords(others, "and"))
}
