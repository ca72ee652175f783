// SPDX-License-Identifier: Apache-2.0

package host

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/portcullis-firewall/portcullis/loader"
	"github.com/portcullis-firewall/portcullis/loader/pin"
	"github.com/portcullis-firewall/portcullis/maps"
	"github.com/portcullis-firewall/portcullis/policy"
	"github.com/portcullis-firewall/portcullis/tests/internal/lab"
)

// smallChanges are those that one store makes, each from and to policies of which one lets the client in at portOld.
var smallChanges = map[string][2]order{
	"a rule more":        {{Rules: []string{"7/udp", "8/udp"}}, {Rules: []string{"7/udp", "8/udp", "9/udp"}}},
	"a rule less":        {{Rules: []string{"7/udp", "8/udp", "9/udp"}}, {Rules: []string{"7/udp", "8/udp"}}},
	"other sources":      {{Rules: []string{"7/udp", "8/udp", "9/udp from " + lab.ClientV4.String()}}, {Rules: []string{"7/udp", "8/udp", "9/udp from 198.51.100.0/24"}}},
	"two for one port":   {{Rules: []string{"7/udp", "9/udp from 198.51.100.1", "9/udp from 198.51.100.3"}}, {Rules: []string{"7/udp", "9/udp from 198.51.100.7", "9/udp"}}},
	"another block":      {{Rules: []string{"7/udp", "8/udp", "9/udp"}, Block: []string{"198.51.100.0/24"}}, {Rules: []string{"7/udp", "8/udp", "9/udp"}, Block: []string{"203.0.113.0/24"}}},
	"to watch":           {{Rules: []string{"7/udp", "8/udp"}}, {Rules: []string{"7/udp", "8/udp"}, Watch: true}},
	"to enforce":         {{Rules: []string{"7/udp", "8/udp"}, Watch: true}, {Rules: []string{"7/udp", "8/udp"}}},
	"nothing to packets": {{Rules: []string{"7/udp", "8/udp", "9/udp"}}, {Rules: []string{"7/udp", "8/udp", "9/udp", "9/udp from 198.51.100.0/24"}}},
}

// policyInode returns that of the directory of the policy in force: each that comes with programs of its own has another.
func policyInode(t *testing.T, l *lab.Lab) uint64 {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Stat(filepath.Join(l.PinPath, loader.Schema, "policy"), &st); err != nil {
		t.Fatal(err)
	}
	return st.Ino
}

// A small change loads nothing, and lets the client in, or not, as the new policy says.
func TestSmallChangesAreMadeInPlace(t *testing.T) {
	for name, c := range smallChanges {
		t.Run(name, func(t *testing.T) {
			l := lab.New(t)
			p := newProbe(t, l)
			first := c[0]
			first.Interfaces, first.Mode = []string{"eth0"}, loader.ModeTC
			putInForce(t, l, first)
			before := policyInode(t, l)
			putInForce(t, l, c[1])
			if after := policyInode(t, l); after != before {
				t.Error("it was put in force with programs of its own")
			}
			if got, want := rulesInForce(t, l), strings.Join(c[1].Rules, " "); got != want {
				t.Errorf("in force are %s, want %s", got, want)
			}
			if got := blockedInForce(t, l); !slices.Equal(got, c[1].Block) {
				t.Errorf("blocked are %s, want %s", got, c[1].Block)
			}
			if p.arrives(t) != c[1].admits() {
				t.Errorf("the client is let in: %v, which is wrong", !c[1].admits())
			}
			down(t, l)
			mustBeClean(t, l)
		})
	}
}

// Changes of which one store is not enough take programs of their own.
func TestOtherChangesAreNotMadeInPlace(t *testing.T) {
	old := order{Rules: []string{"7/udp", "8/udp", "9/udp"}}
	for name, new := range map[string]order{
		"two ports":          {Rules: []string{"7/udp", "8/udp", "9-10/udp", "11/udp"}},
		"a feature":          {Rules: []string{"7/udp", "8/udp", "9/udp limit 6/minute"}},
		"a table":            {Rules: []string{"7/udp", "8/udp", "9/udp on eth0"}},
		"rules and to watch": {Rules: []string{"7/udp", "8/udp"}, Watch: true},
		"rules and a block":  {Rules: []string{"7/udp", "8/udp"}, Block: []string{"203.0.113.0/24"}},
	} {
		t.Run(name, func(t *testing.T) {
			l := lab.New(t)
			first := old
			first.Interfaces, first.Mode = []string{"eth0"}, loader.ModeTC
			putInForce(t, l, first)
			before := policyInode(t, l)
			putInForce(t, l, new)
			if after := policyInode(t, l); after == before {
				t.Error("it was put in force in place")
			}
			if got, want := rulesInForce(t, l), strings.Join(new.Rules, " "); got != want {
				t.Errorf("in force are %s, want %s", got, want)
			}
			down(t, l)
		})
	}
}

