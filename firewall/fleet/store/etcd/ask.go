// SPDX-License-Identifier: Apache-2.0

package etcd

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/portcullis-firewall/portcullis/firewall/fleet/store"
)

var errClosed = errors.New("the store is closed")

const (
	// answerTime is how long one member may take to answer: half a megabyte a second is not much.
	answerTime = 10 * time.Second
	// patience is for how long members are asked once more, which is longer than they take to choose a leader.
	patience = 12 * time.Second
	pauseMin = 100 * time.Millisecond
	pauseMax = 2 * time.Second
)

// ask calls do, which asks a member, until one has answered. It gives up when each has been asked and patience is over. What
// do learns holds until the ending is done.
func (s *Store) ask(ctx context.Context, verb, key string, do func(context.Context, *ending) error) error {
	begun := time.Now()
	pause := pauseMin
	var why error // the last one that says more than that time was up
	for tries := 1; ; tries++ {
		if err := ctx.Err(); err != nil {
			return s.unanswered(verb, key, err, why)
		}
		if s.client.Ctx().Err() != nil {
			return fmt.Errorf("%s %s: %w", verb, key, errClosed)
		}
		ended := s.link.current()
		asking, cancel := context.WithTimeout(clientv3.WithRequireLeader(ctx), answerTime)
		err := do(asking, ended)
		cancel()
		if err == nil {
			s.link.answered()
			return nil
		}
		if final := s.final(verb, key, err); final != nil {
			return final
		}
		if !isTimeout(err) {
			why = err
		}
		if tries >= len(s.link.endpoints) && time.Since(begun) >= patience {
			return s.unanswered(verb, key, err, why)
		}
		if memberFailed(err) {
			s.link.next(ended)
		}
		if tries%len(s.link.endpoints) == 0 {
			// Its error is that of the context, which the next round tells.
			_ = sleep(ctx, pause/2+rand.N(pause))
			pause = min(2*pause, pauseMax)
		}
	}
}

// unanswered returns that no member has answered, and why, if that is known.
func (s *Store) unanswered(verb, key string, err, why error) error {
	if failure := s.link.failure(); failure != nil {
		why = failure // without what the layers between have made of it
	}
	if why == nil {
		why = err
	}
	if isTimeout(err) && why != err {
		return fmt.Errorf("%s %s: etcd at %s does not answer: %w: %w", verb, key, s.place, err, why)
	}
	return fmt.Errorf("%s %s: etcd at %s does not answer: %w", verb, key, s.place, why)
}

// isTimeout reports whether an error says no more than that there was no answer in time.
func isTimeout(err error) bool {
	code := status.Code(err)
	return errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) || code == codes.DeadlineExceeded || code == codes.Canceled
}

// memberFailed reports whether another member should be asked. Not where roles have changed meanwhile, or the revision is
// gone. Nor where there was no answer in time: that a connection is dead, its keep-alive finds, and if the members have too
// much to do, hosts that all connect anew are the last that they need.
func memberFailed(err error) bool {
	for _, well := range []error{rpctypes.ErrAuthOldRevision, rpctypes.ErrCompacted, rpctypes.ErrTimeout, rpctypes.ErrTimeoutDueToLeaderFail, rpctypes.ErrTooManyRequests} {
		if errors.Is(err, well) {
			return false
		}
	}
	return !isTimeout(err)
}

// final returns what an error means that no member would give another answer to, or nil.
func (s *Store) final(verb, key string, err error) error {
	code := status.Code(err)
	var known rpctypes.EtcdError
	if errors.As(err, &known) {
		code = known.Code()
	}
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, store.ErrConflict):
		return err
	case errors.Is(err, rpctypes.ErrRequestTooLarge):
		return fmt.Errorf("%s %s: %w, and this etcd takes less (--max-request-bytes)", verb, key, store.ErrTooLarge)
	case errors.Is(err, rpctypes.ErrNoSpace):
		return fmt.Errorf("%s %s: etcd has no space left: compact and defragment it, then \"etcdctl alarm disarm\" (or raise --quota-backend-bytes): %w", verb, key, err)
	case errors.Is(err, rpctypes.ErrPermissionDenied):
		return fmt.Errorf("%s %s: %w: etcd knows this client as %q, by its certificate, and its roles do not have that (docs/fleet.md)", verb, key, store.ErrDenied, s.user)
	case errors.Is(err, rpctypes.ErrUserEmpty), errors.Is(err, rpctypes.ErrUserNotFound), code == codes.Unauthenticated:
		return fmt.Errorf("%s %s: %w: etcd has no user for the common name %q of this client's certificate: %w", verb, key, store.ErrDenied, s.user, err)
	}
	return nil
}
