// SPDX-License-Identifier: Apache-2.0

package firewall

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/portcullis-firewall/portcullis/loader"
	"github.com/portcullis-firewall/portcullis/policy"
)

// UpRequest says how to put the policy file in force.
type UpRequest struct {
	Interfaces []string // beside those filtered already; none: those of the file, or that of the default route
	Mode       loader.Mode
	Force      bool // also when it locks the user out
	Watch      bool // drop nothing, whatever the file says
}

// UpReport is the result of Up.
type UpReport struct {
	Interfaces []loader.Interface `json:"interfaces"`
	Enforcing  bool               `json:"enforcing"`
	Updated    bool               `json:"updated"`
	Seeded     int                `json:"seeded"`
	Bans       int                `json:"bans"` // that are in force again
	Config     string             `json:"config"`
	BuiltIn    bool               `json:"built_in"`
	Rules      []string           `json:"rules"`
	Forward    []string           `json:"forward_rules"`
	Skipped    []string           `json:"skipped"` // lines of list files that are no networks
	Warnings   []string           `json:"warnings"`

	Policy *policy.Policy `json:"-"`
}

// Up puts the policy file in force, on a filter that runs in one step.
func (fw *Firewall) Up(ctx context.Context, r UpRequest) (*UpReport, error) {
	c, err := fw.beginToRepair(ctx)
	if err != nil {
		return nil, err
	}
	defer c.end()
	filtered, config, err := fw.running(ctx)
	if err != nil {
		return nil, err
	}
	if err := c.lockFile(ctx, config); err != nil {
		return nil, err
	}
	s, err := fw.wanted(config)
	if err != nil {
		return nil, err
	}
	p := s.policy
	p.WatchOnly = p.WatchOnly || r.Watch
	ending := letGo(filtered, slices.Concat(p.Interfaces, r.Interfaces))
	if len(p.Interfaces) == 0 {
		ending = nil
	}
	if p.Interfaces, err = fw.Interfaces(r.Interfaces, p.Interfaces, filtered); err != nil {
		return nil, err
	}
	if !r.Force {
		if err := fw.user.Guard(withInterfaces(p, without(filtered, ending)), config); err != nil {
			return nil, err
		}
		if err := fw.guardLists(p); err != nil {
			return nil, err
		}
	}
	report, err := fw.kernel.Up(fw.waiting(ctx), loader.Options{
		PinPath:    fw.options.PinPath,
		Interfaces: p.Interfaces,
		Mode:       r.Mode,
		Look:       true,
		Policy:     p,
		Config:     config,
		LetGo:      ending,
		Attended:   fw.hasAgent(),
	})
	if err != nil {
		return nil, err
	}
	c.recordApplied(s.stamp())
	c.recordForced(s.stamp(), r.Force, p)
	var ended []string
	for _, timed := range c.Timed {
		if _, open := p.Find(timed.Rule); !open {
			ended = append(ended, fmt.Sprintf("%s was open for a time, and is closed now", timed.Rule))
		}
	}
	warnings := slices.Concat(ended, listWarnings(p), warning(c.endTimed()), report.Warnings, fw.user.Unreachable(p), ineffective(p, withInterfaces(p, without(filtered, ending)).Interfaces), fw.unfiltered(report.Interfaces, nil), fw.unwritten(p))
	warnings = append(warnings, fw.keepNewLastGood(ctx, s.lists)...)
	return &UpReport{
		Interfaces: list(report.Interfaces),
		Enforcing:  !p.WatchOnly,
		Updated:    report.Updated,
		Seeded:     report.Seeded,
		Bans:       report.Bans,
		Config:     config,
		BuiltIn:    s.builtIn,
		Rules:      policy.Texts(p.InputRules()),
		Forward:    policy.Texts(p.ForwardRules()),
		Skipped:    skippedLines(p),
		Warnings:   list(warnings),
		Policy:     p,
	}, nil
}

// warning returns what is to be said of a step that failed after the change itself was made.
func warning(err error) []string {
	if err == nil {
		return nil
	}
	return []string{err.Error()}
}

// DownReport is the result of Down.
type DownReport struct {
	loader.DownReport
	Warnings []string `json:"warnings"`
}

// Down takes the filter off the interfaces, or off all when none is named. All of it ends a trial, too, and needs nothing
// but the filter: it is the way out of everything else.
func (fw *Firewall) Down(ctx context.Context, interfaces []string) (*DownReport, error) {
	report := &DownReport{Warnings: []string{}}
	begin := fw.beginToChange
	if len(interfaces) == 0 {
		begin = fw.begin // no trial outlives it
	}
	c, err := begin(ctx)
	switch {
	case err == nil:
		defer c.end()
	case len(interfaces) > 0 || errors.Is(err, ErrLocked) || errors.Is(err, loader.ErrOtherNamespace) || ctx.Err() != nil:
		return nil, err
	default:
		report.Warnings = append(report.Warnings, err.Error())
	}
	down, err := fw.kernel.Down(fw.waiting(ctx), fw.options.PinPath, interfaces)
	if err != nil {
		return nil, err
	}
	report.DownReport = *down
	report.Interfaces, report.Remaining, report.Absent = list(report.Interfaces), list(report.Remaining), list(report.Absent)
	report.Others, report.Patterns = list(report.Others), list(report.Patterns)
	if len(report.Remaining) == 0 && c != nil {
		c.forgetApplied()
		if err := c.clear(); err != nil {
			report.Warnings = append(report.Warnings, err.Error())
		}
	}
	return report, nil
}

// list makes sure that a slice without entries is [] in JSON, and not null.
func list[T any](s []T) []T {
	if s == nil {
		return []T{}
	}
	return s
}
