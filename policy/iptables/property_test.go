// SPDX-License-Identifier: Apache-2.0

package iptables

import (
	"flag"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/portcullis-firewall/portcullis/policy"
)

var rulesets = flag.Int("rulesets", 1000, "how many made-up sets of rules are translated")

// TestNothingIsWidenedNorLostSilently translates made-up rules, and compares
// what they say about packets with what the policy does.
func TestNothingIsWidenedNorLostSilently(t *testing.T) {
	let, opened := 0, 0
	seen := make(map[string]int)
	for seed := range uint64(*rulesets) {
		byRules, byPolicy := mustHold(t, rand.New(rand.NewPCG(seed, 7)), 150, seen)
		let, opened = let+byRules, opened+byPolicy
	}
	for _, clause := range []string{"on", "from", "except", "to", "limit", "all", "gre", "ospf", ",", "input: reject", "limit of --hashlimit-above",
		"forward:on", "forward:from", "forward:to", "forward:limit", "stays", "block"} {
		if seen[clause] == 0 {
			t.Errorf("no policy has %q", clause)
		}
	}
	t.Logf("%d packets let in by rules, %d by policies", let, opened)
	if opened < let/4 {
		t.Errorf("rules let in %d packets, the policies only %d: too little is translated", let, opened)
	}
}

// mustHold translates one set of rules, and tells how many of some packets they
// let in, and how many the policy.
func mustHold(t *testing.T, random *rand.Rand, packets int, seen map[string]int) (let, opened int) {
	t.Helper()
	m := drawModel(random)
	r, err := Import([]File{{"rules", []byte(m.text)}}, nil)
	if err != nil {
		t.Fatalf("%v\n%s", err, m.text)
	}
	type judged struct {
		*Result
		behind *model
	}
	results := []judged{{r, nil}}
	if len(m.text)%2 == 0 { // to leave something to netfilter for every set of rules would take too long
		with, err := ImportWith([]File{{"rules", []byte(m.text)}}, Options{Keep: true})
		if err != nil {
			t.Fatalf("%v\n%s", err, m.text)
		}
		results = append(results, judged{with, m.kept(with.translation.stayingRules(v4))})
		seen["stays"] += len(with.Stays)
	}
	if len(r.Policy.Block) > 0 {
		seen["block"]++
	}
	counted := make(map[policy.Limit]bool)
	for _, rule := range r.Policy.Open {
		if rule.Limit.Count > 0 && counted[rule.Limit] {
			t.Fatalf("two rules count what one did\n%s\n%s", m.text, r.YAML())
		}
		counted[rule.Limit] = true
		if m.drops(rule.Limit) {
			seen["limit of --hashlimit-above"]++
		}
		text := rule.String()
		if rule.Forward {
			text = "forward: " + strings.ReplaceAll(text, " ", " forward:")
			if rule.Limit.Count > 0 {
				seen["forward:limit"]++
			}
		}
		for _, word := range strings.Fields(text) {
			seen[word]++
		}
		if what, _, _ := strings.Cut(text, " "); strings.Contains(what, ",") {
			seen[","]++
		}
	}
	if r.Policy.Input == policy.Reject || len(r.Policy.InputOn) > 0 {
		seen["input: reject"]++
	}
	for range packets {
		p := drawPacket(random)
		accepted, line := m.decide("INPUT", p)
		if accepted {
			let++
		}
		if allows(r.Policy, p) {
			opened++
		}
		q := p
		q.out = pick(random, modelInterfaces...)
		for _, by := range results {
			if why := judge(by.Result, m, by.behind, p, accepted, line); why != "" {
				t.Fatalf("%s\n%s\n%s by line %d: accepted %t\n%s\n%s", why, m.text, p, line, accepted, by.YAML(), by.translation.stayingRules(v4))
			}
			if why := judgeRouted(by.Result, m, by.behind, q); why != "" {
				t.Fatalf("%s\n%s\n%s\n%s\n%s", why, m.text, q, by.YAML(), by.translation.stayingRules(v4))
			}
		}
	}
	return let, opened
}

