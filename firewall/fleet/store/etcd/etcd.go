// SPDX-License-Identifier: Apache-2.0

// Package etcd keeps what the hosts of a fleet share in etcd, as package store says.
//
// A store asks one member at a time, and goes over to the next when that one fails, so that each host costs the cluster
// one connection. It notices when a connection ends, and takes nothing that it knew for true after that: a cluster that
// was restored from a snapshot counts its revisions from there, and would otherwise be believed to have nothing new.
package etcd

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"strconv"
	"strings"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/portcullis-firewall/portcullis/firewall/fleet/store"
)

// defaultTTL is longer than that of other stores: each renewal goes to the one member that leads.
const defaultTTL = 2 * store.DefaultTTL

// page is how many objects an answer has at most: none of them has more than store.MaxSize.
const page = 256

// Store is a [store.Store] in etcd.
type Store struct {
	client *clientv3.Client
	link   *link
	place  place
	user   string // common name of the certificate, or ""
	ttl    int64  // of leases, in seconds
}

// Open returns the store at a URL such as etcd://10.0.0.1:2379,10.0.0.2:2379. It is a [store.Opener].
func Open(_ context.Context, url string, o store.Options) (store.Store, error) {
	place, err := parse(url)
	if err != nil {
		return nil, err
	}
	user, err := identify(place, o)
	if err != nil {
		return nil, err
	}
	ttl := o.TTL
	if ttl <= 0 {
		ttl = defaultTTL
	}
	l := newLink(place.endpoints, o)
	client, err := l.connect()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", url, err)
	}
	return &Store{
		client: client,
		link:   l,
		place:  place,
		user:   user,
		ttl:    max(int64(ttl.Seconds()), 1),
	}, nil
}

