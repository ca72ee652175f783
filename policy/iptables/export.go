// SPDX-License-Identifier: Apache-2.0

package iptables

import "fmt"

// Family is that of packets: [IPv4] or [IPv6].
type Family = family

// The families of packets.
const (
	IPv4 = v4
	IPv6 = v6
)

// Families are both families of packets.
var Families = []Family{IPv4, IPv6}

// Position is where something was written. Line 0 is nowhere in particular.
type Position struct {
	File string
	Line int
	Text string
}

func (p Position) place() place { return place{p.File, p.Line, p.Text} }

// Rules are what another firewall does, said in chains of the filter table and
// options of iptables, to be translated as the rules of iptables are.
type Rules struct {
	ruleset *ruleset
	source  string
}

// NewRules returns rules of nothing yet, of what a source calls them, such as
// "rules of nftables".
func NewRules(source string, o Options) *Rules {
	s := newRuleset()
	s.options = o
	return &Rules{s, source}
}

// SetPolicy says what becomes of what no rule of INPUT, FORWARD or OUTPUT
// decides about: ACCEPT or DROP.
func (r *Rules) SetPolicy(f Family, chain, verdict string, at Position) {
	r.ruleset.told[f] = true
	c := r.chain(f, chain)
	c.policy, c.policyAt = verdict, at.place()
}

// AddChain makes a chain that has no rules yet.
func (r *Rules) AddChain(f Family, name string) { r.chain(f, name) }

func (r *Rules) chain(f Family, name string) *chain {
	c := r.ruleset.chains[f][name]
	if c == nil {
		c = &chain{name: name}
		r.ruleset.chains[f][name] = c
	}
	return c
}

// Append adds a rule to the end of a chain: what follows -A CHAIN, a word each.
// Doubts are what of it has no option: it may match less than the options say.
func (r *Rules) Append(f Family, chain string, at Position, options []string, doubts ...string) {
	r.ruleset.told[f] = true
	parsed := r.ruleset.parseRule(f, at.place(), wordsOf(options...))
	for _, d := range doubts {
		parsed.doubtItself("%s", d)
	}
	parsed.chain = chain
	c := r.chain(f, chain)
	c.rules = append(c.rules, parsed)
}

// Elsewhere says what becomes of a rule of another table, which stays with
// netfilter.
func (r *Rules) Elsewhere(f Family, table string, at Position, options []string) {
	r.ruleset.elsewhere(f, command{table: table, verb: "A", spec: wordsOf(options...)}, at.place())
}

// Lost lists something that the policy lacks.
func (r *Rules) Lost(at Position, format string, args ...any) {
	r.ruleset.lost(at.place(), format, args...)
}

// Note lists something that is good to know.
func (r *Rules) Note(at Position, format string, args ...any) {
	r.ruleset.note(at.place(), format, args...)
}

// ReadSave adds what iptables-save prints of one family to the rules.
func (r *Rules) ReadSave(f Family, file File) {
	r.ruleset.load(f, file.Name, 1, plainText(file.Data), "", true)
}

// Translate returns the policy that the rules come to, as [ImportWith] does.
// The files are those that were read.
func (r *Rules) Translate(files []File) (*Result, error) {
	interfaces := r.ruleset.options.Interfaces
	if err := checkInterfaces(interfaces); err != nil {
		return nil, err
	}
	result, err := r.ruleset.translate(files, interfaces)
	if err == nil {
		result.source = r.source
	}
	return result, err
}

// checkInterfaces refuses names that no policy could be about.
func checkInterfaces(names []string) error {
	for _, name := range names {
		if !possibleInterface(name) || !iface(name).isName() || iface(name) == loopback {
			return fmt.Errorf("interface %q is not possible: write a name such as eth0", name)
		}
	}
	return nil
}