// judge compares what rules and policy say about a packet to this host. Behind the policy may be rules that stay.
func judge(r *Result, m, behind *model, p modelPacket, accepted bool, line int) string {
	allows := func(of *policy.Policy, p modelPacket) bool {
		if !allows(of, p) || behind == nil {
			return allows(of, p)
		}
		lets, _ := behind.decide("INPUT", p)
		return lets
	}
	passes := true // what stays
	if behind != nil {
		passes, _ = behind.decide("INPUT", p)
	}
	filtered := policy.MatchAnyInterface(r.Policy.Interfaces, p.in) ||
		len(r.Policy.Interfaces) == 0 && !says(r.Notes, p.in+" is not filtered") && !leftOutByPattern(r, m, p.in)
	switch {
	case !filtered && !accepted && passes && p.state == "NEW" && p.flags != "ACK" && len(r.Untranslated) == 0 &&
		!says(r.Notes, "on interfaces other than"):
		return "an interface is not filtered, and nothing says so"
	case !filtered:
		return ""
	// What is sent to a group, or to everybody, is never answered.
	case p.state == "NEW" && p.flags != "ACK" && p.protocol != "icmp" && p.to == "LOCAL" && !accepted && r.Policy.For(p.in).Input == policy.Reject &&
		!blocked(r.Policy, p) && !m.refuses(line) && !says(slices.DeleteFunc(slices.Clone(r.Notes), func(f Finding) bool { return f.Line != line }), noSilence) &&
		!doubtedBefore(r, line):
		return "the policy answers what the rules drop, and nothing says so"
	case allows(r.Policy, p) && !accepted:
		if p.state == "ESTABLISHED" {
			if len(r.Untranslated) == 0 && !mentions(r.Notes, line) {
				return "answers are dropped by the rules, and nothing says that they come in"
			}
			return ""
		}
		if p.flags == "ACK" && says(r.Notes, noState) {
			return ""
		}
		return "the policy is wider than the rules"
	case !allows(r.Policy, p) && accepted && p.state == "NEW" && p.flags != "ACK":
		// What chance decides may be listed at the rule that it decides about.
		if !mentions(slices.Concat(r.Untranslated, r.Stays), line) && !(strings.Contains(m.text, "limit") && len(r.Untranslated) > 0) {
			return "the policy is narrower than the rules, and nothing says so"
		}
	case !allows(r.Policy, p) && accepted && p.state == "INVALID":
		if r.Policy.Invalid == policy.InvalidDrop && len(r.Notes) == 0 {
			return "INVALID packets are let in by the rules, and nothing says that they are dropped"
		}
	}
	return ""
}

// allows is what a policy means for one packet, in the words of the README.
func allows(p *policy.Policy, k modelPacket) bool {
	if blocked(p, k) {
		return false
	}
	if k.state != "ESTABLISHED" && !(k.state == "INVALID" && p.Invalid != policy.InvalidLog) && letsIn(p, k, false) {
		return true
	}
	switch {
	case k.state == "ESTABLISHED":
		return true
	case k.state == "INVALID" && p.Invalid == policy.InvalidDrop:
		return false
	case k.state == "INVALID" && p.Invalid == policy.InvalidAccept, p.Input == policy.Accept:
		return true
	case k.protocol == "icmp":
		types := p.ICMP.Types4()
		if k.src.Is6() {
			types = p.ICMP.Types6()
		}
		kind := icmpNumbers(k.icmp)[familyOf(k.src)]
		return types[kind/64]>>(kind%64)&1 != 0
	}
	return false
}

func blocked(p *policy.Policy, k modelPacket) bool {
	return slices.ContainsFunc(p.Block, func(s policy.Source) bool {
		return slices.ContainsFunc(s.Prefixes(), func(n netip.Prefix) bool { return n.Contains(k.src) })
	})
}

