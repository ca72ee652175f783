// SPDX-License-Identifier: Apache-2.0

package firewall

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/portcullis-firewall/portcullis/firewall/schedule"
	"github.com/portcullis-firewall/portcullis/host"
	"github.com/portcullis-firewall/portcullis/loader"
	"github.com/portcullis-firewall/portcullis/loader/lock"
	"github.com/portcullis-firewall/portcullis/policy"
)

// What keeps a filter in step with its host. It changes no policy and no file, so it is no transaction, and waits for
// none: an interface that appears is open until it is filtered.

// AttachReport is the result of Attach.
type AttachReport struct {
	Attached []loader.Interface // that were not filtered till now
	Warnings []string
}

// Attach filters those of the firewall's interfaces that have appeared, or were made anew. An interface comes back in the
// mode that it had; mode is for those that come for the first time. What fails on one interface is reported beside what
// was done on the others.
func (fw *Firewall) Attach(ctx context.Context, mode loader.Mode) (*AttachReport, error) {
	ctx = fw.waiting(ctx)
	report := &AttachReport{}
	attached, err := fw.kernel.Attach(ctx, fw.options.PinPath, mode)
	if attached == nil {
		return report, err
	}
	errs := []error{err}
	report.Attached, report.Warnings = attached.Attached, attached.Warnings
	for _, i := range attached.Slow {
		up, err := fw.kernel.Up(ctx, loader.Options{PinPath: fw.options.PinPath, Interfaces: []string{i.Name}, Mode: i.Mode, Wait: true})
		errs = append(errs, err)
		if err == nil {
			report.Warnings = append(report.Warnings, up.Warnings...)
			report.Attached = append(report.Attached, i)
		}
	}
	return report, errors.Join(errs...)
}

// Renew loads the programs for the host as it is now, with the policy as it is.
func (fw *Firewall) Renew(ctx context.Context) (warnings []string, err error) {
	up, err := fw.kernel.Up(fw.waiting(ctx), loader.Options{PinPath: fw.options.PinPath, Wait: true})
	if err != nil {
		return nil, err
	}
	return up.Warnings, nil
}

// SwitchToTC filters an interface in TC, whose driver does not run its XDP program. TC filters before XDP is taken off,
// so no packet meets neither.
func (fw *Firewall) SwitchToTC(ctx context.Context, name string) (warnings []string, err error) {
	up, err := fw.kernel.Up(fw.waiting(ctx), loader.Options{PinPath: fw.options.PinPath, Interfaces: []string{name}, Mode: loader.ModeTC,
		Wait: true, Filtered: true})
	if err != nil {
		return nil, err
	}
	return up.Warnings, nil
}

// Prepare loads one program for interfaces that are waited for, and reports whether it did.
func (fw *Firewall) Prepare(ctx context.Context) (loaded bool, err error) {
	return fw.kernel.Prepare(fw.waiting(ctx), fw.options.PinPath)
}

// Wants reports whether the filter is meant for an interface, be it there or not.
func (fw *Firewall) Wants(iface string) bool { return fw.kernel.Wants(fw.options.PinPath, iface) }

// Watch returns a channel of changes of the host.
func (fw *Firewall) Watch(ctx context.Context) (<-chan host.Change, error) {
	return fw.kernel.Watch(ctx)
}

// ClaimAgent makes this process the one agent of the firewall, until release. The error is an *AgentError where another
// process is; any other one means that nothing keeps a second agent away.
func (fw *Firewall) ClaimAgent() (release func(), err error) {
	path := fw.agentLock()
	if err := schedule.PrivateDir(filepath.Dir(path)); err != nil {
		return nil, err
	}
	release, holder, err := lock.Try(path)
	if holder != "" {
		return nil, &AgentError{holder}
	}
	return release, err
}

func (fw *Firewall) agentLock() string {
	return filepath.Join(fw.options.RunDir, "locks", "agent-"+filepath.Base(fw.store.Path(".")))
}

// hasAgent reports whether a process is the agent of the firewall, as far as /proc shows.
func (fw *Firewall) hasAgent() bool { return lock.Holder(fw.agentLock()) != "" }

// unwritten warns of a policy that has packets in the journal where no agent writes them.
func (fw *Firewall) unwritten(p *policy.Policy) []string {
	if p.Log == 0 || fw.hasAgent() {
		return nil
	}
	if _, err := os.Stat(fw.agentLock()); errors.Is(err, fs.ErrPermission) {
		return nil // only root may know
	}
	start := "\"portcullis run\" starts it"
	if fw.options.PinPath == loader.DefaultPinPath {
		start = "\"systemctl enable --now portcullis\" or " + start
	}
	return []string{fmt.Sprintf("nobody writes what \"log: %s\" asks for to the journal, as the agent does not run: %s", p.Log, start)}
}

// AgentError is returned where another process is the agent.
type AgentError struct{ Holder string }

func (e *AgentError) Error() string {
	return "another \"portcullis run\" keeps this filter already: " + e.Holder
}
