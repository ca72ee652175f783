// SPDX-License-Identifier: Apache-2.0

package pin

import (
	"context"
	"errors"
	"fmt"
	"io/fs"

	"github.com/portcullis-firewall/portcullis/loader/lock"
)

// Lock waits until nobody changes what is pinned here, and returns the function that unlocks it. Readers share the lock.
// The error is ErrNotRunning when there is nothing to lock.
func (d Dir) Lock(ctx context.Context, mode lock.Mode) (unlock func(), err error) {
	unlock, err = lock.Dir(ctx, d.Base, mode)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, d.NotRunning("nothing is pinned at " + d.Base)
	}
	return unlock, err
}

// Claim creates the directories and locks them for a change.
func (d Dir) Claim(ctx context.Context) (unlock func(), err error) {
	for {
		if err := d.Prepare(ctx); err != nil {
			return nil, err
		}
		unlock, err = d.Lock(ctx, lock.Exclusive)
		if errors.Is(err, ErrNotRunning) {
			continue // a down that held the lock took them away
		}
		if err != nil {
			return nil, err
		}
		if !isBPFFS(d.Base) {
			unlock()
			continue // and the mount that they were on
		}
		if err := d.Prepare(ctx); err != nil {
			unlock()
			return nil, fmt.Errorf("prepare %s: %w", d.Base, err)
		}
		return unlock, nil
	}
}

// LockState keeps others from the places in the filter's state that its readers share. It is for a moment, and beside the
// lock of the pins: who only looks takes no part in changes.
func (d Dir) LockState(ctx context.Context) (unlock func(), err error) {
	return lock.Dir(ctx, d.Maps(), lock.Exclusive)
}
