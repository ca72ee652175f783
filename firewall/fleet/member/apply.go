// SPDX-License-Identifier: Apache-2.0

package member

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"time"

	"github.com/portcullis-firewall/portcullis/firewall"
	"github.com/portcullis-firewall/portcullis/firewall/fleet"
	"github.com/portcullis-firewall/portcullis/firewall/fleet/store"
)

// refusal is why a bundle is not put in force, which is told until something else can be said.
type refusal struct {
	state  fleet.State
	serial uint64
	err    error
}

func (r *refusal) Error() string { return r.err.Error() }
func (r *refusal) Unwrap() error { return r.err }

// halfTime is how long a signature may be wrong before it is told: a folder that rsync or git fills may have half of a file.
const halfTime = time.Second

// consider puts in force what a pointer says, if that is right. Its error is a refusal, or worth another try.
func (m *Member) consider(ctx context.Context, s store.Store, object store.Object) error {
	err := m.take(ctx, s, object)
	if errors.Is(err, fleet.ErrSignature) {
		sleep(ctx, halfTime)
		if now, getErr := s.Get(ctx, fleet.PointerKey(m.Config.Group)); getErr != nil || now.Version != object.Version {
			return nil // the next one comes
		}
		err = m.take(ctx, s, object)
	}
	var r *refusal
	switch {
	case err == nil || ctx.Err() != nil:
		return nil
	case errors.As(err, &r):
		m.refuse(r)
	case m.pointer != nil:
		m.complain(fmt.Errorf("bundle %d of group %s: %w; the policy in force stays, and it is tried again", m.pointer.Serial, m.Config.Group, err))
		m.change(func(s *fleet.Status) { s.Problem = err.Error() })
	default:
		m.complain(err)
	}
	return err
}

// refuse tells why the policy in force stays.
func (m *Member) refuse(r *refusal) {
	m.complain(fmt.Errorf("fleet: %w; the policy in force stays", r.err))
	m.change(func(s *fleet.Status) { s.State, s.Problem, s.Tried = r.state, r.Error(), r.serial })
}

func (m *Member) take(ctx context.Context, s store.Store, object store.Object) error {
	refused := func(serial uint64, err error) error { return &refusal{fleet.StateRefused, serial, err} }
	group := m.Config.Group
	if object.Version == store.Absent {
		return refused(0, fmt.Errorf("there is no group %q in %s: publish a policy for it, or mend \"group:\" in this host's fleet.yaml", group, m.Config.From))
	}
	keys := fleet.Without(m.Config.Keys, m.state.RevokedKeys)
	p, _, err := fleet.OpenPointer(object.Value, group, keys)
	if err != nil {
		return refused(0, fmt.Errorf("group %s: %w", group, err))
	}
	highest := m.state.Serials[group]
	if p.Serial < highest {
		return refused(p.Serial, fmt.Errorf("bundle %d of group %s is older than %d, which was in force here", p.Serial, group, highest))
	}
	m.pointer = p
	if err := m.revoke(p); err != nil {
		return err
	}
	keys = fleet.Without(keys, p.RevokedKeys)
	if slices.Contains(p.RevokedHosts, m.Config.Name) {
		return &refusal{fleet.StateRemoved, p.Serial, fmt.Errorf("this host, %s, is revoked, and takes nothing more of group %s", m.Config.Name, group)}
	}
	offered, sealed, err := m.fetch(ctx, s, p.Target, keys)
	if err != nil {
		return err
	}
	m.offered = offered
	defer m.tellRules()
	target, ok := p.For(m.Config.Name)
	switch {
	case !ok:
		return refused(0, fmt.Errorf("bundle %d of group %s is for other hosts yet, and there is none from before", p.Serial, group))
	case target.Serial < highest: // it has had what the wave now leaves out
		m.settled()
		return nil
	case target.Serial == highest && target.Bundle != m.state.Bundle && m.state.Group == group:
		return refused(target.Serial, fmt.Errorf("there are two bundles %d of group %s, and the other one is in force here", target.Serial, group))
	}
	bundle := offered
	if target != p.Target {
		if bundle, sealed, err = m.fetch(ctx, s, target, keys); err != nil {
			return err
		}
	}
	return m.adopt(ctx, s, target, bundle, sealed)
}

// settled records that what is to be in force is.
func (m *Member) settled() {
	serial := m.state.Serials[m.Config.Group]
	m.change(func(s *fleet.Status) {
		s.Serial, s.Bundle, s.State, s.Tried, s.Problem, s.Probe = serial, m.state.Bundle, fleet.StateInForce, serial, "", nil
	})
}

// revoke makes the keys that a pointer revokes worthless, for good.
func (m *Member) revoke(p *fleet.Pointer) error {
	before := len(m.state.RevokedKeys)
	for _, id := range p.RevokedKeys {
		if !slices.Contains(m.state.RevokedKeys, id) {
			m.state.RevokedKeys = append(m.state.RevokedKeys, id)
			m.Log.Warn("key %s of the fleet is revoked", id)
		}
	}
	if len(m.state.RevokedKeys) == before {
		return nil
	}
	return m.disk.save(m.state)
}

// fetch returns a bundle that is verified.
func (m *Member) fetch(ctx context.Context, s store.Store, t fleet.Target, keys []fleet.PublicKey) (*fleet.Bundle, []byte, error) {
	object, err := s.Get(ctx, fleet.BundleKey(t.Bundle))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil, fmt.Errorf("the bundle %.12s… is not there yet", t.Bundle) // what fills the folder does so in any order
	}
	if err != nil {
		return nil, nil, err
	}
	b, _, err := fleet.OpenBundle(object.Value, t, m.Config.Group, keys)
	if err != nil {
		return nil, nil, &refusal{fleet.StateRefused, t.Serial, fmt.Errorf("bundle %d of group %s: %w", t.Serial, m.Config.Group, err)}
	}
	return b, object.Value, nil
}

