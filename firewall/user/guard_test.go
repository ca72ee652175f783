// SPDX-License-Identifier: Apache-2.0

package user

import (
	"net/netip"
	"slices"
	"testing"

	"github.com/portcullis-firewall/portcullis/host"
	"github.com/portcullis-firewall/portcullis/policy"
)

// reachable is a host with an sshd on port 22.
type reachable struct {
	Host
	own []netip.Addr
}

func (r reachable) SSHPorts() ([]uint16, error)      { return []uint16{22}, nil }
func (r reachable) Addresses() ([]netip.Addr, error) { return r.own, nil }

// A rule is a way in only for somebody who can come from its source to an address of this host.
func TestWaysIn(t *testing.T) {
	v4, v6, link := []string{"192.0.2.1"}, []string{"2001:db8::1", "fe80::1"}, []string{"fe80::1"}
	for _, c := range []struct {
		own  []string
		rule string
		open bool
	}{
		{v4, "22/tcp", true},
		{v4, "22/tcp from 192.0.2.1", false},
		{v4, "22/tcp from 192.0.2.1,192.0.2.2", true},
		{v4, "22/tcp from 192.0.2.0/31", true},
		{v4, "22/tcp from 2001:db8::/32", false},
		{v4, "22/tcp from 2001:db8::/32,198.51.100.1", true},
		{v4, "22/tcp from ::/0", false},
		{v4, "22/tcp from 0.0.0.0/0,::/0", true},
		{v6, "22/tcp from 198.51.100.1", false},
		{v6, "22/tcp from 2001:db8::1", false},
		{v6, "22/tcp from 2001:db8::/32", true},
		{v6, "22/tcp from fe80::2", true},
		{v6, "22/tcp from fe80::1", false},
		{link, "22/tcp from fe80::2", true},
		{link, "22/tcp from 2001:db8::/32", false},
		{link, "22/tcp from ::/0", true},
		{append(v4, link...), "22/tcp from 2001:db8::/32", false},
		{append(v4, v6...), "22/tcp from 2001:db8::/32", true},
		{nil, "22/tcp from 2001:db8::/32", true},
		{v4, "22/tcp except 203.0.113.0/24", true},
	} {
		h := reachable{}
		for _, text := range c.own {
			h.own = append(h.own, netip.MustParseAddr(text))
		}
		rule, err := policy.ParseRule(c.rule)
		if err != nil {
			t.Fatal(err)
		}
		p := policy.Default()
		p.Open = []policy.Rule{rule}
		closed, open, err := New(h, nil).SSHReach(p)
		if err != nil || slices.Contains(open, 22) != c.open || slices.Contains(closed, 22) == c.open {
			t.Errorf("at %q %q opens %v, and leaves %v closed, %v", c.own, c.rule, open, closed, err)
		}
	}
}

// What is routed is no way in.
func TestForwardRulesAreNoWayIn(t *testing.T) {
	rule, err := policy.Names{Forward: true}.ParseRule("ssh")
	if err != nil {
		t.Fatal(err)
	}
	p := policy.Default()
	p.Open = []policy.Rule{rule}
	u := New(reachable{own: []netip.Addr{netip.MustParseAddr("192.0.2.1")}}, nil)
	if closed, open, err := u.SSHReach(p); err != nil || len(open) > 0 || !slices.Equal(closed, []uint16{22}) {
		t.Errorf("open %v, closed %v, %v", open, closed, err)
	}
	s := Session{Local: netip.MustParseAddrPort("192.0.2.1:22"), Remote: netip.MustParseAddrPort("198.51.100.1:40000")}
	if (&User{host: waysOf{}}).Survives(s, p) {
		t.Error("a session could be opened again by a rule about what is routed")
	}
}

// waysOf is a host that does not know by which interface a session comes.
type waysOf struct{ Host }

func (waysOf) Arrivals(host.Connection) ([]string, error) { return nil, nil }

// alive is reachable with the session that the environment tells of.
type alive struct{ reachable }

func (alive) ConnectionsAt([]uint16) ([]host.Connection, error) { return nil, nil }
func (alive) Arrivals(host.Connection) ([]string, error)        { return []string{"eth0"}, nil }

// A policy that only watches locks nobody out, and is asked about when it is to be enforced.
func TestWatchingLocksNobodyOut(t *testing.T) {
	u := New(alive{reachable{own: []netip.Addr{netip.MustParseAddr("192.0.2.1")}}}, func() string { return "192.0.2.2 40000 192.0.2.1 22" })
	p := policy.Default()
	p.Interfaces = []string{"eth0"}
	if u.Guard(p, "fw.yaml") == nil {
		t.Fatal("a policy that locks the user out is not refused")
	}
	p.WatchOnly = true
	if err := u.Guard(p, "fw.yaml"); err != nil {
		t.Error(err)
	}
}
