// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/portcullis-firewall/portcullis/host"
	"github.com/portcullis-firewall/portcullis/loader"
	"github.com/portcullis-firewall/portcullis/policy"
)

// fake is a firewall without a kernel.
type fake struct {
	running   *policy.Policy // nil: nothing runs
	runtime   []string       // rules that are not in the file
	config    string
	sshd      []uint16
	route     string
	rooms     int // rules that have room; 0: any number
	live      int // connections that a close meets
	flows     []loader.Flow
	table     loader.FlowsStatus // without what flows tell
	counters  []loader.CounterStatus
	logged    []loader.LoggedPacket
	clients   []host.Connection // of sshd
	arrivals  []string          // of their packets
	fail      error             // of what changes something
	ups       []loader.Options
	downs     [][]string
	deadlines string       // directory
	noKeeper  error        // why no keeper can be started
	reverted  []string     // files whose trial was ended
	arrived   host.Session // of the user
	pty       bool
	past      []loader.Interface // past which packets come
	pastErr   error
	absent    []string          // interfaces that do not exist
	behind    map[string]string // what filters the packets of an interface that is not filtered by itself
}

func (f *fake) Up(o loader.Options) (*loader.UpReport, error) {
	if f.fail != nil {
		return nil, f.fail
	}
	if o.Running && f.running == nil {
		return nil, loader.ErrNotRunning
	}
	f.ups = append(f.ups, o)
	report := &loader.UpReport{Updated: f.running != nil, Warnings: []string{"something to know"}}
	interfaces := o.Interfaces
	if f.running != nil {
		interfaces = union(interfaces, f.running.Interfaces)
	}
	f.running, f.config, f.runtime, f.rooms = o.Policy.Clone(), o.Config, nil, 0
	f.running.Interfaces = interfaces
	for _, r := range o.Runtime {
		f.runtime = append(f.runtime, r.String())
	}
	report.Interfaces = f.interfaces()
	return report, nil
}

func (f *fake) interfaces() (out []loader.Interface) {
	for _, name := range f.running.Interfaces {
		out = append(out, loader.Interface{Name: name, Mode: loader.ModeNative, Egress: "tcx", Present: true})
	}
	return out
}

func (f *fake) Down(_ string, interfaces []string) (*loader.DownReport, error) {
	if f.running == nil {
		return nil, loader.ErrNotRunning
	}
	f.downs = append(f.downs, interfaces)
	report := &loader.DownReport{Absent: f.absent, Behind: f.behind}
	for _, name := range f.running.Interfaces {
		if len(interfaces) == 0 || slices.Contains(interfaces, name) {
			report.Interfaces = append(report.Interfaces, name)
		} else {
			report.Remaining = append(report.Remaining, name)
		}
	}
	return report, nil
}

func (f *fake) OpenToChange(pinPath string) (filter, error) { return f.Open(pinPath) }

func (f *fake) Open(string) (filter, error) {
	if f.running == nil {
		return nil, fmt.Errorf("%w (nothing is pinned)", loader.ErrNotRunning)
	}
	return f, nil
}

func (f *fake) DefaultInterface() (string, error) {
	if f.route == "" {
		return "", errors.New("there is no default route")
	}
	return f.route, nil
}

func (f *fake) SSHPorts() ([]uint16, error) { return f.sshd, nil }
func (f *fake) ConnectionsAt(ports []uint16) ([]host.Connection, error) {
	return slices.DeleteFunc(slices.Clone(f.clients), func(c host.Connection) bool { return !slices.Contains(ports, c.Local.Port()) }), nil
}

func (f *fake) Arrivals(host.Connection) ([]string, error) { return f.arrivals, nil }

func (f *fake) Interfaces() ([]loader.Interface, error) { return f.interfaces(), nil }

func (f *fake) RuntimeRules() (out []policy.Rule, err error) {
	for _, r := range f.running.Open {
		if slices.Contains(f.runtime, r.String()) {
			out = append(out, r)
		}
	}
	return out, nil
}

func (f *fake) Bypassed(context.Context, time.Duration) ([]loader.Interface, error) {
	return f.past, f.pastErr
}

func (f *fake) Close() error           { return nil }
func (f *fake) Policy() *policy.Policy { return f.running.Clone() }
func (f *fake) Config() string         { return f.config }