// fetchLists puts the lists of a bundle on the disk.
func (m *Member) fetchLists(ctx context.Context, s store.Store, b *fleet.Bundle) error {
	for name, digest := range b.Lists {
		if have, err := os.ReadFile(m.disk.list(digest)); err == nil && fleet.Digest(have) == digest {
			continue
		}
		object, err := s.Get(ctx, fleet.ListKey(digest))
		if err != nil {
			return fmt.Errorf("the list %s: %w", name, err)
		}
		if fleet.Digest(object.Value) != digest {
			return fmt.Errorf("the list %s is not the one that was signed: its digest is another", name)
		}
		if err := m.disk.put(listsDir+"/"+digest, object.Value); err != nil {
			return err
		}
	}
	return nil
}

// adopt puts a bundle in force, if it lets this host be reached.
func (m *Member) adopt(ctx context.Context, s store.Store, t fleet.Target, b *fleet.Bundle, sealed []byte) error {
	named := func(err error) error {
		return &refusal{fleet.StateRefused, t.Serial, fmt.Errorf("bundle %d of group %s: %w", t.Serial, m.Config.Group, err)}
	}
	if err := m.fetchLists(ctx, s, b); err != nil {
		return err
	}
	text, err := b.Render(m.host, m.disk.list)
	if err != nil {
		return named(err)
	}
	what := offer{t, fleet.Digest([]byte(text))}
	if f := m.state.Failed; f != nil && f.offer == what {
		return &refusal{fleet.StateReverted, t.Serial, errors.New(f.Problem)}
	}
	if err := m.disk.put(offeredFile, []byte(text)); err != nil {
		return err
	}
	if t.Serial == m.state.Serials[m.Config.Group] && t.Bundle == m.state.Bundle && m.inForce != nil {
		// What has been changed since by hand is drift, and stays until the next bundle. But facts may have changed.
		if had, err := os.ReadFile(m.disk.path(policyFile)); err == nil && string(had) == text {
			m.settled()
			return nil
		}
	}
	count := 1
	if a := m.state.Trying; a != nil && a.offer == what {
		count += a.Count
	}
	if count > maxAttempts {
		return m.failed(what, fmt.Errorf("the agent was killed %d times while it was on trial", maxAttempts))
	}
	report, err := m.Firewall.Adopt(ctx, firewall.AdoptRequest{
		File:   m.disk.path(offeredFile),
		Within: b.ConfirmTime(),
		Tried: func() error {
			m.Log.Info("bundle %d of group %s is on trial", t.Serial, m.Config.Group)
			m.change(func(s *fleet.Status) { s.State, s.Tried, s.Problem = fleet.StateTrying, t.Serial, "" })
			m.state.Trying = &attempt{what, count}
			return m.disk.save(m.state)
		},
		Shown: func(ctx context.Context) error { return m.shown(ctx, b) },
	})
	m.change(func(s *fleet.Status) { s.Probe = nil })
	if errors.Is(err, firewall.ErrReverted) && ctx.Err() == nil {
		return m.failed(what, err)
	}
	if err != nil && m.state.Trying != nil { // this process lives, and whatever came between may not the next time
		m.state.Trying = nil
		err = errors.Join(err, m.disk.save(m.state))
	}
	switch {
	case errors.Is(err, firewall.ErrReverted): // the agent is to end, which proves nothing
		return ctx.Err()
	case err != nil && (errors.Is(err, firewall.ErrLocked) || errors.As(err, new(*firewall.TrialError))):
		return err
	case err != nil:
		return named(err)
	}
	for _, w := range report.Warnings {
		m.Log.Warn("%s", w)
	}
	m.Log.Info("bundle %d of group %s is in force", t.Serial, m.Config.Group)
	for _, c := range report.Changes {
		m.Log.Info("  %s", c)
	}
	m.state.Serials[m.Config.Group], m.state.Group, m.state.Bundle = t.Serial, m.Config.Group, t.Bundle
	m.state.Failed, m.state.Trying = nil, nil
	m.inForce = b
	m.settled()
	m.disk.keepLists(b, m.offered)
	// Where that fails, the policy is in force all the same, and the next start finds it so.
	if err := errors.Join(m.disk.put(policyFile, []byte(text)), m.disk.put(bundleFile, sealed), m.disk.save(m.state)); err != nil {
		m.Log.Error("bundle %d is in force, but that cannot be written down: %v", t.Serial, err)
	}
	return nil
}

// failed records that a bundle was reverted, and is not to be tried again.
func (m *Member) failed(what offer, err error) error {
	r := &refusal{fleet.StateReverted, what.Serial, fmt.Errorf("bundle %d of group %s was reverted: %w", what.Serial, m.Config.Group, err)}
	m.state.Failed, m.state.Trying = &failure{what, r.Error()}, nil
	if err := m.disk.save(m.state); err != nil {
		m.Log.Error("%v", err)
	}
	return r
}

// kept returns the bundle that is in force by what was kept of it, or nil.
func (m *Member) kept() *fleet.Bundle {
	sealed, err := os.ReadFile(m.disk.path(bundleFile))
	if err != nil {
		return nil
	}
	t := fleet.Target{Bundle: m.state.Bundle, Serial: m.state.Serials[m.Config.Group]}
	b, _, err := fleet.OpenBundle(sealed, t, m.Config.Group, m.Config.Keys) // its key may have been revoked since
	if err != nil {
		return nil
	}
	return b
}
