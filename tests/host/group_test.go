// SPDX-License-Identifier: Apache-2.0

package host

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/portcullis-firewall/portcullis/loader"
	"github.com/portcullis-firewall/portcullis/policy"
	"github.com/portcullis-firewall/portcullis/tests/internal/lab"
)

// upOn filters interfaces of the server with some rules.
func upOn(t testing.TB, l *lab.Lab, mode loader.Mode, interfaces []string, texts ...string) *loader.UpReport {
	t.Helper()
	return upWith(t, l, loader.Options{Interfaces: interfaces, Mode: mode, Policy: policyOf(t, texts...), Wait: true})
}

var both = []string{"eth0", "eth1"}

// tables returns how many tables of ports the filter has.
func tables(t testing.TB, l *lab.Lab) int {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(l.PinPath, loader.Schema, "policy", "ports*"))
	if err != nil {
		t.Fatal(err)
	}
	return len(found)
}

// inode of the directory of the policy in force: another one tells of a new policy.
func policyDir(t testing.TB, l *lab.Lab) os.FileInfo {
	t.Helper()
	info, err := os.Stat(filepath.Join(l.PinPath, loader.Schema, "policy"))
	if err != nil {
		t.Fatal(err)
	}
	return info
}

// A rule for one interface lets in what comes by that, and nothing else; the database is for the private card only.
func TestRuleOnAnInterface(t *testing.T) {
	eachMode(t, func(t *testing.T, l *lab.Lab, mode loader.Mode) {
		inside := l.AddInside(t)
		for _, port := range []int{5432, 80, 22} {
			l.Server.Echo(t, port)
		}
		upOn(t, l, mode, both, "5432/tcp on eth1", "80/tcp", "22/tcp on eth0 from 192.0.2.0/24,2001:db8::/64")
		for i, f := range families {
			router := []netip.Addr{lab.RouterV4, lab.RouterV6}[i]
			mustTalk(t, mustDial(t, inside, "tcp", router, 5432), "the database")
			mustNotDial(t, l.Client, f.server, 5432)
			mustTalk(t, mustDial(t, l.Client, "tcp", f.server, 80), "from outside")
			mustTalk(t, mustDial(t, inside, "tcp", router, 80), "from inside")
			mustTalk(t, mustDial(t, l.Client, "tcp", f.server, 22), "ssh")
			mustNotDial(t, inside, router, 22)
		}
		for _, r := range status(t, l).Rules {
			if r.Packets == 0 {
				t.Errorf("rule %q counts no packets", r.Rule)
			}
		}
	})
}

// Interfaces for which the same rules count share a table, however many there are.
func TestInterfacesOfOneGroupShareATable(t *testing.T) {
	l := lab.New(t)
	names := []string{"eth0"}
	for i := range 5 {
		name := "lan" + string(rune('a'+i))
		addVeth(t, l, name)
		names = append(names, name)
	}
	upOn(t, l, loader.ModeTC, names, "80/tcp")
	if got := tables(t, l); got != 1 {
		t.Errorf("without a rule for some there are %d tables", got)
	}
	upOn(t, l, loader.ModeTC, nil, "80/tcp", "22/tcp on lan*", "53/udp on lan*", "25/tcp on eth0,lana")
	if got := tables(t, l); got != 4 { // of none, of eth0, of lana, and of the others
		t.Errorf("three groups have %d tables", got)
	}
	openRule(t, l, "5432/tcp on lana,eth0")
	if got := tables(t, l); got != 4 {
		t.Errorf("a rule for a group that there is makes %d tables", got)
	}
	for _, text := range []string{"22/tcp on lan*", "53/udp on lan*", "25/tcp on eth0,lana", "5432/tcp on lana,eth0"} {
		closeRule(t, l, text, false)
	}
	if got := tables(t, l); got != 1 {
		t.Errorf("when all of them are closed, %d tables are left", got)
	}
}

