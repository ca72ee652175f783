// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/portcullis-firewall/portcullis/host"
	"github.com/portcullis-firewall/portcullis/loader"
	"github.com/portcullis-firewall/portcullis/policy"
)

// fake is a firewall without a kernel. It keeps a list of what was asked of it.
type fake struct {
	mu      sync.Mutex
	done    []string
	running *policy.Policy
	foreign string // an interface that another XDP program holds
	broken  string // an interface that cannot be filtered
	slow    []loader.Interface
	changed loader.HostChanges
	past    []loader.Interface // past which packets come
	unready int                // that are to be loaded
	live    int
	max     int // flows that the table was made for
	refused uint64
	ifaces  []loader.Interface
	changes chan host.Change
}

func (f *fake) did(format string, args ...any) {
	f.done = append(f.done, fmt.Sprintf(format, args...))
}

func (f *fake) Up(o loader.Options) (*loader.UpReport, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.did("up %s %s", strings.Join(o.Interfaces, ","), o.Mode)
	switch {
	case f.running == nil && (o.Running || o.Policy == nil):
		return nil, loader.ErrNotRunning
	case slices.Contains(o.Interfaces, f.foreign) && o.Mode == loader.ModeAuto:
		return nil, loader.ErrForeignProgram
	case slices.Contains(o.Interfaces, f.broken):
		return nil, errors.New("it cannot be filtered")
	}
	if o.Policy == nil {
		f.changed = loader.HostChanges{}
		return &loader.UpReport{}, nil
	}
	var names []string
	if f.running != nil {
		names = f.running.Interfaces
	}
	f.running = o.Policy.Clone()
	f.running.Interfaces = append(names, o.Interfaces...)
	return &loader.UpReport{}, nil
}

func (f *fake) Open(string) (Filter, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.running == nil {
		return nil, loader.ErrNotRunning
	}
	return f, nil
}

func (f *fake) Attach(string, loader.Mode) (*loader.AttachReport, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.did("attach")
	report := &loader.AttachReport{Slow: f.slow}
	f.slow = nil
	return report, nil
}

func (f *fake) Prepare(string) (bool, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.unready--
	return f.unready >= 0, nil
}

func (f *fake) HostChanges() (loader.HostChanges, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.changed, nil
}

// Bypassed is a look at once, and each finds what there is but once.
func (f *fake) Bypassed(context.Context, time.Duration) ([]loader.Interface, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	past := f.past
	f.past = nil
	return past, nil
}

func (f *fake) Wants(_, iface string) bool                        { return iface == "eth0" }
func (f *fake) Watch(context.Context) (<-chan host.Change, error) { return f.changes, nil }
func (f *fake) DefaultInterface() (string, error)                 { return "eth9", nil }
func (f *fake) Close() error                                      { return nil }
func (f *fake) Config() string                                    { return "" }
func (f *fake) Interfaces() ([]loader.Interface, error)           { return f.ifaces, nil }
func (f *fake) Saved() (*policy.Policy, error)                    { return f.running.Clone(), nil }
func (f *fake) SyncLocal() error                                  { return nil }
func (f *fake) Sweep() (live, removed int, err error)             { return f.live, 0, nil }

func (f *fake) Refusals() (loader.Refusals, error) {
	return loader.Refusals{Packets: f.refused, Max: f.max, Wanted: f.running.FlowLimit()}, nil
}

// list returns what was done, and forgets it.
func (f *fake) list() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	done := f.done
	f.done = nil
	return done
}

func options(t *testing.T, text string) (Options, *bytes.Buffer) {
	t.Helper()
	dir := t.TempDir()
	file := filepath.Join(dir, "portcullis.yaml")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	log := &bytes.Buffer{}
	return Options{
		PinPath:   filepath.Join(dir, "pins"),
		Config:    file,
		Mode:      loader.ModeAuto,
		BuiltIn:   func() (*policy.Policy, error) { return policy.Default(), nil },
		LockFile:  func(string) func() { return func() {} },
		RunDir:    dir,
		Deadlines: filepath.Join(dir, "deadlines"),
		Log:       &Log{log, false},
	}, log
}

// runs runs an agent until the test ends it. To meet a change is to have seen it.
func runs(t *testing.T, f *fake, o Options) (meets func(host.Change), end func() error) {
	f.changes = make(chan host.Change)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- Run(ctx, f, o) }()
	meets = func(c host.Change) {
		t.Helper()
		select {
		case f.changes <- c:
		case err := <-ended:
			t.Fatalf("the agent has ended: %v", err)
		}
	}
	return meets, func() error {
		cancel()
		return <-ended
	}
}

