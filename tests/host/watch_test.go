// SPDX-License-Identifier: Apache-2.0

package host

import (
	"testing"

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
