// SPDX-License-Identifier: Apache-2.0

package audit

import (
	"net/netip"
	"slices"
	"strings"

	"github.com/portcullis-firewall/portcullis/policy"
)

// admit sets who may come to a service, and by which rules, and returns the places of these.
func (in *Input) admit(entry *Entry, s service) (used []int) {
	entry.State, entry.Rules, entry.From = Closed, []string{}, in.accepting()
	for i, r := range in.Policy.Open {
		if in.opens(r, s) {
			used = append(used, i)
			entry.Rules = append(entry.Rules, r.String())
			entry.From = append(entry.From, in.who(r)...)
		}
	}
	slices.Sort(entry.From)
	entry.From = slices.Compact(entry.From)
	if slices.Contains(entry.From, anyone) {
		entry.From = []string{anyone}
	}
	if len(entry.From) > 0 {
		entry.State = Open
	}
	return used
}

// byAddress splits services whose addresses are not open to the same people, as by a rule that is for some of them.
func (in *Input) byAddress(list []service) (out []service) {
	if !slices.ContainsFunc(in.Policy.Open, func(r policy.Rule) bool { return len(r.To) > 0 }) {
		return list
	}
	for _, s := range list {
		var apart []service
		var openTo [][]string
		for _, address := range s.addresses {
			one := s
			one.addresses = []string{address}
			var entry Entry
			in.admit(&entry, one)
			if i := slices.IndexFunc(openTo, func(have []string) bool { return slices.Equal(have, entry.Rules) }); i >= 0 {
				apart[i].addresses = append(apart[i].addresses, address)
			} else {
				apart, openTo = append(apart, one), append(openTo, entry.Rules)
			}
		}
		out = append(out, apart...)
	}
	return out
}

// opens reports whether a rule opens some ports of a service, at one of its addresses and by one of its interfaces.
func (in *Input) opens(r policy.Rule, s service) bool {
	if !r.Overlaps(policy.Rule{Ports: []policy.PortRange{s.ports()}}) {
		return false
	}
	if names, known := in.interfacesOf(r); known && len(names) == 0 {
		return false
	}
	for _, i := range in.Filtered {
		if s.only != 0 && i.Index == s.only && !r.AppliesOn(i.Name) {
			return false
		}
	}
	return len(r.To) == 0 || slices.ContainsFunc(s.addresses, func(text string) bool {
		address, err := netip.ParseAddr(text)
		return err != nil || slices.ContainsFunc(r.To, func(p netip.Prefix) bool { return p.Contains(address) })
	})
}

// interfacesOf returns the interfaces on which a rule counts, of those that are filtered, as far as these are known.
func (in *Input) interfacesOf(r policy.Rule) (names []string, known bool) {
	for _, i := range in.Filtered {
		if r.AppliesOn(i.Name) {
			names = append(names, i.Name)
		}
	}
	return names, len(in.Filtered) > 0
}

const anyone = "*"

// accepting returns who may come without any rule: anyone by an interface whose input is accepted.
func (in *Input) accepting() []string {
	var names []string
	settings := *in.Policy
	settings.Open = nil
	for _, i := range in.Filtered {
		if settings.For(i.Name).Input == policy.Accept {
			names = append(names, i.Name)
		}
	}
	switch {
	case len(in.Filtered) > 0 && len(names) == len(in.Filtered), len(in.Filtered) == 0 && in.Policy.Input == policy.Accept:
		return []string{anyone}
	case len(names) > 0:
		return []string{anyone + " on " + strings.Join(names, " and ")}
	}
	return []string{}
}

// who returns whom a rule lets come, and where if not everywhere.
func (in *Input) who(r policy.Rule) []string {
	where := ""
	if names, known := in.interfacesOf(r); len(r.On) > 0 && (!known || len(names) < len(in.Filtered)) {
		if !known || len(names) == 0 {
			names = r.On
		}
		where = " on " + strings.Join(names, " and ")
	}
	if len(r.To) > 0 {
		where += " to " + addresses(r.To, " and ")
	}
	if len(r.Except) > 0 {
		where = " except " + addresses(r.Except, " and ") + where
	}
	all := r
	all.Except = nil
	if all.Anyone() {
		return []string{anyone + where}
	}
	out := make([]string, len(r.From))
	for i, p := range r.From {
		out[i] = address(p) + where
	}
	return out
}

func addresses(prefixes []netip.Prefix, between string) string {
	texts := make([]string, len(prefixes))
	for i, p := range prefixes {
		texts[i] = address(p)
	}
	return strings.Join(texts, between)
}

func address(p netip.Prefix) string {
	if p.IsSingleIP() {
		return p.Addr().String()
	}
	return p.String()
}

// what returns what a rule opens.
func what(r policy.Rule) string {
	const most = 8
	if len(r.Ports) > most {
		text, _, _ := strings.Cut(r.String(), " ")
		return text
	}
	ports := make([]string, len(r.Ports))
	for i, p := range r.Ports {
		ports[i] = p.String()
	}
	return strings.Join(ports, ",")
}

// hasPorts reports whether a rule opens ports: of other protocols nobody knows who listens.
func hasPorts(r policy.Rule) bool {
	return slices.ContainsFunc(r.Ports, func(p policy.PortRange) bool { return policy.ProtocolIndex(p.Protocol) >= 0 })
}