// Close implements [store.Store].
func (s *Store) Close() error {
	err := s.client.Close()
	if errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

// Get implements [store.Store].
func (s *Store) Get(ctx context.Context, key string) (store.Object, error) {
	if err := store.CheckKey(key); err != nil {
		return store.Object{}, err
	}
	// What never changes may come from the member's own copy. If that is behind, the others are asked.
	if neverChanges(key) {
		if found, err := s.get(ctx, key, clientv3.WithSerializable()); !errors.Is(err, fs.ErrNotExist) {
			return found.object, err
		}
	}
	found, err := s.get(ctx, key)
	return found.object, err
}

// neverChanges reports whether the object under a key is named by its digest.
func neverChanges(key string) bool {
	return strings.HasPrefix(key, "bundles/") || strings.HasPrefix(key, "lists/")
}

// reading is what has been read, and when.
type reading struct {
	object store.Object
	moment
}

func (s *Store) get(ctx context.Context, key string, options ...clientv3.OpOption) (found reading, err error) {
	err = s.ask(ctx, "read", key, func(ctx context.Context, ended *ending) error {
		answer, err := s.client.Get(ctx, s.place.prefix+key, options...)
		if err != nil {
			return err
		}
		found = reading{moment: moment{ended, answer.Header.Revision}}
		if len(answer.Kvs) == 0 {
			return &fs.PathError{Op: "get", Path: key, Err: fs.ErrNotExist}
		}
		found.object = toObject(answer.Kvs[0])
		return nil
	})
	return found, err
}

// Put implements [store.Store].
func (s *Store) Put(ctx context.Context, key string, value []byte, on store.Version) error {
	if err := store.CheckPut(key, value); err != nil {
		return err
	}
	full := s.place.prefix + key
	put := clientv3.OpPut(full, string(value))
	if on == store.Any {
		return s.ask(ctx, "write", key, func(ctx context.Context, _ *ending) error {
			_, err := s.client.Do(ctx, put)
			return err
		})
	}

	compare := clientv3.Compare(clientv3.CreateRevision(full), "=", 0)
	if on != store.Absent {
		// After a restoration a revision may be that of another object, which its digest tells.
		now, err := s.get(ctx, key)
		if errors.Is(err, fs.ErrNotExist) || err == nil && now.object.Version != on {
			return conflict(key)
		}
		if err != nil {
			return err
		}
		compare = clientv3.Compare(clientv3.ModRevision(full), "=", revisionOf(on))
	}
	asked := false
	return s.ask(ctx, "write", key, func(ctx context.Context, _ *ending) error {
		answer, err := s.client.Txn(ctx).If(compare).Then(put).Else(clientv3.OpGet(full)).Commit()
		if err != nil {
			asked = true
			return err
		}
		// One that got no answer may have been written all the same, and this be what it wrote.
		if !answer.Succeeded && !(asked && holds(answer, value)) {
			return conflict(key)
		}
		return nil
	})
}

func conflict(key string) error { return fmt.Errorf("%s: %w", key, store.ErrConflict) }

// holds reports whether what a transaction has found is of that value.
func holds(answer *clientv3.TxnResponse, value []byte) bool {
	for _, r := range answer.Responses {
		if found := r.GetResponseRange(); found != nil && len(found.Kvs) == 1 && bytes.Equal(found.Kvs[0].Value, value) {
			return true
		}
	}
	return false
}

// Delete implements [store.Store].
func (s *Store) Delete(ctx context.Context, key string) error {
	if err := store.CheckKey(key); err != nil {
		return err
	}
	return s.ask(ctx, "remove", key, func(ctx context.Context, _ *ending) error {
		_, err := s.client.Delete(ctx, s.place.prefix+key)
		return err
	})
}

// List implements [store.Store].
func (s *Store) List(ctx context.Context, prefix string) ([]string, error) {
	if err := store.CheckPrefix(prefix); err != nil {
		return nil, err
	}
	var keys []string
	_, err := s.scan(ctx, prefix, func() { keys = []string{} }, func(kv *mvccpb.KeyValue) {
		keys = append(keys, strings.TrimPrefix(string(kv.Key), s.place.prefix))
	}, clientv3.WithKeysOnly())
	return keys, err
}

// scan calls each with what is below a prefix at one moment, in order, and returns that moment. It may have to begin once
// more, and then calls begin.
func (s *Store) scan(ctx context.Context, prefix string, begin func(), each func(*mvccpb.KeyValue), options ...clientv3.OpOption) (at moment, err error) {
	first := s.place.prefix + prefix
	end := clientv3.GetPrefixRangeEnd(first)
	err = s.ask(ctx, "list", prefix, func(ctx context.Context, ended *ending) error {
		begin()
		at = moment{ended: ended}
		for from := first; ; {
			answer, err := s.client.Get(ctx, from, append(options, clientv3.WithRange(end), clientv3.WithLimit(page), clientv3.WithRev(at.revision))...)
			if err != nil {
				return err
			}
			if at.revision == 0 {
				at.revision = answer.Header.Revision
			}
			for _, kv := range answer.Kvs {
				// Others may keep what they like below the prefix.
				if store.CheckKey(strings.TrimPrefix(string(kv.Key), s.place.prefix)) == nil {
					each(kv)
				}
			}
			if !answer.More {
				return nil
			}
			from = string(answer.Kvs[len(answer.Kvs)-1].Key) + "\x00"
		}
	})
	return at, err
}

// toObject returns what etcd holds as an object. Its version has the digest of the value beside the revision, which alone
// would name another value once a snapshot has been restored.
func toObject(kv *mvccpb.KeyValue) store.Object {
	digest := sha256.Sum256(kv.Value)
	return store.Object{
		Value:   kv.Value,
		Version: store.Version(fmt.Sprintf("%d-%s", kv.ModRevision, hex.EncodeToString(digest[:8]))),
	}
}

// revisionOf returns the revision in a version, or -1, which none has.
func revisionOf(v store.Version) int64 {
	text, _, _ := strings.Cut(string(v), "-")
	revision, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		return -1
	}
	return revision
}
