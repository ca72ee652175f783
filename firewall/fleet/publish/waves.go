// SPDX-License-Identifier: Apache-2.0

package publish

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/portcullis-firewall/portcullis/firewall/fleet"
	"github.com/portcullis-firewall/portcullis/firewall/fleet/store"
)

// Wave is a part of a group that gets a bundle before the others.
type Wave struct {
	Hosts   int // so many, or
	Percent int // a part of all
}

// DefaultWaves are one host, then parts of the group.
const DefaultWaves = "1,5%,25%"

// DefaultPatience is how long hosts of a wave may take beside the time to confirm.
const DefaultPatience = time.Minute

// ParseWaves reads waves such as "1,5%,25%", after which all hosts follow; "none" stands for all at once.
func ParseWaves(text string) ([]Wave, error) {
	if text == "none" {
		return nil, nil
	}
	var waves []Wave
	for word := range strings.SplitSeq(text, ",") {
		number, isPercent := strings.CutSuffix(strings.TrimSpace(word), "%")
		n, err := strconv.Atoi(number)
		if err != nil || n < 1 || isPercent && n > 100 || n > 10_000 {
			return nil, fmt.Errorf("waves %q: write numbers of hosts or percents, such as %s, or none", text, DefaultWaves)
		}
		w := Wave{Hosts: n}
		if isPercent {
			w = Wave{Percent: n}
		}
		waves = append(waves, w)
	}
	return waves, nil
}

// Of many hosts, what several say within a moment is looked at together.
const (
	manyHosts  = 100
	gatherTime = 200 * time.Millisecond
)

// WaveReport is how far a wave has come.
type WaveReport struct {
	Wave    string   `json:"wave"` // "1 host", "5 %" or "all"
	Hosts   int      `json:"hosts"`
	InForce int      `json:"in_force"`
	Failed  []string `json:"failed"` // a sentence for each host that reverted, refused or was lost
	Done    bool     `json:"done"`
}

// step is a wave with its hosts.
type step struct {
	name string
	wave *fleet.Wave // nil: all
}

// steps returns the waves for the hosts of a group, each of which has more than the one before.
func steps(waves []Wave, hosts []Host, bundle string) []step {
	var present []string
	for _, h := range hosts {
		if h.Present {
			present = append(present, h.Name)
		}
	}
	var out []step
	members := 0
	for _, w := range waves {
		if len(present) == 0 {
			break // nobody would say how it went
		}
		s := step{fmt.Sprintf("%d %%", w.Percent), &fleet.Wave{Percent: w.Percent}}
		if w.Hosts > 0 {
			s = step{"1 host", &fleet.Wave{Hosts: present[:min(w.Hosts, len(present))]}}
			if w.Hosts > 1 {
				s.name = fmt.Sprintf("%d hosts", w.Hosts)
			}
		}
		if len(out) > 0 { // what an earlier wave had is in all later ones
			last := out[len(out)-1].wave
			s.wave.Hosts, s.wave.Percent = union(last.Hosts, s.wave.Hosts), max(last.Percent, s.wave.Percent)
		}
		n := len(slices.DeleteFunc(slices.Clone(present), func(name string) bool { return !s.wave.Has(name, bundle) }))
		if n <= members || n == len(present) {
			continue
		}
		members = n
		out = append(out, s)
	}
	return append(out, step{"all", nil})
}

// StoppedError is returned where a wave did not go well. No further host gets the bundle.
type StoppedError struct{ Wave WaveReport }

func (e *StoppedError) Error() string {
	const most = 5
	failed := e.Wave.Failed
	if len(failed) > most {
		failed = append(failed[:most:most], fmt.Sprintf("and %d more", len(failed)-most))
	}
	return fmt.Sprintf("stopped at wave %q: %s\nno further host gets it; \"portcullis fleet rollback\" takes it back where it is in force", e.Wave.Wave, strings.Join(failed, "\n"))
}

