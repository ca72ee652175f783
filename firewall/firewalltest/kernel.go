// SPDX-License-Identifier: Apache-2.0

// Package firewalltest has a kernel for tests of what is built on package firewall: one that filters nothing, and needs
// no root.
package firewalltest

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/portcullis-firewall/portcullis/firewall"
	"github.com/portcullis-firewall/portcullis/firewall/schedule"
	"github.com/portcullis-firewall/portcullis/host"
	"github.com/portcullis-firewall/portcullis/loader"
	"github.com/portcullis-firewall/portcullis/maps"
	"github.com/portcullis-firewall/portcullis/policy"
)

// Kernel is a kernel that keeps in mind what it was asked for. Its fields may be set at any time.
type Kernel struct {
	Running      *policy.Policy // nil: nothing runs
	Runtime      []string       // rules that are not in the file
	File         string
	SSHD         []uint16
	SSHConfig    []uint16     // the ports that sshd is configured for
	Addrs        []netip.Addr // of the host; none where nobody knows
	Route        string
	Live         int // connections that a close meets
	FlowList     []loader.Flow
	Table        loader.FlowsStatus // without what flows tell
	Counters     []loader.CounterStatus
	Traffic      []loader.Traffic
	Checks       []loader.LedgerCheck
	ClosedRules  maps.Tally // what rules let in that were in force
	Logged       []loader.LoggedPacket
	Journaled    []loader.LoggedPacket
	Monitored    []loader.Monitored // what a monitor is to tell
	Meanwhile    func()             // what happens while it runs, or nil
	Asked        loader.MonitorOptions
	Clients      []host.Connection // of sshd
	ArrivalNames []string          // of their packets
	GatewayList  []netip.Addr      // the default gateways
	SameMACList  []netip.Addr      // other addresses at the MAC address of one
	ResolverList []netip.Addr
	GatewayErr   error             // why the gateways cannot be found
	SSHList      []host.Connection // over which somebody has logged in
	BanList      []maps.Ban
	Trusts       []netip.Prefix
	Full         int   // how many bans there is room for, or 0
	NoReasons    bool  // there is no room for another reason of bans
	Fail         error // of what changes something
	PolicyErr    error // why the policy in force cannot be read
	OpenErr      error // why the filter cannot be opened
	Ups          []loader.Options
	Downs        [][]string
	NoWatchdog   error        // why no watchdog can be started
	Session      host.Session // of the user
	PTY          bool
	Forwarding   bool
	GuestList    []host.Guests
	Others       []host.Interface   // that are not filtered
	Awaited      []string           // interfaces that are filtered when they appear
	Past         []loader.Interface // past which packets come
	PastErr      error
	Absent       []string          // interfaces that do not exist
	Behind       map[string]string // what filters the packets of an interface that is not filtered by itself
}

func (f *Kernel) Up(_ context.Context, o loader.Options) (*loader.UpReport, error) {
	if f.Fail != nil {
		return nil, f.Fail
	}
	if (o.Running || o.Policy == nil) && f.Running == nil {
		return nil, loader.ErrNotRunning
	}
	f.Ups = append(f.Ups, o)
	if o.Policy == nil {
		o.Policy, o.Config = f.Running, f.File
	}
	report := &loader.UpReport{Updated: f.Running != nil, Warnings: []string{"something to know"}}
	if f.Running == nil && o.Bans != nil {
		if err := o.Bans(func(bans []maps.Ban) error {
			put, err := f.PutCountedBans(bans)
			report.Bans += put
			return err
		}); err != nil {
			return nil, err
		}
	}
	interfaces := o.Interfaces
	if f.Running != nil {
		interfaces = slices.Compact(slices.Sorted(slices.Values(slices.Concat(interfaces, f.Running.Interfaces))))
		interfaces = slices.DeleteFunc(interfaces, func(name string) bool { return slices.Contains(o.LetGo, name) })
	}
	p := o.Policy.Clone()
	if _, _, known := maps.BlockListsOf(p); !known && f.Running != nil { // as the loader does
		p.Block, p.Trust = f.Running.Block, f.Running.Trust
	}
	f.Running, f.File, f.Runtime = p, o.Config, nil
	f.Running.Interfaces = interfaces
	for _, r := range o.Runtime {
		f.Runtime = append(f.Runtime, r.String())
	}
	report.Interfaces = f.interfaces()
	return report, nil
}

func (f *Kernel) Forwards() bool { return f.Forwarding }

func (f *Kernel) Guests() ([]host.Guests, error) { return f.GuestList, nil }

func (f *Kernel) Unfiltered([]string) ([]host.Interface, error) { return f.Others, nil }

func (f *Kernel) interfaces() (out []loader.Interface) {
	for _, name := range f.Running.Interfaces {
		if policy.IsPattern(name) {
			continue
		}
		out = append(out, loader.Interface{Name: name, Mode: loader.ModeNative, Egress: "tcx", Present: true})
	}
	for _, name := range f.Awaited {
		out = append(out, loader.Interface{Name: name, Mode: loader.ModeAuto})
	}
	return out
}

