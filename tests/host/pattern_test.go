// SPDX-License-Identifier: Apache-2.0

package host

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/portcullis-firewall/portcullis/loader"
	"github.com/portcullis-firewall/portcullis/policy"
	"github.com/portcullis-firewall/portcullis/tests/internal/lab"
)

// filteredNames returns the interfaces on which the filter is now, and says which a pattern has brought.
func filteredNames(t *testing.T, l *lab.Lab) (names []string) {
	t.Helper()
	for _, i := range status(t, l).Interfaces {
		name := i.Name
		if !i.Present {
			name += " (gone)"
		}
		if i.Pattern != "" {
			name += " by " + i.Pattern
		}
		names = append(names, name)
	}
	return names
}

func mustFilter(t *testing.T, l *lab.Lab, want ...string) {
	t.Helper()
	if got := filteredNames(t, l); !slices.Equal(got, want) {
		t.Fatalf("filtered are %q, want %q", got, want)
	}
}

func attach(t *testing.T, l *lab.Lab) *loader.AttachReport {
	t.Helper()
	var report *loader.AttachReport
	l.Server.Do(t, func() (err error) {
		report, err = loader.Attach(t.Context(), l.PinPath, loader.ModeAuto)
		return err
	})
	return report
}

// prepareAll loads the programs that are kept ready.
func prepareAll(t *testing.T, l *lab.Lab) {
	t.Helper()
	for more := true; more; {
		l.Server.Do(t, func() (err error) {
			more, err = loader.Prepare(t.Context(), l.PinPath)
			return err
		})
	}
}

func addVeth(t *testing.T, l *lab.Lab, names ...string) {
	t.Helper()
	for _, name := range names {
		l.Server.IP(t, "link", "add", name, "type", "veth", "peer", "name", name+"p")
	}
}

func TestAPatternBringsInterfaces(t *testing.T) {
	l := lab.New(t)
	addVeth(t, l, "wg0")
	filter := func(names ...string) {
		t.Helper()
		upWith(t, l, loader.Options{Interfaces: names, Mode: loader.ModeTC, Policy: policy.Default(), Wait: true})
	}
	filter("wg?", "wg*")
	mustFilter(t, l, "wg0 by wg*", "wg0p by wg*", "wg? (gone)") // the peer matches, too
	down(t, l, "wg?")

	// What is not there yet is filtered when it appears, in the mode of the pattern, and forgotten when it goes.
	addVeth(t, l, "wg1")
	l.Server.IP(t, "link", "del", "wg0")
	prepareAll(t, l)
	if report := attach(t, l); len(report.Attached) != 2 || len(report.Slow) != 0 || report.Attached[0].Mode != loader.ModeTC {
		t.Fatalf("two interfaces have appeared: %+v", report)
	}
	mustFilter(t, l, "wg1 by wg*", "wg1p by wg*")

	// One that is taken off stays so, until its pattern is named anew.
	down(t, l, "wg1p")
	attach(t, l)
	upWith(t, l, loader.Options{Mode: loader.ModeAuto})
	mustFilter(t, l, "wg1 by wg*")
	filter("wg*")
	mustFilter(t, l, "wg1 by wg*", "wg1p by wg*")

	// One that is named stays when its pattern goes.
	filter("wg1")
	mustFilter(t, l, "wg1", "wg1p by wg*")
	with(t, l, func(f *loader.Filter) error {
		p, err := f.Policy()
		if want := []string{"wg*", "wg1"}; err == nil && !slices.Equal(p.Interfaces, want) {
			t.Errorf("the policy names %q, want %q", p.Interfaces, want)
		}
		return err
	})
	report := upWith(t, l, loader.Options{Policy: policy.Default(), LetGo: []string{"wg*"}})
	if len(report.Warnings) != 1 {
		t.Errorf("an interface that is let go of is not told of: %q", report.Warnings)
	}
	mustFilter(t, l, "wg1")
	addVeth(t, l, "wg2")
	attach(t, l)
	mustFilter(t, l, "wg1")

	// A filter of a pattern alone runs, and down takes off all that it stands for.
	filter("wg*")
	down(t, l, "wg1", "wg1p", "wg2", "wg2p")
	mustFilter(t, l)
	if got := status(t, l).Patterns; !slices.Equal(got, []string{"wg*"}) {
		t.Errorf("patterns are %q", got)
	}
	filter("wg*")
	down(t, l, "wg*")
	l.Server.Do(t, func() error {
		if _, err := loader.Open(t.Context(), l.PinPath); !errors.Is(err, loader.ErrNotRunning) {
			t.Errorf("the filter still runs: %v", err)
		}
		return nil
	})
}

