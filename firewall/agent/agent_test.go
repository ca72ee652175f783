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

	"github.com/portcullis-firewall/portcullis/firewall"
	"github.com/portcullis-firewall/portcullis/firewall/firewalltest"
	"github.com/portcullis-firewall/portcullis/firewall/schedule"
	"github.com/portcullis-firewall/portcullis/host"
	"github.com/portcullis-firewall/portcullis/loader"
	"github.com/portcullis-firewall/portcullis/maps"
	"github.com/portcullis-firewall/portcullis/policy"
)

// fake is a kernel that keeps a list of what was asked of it.
type fake struct {
	firewalltest.Kernel
	mu      sync.Mutex
	done    []string
	foreign string // an interface that another XDP program holds
	broken  string // an interface that cannot be filtered
	slow    []loader.Interface
	held    int // times that another command is at work when the filter is to be opened
	locked  int // times that another command is at work when an interface is to be filtered
	changed loader.HostChanges
	past    []loader.Interface // past which packets come
	unready int                // that are to be loaded
	live    int
	ifaces  []loader.Interface
	changes chan host.Change
	counts  uint64 // of packets at a closed port, between two samples
	counted uint64
}

// Sample implements firewall.Filter: each finds more counted.
func (f *fake) Sample(*loader.Sample) (*loader.Sample, error) {
	f.counted += f.counts
	return &loader.Sample{Counters: []loader.CounterStatus{{Verdict: maps.Drop, Reason: "closed port", Packets: f.counted}}}, nil
}

func (f *fake) did(format string, args ...any) {
	f.done = append(f.done, fmt.Sprintf(format, args...))
}

func (f *fake) Up(ctx context.Context, o loader.Options) (*loader.UpReport, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.did("up %s %s", strings.Join(o.Interfaces, ","), o.Mode)
	switch {
	case slices.Contains(o.Interfaces, f.foreign) && o.Mode == loader.ModeAuto:
		return nil, loader.ErrForeignProgram
	case slices.Contains(o.Interfaces, f.broken):
		return nil, errors.New("it cannot be filtered")
	}
	if f.Running != nil && o.Policy == nil {
		f.changed = loader.HostChanges{}
	}
	report, err := f.Kernel.Up(ctx, o)
	if err != nil {
		return nil, err
	}
	report.Warnings, report.Interfaces = nil, nil
	return report, nil
}

func (f *fake) Open(context.Context, string) (firewall.Filter, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.held > 0 {
		f.held--
		return nil, fmt.Errorf("%w: process 7 has held the lock", firewall.ErrLocked)
	}
	if f.Running == nil {
		return nil, loader.ErrNotRunning
	}
	return f, nil
}

func (f *fake) Attach(context.Context, string, loader.Mode) (*loader.AttachReport, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.did("attach")
	if f.locked > 0 {
		f.locked--
		return nil, firewall.ErrLocked
	}
	report := &loader.AttachReport{Slow: f.slow}
	f.slow = nil
	return report, nil
}

func (f *fake) Prepare(context.Context, string) (bool, error) {
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
func (f *fake) Interfaces() ([]loader.Interface, error)           { return f.ifaces, nil }
func (f *fake) Sweep() (live, removed int, err error)             { return f.live, 0, nil }

// list returns what was done, and forgets it.
func (f *fake) list() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	done := f.done
	f.done = nil
	return done
}

// setting is what an agent runs in.
type setting struct {
	Options
	kernel  *fake
	pinPath string
	runDir  string
	file    string // the policy file
	log     *bytes.Buffer
}

func newSetting(t *testing.T, f *fake, text string) *setting {
	t.Helper()
	dir := t.TempDir()
	s := &setting{kernel: f, pinPath: filepath.Join(dir, "pins"), runDir: filepath.Join(dir, "run"), file: filepath.Join(dir, "portcullis.yaml"),
		log: &bytes.Buffer{}}
	s.writes(t, text)
	s.Options = Options{
		Firewall: firewall.New(firewall.Options{PinPath: s.pinPath, Config: s.file, ConfigGiven: true, Kernel: f, RunDir: s.runDir,
			Session: func() string { return "" }}),
		Mode: loader.ModeAuto,
		Log:  &Log{w: s.log, journal: false},
	}
	return s
}

