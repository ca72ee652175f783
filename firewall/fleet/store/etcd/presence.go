// SPDX-License-Identifier: Apache-2.0

package etcd

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/portcullis-firewall/portcullis/firewall/fleet/store"
)

// farewell is how long a presence that is closed waits for etcd to remove it. After that, the lease does.
const farewell = 2 * time.Second

// presence is an object under a lease.
type presence struct {
	store *Store
	key   string
	end   context.CancelFunc
	done  chan struct{}

	turn  chan struct{} // holds one value while somebody uses what follows
	value []byte
	lease clientv3.LeaseID // clientv3.NoLease: none
	as    *ending          // the connection over which it was written
}

// Announce implements [store.Store].
func (s *Store) Announce(ctx context.Context, key string, value []byte) (store.Presence, error) {
	if err := store.CheckPut(key, value); err != nil {
		return nil, err
	}
	keeping, end := context.WithCancel(s.client.Ctx())
	p := &presence{store: s, key: key, end: end, done: make(chan struct{}), turn: make(chan struct{}, 1)}
	if err := p.Update(ctx, value); err != nil {
		end()
		return nil, err
	}
	go p.keep(keeping)
	return p, nil
}

// Update implements [store.Presence].
func (p *presence) Update(ctx context.Context, value []byte) error {
	if err := store.CheckPut(p.key, value); err != nil {
		return err
	}
	return p.alone(ctx, func() error {
		p.value = value
		return p.write(ctx)
	})
}

// alone calls do when nobody else uses the presence.
func (p *presence) alone(ctx context.Context, do func() error) error {
	select {
	case p.turn <- struct{}{}:
		defer func() { <-p.turn }()
		return do()
	case <-ctx.Done():
		return fmt.Errorf("announce %s: %w", p.key, ctx.Err())
	}
}

// write writes the object, under a new lease if there is none any more.
func (p *presence) write(ctx context.Context) error {
	s := p.store
	return s.ask(ctx, "announce", p.key, func(ctx context.Context, ended *ending) error {
		for {
			known := p.lease != clientv3.NoLease
			if !known {
				granted, err := s.client.Grant(ctx, s.ttl)
				if err != nil {
					return err
				}
				p.lease = granted.ID
			}
			_, err := s.client.Put(ctx, s.place.prefix+p.key, string(p.value), clientv3.WithLease(p.lease))
			if errors.Is(err, rpctypes.ErrLeaseNotFound) {
				p.lease = clientv3.NoLease
				if known {
					continue
				}
			}
			if err == nil {
				p.as = ended
			}
			return err
		}
	})
}

// keep renews the lease until the presence ends. Whatever goes wrong is tried again: the agent does its work without.
func (p *presence) keep(ctx context.Context) {
	defer close(p.done)
	half := time.Duration(p.store.ttl) * time.Second / 2
	for wait := half; sleep(ctx, wait*3/4+rand.N(wait/4)) == nil; {
		if p.alone(ctx, func() error { return p.renew(ctx) }) == nil {
			wait = half
		} else {
			wait = half / 4
		}
	}
}

// renew keeps the lease, or else writes the object anew. So it does after a connection has ended, too: in a cluster that
// was restored from a snapshot, the object may be an older one under the same lease.
func (p *presence) renew(ctx context.Context) error {
	if p.lease != clientv3.NoLease && p.as == p.store.link.current() {
		err := p.store.ask(ctx, "announce", p.key, func(ctx context.Context, _ *ending) error {
			left, err := p.store.keepAlive(ctx, p.lease)
			if err == nil && left <= 0 {
				p.lease = clientv3.NoLease
			}
			return err
		})
		if err != nil || p.lease != clientv3.NoLease {
			return err
		}
	}
	return p.write(ctx)
}

// keepAlive renews a lease once, and returns how many seconds it has now: none if it is gone. That of the client does not
// return while its member cannot be reached, and asks without a pause.
func (s *Store) keepAlive(ctx context.Context, lease clientv3.LeaseID) (left int64, err error) {
	ctx, cancel := context.WithCancel(ctx) // ends the stream
	defer cancel()
	stream, err := etcdserverpb.NewLeaseClient(s.client.ActiveConnection()).LeaseKeepAlive(ctx)
	if err != nil {
		return 0, rpctypes.Error(err)
	}
	if err := stream.Send(&etcdserverpb.LeaseKeepAliveRequest{ID: int64(lease)}); err != nil {
		return 0, rpctypes.Error(err)
	}
	answer, err := stream.Recv()
	if err != nil {
		return 0, rpctypes.Error(err)
	}
	return answer.TTL, nil
}

// Close implements [store.Presence].
func (p *presence) Close() error {
	p.end()
	<-p.done
	ctx, cancel := context.WithTimeout(context.Background(), farewell)
	defer cancel()
	return p.alone(ctx, func() error {
		if p.lease == clientv3.NoLease {
			return nil
		}
		_, err := p.store.client.Revoke(ctx, p.lease)
		p.lease = clientv3.NoLease
		if errors.Is(err, rpctypes.ErrLeaseNotFound) {
			return nil
		}
		return err
	})
}
