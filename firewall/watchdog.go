// SPDX-License-Identifier: Apache-2.0

package firewall

import (
	"context"
	"time"

	"github.com/portcullis-firewall/portcullis/firewall/schedule"
)

// WatchdogCommand is the command of this program that runs [Firewall.Watchdog].
const WatchdogCommand = "watchdog"

// retryTime is after what time the watchdog tries again what failed.
const retryTime = 5 * time.Second

// Watchdog does what the schedule says when its time has come, and returns when nothing is left to do. Of two watchdogs
// of one filter the second returns at once. Complain gets each failure, after which the watchdog tries again.
func (fw *Firewall) Watchdog(ctx context.Context, complain func(error)) error {
	// A watchdog that could do nothing must not be taken for one.
	if _, err := fw.store.Read(); err != nil {
		return err
	}
	alive, err := fw.store.Claim()
	if alive == nil || err != nil {
		return err
	}
	defer alive.Close()
	alarm, err := fw.store.NewAlarm()
	if err != nil {
		return err
	}
	defer alarm.Close()
	for ctx.Err() == nil {
		due := schedule.After(retryTime)
		c, err := fw.begin(ctx)
		if err == nil && c.failed == nil {
			var more bool
			if due, more = c.Next(); !more {
				// In this order: whoever begins a change next must not take this watchdog for one that stays.
				alive.Close()
				c.end()
				return nil
			}
		}
		if err == nil {
			err = c.failed
			c.end()
		}
		if err != nil {
			complain(err)
		}
		if err := alarm.Wait(ctx, due); err != nil {
			return err
		}
		if !fw.store.Exists() {
			return nil // somebody has taken everything away
		}
	}
	return ctx.Err()
}

// CatchUp does what is overdue, should the watchdog have been killed, and returns why that failed.
func (fw *Firewall) CatchUp(ctx context.Context) error {
	s, err := fw.store.Read()
	if err != nil || !s.Overdue() {
		return err
	}
	c, err := fw.begin(ctx)
	if err != nil {
		return err
	}
	defer c.end()
	return c.failed
}

// schedule returns what will happen by itself. What is overdue happens now; failed says why it could not, as when another
// command is at work.
func (fw *Firewall) schedule(ctx context.Context) (s *schedule.Schedule, failed, err error) {
	s, err = fw.store.Read()
	if err != nil || !s.Overdue() {
		return s, nil, err
	}
	c, err := fw.begin(ctx)
	if err != nil {
		return s, err, nil
	}
	defer c.end()
	return c.Schedule, c.failed, nil
}