// writes writes the policy file.
func (s *setting) writes(t *testing.T, text string) {
	t.Helper()
	if err := os.WriteFile(s.file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// runs runs an agent until the test ends it. To meet a change is to have seen it.
func (s *setting) runs(t *testing.T) (meets func(host.Change), end func() error) {
	f := s.kernel
	f.changes = make(chan host.Change)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- Run(ctx, s.Options) }()
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
	f := &fake{unready: 3}
	s := newSetting(t, f, "interfaces: [eth0]\n")
	log := s.log
	tell, end := s.runs(t)
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

// An interface that could not be filtered, because another command was at work, is filtered soon after.
func TestAttachesAgainAfterACommand(t *testing.T) {
	f := &fake{}
	s := newSetting(t, f, "interfaces: [eth0]\n")
	tell, end := s.runs(t)
	tell(host.Change{})
	f.list()
	f.mu.Lock()
	f.locked = 2
	f.mu.Unlock()
	tell(host.Change{Link: "eth0"})
	attached := 0
	for end := time.Now().Add(10 * time.Second); attached < 3 && time.Now().Before(end); time.Sleep(settleTime / 10) {
		for _, done := range f.list() {
			if done == "attach" {
				attached++
			}
		}
	}
	if attached != 3 {
		t.Errorf("it has tried %d times, want 3", attached)
	}
	if err := end(); err != nil {
		t.Error(err)
	}
}

// A command that holds the filter for long keeps the agent from nothing but that: it comes back to it, and complains of
// nothing.
func TestComesBackToAFilterThatIsHeld(t *testing.T) {
	f := &fake{held: 3} // the start, and twice the look at it
	s := newSetting(t, f, "interfaces: [eth0]\n")
	tell, end := s.runs(t)
	var done []string
	for end := time.Now().Add(10 * time.Second); !slices.Contains(done, "up eth0 auto") && time.Now().Before(end); time.Sleep(settleTime / 10) {
		done = append(done, f.list()...)
	}
	f.mu.Lock()
	f.held, f.changed.MTU = 2, "eth0"
	f.mu.Unlock()
	tell(host.Change{})
	for end := time.Now().Add(10 * time.Second); !slices.Contains(done, "up  ") && time.Now().Before(end); time.Sleep(settleTime / 10) {
		done = append(done, f.list()...)
	}
	if err := end(); err != nil {
		t.Error(err)
	}
	if !slices.Contains(done, "up eth0 auto") || !slices.Contains(done, "up  ") {
		t.Errorf("the agent did %q", done)
	}
	if strings.Contains(s.log.String(), "error") {
		t.Errorf("the log is\n%s", s.log)
	}
}

// Where packets come past the filter the agent goes over to TC, once, and nowhere else.
func TestGoesOverToTC(t *testing.T) {
	f := &fake{past: []loader.Interface{{Name: "eth0", Mode: loader.ModeNative}, {Name: "eth1", Mode: loader.ModeTC}}}
	s := newSetting(t, f, "interfaces: [eth0]\n")
	log := s.log
	tell, end := s.runs(t)
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
	f := &fake{}
	s := newSetting(t, f, "interfaces: [eth0]\n")
	log := s.log
	meets, end := s.runs(t)
	meets(host.Change{})
	f.list()
	store := schedule.NewStore(filepath.Join(s.runDir, filepath.Base(schedule.Dir)), s.pinPath)
	if err := store.Save(&schedule.Schedule{Trial: &schedule.Trial{File: "new.yaml", Due: schedule.After(time.Hour)}}); err != nil {
		t.Fatal(err)
	}
	s.writes(t, "interfaces: [eth0]\nopen: [http]\n")
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
	f := &fake{changes: make(chan host.Change)}
	close(f.changes)
	if err := Run(context.Background(), newSetting(t, f, "interfaces: [eth0]\n").Options); err == nil {
		t.Error("an agent that learns nothing more goes on as if all were well")
	}
}

// Where one interface cannot be filtered, the others are all the same.
func TestOneInterfaceFails(t *testing.T) {
	f := &fake{foreign: "eth1", broken: "eth2"}
	s := newSetting(t, f, "interfaces: [eth0, eth1, eth2]\n")
	log := s.log
	meets, end := s.runs(t)
	meets(host.Change{})
	if err := end(); err != nil {
		t.Error(err)
	}
	if got, want := f.Running.Interfaces, []string{"eth0", "eth1"}; !slices.Equal(got, want) {
		t.Errorf("filtered are %q, want %q", got, want)
	}
	if done := f.list(); !slices.Contains(done, "up eth1 tc") || slices.Contains(done, "up eth2 tc") {
		t.Errorf("the agent did %q, want eth1 in TC mode, behind the program that holds it", done)
	}
	if !strings.Contains(log.String(), "error: it cannot be filtered") {
		t.Errorf("the log is\n%s", log)
	}

	only := newSetting(t, &fake{broken: "eth2"}, "interfaces: [eth2]\n")
	if err := Run(context.Background(), only.Options); err == nil {
		t.Error("an agent that can filter nothing goes on as if all were well")
	}
}

func TestSweepsOftenerWhenFull(t *testing.T) {
	for live, want := range map[int]time.Duration{0: sweepTime, 512: sweepTime, 513: sweepTimeFull} {
		f := &fake{live: live}
		f.Running, f.Table.Max = &policy.Policy{MaxFlows: 4096}, 1024 // the policy's holds from the next up on
		if got := newAgent(newSetting(t, f, "").Options).sweep(context.Background()); got != want {
			t.Errorf("%d live flows of 1024: the next sweep is in %v, want %v", live, got, want)
		}
	}
}

// What is refused is told at once, with what to set, and then every ten minutes at most.
func TestTellsOfRefusedFlows(t *testing.T) {
	f := &fake{}
	f.Running, f.Table.Max, f.Table.Full = &policy.Policy{MaxFlows: 1024}, 1024, 7
	s := newSetting(t, f, "")
	log, a := s.log, newAgent(s.Options)
	a.watchRefusals(context.Background())
	sweeps := func(refused uint64, want string) {
		t.Helper()
		log.Reset()
		f.Table.Full = refused
		a.sweep(context.Background())
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
	f.Running.MaxFlows = 4096
	sweeps(2, "the policy in force asks for 4096, and \"portcullis down\" and \"portcullis up\" re-create the table")
}

func TestLog(t *testing.T) {
	var b bytes.Buffer
	for _, journal := range []bool{false, true} {
		l := &Log{w: &b, journal: journal}
		l.Error("%v", errors.Join(errors.New("one"), errors.New("two")))
		l.Warn("three")
		l.Info("four")
	}
	want := "portcullis: error: one\nportcullis: error: two\nportcullis: warning: three\nportcullis: four\n<3>one\n<3>two\n<4>three\n<6>four\n"
	if b.String() != want {
		t.Errorf("the log is %q, want %q", b.String(), want)
	}
}

// What the policy logs is written, the first packet of a source and then a sum; without the key nothing is, nor what came
// before the agent began, or under a reason that the policy does not name any more.
func TestJournal(t *testing.T) {
	syn := append(make([]byte, 12), 8, 0, 0x45, 0, 0, 40, 0, 0, 0, 0, 64, 6, 0, 0, 198, 51, 100, 7, 192, 0, 2, 1, 0x9c, 0x40, 0, 23, 0, 0, 0, 0, 0, 0, 0, 0, 0x50, 2, 0, 0, 0, 0, 0, 0)
	first := "closed port on eth0: tcp 198.51.100.7:40000 > 192.0.2.1:23 syn, 54 bytes\nportcullis: closed port: at least 2 more from 198.51.100.7 in "
	for _, c := range []struct{ key, want string }{{"log: drops\n", first}, {"log: [closed port]\n", first}, {"", ""}} {
		f := &fake{counts: 1000}
		packet := loader.LoggedPacket{Time: time.Now().Add(time.Second), Interface: "eth0", Reason: "closed port", Length: 54, Ethernet: true, Frame: syn}
		old, unnamed := packet, packet
		old.Time, old.Interface = time.Now().Add(-time.Millisecond), "eth1"
		unnamed.Reason, unnamed.Interface = "invalid flags", "eth2"
		f.Journaled = []loader.LoggedPacket{old, unnamed, packet, packet, packet}
		s := newSetting(t, f, "interfaces: [eth0]\n"+c.key)
		tell, end := s.runs(t)
		for range 10 {
			time.Sleep(settleTime)
			tell(host.Change{})
		}
		if err := end(); err != nil {
			t.Error(err)
		}
		got := s.log.String()
		if n := strings.Count(got, "closed port on eth0"); n != strings.Count(c.want, "closed port on eth0") || !strings.Contains(got, c.want) {
			t.Errorf("%q: the log is\n%s", c.key, s.log)
		}
		if strings.Contains(got, "eth1") || strings.Contains(got, "eth2") {
			t.Errorf("%q: the log has what is old, or not to be in it:\n%s", c.key, s.log)
		}
		if c.want != "" && !strings.Contains(got, "; 1,000 dropped for closed port\n") {
			t.Errorf("%q: how many packets came is not said:\n%s", c.key, s.log)
		}
	}
}
