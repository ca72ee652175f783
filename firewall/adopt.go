// SPDX-License-Identifier: Apache-2.0

package firewall

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/portcullis-firewall/portcullis/firewall/schedule"
	"github.com/portcullis-firewall/portcullis/host"
	"github.com/portcullis-firewall/portcullis/loader"
	"github.com/portcullis-firewall/portcullis/policy"
)

// AdoptRequest says which policy to put in force on a host that nobody looks at, and what has to be shown for it to stay.
type AdoptRequest struct {
	File   string
	Within time.Duration // in which it has to be shown
	// Shown returns why nothing shows that this host can still be reached. Its context ends in time.
	Shown func(ctx context.Context) error
	// Tried is called before anything is changed, unless nothing is to be.
	Tried func() error
}

// AdoptReport is the result of Adopt.
type AdoptReport struct {
	Changes  []Change
	Warnings []string
}

// ErrReverted is returned when a policy was in force for a moment, and what was before is in force again.
var ErrReverted = errors.New("what was in force before is in force again")

// slack is for what a trial does beside waiting: it must not end while it is being confirmed.
const slack = 20 * time.Second

// Adopt puts a policy on trial, confirms it once it is shown that this host can still be reached, and reverts it otherwise.
// It does nothing where the policy is in force and in the policy file. Killed at any moment, it leaves the policy from before,
// which the watchdog puts back, or the new one.
func (fw *Firewall) Adopt(ctx context.Context, r AdoptRequest) (*AdoptReport, error) {
	report := &AdoptReport{Changes: []Change{}, Warnings: []string{}}
	if s, err := fw.store.Read(); err != nil {
		return nil, err
	} else if s.Trial != nil && !s.Overdue() {
		return nil, &TrialError{*s.Trial}
	}
	if err := fw.checkUnattended(ctx, r.File); err != nil {
		return nil, err
	}
	changes, same, err := fw.compareWith(ctx, r.File)
	if err != nil {
		return nil, err
	}
	if same {
		return report, nil
	}
	report.Changes = changes
	if err := fw.canConfirm(ctx); err != nil {
		return nil, err
	}
	if err := r.Tried(); err != nil {
		return nil, err
	}
	tried, err := fw.Try(ctx, TryRequest{File: r.File, Timeout: r.Within + slack})
	if err != nil {
		return nil, err
	}
	report.Warnings = tried.Warnings
	bounded, cancel := context.WithTimeoutCause(ctx, r.Within, fmt.Errorf("it took longer than %s", r.Within))
	err = r.Shown(bounded)
	if err != nil && ctx.Err() == nil && bounded.Err() != nil {
		err = fmt.Errorf("%w: %w", context.Cause(bounded), err)
	}
	cancel()
	// From here on nothing is left undone because the agent is to end.
	ctx = context.WithoutCancel(ctx)
	ours := func(t *schedule.Trial) error {
		if t.File != tried.File || t.Text != tried.Trial.Text {
			return fmt.Errorf("%s is on trial, which somebody else has begun", t.File)
		}
		return nil
	}
	if err == nil {
		confirmed, failed := fw.confirm(ctx, ours)
		if err = failed; err == nil {
			report.Warnings = slices.Concat(report.Warnings, confirmed.Warnings)
			return report, nil
		}
	}
	if _, failed := fw.Revert(ctx); failed != nil {
		if s, unread := fw.store.Read(); unread != nil || s.Trial != nil {
			return report, fmt.Errorf("%w; and to put back what was in force before failed, and is tried again: %w", err, failed)
		}
	}
	return report, fmt.Errorf("%w: %w", err, ErrReverted)
}

// canConfirm returns why the policy file could not be written, which is better found out before a trial than after it.
func (fw *Firewall) canConfirm(ctx context.Context) error {
	_, config, err := fw.running(ctx)
	if err != nil {
		return err
	}
	folder := filepath.Dir(config)
	if err := unix.Access(folder, unix.W_OK); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%s cannot be written, so no policy could be kept: %w; a service needs ReadWritePaths=%s", config, err, folder)
	}
	return nil
}

// IsOnTrial reports whether a file is on trial.
func (fw *Firewall) IsOnTrial(file string) (bool, error) {
	s, err := fw.store.Read()
	return err == nil && s.Trial != nil && s.Trial.File == file, err
}

// checkUnattended returns why a file is not even tried where nobody can be asked: what "check" refuses, interfaces that are not
// there, and the end of every way in by ssh.
func (fw *Firewall) checkUnattended(ctx context.Context, file string) error {
	checked, err := fw.Check(file)
	if err != nil {
		return err
	}
	if len(checked.Refused) > 0 {
		return errors.New(strings.Join(checked.Refused, "; "))
	}
	var missing []string
	for _, name := range checked.Policy.Interfaces {
		if _, err := host.Device(name); !policy.IsPattern(name) && errors.Is(err, host.ErrNoDevice) {
			missing = append(missing, name)
		}
	}
	if len(missing) > 0 {
		return fmt.Errorf("the policy is for interfaces that this host lacks: %s", strings.Join(missing, ", "))
	}
	f, err := fw.View(ctx)
	if err != nil {
		if errors.Is(err, loader.ErrNotRunning) {
			return nil
		}
		return err
	}
	defer f.Close()
	fl := fw.Follow(FollowRequest{})
	fl.config = file
	return fl.guard(&source{path: file, policy: checked.Policy}, f)
}

// compareWith returns how a file differs from what is in force, and whether it does not, nor from the policy file.
func (fw *Firewall) compareWith(ctx context.Context, file string) (changes []Change, same bool, err error) {
	f, err := fw.View(ctx)
	if errors.Is(err, loader.ErrNotRunning) {
		return nil, false, nil
	}
	if err != nil {
		return nil, false, err
	}
	defer f.Close()
	c, err := fw.candidate(f, file)
	if err != nil {
		return nil, false, err
	}
	runtime, err := f.RuntimeRules()
	if err != nil {
		return nil, false, err
	}
	have, readErr := os.ReadFile(c.config)
	same = len(c.changes) == 0 && len(runtime) == 0 && readErr == nil && bytes.Equal(have, c.text)
	return c.changes, same, nil
}

// Drift returns how what is in force differs from a file: what has been changed since by hand.
func (fw *Firewall) Drift(ctx context.Context, file string) ([]string, error) {
	f, err := fw.View(ctx)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	c, err := fw.candidate(f, file)
	if err != nil {
		return nil, err
	}
	inForce, err := f.Policy()
	if err != nil {
		return nil, err
	}
	texts := []string{}
	for _, change := range policy.Diff(c.policy, inForce) {
		if change.Key != "interface" {
			texts = append(texts, change.String())
		}
	}
	return texts, nil
}