// A small change, which could be made in place, brings what matches a pattern all the same, and warns once of one that
// nothing matches.
func TestSmallChangesBringInterfaces(t *testing.T) {
	l := lab.New(t)
	apply := func(rule string, names ...string) []string {
		t.Helper()
		return upWith(t, l, loader.Options{Interfaces: names, Mode: loader.ModeTC, Policy: policyOf(t, rule)}).Warnings
	}
	apply("7/udp", "eth0", "wg*")
	addVeth(t, l, "wg0")
	apply("7/udp") // which names nothing
	mustFilter(t, l, "eth0", "wg0 by wg*", "wg0p by wg*")
	down(t, l, "wg0p")
	apply("7/udp")
	mustFilter(t, l, "eth0", "wg0 by wg*")
	apply("7/udp", "wg*")
	mustFilter(t, l, "eth0", "wg0 by wg*", "wg0p by wg*")

	l.Server.IP(t, "link", "del", "wg0")
	before := policyInode(t, l)
	for _, rule := range []string{"7/udp", "7/udp limit 6/minute"} { // in place, and not
		warnings := slices.DeleteFunc(apply(rule, "wg*"), func(w string) bool { return !strings.Contains(w, "no interface matches wg* yet") })
		if len(warnings) != 1 {
			t.Errorf("%s: of a pattern that nothing matches is warned %d times", rule, len(warnings))
		}
		if inPlace := policyInode(t, l) == before; inPlace != (rule == "7/udp") {
			t.Errorf("%s: put in force in place: %v", rule, inPlace)
		}
	}
}

// Whatever write it is before which a command is killed that changes rules or block lists in place: the old policy is in force,
// or the new one, whole; and what commands say of it is what packets meet.
func TestKilledInPlace(t *testing.T) {
	for name, c := range smallChanges {
		t.Run(name, func(t *testing.T) {
			l := lab.New(t)
			p := newProbe(t, l)
			old, new := c[0], c[1]
			first := old
			first.Interfaces, first.Mode = []string{"eth0"}, loader.ModeTC
			putInForce(t, l, first)
			inode := policyInode(t, l)
			var kept, replaced int
			for new.Die = 1; ; new.Die++ {
				putInForce(t, l, old)
				if !wasKilled(t, l, new) {
					break
				}
				arrived := p.arrives(t)
				rules, blocked := rulesInForce(t, l), blockedInForce(t, l)
				watching := status(t, l).Policy.WatchOnly
				is := func(o order) bool {
					return watching == o.Watch && arrived == o.admits() && rules == strings.Join(o.Rules, " ") && slices.Equal(blocked, o.Block)
				}
				switch {
				case is(old):
					kept++
				case is(new):
					replaced++
				default:
					t.Fatalf("killed before write %d: the client is let in: %v, and in force are %s, blocked %s", new.Die, arrived, rules, blocked)
				}
				if p.arrives(t) != arrived {
					t.Fatalf("killed before write %d: the next command changed what is let in", new.Die)
				}
			}
			if policyInode(t, l) != inode {
				t.Error("the policy was put in force with programs of its own")
			}
			t.Logf("killed before each of %d writes: the old policy stayed %d times, the new one was in force %d times", new.Die-1, kept, replaced)
			if kept == 0 || replaced == 0 && name != "a rule more" && new.Die > 2 { // before the only write nothing is new
				t.Error("one of both never was")
			}
			down(t, l)
			mustBeClean(t, l)
		})
	}
}

// One rule more takes as many writes among a thousand rules as among ten: what stays is not written again.
func TestOneRuleMoreTakesFewWrites(t *testing.T) {
	count := func(rules int) (writes int) {
		l := lab.New(t)
		o := order{Interfaces: []string{"eth0"}, Mode: loader.ModeTC}
		for i := range rules {
			o.Rules = append(o.Rules, fmt.Sprintf("%d/tcp from 10.%d.%d.0/24,2001:db8:%x::/48", 1024+i, i/256, i%256, i))
		}
		putInForce(t, l, o)
		o.Interfaces = nil
		o.Rules = append(o.Rules, "9/tcp from 192.0.2.0/24")
		maps.BeforeWrite = func() { writes++ }
		defer func() { maps.BeforeWrite = nil }()
		before := policyInode(t, l)
		putInForce(t, l, o)
		if policyInode(t, l) != before {
			t.Error("it was put in force with programs of its own")
		}
		if got := len(status(t, l).Rules); got != len(o.Rules) {
			t.Errorf("%d rules are in force, want %d", got, len(o.Rules))
		}
		down(t, l)
		return writes
	}
	few, many := count(10), count(1000)
	if few != many || many > 10 {
		t.Errorf("%d writes among ten rules, %d among a thousand", few, many)
	}
}