func TestChanges(t *testing.T) {
	o, log := options(t, "interfaces: [eth0]\n")
	f := &fake{unready: 3}
	tell, end := runs(t, f, o)
	// meets tells the agent of a change, and checks what it does at once.
	meets := func(c host.Change, want ...string) {
		t.Helper()
		tell(c)
		tell(host.Change{}) // so that the one before has been dealt with
		if done := f.list(); !slices.Equal(done, want) {
			t.Errorf("%+v: the agent did %q, want %q", c, done, want)
		}
	}
	meets(host.Change{}, "up eth0 auto", "attach") // which is how it starts
	meets(host.Change{})
	meets(host.Change{Link: "veth7"})
	meets(host.Change{Link: "eth0"}, "attach")
	meets(host.Change{Lost: true}, "attach")

	f.mu.Lock()
	f.slow = []loader.Interface{{Name: "eth0", Mode: loader.ModeGeneric}}
	f.mu.Unlock()
	meets(host.Change{Link: "eth0"}, "attach", "up eth0 generic")

	f.mu.Lock()
	f.changed.MAC = "eth0"
	f.mu.Unlock()
	tell(host.Change{})
	var done []string
	for end := time.Now().Add(10 * time.Second); len(done) == 0 && time.Now().Before(end); time.Sleep(settleTime / 10) {
		done = f.list()
	}
	if want := []string{"up  "}; !slices.Equal(done, want) {
		t.Errorf("the agent did %q, want %q", done, want)
	}
	if err := end(); err != nil {
		t.Error(err)
	}
	if f.unready >= 0 {
		t.Errorf("%d unready were not loaded", f.unready+1)
	}
	if strings.Contains(log.String(), "error") {
		t.Errorf("the log is\n%s", log)
	}
}

// Where packets come past the filter the agent goes over to TC, once, and nowhere else.
func TestGoesOverToTC(t *testing.T) {
	o, log := options(t, "interfaces: [eth0]\n")
	f := &fake{past: []loader.Interface{{Name: "eth0", Mode: loader.ModeNative}, {Name: "eth1", Mode: loader.ModeTC}}}
	tell, end := runs(t, f, o)
	var done []string
	for end := time.Now().Add(10 * time.Second); !slices.Contains(done, "up eth0 tc") && time.Now().Before(end); time.Sleep(settleTime / 10) {
		tell(host.Change{Link: "eth0"})
		done = append(done, f.list()...)
	}
	tell(host.Change{Link: "eth0"})
	time.Sleep(3 * settleTime)
	done = append(done, f.list()...)
	if err := end(); err != nil {
		t.Error(err)
	}
	ups := slices.DeleteFunc(done, func(what string) bool { return !strings.HasPrefix(what, "up") })
	if want := []string{"up eth0 auto", "up eth0 tc"}; !slices.Equal(ups, want) {
		t.Errorf("the agent did %q, want %q", ups, want)
	}
	for _, want := range []string{"eth0: packets came past the filter", "error: eth1: packets reach this host past the filter"} {
		if !strings.Contains(log.String(), want) {
			t.Errorf("the log has no %q:\n%s", want, log)
		}
	}
}

