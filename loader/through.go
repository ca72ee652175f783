// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"net/netip"
	"slices"

	"github.com/portcullis-firewall/portcullis/host"
	"github.com/portcullis-firewall/portcullis/loader/seed"
	"github.com/portcullis-firewall/portcullis/maps"
	"github.com/portcullis-firewall/portcullis/policy"
)

// onlyThrough is onlyBy for connections through this host. Netfilter knows which end has begun one, and what it has
// translated. A flow does not say: then a port that a rule names tells more than one among many.
func onlyThrough(closed, open []policy.Rule) (concerns, error) {
	if len(closed) == 0 {
		return func(*seed.Connections, *maps.Flow) bool { return false }, nil
	}
	isLocal, err := host.LocalAddresses()
	if err != nil {
		return nil, err
	}
	network, err := host.ReadNetwork()
	if err != nil {
		return nil, err
	}
	arrivals := &arrivals{network, make(map[netip.Addr][]string)}
	lost, err := newThrough(closed, arrivals)
	if err != nil {
		return nil, err
	}
	kept, err := newThrough(open, arrivals)
	if err != nil {
		return nil, err
	}
	lostByName, err := newThrough(naming(closed), arrivals)
	if err != nil {
		return nil, err
	}
	keptByName, err := newThrough(naming(open), arrivals)
	if err != nil {
		return nil, err
	}
	isLost := func(o, turned seed.Origin) bool {
		if !lost.lets(o) || kept.lets(o) {
			return false
		}
		return !kept.lets(turned) || lostByName.lets(o) && !keptByName.lets(turned)
	}
	return func(live *seed.Connections, flow *maps.Flow) bool {
		if o, ok := live.Origins[flow.ID()]; ok {
			if lost.lets(o) && !kept.lets(o) {
				return true
			}
			server, ok := live.Led[o] // which the rules have met where the card that it came in by has no filter
			led := seed.Origin{Protocol: o.Protocol, From: o.From, To: server}
			return ok && lost.lets(led) && !kept.lets(led)
		}
		if isLocal(flow.Local.Addr()) || isLocal(flow.Remote.Addr()) {
			return false
		}
		one := seed.Origin{Protocol: flow.Protocol, From: flow.Local, To: flow.Remote}
		other := seed.Origin{Protocol: flow.Protocol, From: flow.Remote, To: flow.Local}
		return isLost(one, other) || isLost(other, one)
	}, nil
}

// warnOfRouted says what a change from "forward: accept" cuts: it keeps no flows of what is routed, and where netfilter tracks
// nothing nobody knows of it.
func (c *change) warnOfRouted() {
	if c.old == nil || c.old.running.Policy.Forward != policy.ForwardAccept || c.options.Policy.Forward == policy.ForwardAccept || !host.Forwards(nil) {
		return
	}
	if tracked, err := host.SysctlNumber(nil, "net/netfilter/nf_conntrack_count"); err != nil || tracked == 0 {
		c.warn("connections that are routed through this host are cut, but for what rules let through: netfilter tracks none, and \"forward: accept\" kept no flows of them")
	}
}

// naming returns rules as far as they name each port that they are for.
func naming(rules []policy.Rule) (out []policy.Rule) {
	for _, r := range rules {
		r.Ports = slices.DeleteFunc(slices.Clone(r.Ports), func(p policy.PortRange) bool {
			return p.First != p.Last || policy.ProtocolIndex(p.Protocol) < 0
		})
		if len(r.Ports) > 0 {
			out = append(out, r)
		}
	}
	return out
}

// arrivals finds the interfaces by which packets of an address come, filtered or not.
type arrivals struct {
	network *host.Network
	known   map[netip.Addr][]string
}

func (a *arrivals) of(o seed.Origin) []string {
	from := o.From.Addr()
	names, ok := a.known[from]
	if !ok {
		names, _ = a.network.Way(host.Connection{Local: o.To, Remote: o.From}) // none where there is no way
		a.known[from] = names
	}
	return names
}

// through knows which connections some rules let begin.
type through struct {
	*arrivals
	rules  []policy.Rule
	any    *policy.Matcher            // wherever they come in
	byName map[string]*policy.Matcher // by where they do
}

func newThrough(rules []policy.Rule, a *arrivals) (*through, error) {
	t := &through{arrivals: a, byName: make(map[string]*policy.Matcher)}
	for _, r := range rules {
		r.Forward = false // whom it lets in to its address, to the matcher
		t.rules = append(t.rules, r)
	}
	var err error
	t.any, err = policy.NewMatcher(t.rules)
	return t, err
}

func (t *through) lets(o seed.Origin) bool {
	allows := func(m *policy.Matcher) bool {
		return m != nil && m.AllowsAt(policy.Protocol(o.Protocol), o.To.Port(), o.From.Addr(), o.To.Addr())
	}
	if !allows(t.any) { // to find its way takes a question to the kernel
		return false
	}
	for _, name := range t.of(o) {
		m, ok := t.byName[name]
		if !ok {
			// What made a matcher of all rules makes one of some.
			m, _ = policy.NewMatcher(only(t.rules, func(r policy.Rule) bool { return r.AppliesOn(name) }))
			t.byName[name] = m
		}
		if allows(m) {
			return true
		}
	}
	return false
}
