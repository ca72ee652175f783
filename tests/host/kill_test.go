// SPDX-License-Identifier: Apache-2.0

package host

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/portcullis-firewall/portcullis/loader"
	"github.com/portcullis-firewall/portcullis/maps"
	"github.com/portcullis-firewall/portcullis/maps/leaktest"
	"github.com/portcullis-firewall/portcullis/policy"
	"github.com/portcullis-firewall/portcullis/tests/internal/lab"
)

// A copy of this test program puts a policy in force under strace, which kills it before one system call after the
// other: whatever it leaves behind, one policy is whole.

// victimVariable is set for that copy.
const victimVariable = "PORTCULLIS_TEST_VICTIM"

// order is what the copy is to put in force.
type order struct {
	Interfaces, Rules []string
	Mode              loader.Mode
	NoTCX             bool
	Block             []string
	Watch             bool // drop nothing
	Die               int  // before the write of that number, of those that change rules and block lists in place; 0: never
}

func (o order) options(pinPath string) (loader.Options, error) {
	p, err := policy.Parse("order", fmt.Appendf(nil, "block: [%s]\n", strings.Join(o.Block, ", ")))
	if err != nil {
		return loader.Options{}, err
	}
	for _, text := range o.Rules {
		r, err := policy.ParseRule(text)
		if err != nil {
			return loader.Options{}, err
		}
		p.Open = append(p.Open, r)
	}
	p.WatchOnly = o.Watch
	return loader.Options{PinPath: pinPath, Interfaces: o.Interfaces, Mode: o.Mode, Policy: p, NoTCX: o.NoTCX}, nil
}

// environment makes a copy of this program one that carries out the order.
func (o order) environment(t *testing.T, l *lab.Lab) []string {
	t.Helper()
	text, err := json.Marshal(o)
	if err != nil {
		t.Fatal(err)
	}
	return append(os.Environ(), victimVariable+"="+string(text), loader.PinPathVariable+"="+l.PinPath)
}

func putInForce(t *testing.T, l *lab.Lab, o order) {
	t.Helper()
	options, err := o.options(l.PinPath)
	if err != nil {
		t.Fatal(err)
	}
	upWith(t, l, options)
}

// strace follows the first thread alone, which is to make all the calls.
func init() {
	if os.Getenv(victimVariable) != "" {
		runtime.LockOSThread()
	}
}

