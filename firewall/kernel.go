// SPDX-License-Identifier: Apache-2.0

package firewall

import (
	"context"
	"iter"
	"net/netip"
	"time"

	"github.com/portcullis-firewall/portcullis/firewall/schedule"
	"github.com/portcullis-firewall/portcullis/host"
	"github.com/portcullis-firewall/portcullis/loader"
	"github.com/portcullis-firewall/portcullis/maps"
	"github.com/portcullis-firewall/portcullis/policy"
	"github.com/portcullis-firewall/portcullis/policy/addrset"
)

// Kernel is what a firewall needs of the loader and of the host that it is on.
type Kernel interface {
	Up(context.Context, loader.Options) (*loader.UpReport, error)
	Down(ctx context.Context, pinPath string, interfaces []string) (*loader.DownReport, error)
	Open(ctx context.Context, pinPath string) (Filter, error)
	OpenToChange(ctx context.Context, pinPath string) (Filter, error)
	Attach(ctx context.Context, pinPath string, mode loader.Mode) (*loader.AttachReport, error)
	Prepare(ctx context.Context, pinPath string) (loaded bool, err error)
	Wants(pinPath, iface string) bool
	Monitor(ctx context.Context, pinPath string, o loader.MonitorOptions) (Monitor, error)
	Watch(context.Context) (<-chan host.Change, error)

	DefaultInterface() (string, error)
	SSHPorts() ([]uint16, error)
	ConfiguredSSHPorts() []uint16
	Addresses() ([]netip.Addr, error)
	Connections() ([]host.Connection, error)
	ConnectionsAt(ports []uint16) ([]host.Connection, error)
	Arrivals(host.Connection) ([]string, error)
	RouteTo(peer netip.Addr) (host.Route, error)
	AddressesOn(iface string) ([]netip.Addr, error)
	FindSession() (*host.Session, error)
	SSHSessions(among func(netip.Addr) bool) ([]host.Connection, error)
	Gateways() (gateways, sameMAC []netip.Addr, err error)
	Resolvers() []netip.Addr
	OnPseudoTerminal() bool
	Forwards() bool
	Guests() ([]host.Guests, error)
	Unfiltered(filtered []string) ([]host.Interface, error)
	StartWatchdog(ctx context.Context, store schedule.Store, pinPath string) error
}

// Filter is a running filter.
type Filter interface {
	Close() error
	Policy() (*policy.Policy, error)
	Saved() (*policy.Policy, error)
	Config() string
	Interfaces() ([]loader.Interface, error)
	Named() ([]string, error)
	Renamed() []string
	Rules() ([]maps.Rule, error)
	RuntimeRules() ([]policy.Rule, error)
	Status() (*loader.Status, error)
	Watching() (bool, error)
	Bypassed(ctx context.Context, patience time.Duration) ([]loader.Interface, error)
	Sample(before *loader.Sample) (*loader.Sample, error)
	CountFlowStates() (map[string]int, error)
	CheckLedger(ctx context.Context, moment time.Duration) ([]loader.LedgerCheck, error)
	OpenRules(rules []policy.Rule, runtime bool) (*loader.OpenReport, error)
	CloseRules(rules []policy.Rule, kill bool) (*loader.CloseReport, error)
	Flows(each func(loader.Flow) bool) error
	Flush() (removed int, err error)
	Sweep() (live, removed int, err error)
	Refusals() (loader.Refusals, error)
	Explainer(iface string) (*loader.Explainer, error)
	Log(ctx context.Context, follow bool, each func(loader.LoggedPacket) error) error
	Journal(ctx context.Context, each func(loader.LoggedPacket) error) error
	HostChanges() (loader.HostChanges, error)
	SyncHost() error

	PutCountedBans([]maps.Ban) (put int, err error)
	RemoveBans([]netip.Prefix) (missing []netip.Prefix, err error)
	RemoveAllBans() (n int, err error)
	FindBans([]netip.Prefix) (map[netip.Prefix]maps.Ban, error)
	Bans() iter.Seq2[maps.Ban, error]
	BansOf(netip.Addr) ([]maps.Ban, error)
	BanReasons() ([]maps.BanReason, error)
	CountBansByReason() (list []maps.BanReason, exact bool, err error)
	ForgetEndedBans() (n int, err error)
	Cut(concerned func(netip.Addr) bool) (int, error)
	Trusted() ([]addrset.Range, error)
	BlockedBy(netip.Addr) (list string, blocked, trusted bool, err error)
	BlockLists() ([]maps.BlockListInForce, error)
	EachBlocked(visit func(list string, network netip.Prefix)) error
}