func TestAgentFiltersWhatAPatternBrings(t *testing.T) {
	lab.NeedsVeth(t, "deletes its interface")
	eachMode(t, func(t *testing.T, l *lab.Lab, mode loader.Mode) {
		l.Server.IP(t, "link", "del", "eth0")
		a := newAgent(t, l, "open: [7/tcp]\n")
		a.runs("--mode", string(mode), "wan*")
		if !a.says("waiting for wan*") {
			t.Error("systemd is not told what is waited for")
		}
		a.waitsFor("programs that are kept ready", func() bool { return a.prepared(6) })
		var times []time.Duration
		for _, name := range []string{"wan1", "wan2", "wan3", "wan.0"} {
			times = append(times, appear(t, l, name))
			if got := filteredNames(t, l); !slices.Equal(got, []string{name + " by wan*"}) {
				t.Errorf("filtered are %q", got)
			}
			if name != "wan.0" {
				l.Server.IP(t, "link", "del", name)
				a.waitsFor("end of it", func() bool { return len(status(t, l).Interfaces) == 0 })
			}
		}
		mustBeSoon(t, times...)
		if got := status(t, l).Interfaces; len(got) != 1 || got[0].Mode != mode || !got[0].Present || got[0].Pattern != "wan*" {
			t.Errorf("status says %+v", got)
		}
		l.Server.Echo(t, 7)
		mustTalk(t, mustDial(t, l.Client, "tcp", lab.ServerV4, 7), "the open port")
		mustNotDial(t, l.Client, lab.ServerV4, 9)
	})
}

// The agent filters what a pattern of the file brings, by the rules for it, until the file has the pattern no more.
func TestAgentFollowsThePatternsOfTheFile(t *testing.T) {
	l := lab.New(t)
	a := newAgent(t, l, "interfaces: [eth0, \"wg*\"]\nopen: [7/tcp on wg*, 80/tcp]\n")
	a.runs("--mode", "tc")
	a.types("down", "wg*")
	a.signals(unix.SIGHUP) // which asks for all that the file names
	a.waitsFor("the pattern again", func() bool { return slices.Equal(status(t, l).Patterns, []string{"wg*"}) })
	addVeth(t, l, "wg0")
	a.waitsFor("filter on wg0", func() bool { return a.filters("wg0") && a.filters("wg0p") })
	a.types("down", "wg0p")
	if out := a.types("status"); !strings.Contains(out, "wg*") || !strings.Contains(out, "7/tcp on wg*") {
		t.Errorf("status says\n%s", out)
	}
	a.writes("interfaces: [eth0]\nopen: [80/tcp]\n")
	a.waitsFor("end of wg0", func() bool { return slices.Equal(filteredNames(t, l), []string{"eth0"}) })
	a.waitsFor("word of it", func() bool { return strings.Contains(a.logged(), "wg0 is no longer filtered, as wg* has brought it") })
}

// An interface that a pattern has brought, and that has another name since, stays filtered. What the policy says of the
// pattern is not for it: status says so for as long as it is so.
func TestARenamedInterfaceOfAPattern(t *testing.T) {
	l := lab.New(t)
	addVeth(t, l, "wg0")
	l.Server.IP(t, "link", "set", "wg0p", "netns", l.Client.Name)
	upOn(t, l, loader.ModeTC, []string{"eth0", "wg*"}, "7/tcp on wg*")
	changeName(t, l, "wg0", "vpn0")
	mustFilter(t, l, "eth0", "vpn0 by wg*")
	says := func(want string) {
		t.Helper()
		if w := status(t, l).Warnings; len(w) != 1 || !strings.HasPrefix(w[0], want) {
			t.Errorf("status warns of %q, want %q", w, want)
		}
	}
	says("vpn0 was renamed, and what the policy says of its former name still counts on it")
	upOn(t, l, loader.ModeAuto, nil, "7/tcp on wg*")
	says("vpn0 was renamed since wg* brought it: it stays filtered, and what the policy says of wg* does not count on it")
	attach(t, l)
	says("vpn0 was renamed since wg* brought it")
	down(t, l, "vpn0")
	if w := status(t, l).Warnings; len(w) > 0 {
		t.Errorf("status warns of %q", w)
	}
}