// A policy that has grown by a little is put in force over the maps of the one before the last, with its programs.
func TestGrownPolicyUsesTheStandby(t *testing.T) {
	l := lab.New(t)
	o := order{Interfaces: []string{"eth0"}, Mode: loader.ModeTC}
	for i := range 600 {
		o.Rules = append(o.Rules, fmt.Sprintf("%d/tcp from 10.%d.%d.0/24,10.200.%d.0/24", 1024+i, i/256, i%256, i%256))
	}
	o.Rules = append(o.Rules, "7/udp")
	var loaded []ebpf.ProgramID
	for i := range 4 {
		putInForce(t, l, o)
		o.Rules = append(o.Rules, fmt.Sprintf("%d,%d/udp", 2000+i, 4000+i)) // two ports: more than one step
		prog, err := ebpf.LoadPinnedProgram(pin.Program(filepath.Join(l.PinPath, loader.Schema, "policy"), "eth0", pin.Out), nil)
		if err != nil {
			t.Fatal(err)
		}
		info, err := prog.Info()
		prog.Close()
		if err != nil {
			t.Fatal(err)
		}
		id, _ := info.ID()
		loaded = append(loaded, id)
	}
	if loaded[0] == loaded[1] || loaded[2] != loaded[0] || loaded[3] != loaded[1] {
		t.Errorf("programs %v were in force, and not two by turns", loaded)
	}
	if got := len(status(t, l).Rules); got != len(o.Rules)-1 {
		t.Errorf("%d rules are in force, want %d", got, len(o.Rules)-1)
	}
	down(t, l)
	mustBeClean(t, l)
}

// The maps of a larger policy, used again, may meet programs that are loaded anew.
func TestSmallPolicyAfterALargerOne(t *testing.T) {
	for _, mode := range modes {
		t.Run(string(mode), func(t *testing.T) {
			l := lab.New(t)
			for _, text := range []string{
				"open: [https]",
				"block: [203.0.113.0/24]\nopen: [https limit 1/minute]",
				"open: [https]",
				"open: [22/tcp]",
				"open: [22/tcp limit 2/minute, 80/tcp on eth0]",
			} {
				p, err := policy.Parse("policy", []byte("interfaces: [eth0]\n"+text))
				if err != nil {
					t.Fatal(err)
				}
				up(t, l, mode, p)
				if got := len(status(t, l).Rules); got != len(p.Open) {
					t.Errorf("%q: %d rules are in force", text, got)
				}
			}
		})
	}
}

// admits reports whether the order lets the client in at portOld.
func (o order) admits() bool {
	want := fmt.Sprintf("%d/udp", portOld)
	return o.Watch || slices.Contains(o.Rules, want) || slices.Contains(o.Rules, want+" from "+lab.ClientV4.String())
}

func blockedInForce(t *testing.T, l *lab.Lab) (networks []string) {
	t.Helper()
	s := status(t, l)
	for _, source := range s.Policy.Block {
		networks = append(networks, source.String())
	}
	for _, list := range s.BlockLists {
		if list.Networks4 != len(networks) {
			t.Errorf("%d networks are blocked, and %v recorded", list.Networks4, networks)
		}
	}
	return networks
}

// arrives reports whether the client is let in at portOld.
func (p *probe) arrives(t *testing.T) bool {
	t.Helper()
	arrived, err := p.knock(&p.outside[0], p.outside[0].socket, []int{portOld})
	if err != nil {
		t.Fatal(err)
	}
	return arrived[portOld]
}

// wasKilled lets a copy of this program carry out an order, and reports whether it was killed on the way.
func wasKilled(t *testing.T, l *lab.Lab, o order) bool {
	t.Helper()
	cmd := l.Server.Command(os.Args[0])
	cmd.Env = o.environment(t, l)
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if errors.As(err, &exit) && !exit.Exited() {
		return true
	}
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return false
}
