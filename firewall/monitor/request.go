// SPDX-License-Identifier: Apache-2.0

package monitor

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"unicode"

	"github.com/portcullis-firewall/portcullis/loader"
	"github.com/portcullis-firewall/portcullis/maps"
	"github.com/portcullis-firewall/portcullis/policy"
	"github.com/portcullis-firewall/portcullis/policy/quote"
)

// Request says which packets somebody wants to see, in his words. What is left out does not matter.
type Request struct {
	From, To   string // an address or a network
	Port       string // 443, 443/tcp or https, of either end
	ToPort     string // of the destination
	Interfaces []string
	Reasons    []string // "closed port"
	Rule       string   // as it was written
	Pass       bool     // what passes, too
	Snaplen    int
	Rate       int
}

// mostRate is more than any CPU drops.
const mostRate = 1_000_000_000

// ReasonNames returns the reasons that can be asked for, each once.
func ReasonNames() (names []string) {
	for _, reason := range maps.Reasons() {
		if reason.Verdict() != maps.Seen && !slices.Contains(names, reason.String()) {
			names = append(names, reason.String())
		}
	}
	return names
}

// Options returns what to ask the filter for, of which these are the interfaces and the rules in force. A request that no
// packet can meet is an error.
func (r Request) Options(interfaces []string, rules []policy.Rule) (o loader.MonitorOptions, err error) {
	o = loader.MonitorOptions{Interfaces: r.Interfaces, Pass: r.Pass, Snaplen: r.Snaplen, Rate: r.Rate}
	if o.From, err = parseNetwork("--from", r.From); err != nil {
		return o, err
	}
	if o.To, err = parseNetwork("--to", r.To); err != nil {
		return o, err
	}
	if o.From.IsValid() && o.To.IsValid() && o.From.Addr().Is4() != o.To.Addr().Is4() {
		return o, fmt.Errorf("no packet goes from %s to %s: one is IPv4, the other IPv6", o.From, o.To)
	}
	if err := r.withPorts(&o); err != nil {
		return o, err
	}
	switch {
	case r.Snaplen < 1 || r.Snaplen > maps.MaxSnaplen:
		return o, fmt.Errorf("--snaplen %d: write 1 to %d", r.Snaplen, maps.MaxSnaplen)
	case r.Rate < 1 || r.Rate > mostRate:
		return o, fmt.Errorf("--rate %d: write 1 to %d packets a second", r.Rate, mostRate)
	case len(r.Interfaces) > maps.MaxReaderInterfaces:
		return o, fmt.Errorf("--on names %d interfaces: at most %d can be asked for; leave it out for all", len(r.Interfaces), maps.MaxReaderInterfaces)
	}
	for _, name := range r.Interfaces {
		if !slices.Contains(interfaces, name) {
			return o, fmt.Errorf("%s is not filtered, so none of its packets can be shown: write --on %s", quote.Name(name), quote.Shell(strings.Join(interfaces, ",")))
		}
	}
	if r.Rule != "" {
		return o, r.withRule(&o, rules)
	}
	return o, r.withReasons(&o)
}

func (r Request) withReasons(o *loader.MonitorOptions) error {
	for _, name := range r.Reasons {
		found, err := reasonsNamed(name, r.Pass)
		if err != nil {
			return err
		}
		o.Reasons = append(o.Reasons, found...)
	}
	if o.Reasons == nil {
		return nil
	}
	if (o.Port != 0 || o.ToPort != 0) && !slices.ContainsFunc(o.Reasons, hasPortsUnder) {
		flag := "--to-port"
		if o.Port != 0 {
			flag = "--port"
		}
		return fmt.Errorf("no packet that counts as %s has a port: leave out %s or --reason", strings.Join(r.Reasons, ", "), flag)
	}
	if (o.From.IsValid() || o.To.IsValid() || o.Protocol != nil) && !slices.ContainsFunc(o.Reasons, isIPUnder) {
		return fmt.Errorf("no packet that counts as %s has an address: leave out --from and --to, or --reason", strings.Join(r.Reasons, ", "))
	}
	return nil
}

// reasonsNamed returns the reasons of a name: those that drop, and with pass, or where none drops, those that let pass.
func reasonsNamed(name string, pass bool) (drops []maps.Reason, err error) {
	name = strings.ToLower(strings.NewReplacer("-", " ", "_", " ").Replace(strings.TrimSpace(name)))
	var passes, seen []maps.Reason
	for _, reason := range maps.Reasons() {
		if reason.String() != name {
			continue
		}
		switch reason.Verdict() {
		case maps.Drop, maps.WouldDrop:
			drops = append(drops, reason)
		case maps.Pass:
			passes = append(passes, reason)
		default:
			seen = append(seen, reason)
		}
	}
	switch {
	case drops != nil && pass, drops == nil && passes != nil:
		return append(drops, passes...), nil
	case drops != nil:
		return drops, nil
	case seen != nil && strings.HasPrefix(name, "invalid"):
		return nil, fmt.Errorf("%q is a kind of invalid packet, and no verdict: write --reason invalid, or see \"portcullis log\"", name)
	case seen != nil:
		return nil, fmt.Errorf("%q is counted, but no verdict on a packet", name)
	}
	names := ReasonNames()
	return nil, fmt.Errorf("unknown reason %q: %s", name, policy.DidYouMean(name, names, "write one of "+strings.Join(names, ", ")))
}

// withoutPorts lists the reasons for which no packet counts that has ports.
var withoutPorts = []string{"not ip", "neighbor discovery", "icmp", "related", "fragment", "protocol", "bad vlan", "bad extension", "bad transport"}

