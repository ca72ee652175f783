// SPDX-License-Identifier: Apache-2.0

package explain

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/portcullis-firewall/portcullis/firewall/schedule"
	"github.com/portcullis-firewall/portcullis/loader"
	"github.com/portcullis-firewall/portcullis/maps"
	"github.com/portcullis-firewall/portcullis/policy"
	"github.com/portcullis-firewall/portcullis/policy/quote"
)

// Answer is what becomes of a packet, and why.
type Answer struct {
	Number    int        `json:"number,omitempty"`   // in a recording
	Time      *time.Time `json:"time,omitempty"`     // when it was recorded
	Captured  int        `json:"captured,omitempty"` // bytes of it that were recorded, where these are not all
	Length    int        `json:"length,omitempty"`   // bytes that it had, where not all were recorded
	Packet    string     `json:"packet"`
	Interface string     `json:"interface"`
	Verdict   string     `json:"verdict"` // pass or drop
	Reason    string     `json:"reason"`
	Step      int        `json:"step"` // of "How it decides" in the README
	Why       string     `json:"why"`

	Rule    string `json:"rule,omitempty"` // that lets it in or through, or whose limit drops it
	Forward bool   `json:"forward"`        // it is routed
	Runtime bool   `json:"runtime"`        // the rule is not in the file
	File    string `json:"file,omitempty"` // where the rule stands
	Line    int    `json:"line,omitempty"`

	List    string `json:"list,omitempty"`    // block list that drops it; "block:" for what the policy file blocks by itself
	Network string `json:"network,omitempty"` // of that list
	Ban     *Ban   `json:"ban,omitempty"`
	Flow    *Flow  `json:"flow,omitempty"`
	Trusted bool   `json:"trusted"` // so it is neither blocked nor limited
	Invalid string `json:"invalid,omitempty"`
	Wait    int    `json:"wait_seconds,omitempty"` // till a limit lets the next one in

	Command  string   `json:"command,omitempty"` // that would let it in
	Advice   string   `json:"advice,omitempty"`  // the same, where no command does it
	Still    *Still   `json:"still,omitempty"`   // what drops it then
	Warnings []string `json:"warnings"`

	unread error
}

// Still is what drops a packet, too, whose source is banned or blocked.
type Still struct {
	Reason  string `json:"reason"`
	Why     string `json:"why"`
	Command string `json:"command,omitempty"` // that would let it in then
	Advice  string `json:"advice,omitempty"`
}

// StepName returns what a step of "How it decides" is about.
func StepName(step int) string {
	names := []string{"what is not filtered", "broken packets", "banned or blocked sources", "routed packets", "open to everybody",
		"flows", "open on conditions", "ICMP", "everything else"}
	if step < 1 || step > len(names) {
		return "unknown"
	}
	return names[step-1]
}

// Ban is the ban that drops a packet.
type Ban struct {
	Address string `json:"address"`
	Reason  string `json:"reason"`
	Left    int64  `json:"left_seconds,omitempty"` // 0: for ever
}

// Flow is the flow that a packet belongs to, or would if it were alive.
type Flow struct {
	Protocol string `json:"protocol"`
	Local    string `json:"local"`
	Remote   string `json:"remote"`
	State    string `json:"state"`
	Place    int    `json:"place"` // in the table
	Admits   bool   `json:"admits"`
	Alive    bool   `json:"alive"`
}

// Reasons in the words of status.
const (
	notIP, otherHost, established, related        = "not ip", "other host", "established", "related"
	closedPort, source, limit, rejected, fragment = "closed port", "source", "limit", "rejected", "fragment"
	forward, invalid, banned, blocked             = "forward", "invalid", "banned", "blocked"
	icmp, protocol                                = "icmp", "protocol"
)

