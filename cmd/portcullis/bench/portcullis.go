// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"context"
	"fmt"
	"slices"

	"github.com/portcullis-firewall/portcullis/loader"
	"github.com/portcullis-firewall/portcullis/maps"
	"github.com/portcullis-firewall/portcullis/policy"
)

// pinPath lies in the bpf filesystem of the room.
const pinPath = loader.DefaultPinPath

// sameTable keeps the modes that are not the fastest from filling the largest tables, which are the same in each.
func sameTable(r rules) string {
	if r.flows > 200000 {
		return "the flow table is that of native mode"
	}
	return ""
}

// portcullis is this firewall.
type portcullis struct {
	mode   loader.Mode
	filter *loader.Filter
}

func (p *portcullis) install(s *stand, r rules) error {
	pol := policy.Default()
	pol.Interfaces = []string{s.to.name}
	pol.MaxFlows = max(policy.DefaultMaxFlows, r.flows+r.flows/8)
	for _, port := range r.ports {
		rule, err := policy.ParseRule(fmt.Sprintf("%d/%s", port, r.protocolName()))
		if err != nil {
			return err
		}
		pol.Open = append(pol.Open, rule)
	}
	report, err := loader.Up(context.Background(), loader.Options{PinPath: pinPath, Interfaces: pol.Interfaces, Mode: p.mode, Policy: pol})
	if err != nil {
		return err
	}
	if got := report.Interfaces[0].Mode; got != p.mode {
		return fmt.Errorf("%s: filters in mode %s, not %s", s.to.name, got, p.mode)
	}
	p.filter, err = loader.Open(context.Background(), pinPath)
	return err
}

func (p *portcullis) remove(*stand) error {
	if p.filter != nil {
		p.filter.Close()
	}
	_, err := loader.Down(context.Background(), pinPath, nil)
	return err
}

// counting returns the counter of a fate: openPort is opened by the first rule.
func counting(f fate) maps.Reason {
	if f == opened {
		return maps.RuleReason(1)
	}
	name := map[fate]string{dropped: "closed port", established: "established"}[f]
	all := maps.Reasons()
	return all[slices.IndexFunc(all, func(r maps.Reason) bool { return r.String() == name })]
}

func (p *portcullis) counted(_ *stand, f fate) (uint64, bool, error) {
	counters, err := p.filter.Counters()
	return counters[counting(f)], true, err
}

// flows counts the flows that live.
func (p *portcullis) flows() (n int, err error) {
	err = p.filter.Flows(func(loader.Flow) bool { n++; return true })
	return n, err
}
