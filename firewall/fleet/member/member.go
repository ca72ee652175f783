// SPDX-License-Identifier: Apache-2.0

// Package member is a host's part in a fleet: it takes the bundles of its group from a store, verifies, checks and tries
// them, and says how the host is. Whatever goes wrong, the policy in force stays.
package member

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"path/filepath"
	"sync"
	"time"

	"github.com/portcullis-firewall/portcullis/firewall"
	"github.com/portcullis-firewall/portcullis/firewall/fleet"
	"github.com/portcullis-firewall/portcullis/firewall/fleet/store"
)

// Log takes what somebody should know.
type Log interface {
	Error(format string, args ...any)
	Warn(format string, args ...any)
	Info(format string, args ...any)
}

// Options say who the host is.
type Options struct {
	Firewall *firewall.Firewall
	Config   *fleet.Config
	Openers  store.Openers
	Version  string // of this program
	Log      Log
}

// Member is a host of a fleet.
type Member struct {
	Options
	host  *fleet.Host
	disk  disk
	state *state

	inForce *fleet.Bundle // nil: none that is known
	offered *fleet.Bundle // the newest that was verified, perhaps for other hosts first
	pointer *fleet.Pointer
	lastErr string // that was logged

	mu      sync.Mutex
	status  fleet.Status
	changed chan struct{} // the status has
	rules   chan rules    // for bans and probes: what the bundles say now
}

// rules are what a bundle says that hosts do for one another.
type rules struct {
	bans   *fleet.Bans
	probes []fleet.Probe
	keys   []fleet.PublicKey
	absent []string // hosts that are revoked
}

const (
	minBackoff = time.Second
	maxBackoff = time.Minute
	// retryTime is after what time a bundle is looked at again that was refused: an interface may have come.
	retryTime = time.Minute
	driftTime = 3 * time.Second // at least, from one look at what differs to the next
	driftMost = 30 * time.Second
	driftCost = 100 // and so many times what the look has taken: lists of a million networks take their time
)

// backoff is how long to wait before the next try. That no two hosts wait as long keeps ten thousand from coming back at once.
type backoff time.Duration

func (b *backoff) next() time.Duration {
	last := max(time.Duration(*b), minBackoff)
	*b = backoff(min(2*last, maxBackoff))
	return last/2 + rand.N(last)
}

// New returns the host, which does nothing yet.
func New(o Options) (*Member, error) {
	dir := o.Firewall.StateDir()
	if dir == "" {
		return nil, errors.New("there is no directory in which a host of a fleet keeps what it has taken: set STATE_DIRECTORY")
	}
	m := &Member{Options: o, host: o.Config.Host(), disk: disk{filepath.Join(dir, "fleet")}, changed: make(chan struct{}, 1), rules: make(chan rules, 1)}
	var err error
	if m.state, err = m.disk.read(); err != nil {
		return nil, err
	}
	m.status = fleet.Status{Name: o.Config.Name, Group: o.Config.Group, State: fleet.StateNone, Facts: o.Config.Facts, Version: o.Version, Drift: []string{}}
	if m.state.Group == o.Config.Group {
		m.status.Serial, m.status.Bundle = m.state.Serials[o.Config.Group], m.state.Bundle
		m.inForce = m.kept()
	}
	if m.status.Serial > 0 {
		m.status.State, m.status.Tried = fleet.StateInForce, m.status.Serial
	}
	return m, nil
}

// Run takes bundles until ctx ends. It returns no error: without its fleet a host keeps its policy.
func (m *Member) Run(ctx context.Context) {
	m.recover(ctx)
	var wait backoff
	for ctx.Err() == nil {
		began := time.Now()
		err := m.session(ctx)
		if ctx.Err() != nil {
			return
		}
		if time.Since(began) > maxBackoff {
			wait = 0
		}
		m.complain(fmt.Errorf("the fleet's store %s: %w; the policy in force stays, and it is tried again", m.Config.From, err))
		sleep(ctx, wait.next())
	}
}

func sleep(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}

// complain logs an error, and the same one once in a row.
func (m *Member) complain(err error) {
	if text := err.Error(); text != m.lastErr {
		m.lastErr = text
		m.Log.Error("%s", text)
	}
}

// recover ends the trial that an agent has begun which was killed: nobody would confirm it.
func (m *Member) recover(ctx context.Context) {
	if on, err := m.Firewall.IsOnTrial(m.disk.path(offeredFile)); err != nil || !on {
		return
	}
	if _, err := m.Firewall.Revert(ctx); err != nil {
		m.Log.Error("%v", err)
		return
	}
	m.Log.Warn("the agent was killed while a policy of the fleet was on trial: what was in force before is in force again")
}

// session works with a store until that cannot be reached. A trial goes on for as long as life does: a policy that cuts the
// host off from its store is to be found bad, and not to be tried again when that is back.
func (m *Member) session(life context.Context) error {
	s, err := m.open(life)
	if err != nil {
		return err
	}
	defer s.Close()
	ctx, end := context.WithCancelCause(life)
	var beside sync.WaitGroup
	defer beside.Wait()
	defer end(nil)
	pointers := make(chan store.Object)
	beside.Go(func() { end(m.watch(ctx, s, pointers)) })
	beside.Go(func() { m.tell(ctx, s) })
	beside.Go(func() { m.beside(ctx, s) })
	m.tellRules()
	drift := time.NewTimer(m.notice(life))
	defer drift.Stop()
	var last *store.Object
	var wait backoff
	var again <-chan time.Time
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case object := <-pointers:
			last, wait = &object, 0
		case <-again:
		case <-drift.C:
			drift.Reset(m.notice(life))
			continue
		}
		again = nil
		switch err := m.consider(life, s, *last); {
		case err == nil:
			m.lastErr = ""
		case errors.As(err, new(*refusal)):
			again = time.After(retryTime)
		default:
			again = time.After(wait.next())
		}
		drift.Reset(m.notice(life))
	}
}

func (m *Member) open(ctx context.Context) (store.Store, error) {
	return m.Openers.Open(ctx, m.Config.From, m.Config.StoreOptions())
}

// watch hands on the group's pointer whenever it has changed. It returns why it cannot go on.
func (m *Member) watch(ctx context.Context, s store.Store, pointers chan<- store.Object) error {
	key := fleet.PointerKey(m.Config.Group)
	now, err := s.Get(ctx, key)
	for {
		if errors.Is(err, fs.ErrNotExist) {
			now, err = store.Object{}, nil
		}
		if err != nil {
			return err
		}
		select {
		case pointers <- now:
		case <-ctx.Done():
			return ctx.Err()
		}
		now, err = s.Watch(ctx, key, now.Version)
	}
}