// The end of a trial would undo what the agent does meanwhile.
func TestTheFileWaitsForATrial(t *testing.T) {
	o, log := options(t, "interfaces: [eth0]\n")
	f := &fake{}
	meets, end := runs(t, f, o)
	meets(host.Change{})
	turn, err := loader.TakeTurn(o.Deadlines, o.PinPath)
	if err != nil {
		t.Fatal(err)
	}
	f.list()
	turn.Try = &loader.Try{File: "new.yaml", Due: loader.After(time.Hour)}
	if err := turn.Save(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(o.Config, []byte("interfaces: [eth0]\nopen: [http]\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	turn.Release()
	time.Sleep(3 * settleTime)
	meets(host.Change{})
	if err := end(); err != nil {
		t.Error(err)
	}
	if done := f.list(); len(done) > 0 || !strings.Contains(log.String(), "new.yaml is on trial") {
		t.Errorf("the agent did %q, and the log is\n%s", done, log)
	}
}

func TestTheKernelFallsSilent(t *testing.T) {
	o, _ := options(t, "interfaces: [eth0]\n")
	f := &fake{changes: make(chan host.Change)}
	close(f.changes)
	if err := Run(context.Background(), f, o); err == nil {
		t.Error("an agent that learns nothing more goes on as if all were well")
	}
}

// Where one interface cannot be filtered, the others are all the same.
func TestOneInterfaceFails(t *testing.T) {
	o, log := options(t, "interfaces: [eth0, eth1, eth2]\n")
	f := &fake{foreign: "eth1", broken: "eth2"}
	meets, end := runs(t, f, o)
	meets(host.Change{})
	if err := end(); err != nil {
		t.Error(err)
	}
	if got, want := f.running.Interfaces, []string{"eth0", "eth1"}; !slices.Equal(got, want) {
		t.Errorf("filtered are %q, want %q", got, want)
	}
	if done := f.list(); !slices.Contains(done, "up eth1 tc") || slices.Contains(done, "up eth2 tc") {
		t.Errorf("the agent did %q, want eth1 in TC mode, behind the program that holds it", done)
	}
	if !strings.Contains(log.String(), "error: it cannot be filtered") {
		t.Errorf("the log is\n%s", log)
	}

	o, _ = options(t, "interfaces: [eth2]\n")
	if err := Run(context.Background(), &fake{broken: "eth2"}, o); err == nil {
		t.Error("an agent that can filter nothing goes on as if all were well")
	}
}

func TestSweepsOftenerWhenFull(t *testing.T) {
	o, _ := options(t, "")
	for live, want := range map[int]time.Duration{0: sweepTime, 512: sweepTime, 513: sweepTimeFull} {
		f := &fake{live: live, max: 1024, running: &policy.Policy{MaxFlows: 4096}} // which holds from the next up on
		if got := (&Agent{Options: o, firewall: f}).sweep(); got != want {
			t.Errorf("%d live flows of 1024: the next sweep is in %v, want %v", live, got, want)
		}
	}
}

// What is refused is told at once, with what to set, and then every ten minutes at most.
func TestTellsOfRefusedFlows(t *testing.T) {
	o, log := options(t, "")
	f := &fake{max: 1024, refused: 7, running: &policy.Policy{MaxFlows: 1024}}
	a := &Agent{Options: o, firewall: f}
	a.watchRefusals()
	sweeps := func(refused uint64, want string) {
		t.Helper()
		log.Reset()
		f.refused = refused
		a.sweep()
		if got := log.String(); (got == "") != (want == "") || !strings.Contains(got, want) {
			t.Errorf("%d refused: the agent says %q, want %q", refused, got, want)
		}
	}
	sweeps(7, "") // before the agent ran
	sweeps(10, "warning: the flow table, for 1024 flows, had no room for 3 packets that begin a flow, and what answered was dropped (over TCP it shows as \"invalid state\"): "+
		"set \"flows: {max: 2048}\" in the policy file (270 kB of memory)")
	sweeps(4000, "")
	a.refusals.at = a.refusals.at.Add(-refusalTime)
	sweeps(5010, "for 5000 packets that begin a flow, and what answered was dropped (over TCP it shows as \"invalid state\"): set \"flows: {max: 4096}\"")
	a.refusals.at = a.refusals.at.Add(-refusalTime)
	sweeps(5010, "")
	sweeps(1, "for 1 packet that begins a flow") // counted anew since a down
	a.refusals.at = a.refusals.at.Add(-refusalTime)
	f.running.MaxFlows = 4096
	sweeps(2, "the policy in force asks for 4096, and \"portcullis down\" and \"portcullis up\" re-create the table")
}

func TestLog(t *testing.T) {
	var b bytes.Buffer
	for _, journal := range []bool{false, true} {
		l := &Log{&b, journal}
		l.Error("%v", errors.Join(errors.New("one"), errors.New("two")))
		l.Warn("three")
		l.Info("four")
	}
	want := "portcullis: error: one\nportcullis: error: two\nportcullis: warning: three\nportcullis: four\n<3>one\n<3>two\n<4>three\n<6>four\n"
	if b.String() != want {
		t.Errorf("the log is %q, want %q", b.String(), want)
	}
}

// A filter of a container must not become that of the host at the next boot.
func TestWhereTheLastGoodPolicyIsKept(t *testing.T) {
	for _, c := range []struct{ pinPath, variable, want string }{
		{loader.DefaultPinPath, "", "/var/lib/portcullis/last-good.yaml"},
		{"/sys/fs/bpf/web", "", ""},
		{"/sys/fs/bpf/web", "/srv/web", "/srv/web/last-good.yaml"},
	} {
		if got := LastGoodOf(c.pinPath, func(string) string { return c.variable }); string(got) != c.want {
			t.Errorf("%+v: got %q", c, got)
		}
	}
}
