// SPDX-License-Identifier: Apache-2.0

// Package explain says what becomes of a packet, and why: it is made, or was recorded, and is run through the datapath that
// filters an interface, over the state of this moment and without any effect.
package explain

import (
	"errors"
	"fmt"
	"math/bits"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/portcullis-firewall/portcullis/policy"
)

// Request is a question: what becomes of these packets?
type Request struct {
	Source     netip.Addr
	SourcePort uint16     // 0: one that clients use
	Packets    []What     // one or more
	To         netip.Addr // not valid: the address of this host that the source would reach
	On         string     // the interface; "": the one by which packets of the source come
	Flags      []string   // of TCP; nil: a SYN
}

// What is a packet without its addresses.
type What struct {
	Text     string // as a rule names it: 443/tcp
	Protocol policy.Protocol
	Port     uint16
	Type     uint8 // of ICMP
}

const (
	protocolICMP   policy.Protocol = 1
	protocolICMPv6 policy.Protocol = 58

	clientPort = 50000 // no flow of this host's own is likely to have it as its peer's
	mostAtOnce = 16
)

// ParseRequest reads SRC[:PORT] WHAT [to ADDRESS] [on IFACE], and the flags of TCP: fin, syn, rst, psh, ack, urg, or none.
func ParseRequest(words []string, flags string) (r Request, err error) {
	words = strings.Fields(strings.Join(words, " "))
	if len(words) < 2 {
		return r, errors.New("write who sends what: 203.0.113.9 443/tcp")
	}
	if err := r.readSource(words[0]); err != nil {
		return r, err
	}
	for rest := words[2:]; len(rest) > 0; rest = rest[2:] {
		if len(rest) < 2 {
			return r, fmt.Errorf("nothing behind %s: write to ADDRESS, or on IFACE", strconv.Quote(rest[0]))
		}
		switch {
		case rest[0] == "to" && !r.To.IsValid():
			if r.To, err = netip.ParseAddr(rest[1]); err != nil {
				return r, fmt.Errorf("bad address %s: write one, such as 192.0.2.1", strconv.Quote(rest[1]))
			}
			r.To = r.To.Unmap().WithZone("")
		case rest[0] == "on" && (r.On == "" || r.On == rest[1]):
			r.On = rest[1]
		case rest[0] == "on" || rest[0] == "to":
			return r, fmt.Errorf("%s is there twice: a packet has one", strconv.Quote(rest[0]))
		default:
			return r, fmt.Errorf("unexpected %s: write to ADDRESS, or on IFACE", strconv.Quote(rest[0]))
		}
	}
	if r.To.IsValid() && r.To.Is4() != r.Source.Is4() {
		return r, fmt.Errorf("no packet goes from %s to %s: one is IPv4, the other IPv6", r.Source, r.To)
	}
	if r.Packets, err = parseWhat(words[1], r.Source.Is6()); err != nil {
		return r, err
	}
	if r.SourcePort != 0 && slices.ContainsFunc(r.Packets, func(w What) bool { return !w.hasPorts() }) {
		return r, fmt.Errorf("%s has no ports: leave out that of the source", words[1])
	}
	if flags != "" {
		if r.Flags, err = parseFlags(flags); err != nil {
			return r, err
		}
		if slices.ContainsFunc(r.Packets, func(w What) bool { return w.Protocol != policy.TCP }) {
			return r, fmt.Errorf("%s has no flags: those are of TCP", words[1])
		}
	}
	return r, nil
}

func (w What) hasPorts() bool { return policy.ProtocolIndex(w.Protocol) >= 0 }

// readSource reads who sends, and perhaps from which port.
func (r *Request) readSource(text string) error {
	addr, err := netip.ParseAddr(strings.TrimSuffix(strings.TrimPrefix(text, "["), "]"))
	if err != nil {
		both, err := netip.ParseAddrPort(text)
		if err != nil {
			return fmt.Errorf("bad source %s: write an address, such as 203.0.113.9, 203.0.113.9:40000 or [2001:db8::1]:40000", strconv.Quote(text))
		}
		if both.Port() == 0 {
			return fmt.Errorf("bad source %s: a port is a number from 1 to 65535", strconv.Quote(text))
		}
		addr, r.SourcePort = both.Addr(), both.Port()
	}
	r.On = addr.Zone() // fe80::1%eth0
	addr = addr.WithZone("").Unmap()
	why := ""
	switch {
	case addr.IsMulticast():
		why = "a group sends nothing"
	case addr.IsUnspecified():
		why = "it is nobody's address"
	case addr == netip.AddrFrom4([4]byte{255, 255, 255, 255}):
		why = "it is everybody's address"
	case addr.IsLoopback():
		why = "what comes from there goes by the loopback interface, which is not filtered"
	}
	if why != "" {
		return fmt.Errorf("no packet comes in from %s: %s", addr, why)
	}
	r.Source = addr
	return nil
}

// parseWhat reads what a packet is, in the words of a rule and of the key icmp.
func parseWhat(text string, six bool) ([]What, error) {
	switch strings.ToLower(text) {
	case "ping", "icmp", "icmpv6":
		text = "echo-request"
	}
	kind, err := policy.ParseICMPType(text)
	if err == nil {
		number, ok := icmpNumber(kind, six)
		if !ok {
			return nil, fmt.Errorf("%s is no message of %s", kind, map[bool]string{false: "IPv4", true: "IPv6"}[six])
		}
		w := What{Text: kind.String(), Protocol: protocolICMP, Type: number}
		if six {
			w.Protocol = protocolICMPv6
		}
		return []What{w}, nil
	}
	if strings.HasPrefix(text, "ipv4/") || strings.HasPrefix(text, "ipv6/") {
		return nil, err
	}
	rule, err := policy.ParseRule(text)
	if err != nil {
		return nil, err
	}
	var out []What
	for _, p := range rule.Ports {
		w := What{Text: p.String(), Protocol: p.Protocol, Port: p.First}
		switch {
		case p.First != p.Last || len(rule.Ports) > mostAtOnce:
			return nil, fmt.Errorf("%s is many packets: write what one is, such as 443/tcp", strconv.Quote(text))
		case six && isExtension(p.Protocol):
			return nil, fmt.Errorf("%s is no protocol in IPv6, but a header before one", strconv.Quote(text))
		}
		out = append(out, w)
	}
	return out, nil
}

// isExtension reports whether to IPv6 a protocol's number is that of an extension header.
func isExtension(p policy.Protocol) bool {
	return slices.Contains([]policy.Protocol{0, 43, 44, 60}, p)
}

// icmpNumber returns the number of a message in a family.
func icmpNumber(t policy.ICMPType, six bool) (uint8, bool) {
	only := policy.ICMP{Mode: policy.ICMPList, Types: []policy.ICMPType{t}}
	words := only.Types4()
	if six {
		words = only.Types6()
	}
	for i, word := range words {
		if word != 0 {
			return uint8(i*64 + bits.TrailingZeros64(word)), true
		}
	}
	return 0, false
}

// tcpFlags are the flags of TCP, from the low bit on.
var tcpFlags = []string{"fin", "syn", "rst", "psh", "ack", "urg", "ece", "cwr"}

func parseFlags(text string) ([]string, error) {
	if text == "none" {
		return []string{}, nil
	}
	var flags []string
	for _, f := range strings.Split(strings.ToLower(text), ",") {
		if !slices.Contains(tcpFlags, f) {
			return nil, fmt.Errorf("unknown flag %s: write some of %s, or none", strconv.Quote(f), strings.Join(tcpFlags, ","))
		}
		flags = append(flags, f)
	}
	return flags, nil
}
