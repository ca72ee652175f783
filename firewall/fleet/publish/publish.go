// SPDX-License-Identifier: Apache-2.0

package publish

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/portcullis-firewall/portcullis/firewall/fleet"
	"github.com/portcullis-firewall/portcullis/firewall/fleet/store"
)

// Request says what to publish, and how.
type Request struct {
	Group    string
	Key      *fleet.PrivateKey
	Waves    []Wave        // none: all hosts at once
	Patience time.Duration // for the hosts of a wave, beside the time to confirm; 0: DefaultPatience
	// Agree is asked before anything is written; nil: nobody is asked.
	Agree func(*Report) error
	// Tell is called as hosts come to run the bundle; nil: nobody is told.
	Tell func(WaveReport)
}

// Report is what was published.
type Report struct {
	Group       string       `json:"group"`
	Serial      uint64       `json:"serial"`
	Bundle      string       `json:"bundle"`
	Before      uint64       `json:"before"` // the serial from before; 0: none
	Differences []Difference `json:"differences"`
	Drift       []HostDrift  `json:"drift"` // what ends with it
	Waves       []WaveReport `json:"waves"`
	Published   bool         `json:"published"` // false where nothing would change
	Warnings    []string     `json:"warnings"`
}

// HostDrift is what was changed by hand on a host.
type HostDrift struct {
	Host  string   `json:"host"`
	Drift []string `json:"drift"`
}

// Publish makes a policy that of a group.
func (f *Fleet) Publish(ctx context.Context, s *Source, r Request) (*Report, error) {
	c, err := f.Current(ctx, r.Group)
	if err != nil {
		return nil, err
	}
	b := s.bundle
	return f.publish(ctx, c, &b, s.lists, nil, r)
}

// Rollback publishes anew what a group ran before, or the bundle of a serial. Later rollbacks go further back.
func (f *Fleet) Rollback(ctx context.Context, serial uint64, r Request) (*Report, error) {
	c, err := f.existing(ctx, r.Group)
	if err != nil {
		return nil, err
	}
	b := c.Bundle
	if serial == 0 && b.Of != nil {
		if b, err = f.bundle(ctx, r.Group, *b.Of); err != nil {
			return nil, err
		}
	}
	for {
		previous := b.Previous
		switch {
		case previous == nil && serial == 0:
			return nil, fmt.Errorf("there is no bundle of group %s to go back to", r.Group)
		case previous == nil || previous.Serial < serial:
			return nil, fmt.Errorf("group %s has no bundle %d that could be gone back to", r.Group, serial)
		}
		if b, err = f.bundle(ctx, r.Group, *previous); err != nil {
			return nil, err
		}
		if serial == 0 || b.Serial == serial {
			return f.publish(ctx, c, anew(b, *previous), nil, nil, r)
		}
	}
}

// anew returns a bundle that publishes another one again.
func anew(b *fleet.Bundle, t fleet.Target) *fleet.Bundle {
	again := *b
	if again.Of == nil {
		again.Of = &t
	}
	return &again
}

// RevokeRequest says what is to be revoked.
type RevokeRequest struct {
	Keys  []fleet.KeyID
	Hosts []string
}

// Revoke makes keys worthless on all hosts that hear of it, or takes hosts out of the group. What the group runs is signed
// anew, and stays.
func (f *Fleet) Revoke(ctx context.Context, what RevokeRequest, r Request) (*Report, error) {
	if slices.Contains(what.Keys, r.Key.ID) {
		return nil, fmt.Errorf("key %s cannot revoke itself: sign with another one that the hosts have", r.Key.ID)
	}
	c, err := f.existing(ctx, r.Group)
	if err != nil {
		return nil, err
	}
	r.Waves, r.Agree = nil, nil
	keys := fleet.Without(append(slices.Clone(f.Keys), r.Key.Public()), c.Pointer.RevokedKeys)
	var unsigned error
	if len(what.Keys) > 0 { // before hosts hear of it
		unsigned = f.resignBans(ctx, r.Group, r.Key, keys)
	}
	report, err := f.publish(ctx, c, anew(c.Bundle, c.Pointer.Target), nil, &what, r)
	if err == nil && unsigned != nil {
		report.Warnings = append(report.Warnings, fmt.Sprintf("the operators' bans could not be signed anew, and hosts may not take them any more: %v", unsigned))
	}
	return report, err
}