func (f *Kernel) Down(_ context.Context, _ string, interfaces []string) (*loader.DownReport, error) {
	if f.Running == nil {
		return nil, loader.ErrNotRunning
	}
	f.Downs = append(f.Downs, interfaces)
	report := &loader.DownReport{Absent: f.Absent, Behind: f.Behind}
	for _, name := range f.Running.Interfaces {
		if len(interfaces) == 0 || slices.Contains(interfaces, name) {
			report.Interfaces = append(report.Interfaces, name)
		} else {
			report.Remaining = append(report.Remaining, name)
		}
	}
	return report, nil
}

// OpenToChange implements firewall.Kernel.
func (f *Kernel) OpenToChange(ctx context.Context, pinPath string) (firewall.Filter, error) {
	return f.Open(ctx, pinPath)
}

func (f *Kernel) Open(context.Context, string) (firewall.Filter, error) {
	if f.Running == nil {
		return nil, fmt.Errorf("%w (nothing is pinned)", loader.ErrNotRunning)
	}
	if f.OpenErr != nil {
		return nil, f.OpenErr
	}
	return f, nil
}

func (f *Kernel) DefaultInterface() (string, error) {
	if f.Route == "" {
		return "", errors.New("there is no default route")
	}
	return f.Route, nil
}

func (f *Kernel) SSHPorts() ([]uint16, error)      { return f.SSHD, nil }
func (f *Kernel) ConfiguredSSHPorts() []uint16     { return f.SSHConfig }
func (f *Kernel) Addresses() ([]netip.Addr, error) { return f.Addrs, nil }
func (f *Kernel) ConnectionsAt(ports []uint16) ([]host.Connection, error) {
	return slices.DeleteFunc(slices.Clone(f.Clients), func(c host.Connection) bool { return !slices.Contains(ports, c.Local.Port()) }), nil
}

func (f *Kernel) Arrivals(host.Connection) ([]string, error) { return f.ArrivalNames, nil }

func (f *Kernel) RouteTo(netip.Addr) (host.Route, error) {
	return host.Route{Interfaces: []string{f.Route}}, nil
}

func (f *Kernel) AddressesOn(string) ([]netip.Addr, error) { return f.Addrs, nil }

// Explainer implements firewall.Filter. There is no datapath here.
func (f *Kernel) Explainer(string) (*loader.Explainer, error) {
	return nil, errors.New("there is no datapath")
}

func (f *Kernel) Interfaces() ([]loader.Interface, error) { return f.interfaces(), nil }

func (f *Kernel) Renamed() []string { return nil }

func (f *Kernel) Named() ([]string, error) { return slices.Clone(f.Running.Interfaces), nil }

func (f *Kernel) RuntimeRules() (out []policy.Rule, err error) {
	for _, r := range f.Running.Open {
		if slices.Contains(f.Runtime, r.String()) {
			out = append(out, r)
		}
	}
	return out, nil
}

func (f *Kernel) Bypassed(context.Context, time.Duration) ([]loader.Interface, error) {
	return f.Past, f.PastErr
}

func (f *Kernel) Close() error                    { return nil }
func (f *Kernel) Policy() (*policy.Policy, error) { return recorded(f.Running), f.PolicyErr }
func (f *Kernel) Config() string                  { return f.File }

func (f *Kernel) Saved() (*policy.Policy, error) {
	p := recorded(f.Running)
	p.Open = slices.DeleteFunc(p.Open, func(r policy.Rule) bool { return slices.Contains(f.Runtime, r.String()) })
	return p, nil
}

func (f *Kernel) FindSession() (*host.Session, error) { return &f.Session, nil }
func (f *Kernel) OnPseudoTerminal() bool              { return f.PTY }