// answer says what an explanation means.
func (e *Explainer) answer(on *loader.Explainer, x *loader.Explanation) (*Answer, error) {
	a := &Answer{
		Packet: packetText(x.Explanation), Interface: on.Interface.Name, Verdict: x.Reason.Verdict(), Reason: x.Reason.String(), Step: int(x.Step),
		Forward: x.Step == maps.StepForward, Trusted: x.Trusted, List: x.List, Warnings: []string{},
	}
	if x.Invalid != 0 {
		a.Invalid = x.Invalid.String()
	}
	if x.Wait > 0 {
		a.Wait = int((x.Wait + time.Second - 1) / time.Second)
	}
	if x.Rule != nil {
		a.setRule(x, e)
	}
	if x.Ban != nil {
		a.Ban = &Ban{Address: policy.PrefixText(x.Ban.Prefix), Reason: x.Ban.Reason}
		if !x.Ban.Until.IsZero() {
			a.Ban.Left = int64(max(time.Until(x.Ban.Until).Seconds(), 1))
		}
	}
	if x.Flow != nil {
		a.Flow = &Flow{Protocol: x.Flow.Protocol, Local: endText(x.Flow.Local), Remote: endText(x.Flow.Remote), State: x.Flow.State,
			Place: x.Place, Alive: x.Live, Admits: a.Reason == established || a.Reason == related}
	}
	a.Why = a.why(x)
	if a.Verdict == maps.Drop || a.Verdict == maps.WouldDrop {
		rules, err := on.Rules()
		if err != nil {
			return nil, err
		}
		if refusedFor(a.Reason, x) == source {
			a.Why = sourceText(x.Explanation, rules, on.Interface.Name) + a.toldText()
		}
		a.advise(x, rules, e.file)
	}
	if x.Then != nil {
		if err := a.setStill(e, on, x.Then); err != nil {
			return nil, err
		}
	}
	a.Warnings = append(a.Warnings, on.Warnings...)
	return a, nil
}

// setStill says what drops the packet when its source is neither banned nor blocked any more. Who is trusted has no limit,
// and that is the way around a list.
func (a *Answer) setStill(e *Explainer, on *loader.Explainer, then *loader.Explanation) error {
	next, err := e.answer(on, then)
	if err != nil || next.Verdict == maps.Pass || next.Reason == limit && a.Reason == blocked {
		return err
	}
	a.Still = &Still{Reason: next.Reason, Why: next.Why, Command: next.Command, Advice: next.Advice}
	return nil
}

// refusedFor returns the reason for which a packet is dropped, whether or not its sender is told.
func refusedFor(reason string, x *loader.Explanation) string {
	if reason == rejected {
		return x.Refused.String()
	}
	return reason
}

// sourceText says whether it is the source or the address that no rule about the port has.
func sourceText(x *maps.Explanation, rules []maps.Rule, iface string) string {
	from, to := x.Source.Addr(), x.Destination.Addr()
	hasSource, hasAddress := false, false
	for _, r := range rules {
		if r.Rule.Forward || !r.Rule.AppliesOn(iface) || !r.Rule.Covers(policy.Protocol(x.Protocol), x.Destination.Port()) {
			continue
		}
		holds := func(p netip.Prefix) bool { return p.Contains(from) }
		hasSource = hasSource || (len(r.Rule.From) == 0 || slices.ContainsFunc(r.Rule.From, holds)) && !slices.ContainsFunc(r.Rule.Except, holds)
		hasAddress = hasAddress || len(r.Rule.To) == 0 || slices.ContainsFunc(r.Rule.To, func(p netip.Prefix) bool { return p.Contains(to) })
	}
	switch {
	case hasSource && !hasAddress:
		return fmt.Sprintf("wrong address: %s is open, but not at %s", what(x), to)
	case hasAddress && !hasSource:
		return fmt.Sprintf("wrong source: %s is open, but not from %s", what(x), from)
	}
	return fmt.Sprintf("%s is open, but not from %s at %s", what(x), from, to)
}

// setNetwork names the network by which a list blocks the packet.
func (a *Answer) setNetwork(network netip.Prefix) {
	if network.IsValid() {
		a.Network = policy.PrefixText(network)
		a.Why += ", by " + a.Network
	}
}