func (f *fake) Saved() (*policy.Policy, error) {
	p := f.Policy()
	p.Open = slices.DeleteFunc(p.Open, func(r policy.Rule) bool { return slices.Contains(f.runtime, r.String()) })
	return p, nil
}

func (f *fake) Snapshot() (*loader.Snapshot, error) {
	s := &loader.Snapshot{Interfaces: f.running.Interfaces, Config: f.config}
	for i, r := range f.running.Open {
		s.Rules = append(s.Rules, loader.SnapshotRule{ID: uint16(i + 1), Rule: r.String(), Runtime: slices.Contains(f.runtime, r.String())})
	}
	return s, nil
}

func (f *fake) Deadlines(pinPath string) (*loader.Deadlines, error) {
	return loader.ReadDeadlines(f.deadlines, pinPath)
}

func (f *fake) TakeTurn(pinPath string) (*loader.Turn, error) {
	return loader.TakeTurn(f.deadlines, pinPath)
}

func (f *fake) StartKeeper(*loader.Turn, string) error { return f.noKeeper }

func (f *fake) Revert(turn *loader.Turn) error {
	f.reverted = append(f.reverted, turn.Try.File)
	return turn.EndTry(true)
}

func (f *fake) FindSession() (*host.Session, error) { return &f.arrived, nil }
func (f *fake) OnPseudoTerminal() bool              { return f.pty }

func (f *fake) Status() (*loader.Status, error) {
	saved, err := f.Saved()
	if err != nil {
		return nil, err
	}
	s := &loader.Status{Interfaces: f.interfaces(), Policy: f.Policy(), Saved: saved, Config: f.config, Counters: f.counters,
		Flows: f.table}
	s.Flows.Max = f.maxFlows()
	for _, flow := range f.flows {
		switch {
		case !flow.Answered:
			s.Flows.Pending++
		case flow.Assured:
			s.Flows.Assured++
			fallthrough
		default:
			s.Flows.Answered++
		}
	}
	for _, r := range f.running.Open {
		s.Rules = append(s.Rules, loader.RuleStatus{Rule: r.String(), Packets: 7, Runtime: slices.Contains(f.runtime, r.String())})
	}
	return s, nil
}

// maxFlows is what the table was made for: what the policy asks for, unless a test says otherwise.
func (f *fake) maxFlows() uint32 {
	if f.table.Max != 0 {
		return f.table.Max
	}
	return uint32(f.running.FlowLimit())
}

func (f *fake) Refusals() (loader.Refusals, error) {
	return loader.Refusals{Packets: f.table.Full, Max: int(f.maxFlows()), Wanted: f.running.FlowLimit()}, nil
}

func (f *fake) OpenRules(rules []policy.Rule, runtime bool) (*loader.OpenReport, error) {
	if f.fail != nil {
		return nil, f.fail
	}
	if f.rooms > 0 && len(f.running.Open)+len(rules) > f.rooms {
		return nil, fmt.Errorf("rule %d: %w", f.rooms+1, loader.ErrNoRoom)
	}
	report := &loader.OpenReport{}
	for _, r := range rules {
		next, added := f.running.WithRule(r)
		if !added {
			report.Already = append(report.Already, r)
			if !runtime {
				f.runtime = slices.DeleteFunc(f.runtime, func(text string) bool { return text == r.String() })
			}
			continue
		}
		f.running = next
		report.Opened = append(report.Opened, r)
		if runtime {
			f.runtime = append(f.runtime, r.String())
		}
	}
	return report, nil
}

func (f *fake) CloseRules(rules []policy.Rule, kill bool) (*loader.CloseReport, error) {
	if f.fail != nil {
		return nil, f.fail
	}
	report := &loader.CloseReport{}
	after := f.running
	for _, r := range rules {
		without, removed, err := after.WithoutRule(r)
		switch {
		case errors.Is(err, policy.ErrNotOpen):
			report.NotOpen = append(report.NotOpen, r)
		case err != nil:
			return nil, err
		default:
			after = without
			report.Closed = append(report.Closed, removed)
		}
	}
	f.running = after
	if kill {
		report.Killed = f.live
	} else {
		report.Kept = f.live
	}
	return report, nil
}

func (f *fake) Flows(each func(loader.Flow) bool) error {
	for _, flow := range f.flows {
		if !each(flow) {
			break
		}
	}
	return nil
}

func (f *fake) Flush() (int, error)      { return len(f.flows), f.fail }
func (f *fake) Sweep() (int, int, error) { return len(f.flows), 3, f.fail }

