// SPDX-License-Identifier: Apache-2.0

// Package firewall is what one asks of a firewall: to put a policy in force, to open and close ports, to try a policy and
// to keep or revert it, to save what is in force, to say how it is. Each change is one transaction, under one lock: the
// policy file, the filter in the kernel, the schedule of what will happen by itself and the last good policy change
// together, or not at all.
//
// A caller (the command line, the agent) holds a [Firewall] and prints what it reports. Nobody else takes locks.
package firewall

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"time"

	"github.com/portcullis-firewall/portcullis/firewall/schedule"
	"github.com/portcullis-firewall/portcullis/firewall/user"
	"github.com/portcullis-firewall/portcullis/loader"
	"github.com/portcullis-firewall/portcullis/loader/lock"
)

const (
	// DefaultConfig is the policy file where none is named.
	DefaultConfig = "/etc/portcullis/portcullis.yaml"

	// DefaultWait is how long a change waits for another one.
	DefaultWait = lock.DefaultTimeout

	// runDir is where schedules and locks are, until the next boot.
	runDir = "/run/portcullis"
)

// ErrLocked is returned when another command has been at work for as long as the caller would wait.
var ErrLocked = lock.ErrLocked

// Options says which firewall is meant, and what it is to know of the world around it.
type Options struct {
	PinPath     string // "": loader.DefaultPinPath
	Config      string // the policy file; "": DefaultConfig
	ConfigGiven bool   // rather than the file that a running filter came from

	Wait    time.Duration       // how long to wait for another command; 0: DefaultWait
	Waiting func(holder string) // called once when that has lasted for a second
	Happens func(Event)         // called after what happens by itself, whichever process does it; may be nil
	Renamed func(string)        // called by View with a sentence for each interface that it finds renamed; may be nil

	// StateDir keeps the last good policy, beyond a boot. "": the one that the agent uses; without an agent the host's
	// own filter has a directory, and no other.
	StateDir string

	Invoker []uint32      // users besides root and this one whose files may be put in force, where they are named
	Session func() string // returns $SSH_CONNECTION of the user's session; nil: looks for it
	Kernel  Kernel        // nil: this host's
	RunDir  string        // "": /run/portcullis
}

// Firewall is one firewall: the filter under a pin path, and its policy file. Its methods may be called at the same
// time.
type Firewall struct {
	options Options
	kernel  Kernel
	user    *user.User
	store   schedule.Store
}

// New returns the firewall that the options name, be it up or down.
func New(o Options) *Firewall {
	o.PinPath = cmp.Or(o.PinPath, loader.DefaultPinPath)
	o.Config = cmp.Or(o.Config, DefaultConfig)
	o.RunDir = cmp.Or(o.RunDir, runDir)
	if o.Session == nil {
		o.Session = user.FindSSHConnection
	}
	if o.Kernel == nil {
		o.Kernel = HostKernel{}
	}
	fw := &Firewall{
		options: o,
		user:    user.New(o.Kernel, o.Session),
		store:   schedule.NewStore(filepath.Join(o.RunDir, filepath.Base(schedule.Dir)), o.PinPath),
	}
	fw.kernel = restoring{o.Kernel, fw}
	return fw
}

// Waiting returns the same firewall, which waits so long for another command.
func (fw *Firewall) Waiting(wait time.Duration) *Firewall {
	other := *fw
	other.options.Wait = wait
	return &other
}

// PinPath returns where the filter is pinned.
func (fw *Firewall) PinPath() string { return fw.options.PinPath }

// configOf returns the policy file of a running filter, or the one that was given.
func (fw *Firewall) configOf(f Filter) string {
	if fw.options.ConfigGiven {
		return fw.options.Config
	}
	return cmp.Or(f.Config(), fw.options.Config)
}

// waiting returns ctx with how to wait for locks.
func (fw *Firewall) waiting(ctx context.Context) context.Context {
	return lock.WithWait(ctx, lock.Wait{Timeout: fw.options.Wait, Waiting: fw.options.Waiting})
}

// View returns the running filter, to be read and closed. It waits for no change of the policy but for the moment in
// which the filter is exchanged.
func (fw *Firewall) View(ctx context.Context) (Filter, error) {
	f, err := fw.kernel.Open(fw.waiting(ctx), fw.options.PinPath)
	if err == nil && fw.options.Renamed != nil {
		for _, sentence := range f.Renamed() {
			fw.options.Renamed(sentence)
		}
	}
	return f, err
}

// Monitor begins to show packets as they come. It waits as View does.
func (fw *Firewall) Monitor(ctx context.Context, o loader.MonitorOptions) (Monitor, error) {
	return fw.kernel.Monitor(fw.waiting(ctx), fw.options.PinPath, o)
}

// Addresses returns those of this host.
func (fw *Firewall) Addresses() ([]netip.Addr, error) { return fw.kernel.Addresses() }

// openToChange returns the running filter for a change, which has begun.
func (fw *Firewall) openToChange(ctx context.Context) (Filter, error) {
	f, err := fw.kernel.OpenToChange(fw.waiting(ctx), fw.options.PinPath)
	if errors.Is(err, loader.ErrNotRunning) {
		err = fmt.Errorf("%w: nothing was changed; run \"portcullis up\" first", err)
	}
	return f, err
}