func (f *Kernel) Status() (*loader.Status, error) {
	saved, err := f.Saved()
	if err != nil {
		return nil, err
	}
	s := &loader.Status{Interfaces: f.interfaces(), Policy: recorded(f.Running), Saved: saved, Config: f.File, Counters: f.Counters,
		Closed: f.ClosedRules, Ledger: f.Traffic, Flows: f.Table}
	s.BlockLists, _ = f.BlockLists()
	s.Flows.Max = f.maxFlows()
	for _, flow := range f.FlowList {
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
	for _, r := range f.Running.Open {
		s.Rules = append(s.Rules, loader.RuleStatus{Rule: r.String(), Meaning: r, Packets: 7, Runtime: slices.Contains(f.Runtime, r.String())})
	}
	return s, nil
}

// maxFlows is what the table was made for: what the policy asks for, unless a test says otherwise.
func (f *Kernel) maxFlows() uint32 {
	if f.Table.Max != 0 {
		return f.Table.Max
	}
	return uint32(f.Running.FlowLimit())
}

func (f *Kernel) Refusals() (loader.Refusals, error) {
	return loader.Refusals{Packets: f.Table.Full, Max: int(f.maxFlows()), Wanted: f.Running.FlowLimit()}, nil
}

func (f *Kernel) OpenRules(rules []policy.Rule, runtime bool) (*loader.OpenReport, error) {
	if f.Fail != nil {
		return nil, f.Fail
	}
	report := &loader.OpenReport{}
	for _, r := range rules {
		next, added := f.Running.WithRule(r)
		if !added {
			report.Already = append(report.Already, r)
			if !runtime {
				f.Runtime = slices.DeleteFunc(f.Runtime, func(text string) bool { return text == r.String() })
			}
			continue
		}
		f.Running = next
		report.Opened = append(report.Opened, r)
		if runtime {
			f.Runtime = append(f.Runtime, r.String())
		}
	}
	return report, nil
}

func (f *Kernel) CloseRules(rules []policy.Rule, kill bool) (*loader.CloseReport, error) {
	if f.Fail != nil {
		return nil, f.Fail
	}
	report := &loader.CloseReport{}
	after := f.Running
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
	f.Running = after
	if kill {
		report.Killed = f.Live
	} else {
		report.Kept = f.Live
	}
	return report, nil
}

func (f *Kernel) Flows(each func(loader.Flow) bool) error {
	for _, flow := range f.FlowList {
		if !each(flow) {
			break
		}
	}
	return nil
}

func (f *Kernel) Flush() (int, error)      { return len(f.FlowList), f.Fail }
func (f *Kernel) Sweep() (int, int, error) { return len(f.FlowList), 3, f.Fail }

func (f *Kernel) Log(_ context.Context, _ bool, each func(loader.LoggedPacket) error) error {
	for _, p := range f.Logged {
		if err := each(p); err != nil {
			return err
		}
	}
	f.Logged = nil
	return f.Fail
}

// Sample implements firewall.Filter.
func (f *Kernel) Sample(*loader.Sample) (*loader.Sample, error) {
	s := &loader.Sample{Watching: f.Running.WatchOnly, Interfaces: f.interfaces(), Ledger: f.Traffic, Counters: f.Counters, Entries: len(f.FlowList), MaxFlows: f.maxFlows()}
	for i, r := range f.Running.Open {
		s.Rules = append(s.Rules, loader.RuleStatus{Rule: r.String(), Meaning: r, Packets: 7, Bytes: 700, ID: uint16(i + 1)})
	}
	s.BlockLists, _ = f.BlockLists()
	s.BanReasons, _ = f.BanReasons()
	return s, f.Fail
}

// Watching implements firewall.Filter.
func (f *Kernel) Watching() (bool, error) { return f.Running.WatchOnly, nil }

// CountFlowStates implements firewall.Filter.
func (f *Kernel) CountFlowStates() (map[string]int, error) {
	out := make(map[string]int)
	for _, flow := range f.FlowList {
		out[flow.State]++
	}
	return out, nil
}

// CheckLedger implements firewall.Filter.
func (f *Kernel) CheckLedger(context.Context, time.Duration) ([]loader.LedgerCheck, error) {
	return f.Checks, f.Fail
}

// Journal implements firewall.Filter.
func (f *Kernel) Journal(ctx context.Context, each func(loader.LoggedPacket) error) error {
	for _, p := range f.Journaled {
		if err := each(p); err != nil {
			return err
		}
	}
	<-ctx.Done()
	return nil
}

// Monitor implements firewall.Kernel.
func (f *Kernel) Monitor(_ context.Context, _ string, o loader.MonitorOptions) (firewall.Monitor, error) {
	if f.Running == nil {
		return nil, fmt.Errorf("%w (nothing is pinned)", loader.ErrNotRunning)
	}
	f.Asked = o
	return monitor{f}, f.OpenErr
}

type monitor struct{ kernel *Kernel }

func (monitor) Close() error { return nil }

// Run tells what there is, and goes on until ctx ends.
func (m monitor) Run(ctx context.Context, each func(loader.Monitored) error) error {
	if m.kernel.Meanwhile != nil {
		m.kernel.Meanwhile()
	}
	for _, told := range m.kernel.Monitored {
		if err := each(told); err != nil {
			return err
		}
	}
	<-ctx.Done()
	return nil
}

// Rules implements firewall.Filter.
func (f *Kernel) Rules() (out []maps.Rule, err error) {
	for i, r := range f.Running.Open {
		out = append(out, maps.Rule{NumberedRule: policy.NumberedRule{ID: uint16(i + 1), Rule: r}, Runtime: slices.Contains(f.Runtime, r.String())})
	}
	return out, nil
}

func (f *Kernel) Attach(context.Context, string, loader.Mode) (*loader.AttachReport, error) {
	return &loader.AttachReport{}, nil
}

func (f *Kernel) Prepare(context.Context, string) (bool, error) { return false, nil }
func (f *Kernel) Wants(string, string) bool                     { return false }
func (f *Kernel) Watch(context.Context) (<-chan host.Change, error) {
	return make(chan host.Change), nil
}
func (f *Kernel) Connections() ([]host.Connection, error)                     { return nil, nil }
func (f *Kernel) StartWatchdog(context.Context, schedule.Store, string) error { return f.NoWatchdog }
func (f *Kernel) HostChanges() (loader.HostChanges, error)                    { return loader.HostChanges{}, nil }
func (f *Kernel) SyncHost() error                                             { return nil }
