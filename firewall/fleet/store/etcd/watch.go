// SPDX-License-Identifier: Apache-2.0

package etcd

import (
	"context"
	"errors"
	"io/fs"
	"math/rand/v2"
	"strings"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/portcullis-firewall/portcullis/firewall/fleet/store"
)

// again is the time within which an object is read anew after its watch has ended.
const again = time.Second

// Watch implements [store.Store].
func (s *Store) Watch(ctx context.Context, key string, version store.Version) (store.Object, error) {
	if err := store.CheckKey(key); err != nil {
		return store.Object{}, err
	}
	for {
		found, err := s.get(ctx, key)
		switch {
		case errors.Is(err, fs.ErrNotExist) && version == store.Absent:
		case err != nil || found.object.Version != version:
			return found.object, err
		}
		events, err := s.follow(ctx, found.moment, key)
		if err != nil {
			return store.Object{}, err
		}
		if len(events) > 0 {
			last := events[len(events)-1]
			if last.Type == mvccpb.DELETE {
				if version == store.Absent {
					continue // it has come and gone
				}
				return store.Object{}, &fs.PathError{Op: "watch", Path: key, Err: fs.ErrNotExist}
			}
			return toObject(last.Kv), nil
		}
	}
}

// follow returns what happens after a moment, as soon as something has. It returns nothing when that cannot be said any
// more: the connection has ended, or what has happened was compacted.
func (s *Store) follow(ctx context.Context, since moment, key string, options ...clientv3.OpOption) ([]*clientv3.Event, error) {
	watching, cancel := context.WithCancel(clientv3.WithRequireLeader(ctx))
	defer cancel()
	go func() {
		select {
		case <-since.ended.done:
			cancel()
		case <-watching.Done():
		}
	}()
	for answer := range s.client.Watch(watching, s.place.prefix+key, append(options, clientv3.WithRev(since.revision+1))...) {
		if err := answer.Err(); err != nil {
			if final := s.final("watch", key, err); final != nil {
				return nil, final
			}
			if answer.CompactRevision == 0 && watching.Err() == nil { // such as a member without a leader
				s.link.next(since.ended)
			}
			break
		}
		if len(answer.Events) > 0 {
			return answer.Events, nil
		}
	}
	cancel()
	return nil, sleep(ctx, rand.N(again))
}

// Changes implements [store.Store].
func (s *Store) Changes(ctx context.Context, prefix, since string) (store.Changes, error) {
	if err := store.CheckPrefix(prefix); err != nil {
		return store.Changes{}, err
	}
	if at, known := s.link.current().since(since); known {
		events, err := s.follow(ctx, at, prefix, clientv3.WithPrefix())
		if err != nil {
			return store.Changes{}, err
		}
		if len(events) > 0 {
			return s.toChanges(at.ended, events), nil
		}
	}
	found := store.Changes{All: true}
	at, err := s.scan(ctx, prefix, func() { found.Objects = map[string]store.Object{} }, func(kv *mvccpb.KeyValue) {
		found.Objects[strings.TrimPrefix(string(kv.Key), s.place.prefix)] = toObject(kv)
	})
	if err != nil {
		return store.Changes{}, err
	}
	found.Since = at.String()
	return found, nil
}

// toChanges returns what the last of some events about each key has left.
func (s *Store) toChanges(ended *ending, events []*clientv3.Event) store.Changes {
	changes := store.Changes{Objects: map[string]store.Object{}}
	gone := map[string]bool{}
	for _, event := range events {
		key := strings.TrimPrefix(string(event.Kv.Key), s.place.prefix)
		if store.CheckKey(key) != nil {
			continue
		}
		delete(changes.Objects, key)
		delete(gone, key)
		if event.Type == mvccpb.DELETE {
			gone[key] = true
		} else {
			changes.Objects[key] = toObject(event.Kv)
		}
	}
	for key := range gone {
		changes.Gone = append(changes.Gone, key)
	}
	// Not the revision of the answer: what happened up to there may come in several.
	changes.Since = moment{ended, events[len(events)-1].Kv.ModRevision}.String()
	return changes
}