// publishWaves makes the bundle that of one wave after the other. Hosts are those from before.
func (f *Fleet) publishWaves(ctx context.Context, p *fleet.Pointer, version store.Version, waves []step, hosts []Host, confirm time.Duration, r Request, report *Report) error {
	key := fleet.PointerKey(p.Group)
	here := make(map[string]bool)
	for _, h := range hosts {
		here[h.Name] = h.Present
	}
	for i, w := range waves {
		if p.Wave = w.wave; p.Wave == nil {
			p.Before = nil
		}
		object, err := p.Seal(r.Key)
		if err != nil {
			return err
		}
		err = f.Store.Put(ctx, key, object, version)
		if errors.Is(err, store.ErrConflict) {
			err = fmt.Errorf("somebody else has published for group %s meanwhile: look with \"portcullis fleet status\", and publish again", p.Group)
		}
		if err != nil {
			return err
		}
		report.Published = true
		now, err := f.Store.Get(ctx, key)
		if err != nil {
			return err
		}
		version = now.Version
		if len(waves) == 1 && len(r.Waves) == 0 {
			return nil // who asks for no waves does not wait
		}
		patience := r.Patience
		if patience == 0 {
			patience = DefaultPatience
		}
		done, err := f.await(ctx, p, w, here, confirm+patience, r)
		if err != nil {
			return err
		}
		report.Waves = append(report.Waves, done)
		if len(done.Failed) > 0 && (i < len(waves)-1 || done.InForce < done.Hosts) {
			return &StoppedError{done}
		}
	}
	return nil
}

// await waits until the hosts of a wave run the bundle, or one of them says that it does not, or is gone. Here are those that
// were there before the wave, and then those that are after it.
func (f *Fleet) await(ctx context.Context, p *fleet.Pointer, w step, here map[string]bool, within time.Duration, r Request) (WaveReport, error) {
	report := WaveReport{Wave: w.name, Failed: []string{}}
	known := newHosts(p.Group, p.RevokedHosts)
	bounded, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	since, told := "", -1
	var waiting []string
	for {
		c, err := f.Store.Changes(bounded, fleet.HostsPrefix, since)
		if errors.Is(err, store.ErrUnsupported) {
			report.Done = true
			return report, nil
		}
		if ctx.Err() != nil {
			return report, ctx.Err()
		}
		if err != nil && bounded.Err() == nil {
			if pause(bounded, time.Second) == nil {
				continue // the bundle is out, and the store may come back
			}
		}
		late := bounded.Err() != nil
		if err == nil {
			since = c.Since
			known.take(c)
		}
		report.Hosts, report.InForce, waiting = 0, 0, nil
		report.Failed = report.Failed[:0]
		for _, h := range known.list() {
			if !here[h.Name] || !w.wave.Has(h.Name, p.Bundle) {
				continue
			}
			report.Hosts++
			switch {
			case h.Serial == p.Serial && h.State == fleet.StateInForce:
				report.InForce++
			case h.Tried == p.Serial && (h.State == fleet.StateReverted || h.State == fleet.StateRefused):
				report.Failed = append(report.Failed, fmt.Sprintf("host %s: %s", h.Name, h.Problem))
			case !h.Present:
				report.Failed = append(report.Failed, fmt.Sprintf("host %s is lost: it was there before, and is not any more", h.Name))
			default:
				waiting = append(waiting, h.Name)
			}
		}
		if late {
			for _, name := range waiting {
				report.Failed = append(report.Failed, fmt.Sprintf("host %s has not put it in force within %s", name, within))
			}
			waiting = nil
		}
		report.Done = len(waiting) == 0
		if r.Tell != nil && (report.InForce != told || report.Done) {
			told = report.InForce
			r.Tell(report)
		}
		if !report.Done && len(report.Failed) == 0 && report.Hosts > manyHosts {
			_ = pause(bounded, gatherTime)
		}
		if report.Done || len(report.Failed) > 0 {
			for _, h := range known.list() {
				here[h.Name] = here[h.Name] || h.Present
			}
			return report, nil
		}
	}
}

func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}
