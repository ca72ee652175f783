// SPDX-License-Identifier: Apache-2.0

// Package fake is a small model of iptables: it takes the commands of scripts
// that tests draw, and ends as iptables does. It shares nothing with what is
// tested; that it agrees with netfilter is a test of its own.
package fake

import (
	"encoding/json"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// Rules are the chains of the filter table of one family.
type Rules struct {
	Six    bool
	Chains map[string]*Chain
}

// Chain is one chain; one of users has no policy.
type Chain struct {
	Policy string
	Rules  []Rule
}

// Rule asks for all that it names.
type Rule struct {
	Source    string
	NotSource bool
	Protocol  string
	Ports     string // 22, 80:90 or, of multiport, 22,80
	Multi     bool
	From      string // port
	States    string
	In        string
	Target    string
	GoTo      bool
	Comment   string // of -m comment
}

// New returns what netfilter begins with.
func New(six bool) *Rules {
	return &Rules{six, map[string]*Chain{"INPUT": {Policy: "ACCEPT"}, "FORWARD": {Policy: "ACCEPT"}, "OUTPUT": {Policy: "ACCEPT"}}}
}

// Parse reads what Text has written.
func Parse(text []byte, six bool) (*Rules, error) {
	if len(text) == 0 {
		return New(six), nil
	}
	r := &Rules{}
	return r, json.Unmarshal(text, r)
}

// Text writes the rules.
func (r *Rules) Text() []byte {
	text, err := json.Marshal(r)
	if err != nil {
		panic(err)
	}
	return text
}

// Run does what one call does, and returns what it ends with.
func (r *Rules) Run(args []string) int {
	c, good := parse(args, r.Six)
	if !good {
		return wrong
	}
	if c.table != "filter" {
		if slices.Contains([]string{"D", "C", "R", "X", "E"}, c.verb) {
			return missing
		}
		return ok
	}
	return r.apply(c)
}

func (r *Rules) apply(c command) int {
	chain := r.Chains[c.chain]
	if strings.Contains("AIRCD", c.verb) {
		if chain == nil {
			return missing
		}
		if !r.target(c.rule) {
			return wrong
		}
	}
	rules := c.rules()
	switch c.verb {
	case "A":
		chain.Rules = append(chain.Rules, rules...)
	case "I":
		n := max(c.number, 1) - 1
		if n > len(chain.Rules) {
			return missing
		}
		for _, rule := range rules {
			chain.Rules = slices.Insert(chain.Rules, n, rule)
		}
	case "R":
		if c.number < 1 || c.number > len(chain.Rules) || len(rules) != 1 {
			return missing
		}
		chain.Rules[c.number-1] = rules[0]
	case "D":
		if c.number > 0 {
			if c.number > len(chain.Rules) {
				return missing
			}
			chain.Rules = slices.Delete(chain.Rules, c.number-1, c.number)
			break
		}
		for _, rule := range rules {
			i := slices.Index(chain.Rules, rule)
			if i < 0 {
				return missing
			}
			chain.Rules = slices.Delete(chain.Rules, i, i+1)
		}
	case "C":
		for _, rule := range rules {
			if !slices.Contains(chain.Rules, rule) {
				return missing
			}
		}
	case "P":
		if chain == nil || chain.Policy == "" || c.policy != "ACCEPT" && c.policy != "DROP" {
			return missing
		}
		chain.Policy = c.policy
	case "N":
		if chain != nil || slices.Contains([]string{"ACCEPT", "DROP", "REJECT", "RETURN"}, c.chain) {
			return missing
		}
		r.Chains[c.chain] = &Chain{}
	default:
		return r.chains(c, chain)
	}
	return ok
}

// chains is for the commands about whole chains.
func (r *Rules) chains(c command, chain *Chain) int {
	if c.chain != "" && chain == nil {
		return missing
	}
	switch c.verb {
	case "F":
		for name, each := range r.Chains {
			if c.chain == "" || name == c.chain {
				each.Rules = nil
			}
		}
	case "X":
		for name, each := range r.Chains {
			if c.chain != "" && name != c.chain {
				continue
			}
			if each.Policy != "" {
				if c.chain != "" {
					return missing
				}
				continue
			}
			if len(each.Rules) > 0 || r.leadsTo(name) {
				return missing
			}
		}
		for name, each := range r.Chains {
			if each.Policy == "" && (c.chain == "" || name == c.chain) {
				delete(r.Chains, name)
			}
		}
	case "E":
		if chain.Policy != "" || c.policy == "" || r.Chains[c.policy] != nil {
			return missing
		}
		delete(r.Chains, c.chain)
		r.Chains[c.policy] = chain
		for _, each := range r.Chains {
			for i := range each.Rules {
				if each.Rules[i].Target == c.chain {
					each.Rules[i].Target = c.policy
				}
			}
		}
	}
	return ok
}

func (r *Rules) leadsTo(name string) bool {
	for _, c := range r.Chains {
		if slices.ContainsFunc(c.Rules, func(rule Rule) bool { return rule.Target == name }) {
			return true
		}
	}
	return false
}

// target reports whether a rule leads to something that is there.
func (r *Rules) target(rule Rule) bool {
	chain := r.Chains[rule.Target]
	if rule.GoTo {
		return chain != nil && chain.Policy == ""
	}
	return slices.Contains([]string{"", "ACCEPT", "DROP", "REJECT", "RETURN", "LOG"}, rule.Target) || chain != nil && chain.Policy == ""
}

// rules are those that one command makes, one for each source.
func (c command) rules() (out []Rule) {
	for _, source := range c.sources {
		rule := c.rule
		rule.Source = source
		out = append(out, rule)
	}
	if len(out) == 0 {
		return []Rule{c.rule}
	}
	return out
}

// Restore does what iptables-restore does with a text.
func (r *Rules) Restore(text string, keep bool) int {
	var work *Rules
	table := ""
	for _, line := range strings.Split(text, "\n") {
		line = strings.TrimSpace(line)
		switch {
		case line == "" || line[0] == '#':
		case line[0] == '*':
			if table != "" {
				return wrong
			}
			table = line[1:]
			work, _ = Parse(r.Text(), r.Six)
			if table == "filter" && !keep {
				for name, c := range work.Chains {
					if c.Rules = nil; c.Policy == "" {
						delete(work.Chains, name)
					}
				}
			}
		case table == "":
			return wrong
		case line == "COMMIT":
			if table == "filter" {
				r.Chains = work.Chains
			}
			table = ""
		case table != "filter":
		case line[0] == ':':
			fields := strings.Fields(line[1:])
			c := work.Chains[fields[0]]
			if c == nil {
				c = &Chain{}
				work.Chains[fields[0]] = c
			} else if c.Policy == "" {
				c.Rules = nil
			}
			if c.Policy != "" && len(fields) > 1 && fields[1] != "-" {
				c.Policy = fields[1]
			}
		default:
			c, good := parse(fields(line), r.Six)
			if !good {
				return wrong
			}
			if work.apply(c) != ok {
				return missing
			}
		}
	}
	if table != "" {
		return wrong
	}
	return ok
}

// fields splits a line at blanks, but not between quotes.
func fields(line string) (out []string) {
	for i, part := range strings.Split(line, `"`) {
		if i%2 == 1 {
			out = append(out, part)
		} else {
			out = append(out, strings.Fields(part)...)
		}
	}
	return out
}

// Packet is one that begins a connection to this host.
type Packet struct {
	Source   netip.Addr
	Protocol string
	Port     uint16
}

// Accepts reports whether a packet comes in.
func (r *Rules) Accepts(p Packet) bool {
	if verdict := r.walk("INPUT", p, 0); verdict != "" {
		return verdict == "ACCEPT"
	}
	return r.Chains["INPUT"].Policy == "ACCEPT"
}

func (r *Rules) walk(name string, p Packet, depth int) string {
	if depth > 20 {
		return "DROP"
	}
	for _, rule := range r.Chains[name].Rules {
		if !rule.matches(p) {
			continue
		}
		switch rule.Target {
		case "ACCEPT", "DROP", "REJECT":
			return rule.Target
		case "RETURN":
			return ""
		case "", "LOG":
			continue
		}
		verdict := r.walk(rule.Target, p, depth+1)
		if verdict != "" || rule.GoTo {
			return verdict
		}
	}
	return ""
}

func (rule Rule) matches(p Packet) bool {
	if rule.Source != "" && netip.MustParsePrefix(rule.Source).Contains(p.Source) == rule.NotSource {
		return false
	}
	if rule.From != "" {
		return false // of a client, which comes from a high one
	}
	if rule.In != "" && rule.In != "eth0" || rule.Protocol != "" && rule.Protocol != p.Protocol {
		return false
	}
	if rule.States != "" && !strings.Contains(rule.States, "NEW") {
		return false
	}
	if rule.Ports == "" {
		return true
	}
	for _, item := range strings.Split(rule.Ports, ",") {
		first, last, isRange := strings.Cut(item, ":")
		if !isRange {
			last = first
		}
		a, _ := strconv.Atoi(first)
		b, _ := strconv.Atoi(last)
		if a <= int(p.Port) && int(p.Port) <= b {
			return true
		}
	}
	return false
}