// What is opened on one interface while the filter runs is open there; what changes no group changes no program.
func TestOpenOnAnInterfaceAtRuntime(t *testing.T) {
	eachMode(t, func(t *testing.T, l *lab.Lab, mode loader.Mode) {
		inside := l.AddInside(t)
		l.Server.Echo(t, 7)
		l.Server.Echo(t, 9)
		upOn(t, l, mode, both, "80/tcp")
		first := policyDir(t, l)
		openRule(t, l, "7/tcp on eth1")
		mustTalk(t, mustDial(t, inside, "tcp", lab.RouterV4, 7), "from inside")
		mustNotDial(t, l.Client, lab.ServerV4, 7)
		second := policyDir(t, l)
		if os.SameFile(first, second) {
			t.Error("another group did not make another policy: the test shows nothing")
		}
		before := status(t, l).Rules
		openRule(t, l, "9/tcp on eth1")
		openRule(t, l, "9/udp on eth1 from 198.51.100.0/24")
		mustTalk(t, mustDial(t, inside, "tcp", lab.RouterV4, 9), "from inside")
		mustNotDial(t, l.Client, lab.ServerV4, 9)
		closeRule(t, l, "9/tcp on eth1", false)
		mustNotDial(t, inside, lab.RouterV4, 9)
		if !os.SameFile(second, policyDir(t, l)) {
			t.Error("a rule for the interfaces of another has put a new policy in force")
		}
		for _, r := range status(t, l).Rules {
			for _, b := range before {
				if r.Rule == b.Rule && r.Packets < b.Packets {
					t.Errorf("rule %q has counted %d packets, and %d before", r.Rule, r.Packets, b.Packets)
				}
			}
		}
		live := mustDial(t, inside, "tcp", lab.RouterV4, 7)
		mustTalk(t, live, "before")
		closeRule(t, l, "7/tcp on eth1", false) // and with it the rest but one of the group
		mustNotDial(t, inside, lab.RouterV4, 7)
		mustTalk(t, live, "after")
	})
}

// A rule that is opened on one interface does not disturb what goes on at another, in either direction.
func TestGroupsChangeUnderTraffic(t *testing.T) {
	eachMode(t, func(t *testing.T, l *lab.Lab, mode loader.Mode) {
		l.AddInside(t)
		l.Server.Echo(t, 7)
		l.Client.Echo(t, 8)
		echoUDP(t, l.Server, lab.ServerV4, 7)
		upOn(t, l, mode, both, "7/tcp", "7/udp on eth0")
		stop, failed := make(chan struct{}), make(chan error, 3)
		for _, c := range []net.Conn{
			mustDial(t, l.Client, "tcp", lab.ServerV4, 7),
			mustDial(t, l.Server, "tcp", lab.ClientV4, 8),
			mustDial(t, l.Client, "udp", lab.ServerV4, 7), // of which a lost datagram is lost
		} {
			go func() {
				said := 0
				for {
					select {
					case <-stop:
						if said < 100 {
							failed <- errors.New("the traffic was none")
							return
						}
						failed <- nil
						return
					default:
					}
					if err := talk(c, "under traffic", 3*time.Second); err != nil {
						failed <- err
						return
					}
					said++
				}
			}()
		}
		for range 4 {
			openRule(t, l, "5432/tcp on eth1")
			openRule(t, l, "5433/tcp on eth1")
			closeRule(t, l, "5433/tcp on eth1", false)
			closeRule(t, l, "5432/tcp on eth1", false)
		}
		close(stop)
		for range 3 {
			if err := <-failed; err != nil {
				t.Errorf("a conversation on eth0 was disturbed: %v", err)
			}
		}
	})
}

// Of the connections to a port those are cut which came by the interface of the rule.
func TestKillOnAnInterface(t *testing.T) {
	l := lab.New(t)
	inside := l.AddInside(t)
	l.Server.Echo(t, 7)
	upOn(t, l, loader.ModeAuto, both, "7/tcp on eth0", "7/tcp on eth1")
	for i, f := range families {
		router := []netip.Addr{lab.RouterV4, lab.RouterV6}[i]
		outer, inner := mustDial(t, l.Client, "tcp", f.server, 7), mustDial(t, inside, "tcp", router, 7)
		mustTalk(t, outer, "before")
		mustTalk(t, inner, "before")
		if report := closeRule(t, l, "7/tcp on eth1", true); report.Killed != 1 {
			t.Errorf("%s: %d connections were cut, want that from inside", f.name, report.Killed)
		}
		mustNotTalk(t, inner, "after")
		mustTalk(t, outer, "after")
		openRule(t, l, "7/tcp on eth1")
	}
}

