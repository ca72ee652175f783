// SPDX-License-Identifier: Apache-2.0

package host

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/portcullis-firewall/portcullis/firewall/propose"
	"github.com/portcullis-firewall/portcullis/loader"
	"github.com/portcullis-firewall/portcullis/policy"
	"github.com/portcullis-firewall/portcullis/tests/internal/lab"
)

// While the filter only watches, everything comes in, and counts as what would be dropped. A flip is one step, in which live
// connections go on, whatever lets them in.
func TestWatchingLetsEverythingIn(t *testing.T) {
	eachMode(t, func(t *testing.T, l *lab.Lab, mode loader.Mode) {
		l.Server.Echo(t, 7)
		enforced := policyOf(t, "22/tcp")
		watching := enforced.Clone()
		watching.WatchOnly = true
		up(t, l, mode, watching)
		flip := func(p *policy.Policy) {
			t.Helper()
			before := policyInode(t, l)
			upWith(t, l, loader.Options{Policy: p, Running: true})
			if policyInode(t, l) != before {
				t.Error("a flip was made with programs of its own")
			}
			if s := status(t, l); s.Policy.WatchOnly != p.WatchOnly || s.Saved.WatchOnly != p.WatchOnly {
				t.Errorf("watching: %v, and for the file %v, want %v", s.Policy.WatchOnly, s.Saved.WatchOnly, p.WatchOnly)
			}
		}
		for _, f := range families {
			before := trafficOf(t, l, "eth0")
			live := mustDial(t, l.Client, "tcp", f.server, 7)
			mustTalk(t, live, "watched")
			after := trafficOf(t, l, "eth0")
			if after.WouldDrop == before.WouldDrop || after.Dropped != before.Dropped {
				t.Errorf("%s: would be dropped %v, then %v; dropped %v, then %v", f.name, before.WouldDrop, after.WouldDrop, before.Dropped, after.Dropped)
			}
			flip(enforced)
			mustTalk(t, live, "enforced")
			mustNotDial(t, l.Client, f.server, 7)
			openRule(t, l, "8/tcp") // which changes nothing of it
			mustNotDial(t, l.Client, f.server, 7)
			closeRule(t, l, "8/tcp", false)
			flip(watching)
			mustTalk(t, live, "watched again")
			mustDial(t, l.Client, "tcp", f.server, 7)
			openRule(t, l, "8/tcp") // nor now
			mustDial(t, l.Client, "tcp", f.server, 7)
			closeRule(t, l, "8/tcp", false)
		}
	})
}

// What is put anew in its place, as by an agent over a change of an interface, goes on watching.
func TestWatchingIsKept(t *testing.T) {
	l := lab.New(t)
	l.Server.Echo(t, 7)
	watching := policyOf(t, "22/tcp")
	watching.WatchOnly = true
	up(t, l, loader.ModeTC, watching)
	upWith(t, l, loader.Options{Running: true}) // as the agent renews programs
	mustDial(t, l.Client, "tcp", lab.ServerV4, 7)
	if !status(t, l).Policy.WatchOnly {
		t.Error("the filter enforces what it only watched")
	}
	down(t, l)
	up(t, l, loader.ModeTC, policyOf(t, "22/tcp"))
	mustNotDial(t, l.Client, lab.ServerV4, 7)
}

// An agent that starts anew goes on watching, and enforces the policy when the file says so, not the connections that live.
func TestAgentWatches(t *testing.T) {
	l := lab.New(t)
	l.Server.Echo(t, 7)
	a := newAgent(t, l, "interfaces: [eth0]\nenforce: false\n")
	a.runs()
	said := func(n int) func() bool {
		return func() bool { return strings.Count(a.logged(), "watching only: nothing is dropped") == n }
	}
	a.waitsFor("word of watching", said(1))
	live := mustDial(t, l.Client, "tcp", lab.ServerV4, 7)
	mustTalk(t, live, "watched")
	_ = a.ends(unix.SIGKILL)
	mustTalk(t, mustDial(t, l.Client, "tcp", lab.ServerV4, 7), "without an agent")
	a.runs()
	a.waitsFor("word of watching from the next agent", func() bool { return a.says("watching only, nothing is dropped") })
	mustTalk(t, mustDial(t, l.Client, "tcp", lab.ServerV4, 7), "with another agent")
	a.writes("interfaces: [eth0]\n")
	a.waitsFor("the flip", func() bool { return !status(t, l).Policy.WatchOnly && !a.says("watching only") })
	mustTalk(t, live, "enforced")
	mustNotDial(t, l.Client, lab.ServerV4, 7)
	a.writes("interfaces: [eth0]\nenforce: false\n")
	a.waitsFor("the flip back", func() bool { return status(t, l).Policy.WatchOnly })
	mustTalk(t, mustDial(t, l.Client, "tcp", lab.ServerV4, 7), "watched again")
}

// What real clients ask for is what is proposed, whether the filter drops it or only watches.
func TestProposedFromTraffic(t *testing.T) {
	l := lab.New(t)
	l.Server.Echo(t, 7)
	p := policyOf(t, "22/tcp")
	p.WatchOnly = true
	up(t, l, loader.ModeTC, p)
	r := monitor(t, l, loader.MonitorOptions{Reasons: propose.Reasons()})
	defer r.end()
	for _, f := range families {
		mustTalk(t, mustDial(t, l.Client, "tcp", f.server, 7), "watched")
	}
	p = p.Clone()
	p.WatchOnly = false
	upWith(t, l, loader.Options{Policy: p, Running: true})
	mustNotDial(t, l.Client, lab.ServerV4, 9)
	want := []string{"7/tcp from " + lab.ClientV4.String() + "," + lab.ClientV6.String(), "9/tcp from " + lab.ClientV4.String()}
	var got []string
	for range 50 {
		c := propose.New([]netip.Addr{lab.ServerV4, lab.ServerV6})
		r.mu.Lock()
		c.Add(loader.Monitored{Packets: r.shown})
		r.mu.Unlock()
		needs, err := c.Needs()
		if err != nil {
			t.Fatal(err)
		}
		got = nil
		for _, n := range needs {
			got = append(got, n.Rule)
		}
		slices.Sort(got)
		if slices.Equal(got, want) {
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
	t.Errorf("proposed is %q, want %q; shown are %d packets, not shown %v", got, want, len(r.shown), r.missed)
}
