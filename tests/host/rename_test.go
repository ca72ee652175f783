// SPDX-License-Identifier: Apache-2.0

package host

import (
	"context"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/portcullis-firewall/portcullis/loader"
	"github.com/portcullis-firewall/portcullis/policy"
	"github.com/portcullis-firewall/portcullis/tests/internal/lab"
)

// renamable are the ways of filtering by which the kernel says in different ways where a program is.
var renamable = []struct {
	name string
	loader.Options
}{
	{"native", loader.Options{Mode: loader.ModeNative}},
	{"generic", loader.Options{Mode: loader.ModeGeneric}},
	{"tc", loader.Options{Mode: loader.ModeTC}},
	{"clsact", loader.Options{Mode: loader.ModeTC, NoTCX: true}},
}

// changeName gives the server's interface another name, and its addresses of IPv6 back.
func changeName(t *testing.T, l *lab.Lab, from, to string) {
	t.Helper()
	l.Server.IP(t, "link", "set", from, "down")
	l.Server.IP(t, "link", "set", from, "name", to)
	l.Server.IP(t, "link", "set", to, "up")
}

// A program runs on a device, whatever that is called.
func TestARenamedInterfaceStaysFiltered(t *testing.T) {
	lab.NeedsVeth(t, "renames its interface")
	for _, c := range renamable {
		t.Run(c.name, func(t *testing.T) {
			l := lab.New(t)
			l.Server.Echo(t, 7)
			l.Server.Echo(t, 9)
			o := c.Options
			o.Interfaces, o.Policy = []string{"eth0"}, policyOf(t, "9/tcp")
			upWith(t, l, o)
			before := programsOn(t, l, "eth0")
			changeName(t, l, "eth0", "eth9")
			s := status(t, l)
			names := []string{}
			for _, i := range s.Interfaces {
				names = append(names, i.Name)
				if i.Present != (i.Name == "eth9") {
					t.Errorf("status says %+v", i)
				}
			}
			if !slices.Equal(names, []string{"eth0", "eth9"}) {
				t.Errorf("filtered are %q", names)
			}
			if got := strings.Join(s.Warnings, "\n"); !strings.Contains(got, "eth0 is called eth9 now") {
				t.Errorf("status warns of %q", got)
			}
			if after := programsOn(t, l, "eth9"); !slices.Equal(before, after) {
				t.Errorf("programs %v have become %v", before, after)
			}
			var here bool
			l.Server.Do(t, func() error {
				hooks, err := loader.Hooks(l.PinPath, "eth9")
				here = len(hooks) > 0 && !slices.ContainsFunc(hooks, func(h loader.Hook) bool { return !h.Ours })
				return err
			})
			if !here {
				t.Error("the programs on eth9 are called a stranger's")
			}
			// A new interface of the old name takes nothing away, and is filtered like any other.
			l.Server.IP(t, "link", "add", "eth0", "type", "veth", "peer", "name", "far0")
			o.Policy, o.Mode = policyOf(t, "9/tcp"), loader.ModeAuto
			l.Server.Do(t, func() error {
				_, err := loader.Attach(context.Background(), l.PinPath, loader.ModeAuto)
				return err
			})
			mustNotDial(t, l.Client, lab.ServerV4, 7)
			mustTalk(t, mustDial(t, l.Client, "tcp", lab.ServerV4, 9), "the open port")
			o.Interfaces = []string{"eth9"}
			upWith(t, l, o)
			mustNotDial(t, l.Client, lab.ServerV4, 7)
			l.Server.IP(t, "link", "del", "eth0")
			// Back again, beside what is left of the other one.
			changeName(t, l, "eth9", "eth0")
			report := upWith(t, l, loader.Options{Interfaces: []string{"eth0"}, Policy: policyOf(t, "7/tcp")})
			if got := strings.Join(report.Warnings, "\n"); !strings.Contains(got, "eth9 is called eth0 now") {
				t.Errorf("up warns of %q", got)
			}
			mustTalk(t, mustDial(t, l.Client, "tcp", lab.ServerV4, 7), "the port that is open now")
			mustNotDial(t, l.Client, lab.ServerV4, 9)
			changeName(t, l, "eth0", "eth5")
			down(t, l)
			changeName(t, l, "eth5", "eth0")
			mustBeClean(t, l)
			mustTalk(t, mustDial(t, l.Client, "tcp", lab.ServerV4, 9), "after down")
		})
	}
}