// Where a rule is for an address, connections to others are not cut with it.
func TestKillToAnAddress(t *testing.T) {
	l := lab.New(t)
	l.Server.Echo(t, 7)
	l.Server.IP(t, "addr", "add", "192.0.2.33/24", "dev", "eth0")
	upOn(t, l, loader.ModeAuto, []string{"eth0"}, "7/tcp to 192.0.2.1", "7/tcp to 192.0.2.33")
	one, other := mustDial(t, l.Client, "tcp", lab.ServerV4, 7), mustDial(t, l.Client, "tcp", netip.MustParseAddr("192.0.2.33"), 7)
	mustTalk(t, one, "before")
	mustTalk(t, other, "before")
	if report := closeRule(t, l, "7/tcp to 192.0.2.33", true); report.Killed != 1 {
		t.Errorf("%d connections were cut", report.Killed)
	}
	mustNotTalk(t, other, "after")
	mustTalk(t, one, "after")
}

// What this host has begun did not come in by a rule, though that opens its port, too.
func TestKillLeavesWhatTheHostBegan(t *testing.T) {
	l := lab.New(t)
	l.Server.Echo(t, 7)
	l.Client.Echo(t, 8)
	upOn(t, l, loader.ModeAuto, []string{"eth0"}, "all from 192.0.2.2")
	in, out := mustDial(t, l.Client, "tcp", lab.ServerV4, 7), mustDial(t, l.Server, "tcp", lab.ClientV4, 8)
	mustTalk(t, in, "before")
	mustTalk(t, out, "before")
	if report := closeRule(t, l, "all from 192.0.2.2", true); report.Killed != 1 {
		t.Errorf("%d connections were cut, want the one that came in", report.Killed)
	}
	mustNotTalk(t, in, "after")
	mustTalk(t, out, "after")
}

// Input, icmp and invalid are those of each interface.
func TestSettingsOfAnInterface(t *testing.T) {
	eachMode(t, func(t *testing.T, l *lab.Lab, mode loader.Mode) {
		inside := l.AddInside(t)
		l.Server.Echo(t, 7)
		p, err := policy.Parse("test", []byte("input: {default: drop, eth1: accept}\nicmp: {default: accept, eth0: drop}\n"))
		if err != nil {
			t.Fatal(err)
		}
		upWith(t, l, loader.Options{Interfaces: both, Mode: mode, Policy: p})
		mustNotDial(t, l.Client, lab.ServerV4, 7)
		mustTalk(t, mustDial(t, inside, "tcp", lab.RouterV4, 7), "where input is accepted")
		if ping(l.Client, lab.ServerV4) == nil {
			t.Error("an echo request is answered where icmp is dropped")
		}
		if err := ping(inside, lab.RouterV4); err != nil {
			t.Error(err)
		}
	})
}

// An interface that appears is filtered by the rules that are for it, at once where one like it was expected.
func TestRulesOfAnInterfaceThatAppears(t *testing.T) {
	l := lab.New(t)
	upOn(t, l, loader.ModeTC, []string{"eth0", "lan*"}, "7/tcp on lan*", "9/tcp on lan7", "80/tcp on eth0")
	prepareAll(t, l)
	for _, name := range []string{"lan1", "lan7"} {
		l.Server.IP(t, "link", "add", name, "type", "veth", "peer", "name", "peer", "netns", l.Client.Name)
		if report := attach(t, l); len(report.Attached) != 1 || len(report.Slow) != 0 {
			t.Fatalf("%s appears: %+v", name, report)
		}
		l.Server.IP(t, "link", "set", name, "up")
		l.Server.IP(t, "addr", "add", "203.0.113.1/24", "dev", name)
		l.Client.IP(t, "link", "set", "peer", "up")
		l.Client.IP(t, "addr", "add", "203.0.113.2/24", "dev", "peer")
		server := netip.MustParseAddr("203.0.113.1")
		if name == "lan1" {
			for _, port := range []int{7, 9, 80} {
				l.Server.Echo(t, port)
			}
		}
		mustTalk(t, mustDial(t, l.Client, "tcp", server, 7), "by the pattern")
		mustNotDial(t, l.Client, server, 80)
		if name == "lan7" {
			mustTalk(t, mustDial(t, l.Client, "tcp", server, 9), "by its name")
		} else {
			mustNotDial(t, l.Client, server, 9)
		}
		l.Server.IP(t, "link", "del", name)
	}
}