func hasPortsUnder(reason maps.Reason) bool { return !slices.Contains(withoutPorts, reason.String()) }

func isIPUnder(reason maps.Reason) bool { return reason.String() != "not ip" }

// withRule asks for what a rule lets in.
func (r Request) withRule(o *loader.MonitorOptions, rules []policy.Rule) error {
	if r.Reasons != nil {
		return errors.New("what a rule lets in counts under it, and under no reason: leave out --rule or --reason")
	}
	wanted, err := policy.ParseRule(r.Rule)
	i := slices.IndexFunc(rules, func(have policy.Rule) bool { return have.String() == r.Rule || err == nil && have.Equal(wanted) })
	if i < 0 {
		texts := policy.Texts(rules)
		return fmt.Errorf("the rule %q is not in force: %s", r.Rule, policy.DidYouMean(r.Rule, texts, "\"portcullis status\" lists those that are"))
	}
	o.Rule = &rules[i]
	if probe, ok := r.probe(o); ok && !o.Rule.Overlaps(probe) {
		return fmt.Errorf("the rule %q lets in nothing that is asked for besides: it is about other packets", o.Rule)
	}
	return nil
}

// probe returns a rule that holds for what is asked for besides a rule, but for a port that may be that of the sender.
func (r Request) probe(o *loader.MonitorOptions) (probe policy.Rule, ok bool) {
	text := "all"
	if o.Protocol != nil {
		if text = o.Protocol.String(); o.ToPort != 0 {
			text = fmt.Sprintf("%d/%s", o.ToPort, text)
		}
	}
	if len(o.Interfaces) > 0 {
		text += " on " + strings.Join(o.Interfaces, ",")
	}
	if o.From.IsValid() {
		text += " from " + o.From.String()
	}
	if o.To.IsValid() && !o.Rule.Forward {
		text += " to " + o.To.String()
	}
	probe, err := policy.ParseRule(text)
	probe.Forward = o.Rule.Forward
	return probe, err == nil
}

// parseNetwork reads an address or a network; "" is none.
func parseNetwork(flag, text string) (netip.Prefix, error) {
	if text == "" {
		return netip.Prefix{}, nil
	}
	if addr, err := netip.ParseAddr(text); err == nil && addr.Zone() == "" {
		addr = addr.Unmap()
		return netip.PrefixFrom(addr, addr.BitLen()), nil
	}
	p, err := netip.ParsePrefix(text)
	switch {
	case err != nil:
		return p, fmt.Errorf("%s %q: write an address such as 203.0.113.9, or a network such as 203.0.113.0/24", flag, text)
	case p != p.Masked():
		return p, fmt.Errorf("%s %s has bits behind its prefix: write %s, or %s", flag, p, p.Addr(), p.Masked())
	}
	return p, nil
}

func (r Request) withPorts(o *loader.MonitorOptions) (err error) {
	var protocol *policy.Protocol
	if o.Port, o.Protocol, err = parsePort("--port", r.Port); err != nil {
		return err
	}
	if o.ToPort, protocol, err = parsePort("--to-port", r.ToPort); err != nil {
		return err
	}
	if o.Protocol != nil && protocol != nil && *o.Protocol != *protocol {
		return fmt.Errorf("no packet has --port %s and --to-port %s: one is of %s, the other of %s", r.Port, r.ToPort, o.Protocol, protocol)
	}
	if o.Protocol == nil {
		o.Protocol = protocol
	}
	return nil
}

// parsePort reads 443, 443/tcp, or a service as rules name it; "" is none. A service of several protocols is its port, of
// whatever protocol.
func parsePort(flag, text string) (port uint16, protocol *policy.Protocol, err error) {
	if text == "" {
		return 0, nil, nil
	}
	number, name, named := strings.Cut(text, "/")
	if strings.ContainsFunc(number, unicode.IsLetter) && !strings.ContainsAny(text, " \t,") {
		return servicePort(flag, text)
	}
	n, err := strconv.ParseUint(number, 10, 16)
	if err != nil || n == 0 {
		return 0, nil, fmt.Errorf("%s %q: write a number from 1 to 65535, such as 443 or 443/tcp, or a service such as https", flag, text)
	}
	if !named {
		return uint16(n), nil, nil
	}
	for _, p := range []policy.Protocol{policy.TCP, policy.UDP, policy.SCTP, policy.UDPLite} {
		if p.String() == strings.ToLower(name) {
			return uint16(n), &p, nil
		}
	}
	return 0, nil, fmt.Errorf("%s %q: packets of tcp, udp, sctp and udplite have ports", flag, text)
}

// servicePort returns the port of a service.
func servicePort(flag, name string) (port uint16, protocol *policy.Protocol, err error) {
	rule, err := policy.ParseRule(name)
	if err != nil {
		return 0, nil, fmt.Errorf("%s: %w", flag, err)
	}
	of := rule.Ports[0]
	for _, p := range rule.Ports {
		switch {
		case p.First == 0:
			return 0, nil, fmt.Errorf("%s %s: that has no port: write such as 443/tcp or https", flag, quote.Name(name))
		case p.First != p.Last || p.First != of.First:
			return 0, nil, fmt.Errorf("%s %s: these are several ports: write one of them, such as %d/%s", flag, quote.Name(name), of.First, of.Protocol)
		}
	}
	if len(rule.Ports) == 1 {
		protocol = &of.Protocol
	}
	return of.First, protocol, nil
}
