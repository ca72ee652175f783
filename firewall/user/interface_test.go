// SPDX-License-Identifier: Apache-2.0

package user

import (
	"errors"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/portcullis-firewall/portcullis/host"
	"github.com/portcullis-firewall/portcullis/policy"
)

// visited is a host to which the user has come by ssh.
type visited struct {
	reachable
	arrivals []string
}

func (v visited) ConnectionsAt([]uint16) ([]host.Connection, error) { return nil, nil }

func (v visited) Arrivals(host.Connection) ([]string, error) {
	if v.arrivals == nil {
		return nil, errors.New("nobody knows the way")
	}
	return v.arrivals, nil
}

func prefixes(texts ...string) (list []netip.Prefix) {
	for _, text := range texts {
		list = append(list, netip.MustParsePrefix(text))
	}
	return list
}

// A session survives if it would be let in on the interface by which it came, from its source to its address.
func TestGuardAsksTheWayOfTheSession(t *testing.T) {
	ssh := policy.Rule{Ports: []policy.PortRange{{Protocol: policy.TCP, First: 22, Last: 22}}}
	with := func(change func(r *policy.Rule)) policy.Rule {
		r := ssh
		change(&r)
		return r
	}
	on := func(names ...string) policy.Rule { return with(func(r *policy.Rule) { r.On = names }) }
	eth0, both, vlan := []string{"eth0"}, []string{"eth0", "eth1"}, []string{"eth0", "eth0.10"}
	for name, c := range map[string]struct {
		rules      []policy.Rule
		interfaces []string
		arrivals   []string
		survives   bool
	}{
		"open":                                    {[]policy.Rule{ssh}, both, eth0, true},
		"nothing":                                 {nil, both, eth0, false},
		"on its interface":                        {[]policy.Rule{on("eth0")}, both, eth0, true},
		"on a pattern":                            {[]policy.Rule{on("eth*")}, both, eth0, true},
		"on another interface":                    {[]policy.Rule{on("eth1")}, both, eth0, false},
		"by two interfaces":                       {[]policy.Rule{on("eth1")}, both, both, false},
		"on both of them":                         {[]policy.Rule{on("eth1"), on("eth0")}, both, both, true},
		"on a VLAN alone":                         {[]policy.Rule{on("eth0.10")}, vlan, vlan, false},
		"by one that is not filtered":             {nil, []string{"eth1"}, eth0, true},
		"by one of a pattern":                     {[]policy.Rule{on("eth1")}, []string{"eth*"}, eth0, false},
		"by nobody knows what":                    {[]policy.Rule{on("eth1")}, both, nil, false},
		"by nobody knows what, on all":            {[]policy.Rule{on("eth*")}, both, nil, true},
		"from elsewhere":                          {[]policy.Rule{with(func(r *policy.Rule) { r.From = prefixes("192.0.2.0/24") })}, both, eth0, false},
		"except the user":                         {[]policy.Rule{with(func(r *policy.Rule) { r.Except = prefixes("198.51.100.0/24") })}, both, eth0, false},
		"except somebody else":                    {[]policy.Rule{with(func(r *policy.Rule) { r.Except = prefixes("192.0.2.0/24") })}, both, eth0, true},
		"to the address that the session goes to": {[]policy.Rule{with(func(r *policy.Rule) { r.To = prefixes("203.0.113.1/32") })}, both, eth0, true},
		"to another address":                      {[]policy.Rule{with(func(r *policy.Rule) { r.To = prefixes("203.0.113.2/32") })}, both, eth0, false},
		"limited":                                 {[]policy.Rule{with(func(r *policy.Rule) { r.Limit = policy.Limit{Count: 6, Per: time.Minute, Burst: 5} })}, both, eth0, true},
	} {
		p := policy.Default()
		p.Open, p.Interfaces = c.rules, c.interfaces
		u := New(visited{arrivals: c.arrivals}, func() string { return "198.51.100.7 50000 203.0.113.1 22" })
		if lost := u.LockedOut(p); len(lost) == 0 != c.survives {
			t.Errorf("%s: locked out are %v", name, lost)
		}
	}
}

// A rule for an interface that is not filtered, or for an address that the host does not have, is no way to an sshd.
func TestWaysInByInterfaceAndAddress(t *testing.T) {
	for name, c := range map[string]struct {
		change     func(r *policy.Rule)
		interfaces []string
		open       bool
	}{
		"on one of two":         {func(r *policy.Rule) { r.On = []string{"eth1"} }, []string{"eth0", "eth1"}, true},
		"on none":               {func(r *policy.Rule) { r.On = []string{"eth1"} }, []string{"eth0"}, false},
		"on one of a pattern":   {func(r *policy.Rule) { r.On = []string{"wg0"} }, []string{"eth0", "wg*"}, true},
		"to its address":        {func(r *policy.Rule) { r.To = prefixes("192.0.2.0/28") }, nil, true},
		"to somebody's address": {func(r *policy.Rule) { r.To = prefixes("192.0.2.77/32") }, nil, false},
	} {
		r := policy.Rule{Ports: []policy.PortRange{{Protocol: policy.TCP, First: 22, Last: 22}}}
		c.change(&r)
		p := policy.Default()
		p.Open, p.Interfaces = []policy.Rule{r}, c.interfaces
		_, open, err := New(reachable{own: []netip.Addr{netip.MustParseAddr("192.0.2.1")}}, nil).SSHReach(p)
		if err != nil || slices.Contains(open, 22) != c.open {
			t.Errorf("%s: it opens %v, %v", name, open, err)
		}
	}
}
