// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/portcullis-firewall/portcullis/loader/lock"
)

// A monitor goes on over whatever becomes of the filter: it renews its slot, and looks for the filter that comes next.

// renewAlways says that the reader is there, whatever else it waits for, until stop is called.
func (m *Monitor) renewAlways() (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	m.done.Go(func() {
		tick := time.NewTicker(monitorRenewTime)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
				m.renew()
			}
		}
	})
	return func() {
		cancel()
		m.done.Wait()
	}
}

func (m *Monitor) renew() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.filter == nil {
		return
	}
	now, err := m.filter.now()
	if err == nil {
		err = m.reader.Renew(now + m.filter.lease())
	}
	if err != nil {
		m.note("%v", err)
		_ = m.letGo() // and check begins anew
	}
}

// note keeps a sentence to be told; the lock is held.
func (m *Monitor) note(format string, args ...any) {
	m.notes = append(m.notes, fmt.Sprintf(format, args...))
}

// check follows the filter: its rules and interfaces, and whether it is there.
func (m *Monitor) check(ctx context.Context) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.filter != nil && m.stated != inode(m.pins.Maps()) {
		m.owed, _ = m.takeMissed()
		_ = m.letGo()
		m.note("the filter was taken down; packets are shown when it is up again")
	}
	if m.filter == nil {
		f, err := Open(briefly(ctx), m.pins.Base)
		if err != nil {
			return // there is none yet
		}
		if err := m.begin(ctx, f); err != nil {
			f.Close()
			if errors.Is(err, errRuleNotInForce) && !m.absent { // it may be opened yet
				m.absent = true
				m.note("%v", err)
			}
			return
		}
		m.absent = false
		m.note("packets of the filter are shown again")
		return
	}
	if err := m.follow(ctx); err != nil && !errors.Is(err, ErrNotRunning) && !errors.Is(err, lock.ErrLocked) {
		m.note("%v", err)
	}
}

// briefly returns a context under which nothing is waited for long: the reader has to say that it is there.
func briefly(ctx context.Context) context.Context {
	return lock.WithWait(context.WithoutCancel(ctx), lock.Wait{Timeout: monitorRenewTime})
}

// follow asks for what is asked for under the numbers that rules and interfaces have now; the lock is held.
func (m *Monitor) follow(ctx context.Context) error {
	current, often := m.filter.isCurrent(), monitorRenewTime
	if len(m.rules) > manyRules {
		often *= 10
	}
	if current && time.Since(m.followed) < often {
		return nil
	}
	m.followed = time.Now()
	if _, err := os.Stat(m.pins.Next()); !current && err == nil {
		return nil // a change is on its way, and the old rules count for so long
	}
	if !current {
		now, err := Open(briefly(ctx), m.pins.Base)
		if err != nil {
			return err
		}
		m.filter.Close()
		m.filter = now
	}
	if !m.passes() && len(m.options.Interfaces) == 0 {
		return nil
	}
	rules, number, err := rulesFor(m.filter, m.options.Rule)
	if err != nil && !errors.Is(err, errRuleNotInForce) {
		return err
	}
	if err != nil && !m.absent {
		m.note("%v", err)
	}
	m.absent = err != nil
	// What was let in before the change may still be on its way.
	for reason, rule := range m.rules {
		if rules[reason] == "" {
			rules[reason] = rule
		}
	}
	m.rules = rules
	indexes, err := m.indexes()
	if err != nil {
		return err
	}
	return m.reader.AskFor(m.passes() && !m.absent, number, indexes)
}

// manyRules is how many are not read anew every second.
const manyRules = 4096

// passes reports whether packets are asked for that rules let in.
func (m *Monitor) passes() bool {
	return m.options.Rule != nil || m.options.Reasons == nil && m.options.Pass
}
