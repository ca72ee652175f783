// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"

	"github.com/portcullis-firewall/portcullis/loader"
	"github.com/portcullis-firewall/portcullis/policy"
)

// firewall is what the commands need of the loader.
type firewall interface {
	Up(loader.Options) (*loader.UpReport, error)
	Down(pinPath string, interfaces []string) (*loader.DownReport, error)
	Open(pinPath string) (filter, error)
	DefaultInterface() (string, error)
	SSHPorts() ([]uint16, error)
}

// filter is a running filter.
type filter interface {
	Close() error
	Policy() *policy.Policy
	Saved() (*policy.Policy, error)
	Config() string
	Status() (*loader.Status, error)
	OpenRules(rules []policy.Rule, runtime bool) (*loader.OpenReport, error)
	CloseRules(rules []policy.Rule, kill bool) (*loader.CloseReport, error)
	Flows(each func(loader.Flow) bool) error
	Flush() (removed int, err error)
	Sweep() (live, removed int, err error)
	Log(ctx context.Context, follow bool, each func(loader.LoggedPacket) error) error
}

// kernel is the firewall of this host.
type kernel struct{}

func (kernel) Up(o loader.Options) (*loader.UpReport, error) { return loader.Up(o) }
func (kernel) DefaultInterface() (string, error)             { return loader.DefaultInterface() }
func (kernel) SSHPorts() ([]uint16, error)                   { return loader.SSHPorts() }

func (kernel) Down(pinPath string, interfaces []string) (*loader.DownReport, error) {
	return loader.Down(pinPath, interfaces)
}

func (kernel) Open(pinPath string) (filter, error) {
	f, err := loader.Open(pinPath)
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

// connectToChange is connect for commands that can do nothing without a filter.
func (a *app) connectToChange() (filter, error) {
	f, err := a.connect()
	if isNotRunning(err) {
		err = fmt.Errorf("%w: nothing was changed; run \"portcullis up\" first", err)
	}
	return f, err
}
