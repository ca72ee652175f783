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
	"time"

	"github.com/portcullis-firewall/portcullis/firewall/savefile"
	"github.com/portcullis-firewall/portcullis/firewall/schedule"
	"github.com/portcullis-firewall/portcullis/host"
	"github.com/portcullis-firewall/portcullis/loader"
	"github.com/portcullis-firewall/portcullis/maps"
	"github.com/portcullis-firewall/portcullis/policy"
)

// TryRequest says what to put on trial, and for how long.
type TryRequest struct {
	File    string
	Timeout time.Duration
}

// TryReport is the result of Try.
type TryReport struct {
	File        string             `json:"file"`
	Interfaces  []loader.Interface `json:"interfaces"`
	Rules       []string           `json:"rules"`
	Forward     []string           `json:"forward_rules"`
	Config      string             `json:"config"` // what Confirm writes
	SecondsLeft int                `json:"seconds_left"`
	Warnings    []string           `json:"warnings"`

	Trial  *schedule.Trial `json:"-"`
	Policy *policy.Policy  `json:"-"`
}

// Try puts the policy of a file in force until it is confirmed, or else its time is up.
func (fw *Firewall) Try(ctx context.Context, r TryRequest) (*TryReport, error) {
	c, err := fw.beginToChange(ctx)
	if err != nil {
		return nil, err
	}
	defer c.end()
	file, err := filepath.Abs(r.File)
	if err != nil {
		return nil, err
	}
	s, err := fw.readSource(file, fw.options.Invoker...)
	if err != nil {
		return nil, err
	}
	config := fw.options.Config
	var before *schedule.Snapshot
	var filtered []string
	f, err := fw.View(ctx)
	switch {
	case err == nil:
		defer f.Close()
		config = fw.configOf(f)
		if before, err = snapshot(f); err != nil {
			return nil, err
		}
		if err := c.saveLists(f); err != nil {
			return nil, err
		}
		filtered = before.Interfaces
	case !errors.Is(err, loader.ErrNotRunning):
		return nil, err
	}
	if err := s.movesTo(config); err != nil {
		return nil, err
	}
	p := s.policy
	if p.Interfaces, err = fw.Interfaces(nil, p.Interfaces, filtered); err != nil {
		return nil, err
	}
	c.Trial = &schedule.Trial{File: file, Text: string(s.text), Config: config, Before: before, Due: schedule.After(r.Timeout)}
	up, err := c.putOnTrial(ctx, p)
	if err != nil {
		return nil, err
	}
	c.Trial.InForce, c.Trial.Due = true, schedule.After(r.Timeout)
	connections, err := fw.kernel.Connections()
	if err == nil {
		err = errors.Join(fw.store.SaveConnections(connections), c.save())
	}
	if err != nil {
		return nil, errors.Join(err, c.revert(ctx))
	}
	warnings := slices.Concat(up.Warnings, listWarnings(p), fw.hazardWarnings(p), fw.unwritten(p))
	if s, ok := fw.user.Recorded(); ok && !fw.user.Survives(s, p) {
		warnings = append(warnings, fmt.Sprintf("this session (%s) could not be opened again under this policy", s))
	}
	return &TryReport{
		File:        file,
		Interfaces:  list(up.Interfaces),
		Rules:       policy.Texts(p.InputRules()),
		Forward:     policy.Texts(p.ForwardRules()),
		Config:      config,
		SecondsLeft: seconds(c.Trial.Due),
		Warnings:    list(warnings),
		Trial:       c.Trial,
		Policy:      p,
	}, nil
}

// putOnTrial puts the policy in force once it is certain that somebody will take it back.
func (c *change) putOnTrial(ctx context.Context, p *policy.Policy) (*loader.UpReport, error) {
	if err := c.startWatchdog(ctx); err != nil {
		return nil, fmt.Errorf("%w: nothing was changed, as nothing would put it back", err)
	}
	if err := c.save(); err != nil {
		return nil, fmt.Errorf("%w: nothing was changed", err)
	}
	report, err := c.fw.kernel.Up(c.fw.waiting(ctx), loader.Options{PinPath: c.fw.options.PinPath, Interfaces: p.Interfaces,
		Mode: loader.ModeAuto, Policy: p, Config: c.Trial.Config})
	if err != nil {
		c.Trial = nil
		return nil, errors.Join(err, c.save())
	}
	return report, nil
}

// outcomeOf says what happens when nobody confirms a trial.
func outcomeOf(t *schedule.Trial) string {
	if t.Before == nil {
		return "the filter goes off again"
	}
	return "what was in force before comes back"
}

