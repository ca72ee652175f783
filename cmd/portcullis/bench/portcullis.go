// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"time"

	"github.com/vishvananda/netlink"

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
	more   []netlink.Link // filtered beside the stand's interface
}

// addInterface makes an interface that is filtered, too, and on which nothing comes.
func (p *portcullis) addInterface(i int) (name string, err error) {
	name = fmt.Sprintf("more%d", i)
	link := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: name}, PeerName: name + "peer"}
	if err := netlink.LinkAdd(link); err != nil {
		return "", fmt.Errorf("add interface %s: %w", name, err)
	}
	p.more = append(p.more, link)
	return name, nil
}

// sourcesAmongRandom returns addresses from which random sources may come, always the same.
func sourcesAmongRandom(n int) (sources []netip.Prefix) {
	random := rand.New(rand.NewPCG(1, uint64(n)))
	for range n {
		sources = append(sources, netip.PrefixFrom(addrOf(wordOf(firstSource)+random.Uint32()&randomSource), 32))
	}
	return sources
}

// elsewhere returns an address that the stand has not, for rules with sources: what one of them sends is counted as what
// all others do.
func elsewhere(sources int) []netip.Prefix {
	if sources == 0 {
		return nil
	}
	return []netip.Prefix{netip.MustParsePrefix("192.0.2.254/32")}
}

// blockLists returns a list of so many addresses.
func blockLists(n int) []maps.BlockList {
	if n == 0 {
		return nil
	}
	list := maps.BlockList{Name: "bench"}
	for _, a := range scatteredSources(n) {
		list.Prefixes = append(list.Prefixes, netip.PrefixFrom(a, 32))
	}
	return []maps.BlockList{list}
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
		if port == openPort {
			rule.From, rule.To = sourcesAmongRandom(r.sources), elsewhere(r.sources)
			if r.limited {
				rule.Limit = policy.Limit{Count: 6, Per: time.Minute, Burst: policy.DefaultBurst}
			}
		}
		pol.Open = append(pol.Open, rule)
	}
	for i := range r.interfaces {
		name, err := p.addInterface(i)
		if err != nil {
			return err
		}
		pol.Interfaces = append(pol.Interfaces, name)
		pol.Open = append(pol.Open, policy.Rule{
			Ports: []policy.PortRange{{Protocol: policy.TCP, First: uint16(2000 + i), Last: uint16(2000 + i)}}, On: []string{name},
		})
	}
	blocking, err := maps.NewBlocking(blockLists(r.blocked), nil)
	if err != nil {
		return err
	}
	report, err := loader.Up(context.Background(), loader.Options{
		PinPath: pinPath, Interfaces: pol.Interfaces, Mode: p.mode, Policy: pol, Blocking: blocking,
	})
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
	for _, link := range p.more {
		err = errors.Join(err, netlink.LinkDel(link))
	}
	p.more = nil
	return err
}

// counting returns the counter of a fate: openPort is opened by the first rule.
func counting(f fate) maps.Reason {
	if f == opened {
		return maps.RuleReason(1)
	}
	name := map[fate]string{dropped: "closed port", established: "established", refused: "source", blocked: "blocked"}[f]
	all := maps.Reasons()
	return all[slices.IndexFunc(all, func(r maps.Reason) bool { return r.String() == name })]
}

func (p *portcullis) counted(_ *stand, f fate) (uint64, bool, error) {
	counters, err := p.filter.Counters()
	n := counters[counting(f)]
	if f == dropped { // a clean source that is drawn among all may be one that is not
		n += counters[counting(blocked)]
	}
	return n, true, err
}

// flows counts the flows that live.
func (p *portcullis) flows() (n int, err error) {
	err = p.filter.Flows(func(loader.Flow) bool { n++; return true })
	return n, err
}
