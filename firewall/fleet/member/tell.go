// SPDX-License-Identifier: Apache-2.0

package member

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/portcullis-firewall/portcullis/firewall/fleet"
	"github.com/portcullis-firewall/portcullis/firewall/fleet/store"
)

// change changes what is said of this host.
func (m *Member) change(do func(*fleet.Status)) {
	m.mu.Lock()
	do(&m.status)
	m.mu.Unlock()
	select {
	case m.changed <- struct{}{}:
	default:
	}
}

func (m *Member) statusText() ([]byte, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.status.Text()
}

func (m *Member) putStatus(ctx context.Context, s store.Store) error {
	text, err := m.statusText()
	if err != nil {
		return err
	}
	return s.Put(ctx, fleet.StatusKey(m.Config.Name), text, store.Any)
}

// notice looks at what differs from the bundle, and returns when to look again.
func (m *Member) notice(ctx context.Context) time.Duration {
	if m.inForce == nil {
		return driftTime
	}
	began := time.Now()
	drift, err := m.Firewall.Drift(ctx, m.disk.path(policyFile))
	if err != nil {
		drift = []string{fmt.Sprintf("what is in force cannot be compared: %v", err)}
	}
	bans := 0
	if f, err := m.Firewall.View(ctx); err == nil {
		if reasons, _, err := f.CountBansByReason(); err == nil {
			for _, r := range reasons {
				bans += r.Bans
			}
		}
		f.Close()
	}
	m.change(func(s *fleet.Status) { s.Drift, s.Bans = drift, bans })
	return min(max(driftTime, driftCost*time.Since(began)), driftMost) // a busy host is not one with long lists
}

// tell keeps the presence of this host, and its status, in the store. Where nothing can be written, nothing is.
func (m *Member) tell(ctx context.Context, s store.Store) {
	var wait backoff
	var presence store.Presence
	defer func() {
		if presence != nil {
			_ = presence.Close()
		}
	}()
	told, readOnly := "", false
	for ctx.Err() == nil {
		err := func() (err error) {
			text, err := m.statusText()
			if err != nil {
				return err
			}
			if string(text) != told {
				if err := s.Put(ctx, fleet.StatusKey(m.Config.Name), text, store.Any); err != nil {
					return err
				}
				told = string(text)
			}
			if presence == nil {
				presence, err = s.Announce(ctx, fleet.PresenceKey(m.Config.Name), []byte(m.Version))
			}
			return err
		}()
		switch {
		case err == nil:
			wait = 0
			select {
			case <-ctx.Done():
			case <-m.changed:
			}
			continue
		case errors.Is(err, store.ErrReadOnly) || errors.Is(err, store.ErrDenied):
			if !readOnly && ctx.Err() == nil {
				readOnly = true
				m.Log.Warn("this host takes bundles, but cannot say how it is: %v", err)
			}
			sleep(ctx, maxBackoff)
		default:
			sleep(ctx, wait.next())
		}
	}
}