// letsIn reports whether a rule of a policy lets a packet in, or through: one without a
// limit, or the most generous one of those with limits, if it is not used up.
func letsIn(p *policy.Policy, k modelPacket, forward bool) bool {
	protocol := map[string]policy.Protocol{"tcp": policy.TCP, "udp": policy.UDP, "gre": 47, "89": 89, "icmp": 1}[k.protocol]
	if k.protocol == "icmp" && k.src.Is6() {
		protocol = 58
	}
	var best policy.Limit
	for _, r := range p.Open {
		if !r.Admits(policy.Packet{Interface: k.in, Protocol: protocol, Port: k.port, Source: k.src, Destination: k.dst, Forward: forward}) {
			continue
		}
		if r.Limit.Count == 0 || k.flags == "ACK" || k.flags == "FIN" {
			return true
		}
		if best.Count == 0 || r.Limit.Compare(best) > 0 {
			best = r.Limit
		}
	}
	return best.Count > 0 && k.within(int(best.Count))
}

// leftOutByPattern reports whether an interface that no rule names is among those of a pattern by which all may come in.
func leftOutByPattern(r *Result, m *model, name string) bool {
	return strings.HasPrefix(name, "eth") && !strings.Contains(m.text, " "+name+" ") && says(r.Notes, "eth* is not filtered")
}

// judgeRouted compares what becomes of a packet that is routed.
func judgeRouted(r *Result, m, behind *model, p modelPacket) string {
	if p.to != "LOCAL" || p.state == "INVALID" {
		return ""
	}
	named := func(name string) bool { return strings.Contains(m.text, " "+name+" ") }
	filtered := func(name string) bool {
		return len(r.Policy.Interfaces) == 0 && !named(name) && !leftOutByPattern(r, m, name) || policy.MatchAnyInterface(r.Policy.Interfaces, name)
	}
	if !filtered(p.in) && !filtered(p.out) {
		return ""
	}
	accepted, line := m.decide("FORWARD", p)
	lets := r.Policy.Forward == policy.ForwardAccept
	if !lets && p.state == "ESTABLISHED" {
		// It may be an answer to whatever a rule lets through by where it leaves.
		lets = slices.ContainsFunc(r.Policy.ForwardRules(), func(rule policy.Rule) bool { return rule.AppliesOn(p.out) })
	}
	if r.Policy.Forward == policy.ForwardEstablished {
		// Whoever has no name is said to be let out, too.
		lets = lets || p.state == "ESTABLISHED" && filtered(p.in) && !filtered(p.out) && named(p.out) || !filtered(p.in) && named(p.in)
	}
	lets = lets || letsIn(r.Policy, p, true)
	if lets && behind != nil {
		lets, _ = behind.decide("FORWARD", p)
	}
	if blocked(r.Policy, p) {
		if accepted && len(r.Notes) == 0 {
			return "a block is for what is routed, too, and nothing says so"
		}
		return ""
	}
	switch {
	case lets && !accepted && p.flags == "ACK" && p.state == "NEW" && says(r.Notes, noStateForward):
	case lets && !accepted:
		return "forward is wider than the rules"
	case accepted && !lets && p.state == "NEW" && p.flags != "ACK" && !mentions(r.Untranslated, line) &&
		!(strings.Contains(m.text, "limit") && len(r.Untranslated) > 0) && !(r.Policy.Forward == policy.ForwardEstablished && !filtered(p.in)):
		return "forward is narrower than the rules, and nothing says so"
	}
	return ""
}

// doubtedBefore reports whether a rule in front of a line is in doubt: what it perhaps drops does not get there for certain.
func doubtedBefore(r *Result, line int) bool {
	return slices.ContainsFunc(slices.Concat(r.Untranslated, r.Notes, r.Stays), func(f Finding) bool {
		return f.Line <= line && strings.Contains(f.Why, "cannot be said in a policy")
	})
}

func mentions(list []Finding, line int) bool {
	return slices.ContainsFunc(list, func(f Finding) bool { return f.Line == line || f.Line == 0 })
}

// says reports whether a finding begins so.
func says(list []Finding, beginning string) bool {
	return slices.ContainsFunc(list, func(f Finding) bool { return strings.HasPrefix(f.Why, beginning) })
}
