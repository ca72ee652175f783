// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"time"

	"github.com/portcullis-firewall/portcullis/host"
	"github.com/portcullis-firewall/portcullis/loader"
	"github.com/portcullis-firewall/portcullis/policy"
)

// Firewall is what the agent needs of the loader.
type Firewall interface {
	Up(loader.Options) (*loader.UpReport, error)
	Open(pinPath string) (Filter, error)
	Attach(pinPath string, mode loader.Mode) (*loader.AttachReport, error)
	Prepare(pinPath string) (loaded bool, err error)
	Wants(pinPath, iface string) bool
	Watch(context.Context) (<-chan host.Change, error)
	DefaultInterface() (string, error)
}

// Filter is a running filter.
type Filter interface {
	Close() error
	Config() string
	Saved() (*policy.Policy, error)
	Interfaces() ([]loader.Interface, error)
	HostChanges() (loader.HostChanges, error)
	Bypassed(ctx context.Context, patience time.Duration) ([]loader.Interface, error)
	SyncLocal() error
	Sweep() (live, removed int, err error)
	Refusals() (loader.Refusals, error)
}

// Kernel is the firewall of this host.
type Kernel struct{}

func (Kernel) Up(o loader.Options) (*loader.UpReport, error) { return loader.Up(o) }
func (Kernel) Prepare(pinPath string) (loaded bool, err error) {
	return loader.Prepare(context.Background(), pinPath)
}
func (Kernel) Wants(pinPath, iface string) bool  { return loader.Wants(pinPath, iface) }
func (Kernel) DefaultInterface() (string, error) { return host.DefaultInterface() }

func (Kernel) Open(pinPath string) (Filter, error) {
	f, err := loader.Open(pinPath)
	if err != nil {
		return nil, err
	}
	return f, nil
}

func (Kernel) Attach(pinPath string, mode loader.Mode) (*loader.AttachReport, error) {
	return loader.Attach(pinPath, mode)
}

func (Kernel) Watch(ctx context.Context) (<-chan host.Change, error) { return host.Watch(ctx) }