// Monitor shows packets as they come.
type Monitor interface {
	Run(ctx context.Context, each func(loader.Monitored) error) error
	Close() error
}

// HostKernel is the kernel of this host.
type HostKernel struct{}

func (HostKernel) Up(ctx context.Context, o loader.Options) (*loader.UpReport, error) {
	return loader.Up(ctx, o)
}

func (HostKernel) Down(ctx context.Context, pinPath string, interfaces []string) (*loader.DownReport, error) {
	return loader.Down(ctx, pinPath, interfaces)
}

func (HostKernel) Open(ctx context.Context, pinPath string) (Filter, error) {
	return opened(loader.Open(ctx, pinPath))
}

func (HostKernel) OpenToChange(ctx context.Context, pinPath string) (Filter, error) {
	return opened(loader.OpenToChange(ctx, pinPath))
}

// opened keeps the filter nil that comes with an error.
func opened(f *loader.Filter, err error) (Filter, error) {
	if err != nil {
		return nil, err
	}
	return f, nil
}

func (HostKernel) Attach(ctx context.Context, pinPath string, mode loader.Mode) (*loader.AttachReport, error) {
	return loader.Attach(ctx, pinPath, mode)
}

func (HostKernel) Prepare(ctx context.Context, pinPath string) (bool, error) {
	return loader.Prepare(ctx, pinPath)
}

// Monitor implements Kernel.
func (HostKernel) Monitor(ctx context.Context, pinPath string, o loader.MonitorOptions) (Monitor, error) {
	m, err := loader.OpenMonitor(ctx, pinPath, o)
	if err != nil {
		return nil, err
	}
	return m, nil
}

func (HostKernel) Wants(pinPath, iface string) bool                      { return loader.Wants(pinPath, iface) }
func (HostKernel) Watch(ctx context.Context) (<-chan host.Change, error) { return host.Watch(ctx) }
func (HostKernel) DefaultInterface() (string, error)                     { return host.DefaultInterface() }
func (HostKernel) SSHPorts() ([]uint16, error)                           { return host.SSHPorts() }
func (HostKernel) ConfiguredSSHPorts() []uint16                          { return host.ConfiguredSSHPorts(nil) }
func (HostKernel) Addresses() ([]netip.Addr, error)                      { return host.Addresses() }
func (HostKernel) Connections() ([]host.Connection, error)               { return host.Connections() }

func (HostKernel) ConnectionsAt(ports []uint16) ([]host.Connection, error) {
	return host.ConnectionsAt(ports)
}

func (HostKernel) Arrivals(c host.Connection) ([]string, error) { return host.Arrivals(c) }
func (HostKernel) RouteTo(peer netip.Addr) (host.Route, error)  { return host.RouteTo(peer) }
func (HostKernel) AddressesOn(iface string) ([]netip.Addr, error) {
	return host.AddressesOn(iface)
}

func (HostKernel) FindSession() (*host.Session, error) { return host.FindSession() }
func (HostKernel) SSHSessions(among func(netip.Addr) bool) ([]host.Connection, error) {
	return host.SSHSessions(among)
}

func (HostKernel) Gateways() (gateways, sameMAC []netip.Addr, err error) { return host.Gateways() }
func (HostKernel) Resolvers() []netip.Addr                               { return host.Resolvers(nil) }
func (HostKernel) OnPseudoTerminal() bool                                { return host.OnPseudoTerminal() }

func (HostKernel) Forwards() bool                 { return host.Forwards(nil) }
func (HostKernel) Guests() ([]host.Guests, error) { return host.FindGuests() }

func (HostKernel) Unfiltered(filtered []string) ([]host.Interface, error) {
	return host.Unfiltered(filtered)
}

func (HostKernel) StartWatchdog(ctx context.Context, store schedule.Store, pinPath string) error {
	return store.StartWatchdog(ctx, WatchdogCommand, "--pin-path", pinPath)
}
