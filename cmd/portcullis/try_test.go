// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/portcullis-firewall/portcullis/firewall"
	"github.com/portcullis-firewall/portcullis/firewall/schedule"
	"github.com/portcullis-firewall/portcullis/host"
	"github.com/portcullis-firewall/portcullis/loader"
	"github.com/portcullis-firewall/portcullis/policy"
)

// store is where the schedule of the host's filter is kept.
func (h *fakeHost) store() schedule.Store {
	return schedule.NewStore(filepath.Join(h.runDir, filepath.Base(schedule.Dir)), loader.DefaultPinPath)
}

func (h *fakeHost) scheduled() *schedule.Schedule {
	h.t.Helper()
	s, err := h.store().Read()
	if err != nil {
		h.t.Fatal(err)
	}
	return s
}

// record changes what is written down.
func (h *fakeHost) record(change func(*schedule.Schedule)) {
	h.t.Helper()
	s := h.scheduled()
	change(s)
	if err := h.store().Save(s); err != nil {
		h.t.Fatal(err)
	}
}

func TestTryThatFailsLeavesNothingOnTrial(t *testing.T) {
	h := newHost(t)
	h.runs(commented)
	next := h.writes("open: [http]\n")
	h.NoWatchdog = errors.New("no process can be started")
	h.types(1, "try", next)
	h.complains("no process can be started: nothing was changed, as nothing would put it back")
	h.NoWatchdog, h.Fail = nil, errors.New("the kernel says no")
	h.types(1, "try", next)
	h.complains("the kernel says no")
	h.opens("ssh")
	h.types(1, "confirm")
	h.complains("no policy is on trial")
	if len(h.Ups) != 0 {
		t.Errorf("ups %v", h.Ups)
	}
}

func TestTryTakesInterfacesAndFileOfWhatRuns(t *testing.T) {
	h := newHost(t)
	h.Route = "eth7"
	path := h.runs(commented)
	next := h.writes("open: [http]\n")
	h.types(0, "try", next, "--timeout", "90s")
	h.says("in 1m30s", "what was in force before comes back")
	if o := h.Ups[0]; o.Config != path || !slices.Equal(o.Interfaces, []string{"eth0"}) {
		t.Errorf("options %+v", o)
	}
	h.holds(path, commented)
	h.types(0, "revert", "-o", "json")
	h.says(`"running": true`)
	h.opens("ssh")
	if h.File != path {
		t.Errorf("the policy file is %s, want %s", h.File, path)
	}
}

func TestConfirmAsksForAWitness(t *testing.T) {
	const ssh = "203.0.113.5 50000 127.0.0.1 22" // 127.0.0.1: an address of this host
	outside := host.Connection{Local: netip.MustParseAddrPort("192.0.2.1:22"), Remote: netip.MustParseAddrPort("203.0.113.5:50000")}
	inside := host.Connection{Local: netip.MustParseAddrPort("192.0.2.1:22"), Remote: netip.MustParseAddrPort("192.0.2.1:50000")}
	for _, c := range []struct {
		name    string
		session host.Session
		ssh     string
		pty     bool
		refused string
	}{
		{"a new connection", host.Session{Connections: []host.Connection{outside}}, ssh, true, ""},
		{"within the host", host.Session{Connections: []host.Connection{inside}}, ssh, true, "within this host"},
		{"both", host.Session{Connections: []host.Connection{outside, inside}}, ssh, true, "within this host"},
		{"none to be found", host.Session{}, ssh, true, "nobody can tell by which connection"},
		{"none to be found, without a terminal", host.Session{Unknown: true}, ssh, false, "nobody can tell by which connection"},
		{"of another host's address", host.Session{Elsewhere: true}, "203.0.113.5 50000 203.0.113.6 22", true, ""},
		{"unreadable", host.Session{}, "UNKNOWN", false, "nobody can tell by which connection"},
		{"the console", host.Session{}, "", false, ""},
		{"a terminal of a program", host.Session{}, "", true, "say --console"},
		{"parents that cannot be seen", host.Session{Unknown: true}, "", false, "say --console"},
		{"a connection that this host has made", host.Session{Outgoing: []host.Connection{outside}}, "", false, "was made by this host"},
		{"one that came in and one that this host has made", host.Session{Connections: []host.Connection{outside}, Outgoing: []host.Connection{inside}}, ssh, true, ""},
		{"another namespace", host.Session{Elsewhere: true}, "", true, ""},
	} {
		h := newHost(t)
		path := h.runs(commented)
		next := h.writes("open: [http] # all\n")
		h.session = c.ssh
		h.types(0, "try", next)
		h.Session, h.PTY = c.session, c.pty
		if c.refused != "" {
			h.types(1, "confirm")
			h.complains(c.refused, "what was in force before comes back")
			h.holds(path, commented)
			continue
		}
		h.types(0, "confirm")
		h.says("confirmed: the policy of "+next, "saved to "+path)
		h.holds(path, "open: [http] # all\n")
		h.holds(path+".bak", commented)
	}
}

