// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"context"
	"time"

	"github.com/portcullis-firewall/portcullis/loader/lock"
)

// ErrLocked is returned when another process has held a lock for as long as the caller would wait.
var ErrLocked = lock.ErrLocked

// Patience is how this process waits for another one, where it gives no context that says so. Set it before all else.
var Patience struct {
	Timeout time.Duration       // 0: lock.DefaultTimeout
	Waiting func(holder string) // called once when it has lasted for a second
}

// patience returns a context under which locks are waited for as Patience says.
func patience() context.Context {
	return lock.WithWait(context.Background(), lock.Wait{Timeout: Patience.Timeout, Waiting: Patience.Waiting})
}

// Lock waits until no other process holds the lock of a directory, and returns the function that lets the next one.
func Lock(dir string) (unlock func(), err error) { return lock.Dir(patience(), dir, lock.Exclusive) }
