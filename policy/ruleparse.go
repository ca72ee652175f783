// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// ParseRule reads one rule, with the names of services from [ServicesFile]:
//
//	WHAT [from PREFIX[,PREFIX...]]
//
// WHAT is the name of a service, NAME/PROTO, PORT/PROTO or FIRST-LAST/PROTO; a
// name without protocol stands for every protocol that the services list for
// it. PREFIX is an IPv4 or IPv6 address or network. An error is a [*RuleError].
func ParseRule(text string) (Rule, error) { return ruleParser{defaultServices}.rule(text) }

// ParseRule reads a rule as the function [ParseRule] does, with the names of
// services from s.
func (s *Services) ParseRule(text string) (Rule, error) {
	return ruleParser{func() *Services { return s }}.rule(text)
}

// ruleParser asks for the services only where a rule names one: a number needs no file.
type ruleParser struct{ services func() *Services }

func (in ruleParser) rule(text string) (Rule, error) {
	r, bad := in.parseRule(text)
	if bad != nil {
		return Rule{}, bad
	}
	return r, nil
}

// word is a piece of the text of a rule that remembers where it was.
type word struct {
	text   string
	offset int
}

func (w word) errorf(format string, args ...any) *RuleError {
	return &RuleError{Offset: w.offset, Token: w.text, Msg: fmt.Sprintf(format, args...)}
}

const blanks = " \t\r\n"

func (w word) trim() word {
	left := strings.TrimLeft(w.text, blanks)
	return word{strings.TrimRight(left, blanks), w.offset + len(w.text) - len(left)}
}

// cut splits off everything before the first of the given bytes.
func (w word) cut(at string) (before, after word, found bool) {
	i := strings.IndexAny(w.text, at)
	if i < 0 {
		return w, word{"", w.offset + len(w.text)}, false
	}
	return word{w.text[:i], w.offset}, word{w.text[i+1:], w.offset + i + 1}, true
}

func (in ruleParser) parseRule(text string) (Rule, *RuleError) {
	const example = "write a service or a port, such as http or 8080/tcp"
	what, rest, _ := word{text, 0}.trim().cut(blanks)
	if what.text == "" {
		return Rule{}, what.errorf("empty rule \"\": %s", example)
	}
	if strings.EqualFold(what.text, "from") {
		return Rule{}, what.errorf("no port before %s: %s", quote(what.text), example)
	}
	name, ports, bad := in.parseWhat(what)
	if bad != nil {
		return Rule{}, bad
	}
	r := Rule{Ports: ports, what: name}
	from, sources, _ := rest.trim().cut(blanks)
	if from.text == "" {
		return r, nil
	}
	if !strings.EqualFold(from.text, "from") {
		return Rule{}, from.errorf("unexpected %s after %s: write %s from ADDRESS, or nothing", quote(from.text), quote(what.text), name)
	}
	r.From, bad = parseSources(from, sources.trim())
	if bad != nil {
		return Rule{}, bad
	}
	return r, nil
}

func (in ruleParser) parseWhat(w word) (string, []PortRange, *RuleError) {
	if _, more, found := w.cut(","); found {
		more.offset--
		more.text = "," + more.text
		return "", nil, more.errorf("unexpected %s: write one rule for each port or range", quote(more.text))
	}
	left, right, slash := w.cut("/")
	if _, err := strconv.Atoi(right.text); err == nil {
		if p, ok := parseProtocol(left.text); ok {
			return "", nil, w.errorf("protocol before port in %s: write %s/%s", quote(w.text), right.text, p)
		}
	}
	var protocol Protocol
	if slash {
		p, ok := parseProtocol(right.text)
		if !ok {
			return "", nil, right.errorf("unknown protocol %s: write tcp, udp, sctp or udplite", quote(right.text))
		}
		protocol = p
	}
	if left.text != "" && strings.Trim(left.text, "0123456789-:") == "" {
		pr, bad := parseNumbers(left, protocol, slash)
		if bad != nil {
			return "", nil, bad
		}
		return pr.String(), []PortRange{pr}, nil
	}
	return in.parseName(left, protocol, slash)
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
	if name == "" {
		return "", nil, w.errorf("unknown service %s: %s", quote(w.text),
			didYouMean(w.text, services.names(), "write a name from "+ServicesFile+" or a port, such as 8080/tcp"))
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

func parseSources(from, list word) ([]netip.Prefix, *RuleError) {
	if list.text == "" {
		return nil, from.errorf("no address after %s: write from 203.0.113.0/24, or leave %s out", quote(from.text), quote(from.text))
	}
	var out []netip.Prefix
	seen := make(map[netip.Prefix]bool)
	for more := true; more; {
		var item word
		item, list, more = list.cut(",")
		item = item.trim()
		if item.text == "" {
			return nil, item.errorf("empty address %s in the list after \"from\": take the comma out", quote(item.text))
		}
		if _, second, found := item.cut(blanks); found {
			second = second.trim()
			return nil, second.errorf("unexpected %s: separate addresses with a comma", quote(second.text))
		}
		p, bad := parsePrefix(item)
		if bad != nil {
			return nil, bad
		}
		if !seen[p] {
			seen[p] = true
			out = append(out, p)
		}
	}
	return out, nil
}

func parsePrefix(w word) (netip.Prefix, *RuleError) {
	address, mask, isNet := strings.Cut(w.text, "/")
	addr, err := netip.ParseAddr(address)
	if err != nil {
		return netip.Prefix{}, w.errorf("bad address %s: write an address or a network, such as 203.0.113.0/24 or 2001:db8::/32", quote(w.text))
	}
	if addr.Zone() != "" {
		return netip.Prefix{}, w.errorf("address %s names a zone: leave %s out", quote(w.text), quote("%"+addr.Zone()))
	}
	bits := addr.BitLen()
	if isNet {
		if m, err := netip.ParseAddr(mask); err == nil && m.Is4() && addr.Is4() {
			if n, ok := maskLength(m); ok {
				return netip.Prefix{}, w.errorf("network %s with a netmask: write %s", quote(w.text),
					netip.PrefixFrom(addr, n).Masked())
			}
		}
		p, err := netip.ParsePrefix(address + "/" + mask)
		if err != nil {
			return netip.Prefix{}, w.errorf("bad prefix length in %s: write a number from 0 to %d after the slash", quote(w.text), bits)
		}
		bits = p.Bits()
	}
	if addr.Is4In6() && bits >= 96 {
		v4 := netip.PrefixFrom(addr.Unmap(), bits-96).Masked()
		return netip.Prefix{}, w.errorf("address %s is IPv4 written as IPv6: write %s", quote(w.text), prefixText(v4))
	}
	p := netip.PrefixFrom(addr, bits)
	if p.Masked() != p {
		return netip.Prefix{}, w.errorf("network %s has host bits set: write %s, or %s for one host", quote(w.text), p.Masked(), addr)
	}
	return p, nil
}

func maskLength(m netip.Addr) (int, bool) {
	for n := range 33 {
		all := netip.PrefixFrom(netip.AddrFrom4([4]byte{255, 255, 255, 255}), n)
		if all.Masked().Addr() == m {
			return n, true
		}
	}
	return 0, false
}