// Of a device that is renamed again and again, the name that somebody named and the last one are known, and whatever else comes
// by one of its names is not filtered.
func TestADeviceThatIsRenamedOften(t *testing.T) {
	lab.NeedsVeth(t, "renames its interface")
	for _, c := range []int{0, 3} {
		c := renamable[c]
		t.Run(c.name, func(t *testing.T) {
			l := lab.New(t)
			o := c.Options
			o.Interfaces, o.Policy = []string{"eth0"}, policyOf(t, "9/tcp")
			upWith(t, l, o)
			names := func() (names []string) {
				t.Helper()
				for _, i := range status(t, l).Interfaces {
					names = append(names, i.Name)
				}
				return names
			}
			rename := func(from, to string) {
				t.Helper()
				l.Server.IP(t, "link", "set", from, "down")
				l.Server.IP(t, "link", "set", from, "name", to)
				l.Server.IP(t, "link", "set", to, "up")
				attach(t, l)
			}
			must := func(after string, want ...string) {
				t.Helper()
				if got := names(); !slices.Equal(got, want) {
					t.Errorf("after %s, filtered are %q, want %q", after, got, want)
				}
				programs, err := filepath.Glob(filepath.Join(l.PinPath, loader.Schema, "policy", "prog_*_out"))
				if err != nil || len(programs) > len(want) {
					t.Errorf("after %s, programs are pinned as %q, %v", after, programs, err)
				}
			}
			last := "eth0"
			for i := range 6 {
				next := "n" + strconv.Itoa(i)
				rename(last, next)
				last = next
			}
			must("six names", "eth0", "n5")
			addVeth(t, l, "n3", "n4")
			attach(t, l)
			must("others of its names", "eth0", "n5")
			for _, name := range []string{"n3", "n4"} {
				if n := len(programsOn(t, l, name)); n > 0 {
					t.Errorf("%d programs are on %s, which nobody has named", n, name)
				}
			}
			// Whoever names it by its new name wants that, too.
			o.Interfaces = []string{"n5"}
			upWith(t, l, o)
			rename("n5", "n6")
			must("a name that was named", "eth0", "n5", "n6")
			rename("n6", "eth0")
			must("its first name", "eth0", "n5")
			// Devices that come by a name, are renamed and go leave one name.
			prepareAll(t, l)
			addVeth(t, l, "n5")
			attach(t, l)
			for _, name := range []string{"a0", "a1", "a2"} {
				rename("n5", name)
				l.Server.IP(t, "link", "del", name)
				addVeth(t, l, "n5")
				attach(t, l)
			}
			must("devices that went", "a2", "eth0", "n5")
			l.Server.Echo(t, 7)
			mustNotDial(t, l.Client, lab.ServerV4, 7)
		})
	}
}

// Two interfaces that change names with each other keep their programs and their modes.
func TestInterfacesThatSwapNames(t *testing.T) {
	lab.NeedsVeth(t, "renames its interface")
	l := lab.New(t)
	l.AddInside(t)
	upWith(t, l, loader.Options{Interfaces: []string{"eth0"}, Mode: loader.ModeNative, Policy: policyOf(t)})
	upWith(t, l, loader.Options{Interfaces: []string{"eth1"}, Mode: loader.ModeGeneric, Policy: policyOf(t)})
	l.Server.IP(t, "link", "set", "eth0", "down")
	l.Server.IP(t, "link", "set", "eth1", "down")
	for _, names := range [][2]string{{"eth0", "spare"}, {"eth1", "eth0"}, {"spare", "eth1"}} {
		l.Server.IP(t, "link", "set", names[0], "name", names[1])
	}
	want := []loader.Interface{{Name: "eth0", Mode: loader.ModeGeneric, Egress: "tcx", Present: true}, {Name: "eth1", Mode: loader.ModeNative, Egress: "tcx", Present: true}}
	if got := status(t, l).Interfaces; !slices.Equal(got, want) {
		t.Errorf("status says %+v, want %+v", got, want)
	}
	if got := status(t, l).Warnings; len(got) > 0 {
		t.Errorf("status warns of %q", got)
	}
	upWith(t, l, loader.Options{Interfaces: []string{"eth0"}, Policy: policyOf(t, "9/tcp")})
	if got := status(t, l).Interfaces; !slices.Equal(got, want) {
		t.Errorf("after up status says %+v, want %+v", got, want)
	}
}

// The agent says so, and filters what comes under the old name as well.
func TestAgentFollowsARenamedInterface(t *testing.T) {
	lab.NeedsVeth(t, "renames its interface")
	l := lab.New(t)
	l.Server.Echo(t, 7)
	a := newAgent(t, l, "interfaces: [eth0]\nopen: [9/tcp]\n")
	a.runs()
	changeName(t, l, "eth0", "eth9")
	a.waitsFor("word of it", func() bool { return strings.Contains(a.logged(), "eth0 is called eth9 now") })
	l.Server.IP(t, "link", "add", "eth0", "type", "veth", "peer", "name", "far0")
	a.waitsFor("the new eth0", func() bool { return a.filters("eth0") })
	if !a.filters("eth9") {
		t.Error("the new eth0 has taken the filter from eth9")
	}
	mustNotDial(t, l.Client, lab.ServerV4, 7)
}

// Programs that are kept ready are shared. With clsact no link says on which device one is: neither an interface that is there
// nor one that is gone is taken for another that has the same program.
func TestASharedProgramIsNoRename(t *testing.T) {
	l := lab.New(t)
	addVeth(t, l, "wan0", "wan1")
	upWith(t, l, loader.Options{Interfaces: []string{"wan0", "wan1", "wan9"}, Mode: loader.ModeTC, NoTCX: true, Wait: true, Policy: policy.Default()})
	prepareAll(t, l)
	for _, name := range []string{"wan0", "wan1"} { // without Ethernet, so that their own programs do not fit
		l.Server.IP(t, "link", "del", name)
		l.Server.IP(t, "tuntap", "add", name, "mode", "tun")
	}
	if report := attach(t, l); len(report.Attached) != 2 || report.Attached[0].Egress != "clsact" {
		t.Fatalf("two interfaces are back: %+v", report)
	}
	mustKeep := func(want ...string) {
		t.Helper()
		for range 2 {
			if report := attach(t, l); len(report.Attached) > 0 || strings.Contains(strings.Join(report.Warnings, "\n"), "is called") {
				t.Errorf("nothing was renamed: %+v", report)
			}
		}
		mustFilter(t, l, want...)
	}
	mustKeep("wan0", "wan1", "wan9 (gone)")
	l.Server.IP(t, "link", "del", "wan0")
	mustKeep("wan0 (gone)", "wan1", "wan9 (gone)")
}
