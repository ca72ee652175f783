// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"context"
	"fmt"
	"time"

	"github.com/portcullis-firewall/portcullis/firewall/containers"
	"github.com/portcullis-firewall/portcullis/host"
	"github.com/portcullis-firewall/portcullis/loader"
	"github.com/portcullis-firewall/portcullis/policy"
)

// firewall is what the commands need of the loader.
type firewall interface {
	Up(loader.Options) (*loader.UpReport, error)
	Down(pinPath string, interfaces []string) (*loader.DownReport, error)
	Open(pinPath string) (filter, error)
	OpenToChange(pinPath string) (filter, error)
	DefaultInterface() (string, error)
	SSHPorts() ([]uint16, error)
	ConnectionsAt(ports []uint16) ([]host.Connection, error)
	Arrivals(host.Connection) ([]string, error)
	Deadlines(pinPath string) (*loader.Deadlines, error)
	TakeTurn(pinPath string) (*loader.Turn, error)
	StartKeeper(turn *loader.Turn, pinPath string) error
	Revert(*loader.Turn) error
	FindSession() (*host.Session, error)
	OnPseudoTerminal() bool
	Containers() (*containers.Found, error)
	Unfiltered(filtered []string) ([]host.Interface, error)
	Forwards() bool
}

// filter is a running filter.
type filter interface {
	Close() error
	Policy() *policy.Policy
	Saved() (*policy.Policy, error)
	Config() string
	Interfaces() ([]loader.Interface, error)
	RuntimeRules() ([]policy.Rule, error)
	Snapshot() (*loader.Snapshot, error)
	Status() (*loader.Status, error)
	Bypassed(ctx context.Context, patience time.Duration) ([]loader.Interface, error)
	OpenRules(rules []policy.Rule, runtime bool) (*loader.OpenReport, error)
	CloseRules(rules []policy.Rule, kill bool) (*loader.CloseReport, error)
	Flows(each func(loader.Flow) bool) error
	Flush() (removed int, err error)
	Sweep() (live, removed int, err error)
	Refusals() (loader.Refusals, error)
	Log(ctx context.Context, follow bool, each func(loader.LoggedPacket) error) error
}

// kernel is the firewall of this host.
type kernel struct{}

func (kernel) Up(o loader.Options) (*loader.UpReport, error) { return loader.Up(o) }
func (kernel) DefaultInterface() (string, error)             { return host.DefaultInterface() }
func (kernel) SSHPorts() ([]uint16, error)                   { return host.SSHPorts() }

func (kernel) ConnectionsAt(ports []uint16) ([]host.Connection, error) {
	return host.ConnectionsAt(ports)
}

func (kernel) Arrivals(c host.Connection) ([]string, error) { return host.Arrivals(c) }

func (kernel) Down(pinPath string, interfaces []string) (*loader.DownReport, error) {
	return loader.Down(pinPath, interfaces)
}

func (kernel) Deadlines(pinPath string) (*loader.Deadlines, error) {
	return loader.ReadDeadlines(loader.StateDir, pinPath)
}

func (kernel) TakeTurn(pinPath string) (*loader.Turn, error) {
	return loader.TakeTurn(loader.StateDir, pinPath)
}

func (kernel) StartKeeper(turn *loader.Turn, pinPath string) error {
	return turn.StartKeeper(keepCommandName, "--pin-path", pinPath)
}

func (kernel) Revert(turn *loader.Turn) error      { return turn.Revert() }
func (kernel) FindSession() (*host.Session, error) { return host.FindSession() }
func (kernel) OnPseudoTerminal() bool              { return host.OnPseudoTerminal() }

func (kernel) Containers() (*containers.Found, error) { return containers.Find() }
func (kernel) Forwards() bool                         { return host.Forwards(nil) }

func (kernel) Unfiltered(filtered []string) ([]host.Interface, error) {
	return host.Unfiltered(filtered)
}

func (kernel) Open(pinPath string) (filter, error) { return opened(loader.Open(pinPath)) }
func (kernel) OpenToChange(pinPath string) (filter, error) {
	return opened(loader.OpenToChange(pinPath))
}

// opened keeps the filter nil that comes with an error.
func opened(f *loader.Filter, err error) (filter, error) {
	if err != nil {
		return nil, err
	}
	return f, nil
}

// connect finds the running filter.
func (a *app) connect() (filter, error) {
	if err := a.privileged(); err != nil {
		return nil, err
	}
	return a.firewall.Open(a.pinPath)
}

// connectToChange is connect for commands that have the turn, and can do nothing without a filter.
func (a *app) connectToChange() (filter, error) {
	if err := a.privileged(); err != nil {
		return nil, err
	}
	f, err := a.firewall.OpenToChange(a.pinPath)
	if isNotRunning(err) {
		err = fmt.Errorf("%w: nothing was changed; run \"portcullis up\" first", err)
	}
	return f, err
}

// fileOf returns the policy file of the running filter, or the one that --config names.
func (a *app) fileOf(f filter) string {
	if a.configGiven {
		return a.config
	}
	return cmp.Or(f.Config(), a.config)
}