func (f *fake) Log(_ context.Context, _ bool, each func(loader.LoggedPacket) error) error {
	for _, p := range f.logged {
		if err := each(p); err != nil {
			return err
		}
	}
	f.logged = nil
	return f.fail
}

// fakeHost is a fake firewall and the user at it.
type fakeHost struct {
	*fake
	t              *testing.T
	session        string
	state          string // directory of the last good policy
	privileges     error
	stdout, stderr string
}

func newHost(t *testing.T) *fakeHost {
	return &fakeHost{fake: &fake{route: "eth0", deadlines: t.TempDir()}, t: t, state: t.TempDir()}
}

func (h *fakeHost) getenv(name string) string {
	if name == "STATE_DIRECTORY" {
		return h.state
	}
	return ""
}

func (h *fakeHost) env() env {
	return env{
		getenv:     h.getenv,
		firewall:   h.fake,
		privileged: func() error { return h.privileges },
		session:    func() string { return h.session },
	}
}

// runs makes the fake filter eth0 with rules, by a policy file of that text, and returns the path of the file.
func (h *fakeHost) runs(text string) string {
	h.t.Helper()
	path := h.file(text)
	p, err := policy.Load(path)
	if err != nil {
		h.t.Fatal(err)
	}
	p.Interfaces = []string{"eth0"}
	h.running, h.config = p, path
	return path
}

func (h *fakeHost) file(text string) string {
	h.t.Helper()
	path := filepath.Join(h.t.TempDir(), "portcullis.yaml")
	if err := os.WriteFile(path, []byte(text), 0o640); err != nil {
		h.t.Fatal(err)
	}
	return path
}

// types runs a command line and checks how it exits.
func (h *fakeHost) types(code int, args ...string) {
	h.t.Helper()
	var stdout, stderr bytes.Buffer
	e := h.env()
	e.stdout, e.stderr = &stdout, &stderr
	got := run(e, args)
	h.stdout, h.stderr = stdout.String(), stderr.String()
	if got != code {
		h.t.Fatalf("%q exits with %d, want %d\nstdout: %s\nstderr: %s", args, got, code, h.stdout, h.stderr)
	}
	for line := range strings.Lines(h.stderr) {
		if !strings.HasPrefix(line, "portcullis: ") {
			h.t.Errorf("%q prints %q on stderr, want the prefix of the program", args, line)
		}
	}
	if code == 0 && slices.Contains(args, "json") {
		h.json(new(any))
	}
}

// json reads what the last command printed; it must hold no null.
func (h *fakeHost) json(into any) {
	h.t.Helper()
	if err := json.Unmarshal([]byte(h.stdout), into); err != nil {
		h.t.Fatalf("stdout is not JSON: %v\n%s", err, h.stdout)
	}
	if strings.Contains(h.stdout, "null") {
		h.t.Errorf("there is a null in the JSON:\n%s", h.stdout)
	}
}

func (h *fakeHost) says(stdout ...string) {
	h.t.Helper()
	for _, want := range stdout {
		if !strings.Contains(h.stdout, want) {
			h.t.Errorf("stdout does not hold %q:\n%s", want, h.stdout)
		}
	}
}

func (h *fakeHost) complains(stderr ...string) {
	h.t.Helper()
	for _, want := range stderr {
		if !strings.Contains(h.stderr, want) {
			h.t.Errorf("stderr does not hold %q:\n%s", want, h.stderr)
		}
	}
}

func (h *fakeHost) holds(path, text string) {
	h.t.Helper()
	got, err := os.ReadFile(path)
	if err != nil {
		h.t.Fatal(err)
	}
	if string(got) != text {
		h.t.Errorf("%s holds\n%s\nwant\n%s", path, got, text)
	}
}

func (h *fakeHost) opens(rules ...string) {
	h.t.Helper()
	if got := texts(h.running.Open); !slices.Equal(got, rules) {
		h.t.Errorf("open are %q, want %q", got, rules)
	}
}

func flow(protocol, local, remote string, answered bool) loader.Flow {
	return loader.Flow{
		Protocol: protocol,
		Local:    netip.MustParseAddrPort(local),
		Remote:   netip.MustParseAddrPort(remote),
		State:    protocol,
		Answered: answered,
		Assured:  answered,
		Age:      90 * time.Second,
		Expires:  5 * 24 * time.Hour,
	}
}