// An interface that gets another name gets the rules for that.
func TestRulesOfARenamedInterface(t *testing.T) {
	l := lab.New(t)
	inside := l.AddInside(t)
	l.Server.Echo(t, 7)
	l.Server.Echo(t, 9)
	upOn(t, l, loader.ModeAuto, both, "7/tcp on eth1", "9/tcp on dmz0")
	l.Server.IP(t, "link", "set", "eth1", "down")
	l.Server.IP(t, "link", "set", "eth1", "name", "dmz0")
	l.Server.IP(t, "link", "set", "dmz0", "up")
	l.Server.IP(t, "addr", "replace", lab.RouterV4.String()+"/24", "dev", "dmz0")
	// Until then it has those of its former name, which status does not keep to itself, nor calls the loss of a pin.
	mustTalk(t, mustDial(t, inside, "tcp", lab.RouterV4, 7), "by the former name")
	_ = status(t, l) // which follows it, and says so once
	warned := strings.Join(status(t, l).Warnings, "\n")
	if !strings.Contains(warned, "dmz0 was renamed, and what the policy says of its former name still counts on it") || strings.Contains(warned, "missing") {
		t.Errorf("status warns of %q", warned)
	}
	if report := attach(t, l); len(report.Slow) != 1 || report.Slow[0].Name != "dmz0" {
		t.Fatalf("its programs are over the table of eth1: %+v", report)
	}
	report := upWith(t, l, loader.Options{Mode: loader.ModeAuto, Wait: true})
	if warned := strings.Join(append(report.Warnings, status(t, l).Warnings...), "\n"); strings.Contains(warned, "renamed") || strings.Contains(warned, "missing") {
		t.Errorf("after up warnings are %q", warned)
	}
	mustTalk(t, mustDial(t, inside, "tcp", lab.RouterV4, 9), "by the new name")
	mustNotDial(t, inside, lab.RouterV4, 7)
}

// So it is with what the policy says of input there, also where no rule names either.
func TestSettingsOfARenamedInterface(t *testing.T) {
	l := lab.New(t)
	inside := l.AddInside(t)
	l.Server.Echo(t, 7)
	p, err := policy.Parse("test", []byte("input: {default: drop, eth1: accept}\n"))
	if err != nil {
		t.Fatal(err)
	}
	upWith(t, l, loader.Options{Interfaces: both, Policy: p})
	l.Server.IP(t, "link", "set", "eth1", "down")
	l.Server.IP(t, "link", "set", "eth1", "name", "dmz0")
	l.Server.IP(t, "link", "set", "dmz0", "up")
	l.Server.IP(t, "addr", "replace", lab.RouterV4.String()+"/24", "dev", "dmz0")
	_ = status(t, l)
	mustTalk(t, mustDial(t, inside, "tcp", lab.RouterV4, 7), "as under the former name")
	if warned := strings.Join(status(t, l).Warnings, "\n"); !strings.Contains(warned, "dmz0 was renamed, and what the policy says of its former name still counts on it") {
		t.Errorf("status warns of %q", warned)
	}
	if report := attach(t, l); len(report.Slow) != 1 || report.Slow[0].Name != "dmz0" {
		t.Fatalf("its programs have the settings of eth1: %+v", report)
	}
	report := upWith(t, l, loader.Options{Wait: true, Policy: p})
	if warned := strings.Join(append(report.Warnings, status(t, l).Warnings...), "\n"); strings.Contains(warned, "renamed") {
		t.Errorf("after up warnings are %q", warned)
	}
	mustNotDial(t, inside, lab.RouterV4, 7)
}

// A table whose pin was removed is missed, and a change makes it anew.
func TestATableWithoutItsPin(t *testing.T) {
	l := lab.New(t)
	inside := l.AddInside(t)
	l.Server.Echo(t, 7)
	l.Server.Echo(t, 9)
	upOn(t, l, loader.ModeAuto, both, "7/tcp on eth1")
	found, err := filepath.Glob(filepath.Join(l.PinPath, loader.Schema, "policy", "ports_*"))
	if err != nil || len(found) != 1 {
		t.Fatalf("tables are %q, %v", found, err)
	}
	if err := os.Remove(found[0]); err != nil {
		t.Fatal(err)
	}
	if missing := strings.Join(status(t, l).Warnings, "\n"); !strings.Contains(missing, "policy/ports_") {
		t.Errorf("nobody misses it: %s", missing)
	}
	openRule(t, l, "9/tcp on eth1")
	mustTalk(t, mustDial(t, inside, "tcp", lab.RouterV4, 9), "opened since")
	mustNotDial(t, l.Client, lab.ServerV4, 9)
}