// publish signs a bundle and makes it the group's.
func (f *Fleet) publish(ctx context.Context, c *Current, b *fleet.Bundle, lists map[string][]byte, revoke *RevokeRequest, r Request) (*Report, error) {
	if !slices.ContainsFunc(f.Keys, func(k fleet.PublicKey) bool { return k.ID == r.Key.ID }) {
		f.Keys = append(f.Keys, r.Key.Public())
	}
	p := &fleet.Pointer{Group: r.Group}
	if c.Pointer != nil {
		p.RevokedKeys, p.RevokedHosts = c.Pointer.RevokedKeys, c.Pointer.RevokedHosts
	}
	if revoke != nil {
		p.RevokedKeys = union(p.RevokedKeys, revoke.Keys)
		p.RevokedHosts = union(p.RevokedHosts, revoke.Hosts)
	}
	if slices.Contains(p.RevokedKeys, r.Key.ID) {
		return nil, fmt.Errorf("key %s is revoked: no host takes what it signs", r.Key.ID)
	}
	hosts, err := f.Hosts(ctx, r.Group, p.RevokedHosts)
	if err != nil {
		return nil, err
	}
	report := &Report{Group: r.Group, Differences: []Difference{}, Drift: []HostDrift{}, Waves: []WaveReport{}, Warnings: []string{}}
	highest := uint64(0)
	if c.Pointer != nil {
		highest, report.Before = c.Pointer.Serial, c.Pointer.Serial
	}
	for _, h := range hosts {
		if h.Serial > highest { // the store was restored from before
			highest = h.Serial
			report.Warnings = append(report.Warnings, fmt.Sprintf("host %s runs bundle %d already, of which the store knows nothing: the serial is higher than that", h.Name, h.Serial))
		}
		if len(h.Drift) > 0 {
			report.Drift = append(report.Drift, HostDrift{h.Name, h.Drift})
		}
	}
	now := time.Now().UTC().Format(time.RFC3339)
	b.Group, b.Serial, b.Time, b.Previous = r.Group, highest+1, now, nil
	if c.Pointer != nil {
		b.Previous = &c.Pointer.Target
	}
	report.Differences, err = f.newReader(lists).differences(ctx, hosts, f.running(ctx, c), b, r.Group)
	if err != nil {
		return nil, fmt.Errorf("nothing was published:\n%w", err)
	}
	object, digest, err := b.Seal(r.Key)
	if err != nil {
		return nil, fmt.Errorf("nothing was published: %w", err)
	}
	report.Serial, report.Bundle = b.Serial, digest
	p.Target, p.Time = fleet.Target{Bundle: digest, Serial: b.Serial}, now
	waves := steps(r.Waves, hosts, digest)
	if len(r.Waves) > 0 && !slices.ContainsFunc(hosts, func(h Host) bool { return h.Present }) {
		report.Warnings = append(report.Warnings, fmt.Sprintf("no host of group %s is there to say how it goes, so there are no waves: all that come get it at once", r.Group))
	}
	if len(waves) > 1 && c.Pointer != nil {
		p.Before = before(c.Pointer)
	}
	if r.Agree != nil {
		if err := r.Agree(report); err != nil {
			return nil, err
		}
	}
	for digest, list := range lists {
		if err := f.put(ctx, fleet.ListKey(digest), list); err != nil {
			return nil, fmt.Errorf("nothing was published: %w", err)
		}
	}
	if err := f.put(ctx, fleet.BundleKey(digest), object); err != nil {
		return nil, fmt.Errorf("nothing was published: %w", err)
	}
	return report, f.publishWaves(ctx, p, c.version, waves, hosts, b.ConfirmTime(), r, report)
}

// running returns a function that returns what a host runs, or nil where nobody knows.
func (f *Fleet) running(ctx context.Context, c *Current) func(Host) *fleet.Bundle {
	known := make(map[string]*fleet.Bundle)
	if c.Pointer != nil {
		known[c.Pointer.Bundle], known[""] = c.Bundle, c.Bundle
	}
	return func(h Host) *fleet.Bundle {
		if _, ok := known[h.Bundle]; !ok {
			known[h.Bundle], _ = f.bundle(ctx, h.Group, fleet.Target{Bundle: h.Bundle, Serial: h.Serial})
		}
		return known[h.Bundle]
	}
}

// before returns what hosts run that a new pointer leaves out. Where the last publication was stopped in a wave, most still run
// what was before that.
func before(p *fleet.Pointer) *fleet.Target {
	if p.Wave != nil && p.Before != nil {
		return p.Before
	}
	return &p.Target
}

func union[T comparable](a, b []T) []T {
	out := slices.Clone(a)
	for _, v := range b {
		if !slices.Contains(out, v) {
			out = append(out, v)
		}
	}
	return out
}

// put writes an object that never changes.
func (f *Fleet) put(ctx context.Context, key string, value []byte) error {
	err := f.Store.Put(ctx, key, value, store.Absent)
	if errors.Is(err, store.ErrConflict) {
		have, getErr := f.Store.Get(ctx, key)
		if getErr == nil && fleet.Digest(have.Value) == fleet.Digest(value) {
			return nil
		}
		// Half of it may have been left, or somebody has damaged it: no host takes that.
		return f.Store.Put(ctx, key, value, store.Any)
	}
	return err
}