func TestConfirmThatCannotSaveLeavesItOnTrial(t *testing.T) {
	h := newHost(t)
	path := h.runs(commented)
	h.types(0, "try", h.writes("open: [http]\n"))
	if err := errors.Join(os.Remove(path), os.Mkdir(path, 0o755)); err != nil {
		t.Fatal(err)
	}
	h.types(1, "confirm")
	h.complains("not confirmed")
	h.types(0, "status")
	h.says("on trial")
}

func TestConfirmMakesTheFile(t *testing.T) {
	h := newHost(t)
	h.runs(commented)
	h.File = filepath.Join(t.TempDir(), "etc", "portcullis.yaml")
	h.types(0, "try", h.writes("open: [http]\n"))
	h.types(0, "confirm", "-o", "json")
	var v firewall.ConfirmReport
	h.json(&v)
	if !v.Saved || v.Backup != "" || v.Config != h.File {
		t.Errorf("JSON: %+v", v)
	}
	h.holds(h.File, "open: [http]\n")
}

func TestWhatIsDueOfAnEarlierBootIsForgotten(t *testing.T) {
	h := newHost(t)
	h.runs(commented)
	h.types(0, "try", h.writes("open: [http]\n"))
	h.record(func(d *schedule.Schedule) { d.Boot = "another" })
	h.types(0, "status")
	h.types(1, "confirm")
	h.complains("no policy is on trial: ")
}

func TestWhatIsDueInAnotherNamespaceIsLeftThere(t *testing.T) {
	h := newHost(t)
	h.runs(commented)
	h.types(0, "try", h.writes("open: [http]\n"))
	h.record(func(d *schedule.Schedule) { d.Netns++ })
	for _, args := range [][]string{{"status"}, {"confirm"}, {"revert"}, {"up"}, {"down"}, {"open", "ftp"}} {
		h.types(1, args...)
		h.complains("belongs to another network namespace", "something is due there", h.runDir)
	}
}

func TestOpenForATimeTakesBackWhatFails(t *testing.T) {
	h := newHost(t)
	h.runs(commented)
	h.NoWatchdog = errors.New("no process can be started")
	h.types(1, "open", "http", "--for", "1h")
	h.complains("nothing was changed, as nothing would close it")
	h.NoWatchdog, h.Fail = nil, errors.New("the kernel says no")
	h.types(1, "open", "http", "--for", "1h")
	h.opens("ssh")
	if s := h.scheduled(); len(s.Timed) != 0 {
		t.Errorf("still to close: %+v", s)
	}
}

func TestOpenForATimeLeavesWhatIsOpenForGood(t *testing.T) {
	h := newHost(t)
	h.runs(commented)
	h.types(0, "open", "22/tcp", "http", "--for", "1h")
	h.says("already open: 22/tcp\n", "opened http\n", "closes at")
	h.complains("warning: 22/tcp is open for good, and stays so")
	d := h.scheduled()
	if len(d.Timed) != 1 || d.Timed[0].Rule.String() != "http" {
		t.Errorf("to close: %+v", d)
	}
	r, err := policy.ParseRule("80/tcp")
	if due, ok := d.RuleDue(r); err != nil || !ok || due.Left() < 59*time.Minute || due.Left() > time.Hour {
		t.Errorf("it closes in %v", due.Left())
	}
}