func TestMain(m *testing.M) {
	text := os.Getenv(victimVariable)
	if text == "" {
		os.Exit(leaktest.Main(m))
	}
	var o order
	err := json.Unmarshal([]byte(text), &o)
	if err == nil {
		writes := 0
		maps.BeforeWrite = func() {
			if writes++; writes == o.Die {
				_ = unix.Kill(os.Getpid(), unix.SIGKILL)
				select {}
			}
		}
		var options loader.Options
		if options, err = o.options(os.Getenv(loader.PinPathVariable)); err == nil {
			_, err = loader.Up(context.Background(), options)
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

var everyStep = flag.Bool("every-step", false, "kill before every step, and not before some")

// step is a system call that changes what outlives its process.
type step struct {
	call string
	nth  int // of its name
	line string
}

const traced = "bpf,mkdirat,renameat,unlinkat,sendto"

var (
	// What else these calls do is gone with the process, or asks only.
	changes = regexp.MustCompile(`^(bpf\(BPF_(OBJ_PIN|LINK_|MAP_UPDATE|MAP_DELETE|PROG_TEST_RUN)|mkdirat|renameat|unlinkat|` +
		`sendto\(.*RTM_(NEW|DEL)(TFILTER|QDISC))`)
	failed   = regexp.MustCompile(` = -1 E`)
	callName = regexp.MustCompile(`^([a-z0-9]+)\(`)
	touching = regexp.MustCompile(`BPF_LINK_|TFILTER`)
)

// straced prepares the copy under strace.
func straced(t *testing.T, l *lab.Lab, o order, args ...string) *exec.Cmd {
	t.Helper()
	cmd := l.Server.Command("strace", append(append([]string{"-qq"}, args...), os.Args[0])...)
	cmd.Env = o.environment(t, l)
	return cmd
}

// stepsOf lets the copy do its work to the end, and returns the steps that it took: all from the first to the
// last that touches an interface, and some of the others, which make and move pins.
func stepsOf(t *testing.T, l *lab.Lab, o order) (steps []step) {
	t.Helper()
	lab.NeedProgram(t, "strace")
	log := filepath.Join(t.TempDir(), "strace")
	if out, err := straced(t, l, o, "-e", "trace="+traced, "-o", log).CombinedOutput(); err != nil {
		t.Fatalf("under strace: %v\n%s", err, out)
	}
	text, err := os.ReadFile(log)
	if err != nil {
		t.Fatal(err)
	}
	count := make(map[string]int)
	for line := range strings.Lines(string(text)) {
		m := callName.FindStringSubmatch(line)
		if m == nil {
			continue
		}
		count[m[1]]++
		if changes.MatchString(line) && !failed.MatchString(line) {
			steps = append(steps, step{m[1], count[m[1]], strings.TrimSpace(line)})
		}
	}
	if *everyStep {
		return steps
	}
	touches := func(s step) bool { return touching.MatchString(s.line) }
	first := slices.IndexFunc(steps, touches)
	last := len(steps) - 1
	for last > first && !touches(steps[last]) {
		last--
	}
	var some []step
	for i, s := range steps {
		if first <= i && i <= last+1 || i%8 == 0 {
			some = append(some, s)
		}
	}
	return some
}

// killedAt lets the copy begin, and kills it before it takes a step.
func killedAt(t *testing.T, l *lab.Lab, o order, s step) {
	t.Helper()
	cmd := straced(t, l, o, "-o", "/dev/null", "-e", "trace="+s.call,
		"-e", fmt.Sprintf("inject=%s:signal=KILL:when=%d", s.call, s.nth))
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || len(out) > 0 {
		t.Fatalf("before call %d of %s (%s) it is not killed, but ends with %v\n%s", s.nth, s.call, s.line, err, out)
	}
}

// TestKilledApply: before the next command comes by, and behind it, the policy is the old one or the new one, of both
// directions and at all interfaces, and in between nothing is lost and nothing gets in.
func TestKilledApply(t *testing.T) {
	for _, c := range []struct {
		name  string
		modes [2]loader.Mode
		noTCX bool
	}{
		{"native and tcx", [2]loader.Mode{loader.ModeNative, loader.ModeTC}, false},
		{"clsact", [2]loader.Mode{loader.ModeTC, loader.ModeTC}, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			lab.NeedsVeth(t, "a second interface")
			l := lab.New(t)
			inside := l.AddInside(t)
			old := order{Rules: []string{"7/udp", "8/udp", "9/udp"}, NoTCX: c.noTCX}
			new := order{Rules: []string{"7/udp", "8/udp", "10/udp"}, NoTCX: c.noTCX}
			p := newProbe(t, l, inside)
			for i, mode := range c.modes {
				first := old
				first.Interfaces, first.Mode = []string{fmt.Sprintf("eth%d", i)}, mode
				putInForce(t, l, first)
			}
			putInForce(t, l, old) // from now on there is one on standby
			steps := stepsOf(t, l, new)
			p.mustSee(t, "10/udp")
			p.keepTalking(t)
			var kept, replaced int
			for _, s := range steps {
				putInForce(t, l, old)
				p.mustSee(t, "9/udp")
				killedAt(t, l, new, s)
				rule := p.see(t)
				if got := rulesInForce(t, l); !strings.HasSuffix(got, " "+rule) {
					t.Fatalf("killed before %s: packets say that %s is open, then status says %s", s.line, rule, got)
				}
				p.mustSee(t, rule)
				if rule == "9/udp" {
					kept++
				} else {
					replaced++
				}
			}
			p.mustHaveHeard(t)
			t.Logf("killed before each of %d steps: the old policy stayed %d times, the new one was in force %d times", len(steps), kept, replaced)
			if kept == 0 || replaced == 0 {
				t.Error("one of both never was")
			}
			down(t, l)
			mustBeClean(t, l)
		})
	}
}

func rulesInForce(t *testing.T, l *lab.Lab) string {
	t.Helper()
	var rules []string
	for _, r := range status(t, l).Rules {
		rules = append(rules, r.Rule)
	}
	return strings.Join(rules, " ")
}

// TestKilledFirstUp: the host has no filter or a whole one, and the next command finds out which.
func TestKilledFirstUp(t *testing.T) {
	l := lab.New(t)
	p := newProbe(t, l)
	o := order{Interfaces: []string{"eth0"}, Rules: []string{"7/udp", "9/udp"}, Mode: loader.ModeNative}
	steps := stepsOf(t, l, o)
	down(t, l)
	var running, none int
	for _, s := range steps {
		killedAt(t, l, o, s)
		before := p.see(t)
		var after *loader.Status
		err := l.Server.Try(func() error {
			f, err := loader.Open(context.Background(), l.PinPath)
			if err != nil {
				return err
			}
			defer f.Close()
			after, err = f.Status()
			return err
		})
		switch {
		case errors.Is(err, loader.ErrNotRunning) && before == everything:
			none++
			p.mustSee(t, everything)
			os.RemoveAll(l.PinPath) // the next one is to take the same steps
		case err == nil && before == "9/udp" && len(after.Interfaces) == 1 && after.Interfaces[0].Present && len(after.Rules) == 2:
			running++
			p.mustSee(t, "9/udp")
			down(t, l)
		default:
			t.Fatalf("killed before %s: packets say that %s is open, then: %+v, %v", s.line, before, after, err)
		}
	}
	t.Logf("killed before each of %d steps: %d whole filters, %d none", len(steps), running, none)
	if running == 0 || none == 0 {
		t.Error("one of both never was")
	}
	putInForce(t, l, o)
	down(t, l)
	mustBeClean(t, l)
}