// setRule names the rule that decides as the policy file does, if that has it.
func (a *Answer) setRule(x *loader.Explanation, e *Explainer) {
	a.Rule, a.Runtime = x.Rule.Rule.String(), x.Rule.Runtime
	if x.Reason.String() != limit {
		a.Reason = "rule"
	}
	if line, ok := e.lines[e.keyOf(x.Rule)]; ok {
		a.Rule, a.File, a.Line = line.Text, e.file, line.Line
	} else if e.unread != nil && !a.Runtime {
		a.unread = e.unread
		a.Warnings = append(a.Warnings, fmt.Sprintf("where the rule stands is not known, as the policy file cannot be read: %v", e.unread))
	}
}

// Unread returns why the policy file cannot be read that may have the rule, or nil.
func (a *Answer) Unread() error { return a.unread }

// what is the packet as a rule names it, of x.
func what(x *maps.Explanation) string {
	p := policy.PortRange{Protocol: policy.Protocol(x.Protocol)}
	if policy.ProtocolIndex(p.Protocol) >= 0 {
		p.First, p.Last = x.Destination.Port(), x.Destination.Port()
	}
	return p.String()
}

func isICMP(x *maps.Explanation) bool {
	return policy.Protocol(x.Protocol) == protocolICMP && x.Source.Addr().Is4() || policy.Protocol(x.Protocol) == protocolICMPv6 && x.Source.Addr().Is6()
}

func packetText(x *maps.Explanation) string {
	if !x.Source.IsValid() {
		return "unreadable"
	}
	name := policy.Protocol(x.Protocol).String()
	switch {
	case isICMP(x):
		return fmt.Sprintf("icmp type %d %s > %s", x.ICMPType, x.Source.Addr(), x.Destination.Addr())
	case policy.ProtocolIndex(policy.Protocol(x.Protocol)) < 0:
		return fmt.Sprintf("%s %s > %s", policy.PortRange{Protocol: policy.Protocol(x.Protocol)}, x.Source.Addr(), x.Destination.Addr())
	case x.LaterFragment:
		return fmt.Sprintf("%s %s > %s, a later fragment", name, x.Source.Addr(), x.Destination.Addr())
	}
	text := fmt.Sprintf("%s %s > %s", name, x.Source, x.Destination)
	if policy.Protocol(x.Protocol) == policy.TCP {
		text += " " + strings.Join(tcpNames(x.TCPFlags), ",")
	}
	return strings.TrimSpace(text)
}

func endText(end netip.AddrPort) string {
	if end.Port() == 0 {
		return end.Addr().String()
	}
	return end.String()
}

// why returns the sentence that says what decided.
func (a *Answer) why(x *loader.Explanation) string {
	switch {
	case x.Rule != nil && a.Reason == "rule" && a.Forward:
		return "a forward rule lets it through"
	case x.Rule != nil && a.Reason == "rule":
		return "a rule lets it in"
	}
	if a.Verdict == maps.Pass {
		return passes(a.Reason)
	}
	return drops(refusedFor(a.Reason, x), a, x) + a.toldText()
}

// toldText is what is added where the sender learns of the drop, or nothing is dropped.
func (a *Answer) toldText() string {
	text := ""
	if a.Reason == rejected {
		text = ", and its sender is told"
	}
	if a.Verdict == maps.WouldDrop {
		text += "; it passes all the same, as the filter only watches"
	}
	return text
}

func passes(reason string) string {
	text, ok := map[string]string{
		notIP:                "it is not IP, which no firewall of IP sees",
		otherHost:            "it is for a MAC address that no device of this host has",
		established:          "it belongs to a flow",
		related:              "it is an ICMP error about a flow of this host's, or about an open port",
		icmp:                 "\"icmp\" accepts this type",
		"neighbor discovery": "IPv6 does not work without it",
		"dhcp":               "it is the answer of a DHCP server",
		fragment:             "it is a later fragment, which is useless without the first one",
		"input":              "\"input: accept\" lets in what no rule is about",
		forward:              "it is routed, and \"forward\" lets it through, or guests of this host may begin outward",
		invalid:              "netfilter would call it invalid, and \"invalid: accept\" lets it in",
	}[reason]
	if !ok {
		return reason
	}
	return text
}

