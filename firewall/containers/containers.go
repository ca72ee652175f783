// SPDX-License-Identifier: Apache-2.0

// Package containers tells which containers and virtual machines of this host
// a forward policy cuts off: those to which it routes, and those whose ports
// netfilter publishes.
package containers

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"slices"
	"strings"

	"github.com/portcullis-firewall/portcullis/host"
	"github.com/portcullis-firewall/portcullis/host/netfilter"
	"github.com/portcullis-firewall/portcullis/policy"
)

// Remedy is the line of a policy file under which containers reach out, and their published ports answer.
const Remedy = "forward: established"

// Found is what there is behind this host.
type Found struct {
	Guests    []host.Guests
	Published []netfilter.Published // ports that lead behind it
}

// Find returns what is behind this host, and nothing where it does not forward. Without root it does not know what is
// published.
func Find(ctx context.Context) (*Found, error) {
	f := &Found{}
	if !host.Forwards(nil) {
		return f, nil
	}
	var err error
	if f.Guests, err = host.FindGuests(); err != nil {
		return f, err
	}
	ruleset, err := netfilter.Read(ctx)
	for _, p := range ruleset.Published {
		if LeadsBehind(p.To) {
			f.Published = append(f.Published, p)
		}
	}
	if errors.Is(err, fs.ErrPermission) {
		err = nil
	}
	return f, err
}

// LeadsBehind reports whether a published port leads to another host, and not to a port of this one.
func LeadsBehind(to string) bool {
	if end, err := netip.ParseAddrPort(to); err == nil {
		return !end.Addr().IsLoopback()
	}
	addr, err := netip.ParseAddr(to)
	return err == nil && !addr.IsLoopback()
}

// Warnings returns what a policy, which stands in a file, does to what was found: a sentence that names the line to
// write, or nothing.
func (f *Found) Warnings(p *policy.Policy, file string) []string {
	var behind []string
	if len(f.Guests) > 0 {
		behind = append(behind, "what is behind "+list(f.Guests, host.Guests.String))
	}
	if len(f.Published) > 0 {
		behind = append(behind, "the ports published for containers ("+list(f.Published, portText)+")")
	}
	if p.Forward != policy.ForwardDrop || len(behind) == 0 {
		return nil
	}
	return []string{fmt.Sprintf("\"forward: drop\" cuts off %s: write %q to %s, under which they reach out and answer",
		strings.Join(behind, ", and "), Remedy, file)}
}

// OpenedInVain returns a sentence for each rule that opens a published port of which "forward: drop" lets no answer out.
func (f *Found) OpenedInVain(p *policy.Policy, rules []policy.Rule, file string) (warnings []string) {
	if p.Forward != policy.ForwardDrop {
		return nil
	}
	for _, r := range rules {
		i := slices.IndexFunc(f.Published, func(published netfilter.Published) bool {
			return r.Overlaps(policy.Rule{Ports: []policy.PortRange{ports(published)}})
		})
		if i >= 0 {
			warnings = append(warnings, fmt.Sprintf("%s is open, but leads to %s, behind this host, and \"forward: drop\" lets no answer out: write %q to %s",
				r, f.Published[i].To, Remedy, file))
		}
	}
	return warnings
}

func ports(p netfilter.Published) policy.PortRange {
	return policy.PortRange{Protocol: p.Protocol, First: p.First, Last: p.Last}
}

func portText(p netfilter.Published) string { return ports(p).String() }

// list writes the first few of a list, each text once.
func list[T any](all []T, text func(T) string) string {
	const most = 5
	var texts []string
	for _, one := range all {
		if t := text(one); !slices.Contains(texts, t) {
			texts = append(texts, t)
		}
	}
	if more := len(texts) - most; more > 0 {
		return fmt.Sprintf("%s and %d more", strings.Join(texts[:most], ", "), more)
	}
	return strings.Join(texts, ", ")
}