// Outcome says what happens when nobody confirms.
func (r *TryReport) Outcome() string { return outcomeOf(r.Trial) }

// Await waits for the end of a trial, and reports whether it was confirmed.
func (fw *Firewall) Await(ctx context.Context) (confirmed bool, err error) {
	for {
		s, err := fw.store.Read()
		if err != nil {
			return false, err
		}
		if s.Trial == nil {
			return s.Ended != nil && !s.Ended.Reverted, nil
		}
		select {
		case <-ctx.Done():
			return false, ctx.Err()
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// RevertReport is the result of Revert.
type RevertReport struct {
	File    string `json:"file"`
	Running bool   `json:"running"` // false when nothing ran before either
}

// Revert ends a trial, and puts back what was in force before.
func (fw *Firewall) Revert(ctx context.Context) (*RevertReport, error) {
	c, err := fw.begin(ctx)
	if err != nil {
		return nil, err
	}
	defer c.end()
	if c.Trial == nil {
		return nil, c.noTrial(ctx)
	}
	if c.failed != nil { // it has just been tried
		return nil, c.failed
	}
	report := &RevertReport{c.Trial.File, c.Trial.Before != nil}
	if err := c.revert(ctx); err != nil {
		return nil, err
	}
	return report, nil
}

// noTrial says why there is nothing to confirm or to revert. The error wraps ErrNotRunning where nothing runs either.
func (c *change) noTrial(ctx context.Context) error {
	why := whyNoTrial(c.Schedule)
	f, err := c.fw.View(ctx)
	if errors.Is(err, loader.ErrNotRunning) {
		return fmt.Errorf("%w; %w", why, err)
	}
	if err == nil {
		f.Close()
	}
	return why
}

func whyNoTrial(s *schedule.Schedule) error {
	if s.Ended == nil {
		return errors.New("no policy is on trial: \"portcullis try FILE\" puts one there")
	}
	ago := schedule.Span(-s.Ended.At.Left())
	if s.Ended.Reverted {
		return fmt.Errorf("no policy is on trial: the trial of %s ended %s ago, and the previous policy is back", s.Ended.File, ago)
	}
	return fmt.Errorf("no policy is on trial: %s was confirmed %s ago", s.Ended.File, ago)
}

// BackupSuffix is that of the file that keeps what the policy file held before a confirmation.
const BackupSuffix = ".bak"

// ConfirmReport is the result of Confirm.
type ConfirmReport struct {
	File   string `json:"file"`
	Config string `json:"config"`
	Saved  bool   `json:"saved"` // the file held something else before
	Backup string `json:"backup,omitempty"`

	Already  bool     `json:"-"` // it was confirmed before
	Warnings []string `json:"warnings"`
}

// Confirm keeps the policy that is on trial, and saves it as the policy file. Console says that the user's terminal is at
// the machine itself, though it does not look it.
func (fw *Firewall) Confirm(ctx context.Context, console bool) (*ConfirmReport, error) {
	return fw.confirm(ctx, func(*schedule.Trial) error { return fw.user.Witness(fw.store.IsOld, console) })
}

// confirm is Confirm by a witness, who returns why nothing shows that this host can still be reached.
func (fw *Firewall) confirm(ctx context.Context, witness func(*schedule.Trial) error) (*ConfirmReport, error) {
	c, err := fw.begin(ctx)
	if err != nil {
		return nil, err
	}
	defer c.end()
	if c.Trial == nil {
		err := c.noTrial(ctx)
		if c.Ended != nil && !c.Ended.Reverted && !errors.Is(err, loader.ErrNotRunning) {
			return &ConfirmReport{File: c.Ended.File, Already: true, Warnings: []string{}}, nil
		}
		return nil, err
	}
	if c.failed != nil {
		return nil, c.failed
	}
	f, err := fw.openToChange(ctx)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	err = witness(c.Trial)
	if !c.Trial.InForce {
		err = fmt.Errorf("the trial of %s was cut off, and cannot be confirmed", c.Trial.File)
	}
	if err != nil {
		return nil, fmt.Errorf("%w; in %s %s", err, schedule.Span(c.Trial.Due.Left()), outcomeOf(c.Trial))
	}
	report := &ConfirmReport{File: c.Trial.File, Config: c.Trial.Config, Warnings: []string{}}
	report.Saved, report.Backup, err = c.saveConfirmed(ctx)
	if errors.Is(err, savefile.ErrUnsynced) && report.Saved {
		report.Warnings, err = warning(err), nil
	}
	if err != nil {
		return nil, fmt.Errorf("%w: not confirmed", err)
	}
	now, lists := fw.stampOf(report.Config, []byte(c.Trial.Text))
	c.recordApplied(now)
	c.Timed = nil // what was open for a time ended when the trial began
	if err := c.endTrial(false); err != nil {
		return nil, errors.Join(fmt.Errorf("%w: not confirmed", err), c.takeBackConfirmed(report))
	}
	report.Warnings = append(report.Warnings, fw.keepLastGood(f, lists)...)
	return report, nil
}

// takeBackConfirmed puts the policy file back that a confirmation has replaced: the trial goes on.
func (c *change) takeBackConfirmed(r *ConfirmReport) error {
	c.forgetApplied()
	switch {
	case r.Backup != "":
		old, err := readFile(r.Backup)
		if err != nil {
			return err
		}
		return savefile.Save(r.Config, old)
	case r.Saved:
		return os.Remove(r.Config)
	}
	return nil
}

// saveConfirmed writes the policy that was on trial into the policy file.
func (c *change) saveConfirmed(ctx context.Context) (saved bool, backup string, err error) {
	t := c.Trial
	if err := os.MkdirAll(filepath.Dir(t.Config), 0o755); err != nil {
		return false, "", err
	}
	if err := c.lockFile(ctx, t.Config); err != nil {
		return false, "", err
	}
	old, err := readFile(t.Config)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return false, "", err
	case bytes.Equal(old, []byte(t.Text)):
		return false, "", nil
	default:
		backup = t.Config + BackupSuffix
		if err := savefile.Save(backup, old); err != nil && !errors.Is(err, savefile.ErrUnsynced) {
			return false, "", err
		}
	}
	return true, backup, savefile.Save(t.Config, []byte(t.Text))
}

// snapshot returns what is in force now.
func snapshot(f Filter) (*schedule.Snapshot, error) {
	p, err := f.Policy()
	if err != nil {
		return nil, err
	}
	rules, err := f.Rules()
	if err != nil {
		return nil, err
	}
	s := &schedule.Snapshot{Interfaces: p.Interfaces, Config: f.Config()}
	for _, r := range rules {
		s.Rules = append(s.Rules, schedule.SnapshotRule{ID: r.ID, Rule: r.Rule, Runtime: r.Runtime})
	}
	s.Policy = string(p.CompleteYAML())
	return s, nil
}

// restore puts a snapshot in force again. Rules that were away meanwhile go on counting where they were. Interfaces that
// came later are taken off; those that are gone stay so.
func (fw *Firewall) restore(ctx context.Context, s *schedule.Snapshot) error {
	ctx = fw.waiting(ctx)
	p, err := policy.ParseComplete("the policy from before", []byte(s.Policy))
	if err != nil {
		return err
	}
	if err := fw.restoreLists(p); err != nil {
		return err
	}
	o := loader.Options{PinPath: fw.options.PinPath, Mode: loader.ModeAuto, Policy: p, Config: s.Config}
	for _, have := range s.Rules {
		p.Open = append(p.Open, have.Rule)
		o.Former = append(o.Former, maps.Rule{NumberedRule: policy.NumberedRule{ID: have.ID, Rule: have.Rule}, Runtime: have.Runtime})
		if have.Runtime {
			o.Runtime = append(o.Runtime, have.Rule)
		}
	}
	if f, err := fw.View(ctx); err == nil {
		named, err := f.Named()
		f.Close()
		if err != nil {
			return err
		}
		o.LetGo = slices.DeleteFunc(without(named, s.Interfaces), func(name string) bool { return !policy.IsPattern(name) })
	}
	for _, name := range s.Interfaces {
		if policy.IsPattern(name) {
			o.Interfaces = append(o.Interfaces, name)
			continue
		}
		if _, err := host.Device(name); !errors.Is(err, host.ErrNoDevice) {
			o.Interfaces = append(o.Interfaces, name)
		}
	}
	report, err := fw.kernel.Up(ctx, o)
	if err != nil {
		return err
	}
	var added []string
	for _, i := range report.Interfaces {
		if i.Pattern == "" && !slices.Contains(s.Interfaces, i.Name) {
			added = append(added, i.Name)
		}
	}
	// Where one is gone, one that came later may be the same under another name: rather filtered without need than open.
	if len(added) == 0 || len(o.Interfaces) < len(s.Interfaces) {
		return nil // to Down, no name means all
	}
	_, err = fw.kernel.Down(ctx, fw.options.PinPath, added)
	return err
}
