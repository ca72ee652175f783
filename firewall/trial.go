// SPDX-License-Identifier: Apache-2.0

package firewall

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"github.com/portcullis-firewall/portcullis/firewall/schedule"
	"github.com/portcullis-firewall/portcullis/loader"
	"github.com/portcullis-firewall/portcullis/policy"
)

// TryRequest says what to put on trial, and for how long.
type TryRequest struct {
	File    string
	Timeout time.Duration
}

// TryReport tells what Try did.
type TryReport struct {
	File        string             `json:"file"`
	Interfaces  []loader.Interface `json:"interfaces"`
	Rules       []string           `json:"rules"`
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
	s, err := readSource(file, fw.options.Invoker...)
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
		filtered = before.Interfaces
	case !errors.Is(err, loader.ErrNotRunning):
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
	warnings := up.Warnings
	if s, ok := parseSession(fw.options.Session()); ok && !s.survives(p) {
		warnings = append(warnings, fmt.Sprintf("this session (%s) could not be opened again under this policy", s))
	}
	return &TryReport{
		File:        file,
		Interfaces:  list(up.Interfaces),
		Rules:       texts(p.Open),
		Config:      config,
		SecondsLeft: seconds(c.Trial.Due),
		Warnings:    list(warnings),
		Trial:       c.Trial,
		Policy:      p,
	}, nil
}

// putOnTrial puts the policy in force once it is certain that somebody will take it back.
func (c *change) putOnTrial(ctx context.Context, p *policy.Policy) (*loader.UpReport, error) {
	if err := c.startWatchdog(); err != nil {
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

// RevertReport tells what Revert did.
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
		return nil, noTrial(c.Schedule)
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

// noTrial says why there is nothing to confirm or to revert.
func noTrial(s *schedule.Schedule) error {
	if s.Ended == nil {
		return errors.New("no policy is on trial: \"portcullis try FILE\" puts one there")
	}
	ago := Span(-s.Ended.At.Left())
	if s.Ended.Reverted {
		return fmt.Errorf("no policy is on trial: the trial of %s ended %s ago, and the previous policy is back", s.Ended.File, ago)
	}
	return fmt.Errorf("no policy is on trial: %s was confirmed %s ago", s.Ended.File, ago)
}