func drops(reason string, a *Answer, x *loader.Explanation) string {
	switch reason {
	case closedPort:
		return "no rule opens " + what(x.Explanation)
	case source:
		return what(x.Explanation) + " is open, but not from this source, or not at this address"
	case limit:
		text := "the source is over the limit of the rule"
		if a.Wait > 0 {
			text += fmt.Sprintf("; the next packet may come in %s", schedule.Span(time.Duration(a.Wait)*time.Second))
		}
		return text
	case icmp:
		return "\"icmp\" does not accept this type"
	case protocol:
		return "no rule opens " + what(x.Explanation) + ", and it belongs to no flow"
	case forward:
		return "it is for another host, and neither \"forward\" nor a forward rule lets it through"
	case invalid:
		return "it is " + cmp.Or(a.Invalid, "invalid") + ": " + invalidText(a.Invalid)
	case blocked:
		if a.List == maps.OwnBlockList {
			return "the key \"block\" of the policy blocks its source"
		}
		return "its source is on the block list " + quote.Name(a.List)
	case banned:
		text := a.Ban.Address + " is banned"
		if a.Ban.Reason != "" {
			text += " (" + quote.Text(a.Ban.Reason) + ")"
		}
		if a.Ban.Left > 0 {
			return text + " for another " + schedule.Span(time.Duration(a.Ban.Left)*time.Second)
		}
		return text + " for ever"
	}
	return "it is broken: " + reason
}

func invalidText(kind string) string {
	text, ok := map[string]string{
		"invalid header": "its transport header is shorter than it says",
		"invalid length": "its length is not that of the packet",
		"invalid flags":  "no stack sends these flags",
		"invalid state":  "it belongs to no flow and begins none",
		"invalid icmp":   "it answers nothing that this host has sent",
	}[kind]
	if !ok {
		return "netfilter would call it invalid"
	}
	return text
}

// advise adds the command that would let the packet in, or what to do where there is none.
func (a *Answer) advise(x *loader.Explanation, rules []maps.Rule, file string) {
	from := x.Source.Addr().String()
	switch refusedFor(a.Reason, x) {
	case closedPort, source, protocol:
		a.Command = fmt.Sprintf("portcullis open %s from %s", what(x.Explanation), from)
		a.Advice = othersText(x.Explanation, rules)
	case limit:
		if a.Forward {
			a.Command = fmt.Sprintf("portcullis open --forward %s from %s to %s", what(x.Explanation), from, x.Destination.Addr())
		} else {
			a.Command = fmt.Sprintf("portcullis open %s from %s", what(x.Explanation), from)
		}
	case forward:
		if isICMP(x.Explanation) {
			a.Advice = fmt.Sprintf("rules name no type of ICMP: \"portcullis open --forward all from %s to %s\" lets everything through", from, x.Destination.Addr())
			return
		}
		a.Command = fmt.Sprintf("portcullis open --forward %s from %s to %s", what(x.Explanation), from, x.Destination.Addr())
	case icmp:
		a.Advice = fmt.Sprintf("add the type to the key \"icmp\" in %s, then run \"portcullis apply\"", file)
	case banned:
		a.Command = "portcullis unban " + a.Ban.Address
	case blocked:
		a.Advice = fmt.Sprintf("add %s to the key \"trust\" in %s, then run \"portcullis apply\"", from, file)
	case invalid:
		if policy.Protocol(x.Protocol) == policy.TCP {
			a.Advice = "a connection begins with a SYN: ask without --flags whether one is let in"
		}
	}
}

// othersText names the rules that open the same to others, at other addresses or on other interfaces.
func othersText(x *maps.Explanation, rules []maps.Rule) string {
	const most = 3
	var texts []string
	for _, r := range rules {
		if !r.Rule.Forward && r.Rule.Covers(policy.Protocol(x.Protocol), x.Destination.Port()) {
			texts = append(texts, "\""+r.Rule.String()+"\"")
		}
	}
	if slices.Sort(texts); len(texts) > most {
		texts = append(texts[:most], fmt.Sprintf("%d more", len(texts)-most))
	}
	if len(texts) == 0 {
		return ""
	}
	return "open by " + strings.Join(texts, ", ")
}
