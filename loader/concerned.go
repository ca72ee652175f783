// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"slices"

	"github.com/portcullis-firewall/portcullis/host"
	"github.com/portcullis-firewall/portcullis/loader/seed"
	"github.com/portcullis-firewall/portcullis/maps"
	"github.com/portcullis-firewall/portcullis/policy"
)

// onlyBy returns a function that reports whether a connection came in, or through, by one of the closed rules and none of
// the open ones lets it in, or through. Limits do not count: what is open with one is open.
func (f *Filter) onlyBy(closed, open []policy.Rule) (concerns, error) {
	isRouted := func(r policy.Rule) bool { return r.Forward }
	isForUs := func(r policy.Rule) bool { return !r.Forward }
	in, err := f.onlyIn(only(closed, isForUs), only(open, isForUs))
	if err != nil {
		return nil, err
	}
	through, err := onlyThrough(only(closed, isRouted), only(open, isRouted))
	if err != nil {
		return nil, err
	}
	return func(live *seed.Connections, flow *maps.Flow) bool { return in(flow) || through(live, flow) }, nil
}

func only(rules []policy.Rule, wanted func(policy.Rule) bool) []policy.Rule {
	return slices.DeleteFunc(slices.Clone(rules), func(r policy.Rule) bool { return !wanted(r) })
}

// onlyIn is onlyBy for connections to this host.
func (f *Filter) onlyIn(closed, open []policy.Rule) (func(*maps.Flow) bool, error) {
	if len(closed) == 0 {
		return func(*maps.Flow) bool { return false }, nil
	}
	lost, err := f.lostBy(closed, open)
	if err != nil || !slices.ContainsFunc(closed, isWide) {
		return lost, err
	}
	// A rule for many ports would take connections that this host has made from one of them for its own.
	clients, err := host.ReadClients()
	if err != nil {
		return nil, err
	}
	return func(flow *maps.Flow) bool {
		protocol, port := policy.Protocol(flow.Protocol), flow.Local.Port()
		named := func(r policy.Rule) bool { return !isWide(r) && r.Covers(protocol, port) }
		return lost(flow) && (!clients.Has(protocol, port) || slices.ContainsFunc(closed, named))
	}, nil
}

// isWide reports whether a rule opens ports that it does not name each.
func isWide(r policy.Rule) bool {
	return slices.ContainsFunc(r.Ports, func(p policy.PortRange) bool { return p.First != p.Last })
}

// lostBy is onlyIn for every connection, whoever has begun it.
func (f *Filter) lostBy(closed, open []policy.Rule) (func(*maps.Flow) bool, error) {
	anywhere, err := newAccess(closed, open)
	if err != nil {
		return nil, err
	}
	g := newGrouping(slices.Concat(closed, open))
	if len(g) == 0 {
		return anywhere.isLost, nil
	}
	interfaces, err := f.pins.Interfaces()
	if err != nil {
		return nil, err
	}
	ways, err := newWays(interfaces)
	if err != nil {
		return nil, err
	}
	byGroup := make(map[policy.Group]*access)
	for _, group := range g.groups(interfaces) {
		if byGroup[group], err = newAccess(rulesIn(closed, group), rulesIn(open, group)); err != nil {
			return nil, err
		}
	}
	return func(flow *maps.Flow) bool {
		// To find its way takes a question to the kernel, and most flows are of other ports.
		return anywhere.isClosed(flow) && slices.ContainsFunc(ways.of(flow), func(iface string) bool { return byGroup[g.of(iface)].isLost(flow) })
	}, nil
}

func rulesIn(rules []policy.Rule, g policy.Group) []policy.Rule {
	return only(rules, func(r policy.Rule) bool { return r.In(g) })
}

// access knows which connections some rules have let in, and others still do.
type access struct{ closed, open *policy.Matcher }

func newAccess(closed, open []policy.Rule) (a *access, err error) {
	a = &access{}
	if a.closed, err = policy.NewMatcher(closed); err != nil {
		return nil, err
	}
	a.open, err = policy.NewMatcher(open)
	return a, err
}

func (a *access) isClosed(flow *maps.Flow) bool { return allows(a.closed, flow) }

func (a *access) isLost(flow *maps.Flow) bool { return a.isClosed(flow) && !allows(a.open, flow) }

func allows(m *policy.Matcher, flow *maps.Flow) bool {
	return m.AllowsAt(policy.Protocol(flow.Protocol), flow.Local.Port(), flow.Remote.Addr(), flow.Local.Addr())
}

// ways finds the filtered interfaces by which the packets of flows come in.
type ways struct {
	network  *host.Network
	filtered []string
	known    map[maps.FlowID][]string
}

func newWays(filtered []string) (*ways, error) {
	network, err := host.ReadNetwork()
	return &ways{network, filtered, make(map[maps.FlowID][]string)}, err
}

// of returns them, or all that are filtered where nobody knows.
func (w *ways) of(flow *maps.Flow) []string {
	id := flow.ID()
	if names, ok := w.known[id]; ok {
		return names
	}
	arrivals, err := w.network.Way(host.Connection{Local: flow.Local, Remote: flow.Remote})
	names := slices.DeleteFunc(arrivals, func(name string) bool { return !slices.Contains(w.filtered, name) })
	if err != nil {
		names = w.filtered
	}
	w.known[id] = names
	return names
}
