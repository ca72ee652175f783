// SPDX-License-Identifier: Apache-2.0

// Package storetest holds stores to what package store says of them.
package storetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/portcullis-firewall/portcullis/firewall/fleet/store"
)

// patience is how long what happens at once may take: a machine may be busy.
const patience = 20 * time.Second

// Subject is a store to be tested. Its two openings are as two processes have them, the second one perhaps a host's.
type Subject struct {
	Publisher, Host store.Store
	HostName        string        // under which the second one may write
	Expiry          time.Duration // after which an object that was announced is gone for certain; 0: not tried
	// Abandon ends what keeps the objects there that the publisher announces, as if its process had been killed; nil: not tried.
	Abandon func()
}

// Run tests stores, each of which open makes anew and empty.
func Run(t *testing.T, open func(t *testing.T) Subject) {
	for name, test := range map[string]func(*testing.T, Subject){
		"objects":  objects,
		"versions": versions,
		"race":     race,
		"names":    names,
		"list":     list,
		"watch":    watch,
		"changes":  changes,
		"announce": announce,
		"size":     size,
	} {
		t.Run(name, func(t *testing.T) { test(t, open(t)) })
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func ctxOf(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	return ctx
}

func objects(t *testing.T, s Subject) {
	ctx := ctxOf(t)
	const key = "bundles/0123"
	if _, err := s.Host.Get(ctx, key); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("an object that is not there: %v", err)
	}
	value := []byte("binary \x00\xff\n, and no end of line")
	must(t, s.Publisher.Put(ctx, key, value, store.Any))
	got, err := s.Host.Get(ctx, key)
	if must(t, err); !bytes.Equal(got.Value, value) || got.Version == store.Absent || got.Version == store.Any {
		t.Errorf("got %q of version %q", got.Value, got.Version)
	}
	must(t, s.Publisher.Put(ctx, key, nil, store.Any))
	if got, err := s.Host.Get(ctx, key); err != nil || len(got.Value) != 0 || got.Version == store.Absent {
		t.Errorf("an empty object: %q of version %q, %v", got.Value, got.Version, err)
	}
	must(t, s.Publisher.Delete(ctx, key))
	must(t, s.Publisher.Delete(ctx, key))
	if _, err := s.Host.Get(ctx, key); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("an object that was removed: %v", err)
	}
}

func versions(t *testing.T, s Subject) {
	ctx := ctxOf(t)
	const key = "groups/web/current"
	must(t, s.Publisher.Put(ctx, key, []byte("1"), store.Absent))
	if err := s.Publisher.Put(ctx, key, []byte("2"), store.Absent); !errors.Is(err, store.ErrConflict) {
		t.Errorf("an object that was not to be there: %v", err)
	}
	first, err := s.Publisher.Get(ctx, key)
	must(t, err)
	must(t, s.Publisher.Put(ctx, key, []byte("2"), first.Version))
	if err := s.Publisher.Put(ctx, key, []byte("3"), first.Version); !errors.Is(err, store.ErrConflict) {
		t.Errorf("an object that has changed: %v", err)
	}
	if got, err := s.Host.Get(ctx, key); err != nil || string(got.Value) != "2" {
		t.Errorf("after a conflict there is %q, %v", got.Value, err)
	}
	if err := s.Publisher.Put(ctx, "groups/none/current", []byte("1"), first.Version); !errors.Is(err, store.ErrConflict) {
		t.Errorf("an object that is gone: %v", err)
	}
}

// race has many change one object, of whom each wins as often as it says.
func race(t *testing.T, s Subject) {
	ctx := ctxOf(t)
	const key, writers, times = "groups/web/current", 4, 5
	must(t, s.Publisher.Put(ctx, key, []byte("0"), store.Absent))
	var g sync.WaitGroup
	for range writers {
		g.Go(func() {
			for n := 0; n < times; {
				now, err := s.Publisher.Get(ctx, key)
				if err != nil {
					t.Error(err)
					return
				}
				var count int
				fmt.Sscan(string(now.Value), &count)
				err = s.Publisher.Put(ctx, key, fmt.Append(nil, count+1), now.Version)
				if err == nil {
					n++
				} else if !errors.Is(err, store.ErrConflict) {
					t.Error(err)
					return
				}
			}
		})
	}
	g.Wait()
	if got, err := s.Host.Get(ctx, key); err != nil || string(got.Value) != fmt.Sprint(writers*times) {
		t.Errorf("%d writers counted to %q, each by %d: %v", writers, got.Value, times, err)
	}
}

func names(t *testing.T, s Subject) {
	ctx := ctxOf(t)
	for _, key := range []string{"", "groups", "/groups/a", "groups//a", "groups/../a", "groups/.a", "Groups/a", "groups/a b", "groups/a\x00", "groups/a/",
		"groups/a/b/c/d", "groups/" + strings.Repeat("a", 129), "hosts/h1/present@30s", "groups/ä", "groups/a%2fb", "groups/a?b"} {
		if _, err := s.Publisher.Get(ctx, key); err == nil || errors.Is(err, fs.ErrNotExist) {
			t.Errorf("got the key %q: %v", key, err)
		}
		if err := s.Publisher.Put(ctx, key, nil, store.Any); err == nil {
			t.Errorf("put the key %q", key)
		}
		if err := s.Publisher.Delete(ctx, key); err == nil {
			t.Errorf("removed the key %q", key)
		}
		if _, err := s.Publisher.Watch(ctx, key, "x"); err == nil || ctx.Err() != nil {
			t.Errorf("watched the key %q", key)
		}
	}
	for _, prefix := range []string{"groups", "../", "/", "groups/../"} {
		if _, err := s.Publisher.List(ctx, prefix); err == nil {
			t.Errorf("listed %q", prefix)
		}
	}
}

func list(t *testing.T, s Subject) {
	ctx := ctxOf(t)
	keys, err := s.Publisher.List(ctx, "hosts/")
	if err != nil || keys == nil || len(keys) != 0 {
		t.Errorf("an empty store lists %q, %v", keys, err)
	}
	for _, key := range []string{"hosts/h2/status", "hosts/h10/status", "hosts/h1/status", "groups/web/current"} {
		must(t, s.Publisher.Put(ctx, key, nil, store.Any))
	}
	for prefix, want := range map[string][]string{
		"hosts/":    {"hosts/h1/status", "hosts/h10/status", "hosts/h2/status"},
		"hosts/h1/": {"hosts/h1/status"},
		"lists/":    {},
		"":          {"groups/web/current", "hosts/h1/status", "hosts/h10/status", "hosts/h2/status"},
	} {
		if keys, err := s.Publisher.List(ctx, prefix); err != nil || !slices.Equal(keys, want) {
			t.Errorf("%q lists %q, %v; want %q", prefix, keys, err, want)
		}
	}
}

// later does something once the caller waits.
func later(t *testing.T, do func() error) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		time.Sleep(150 * time.Millisecond)
		if err := do(); err != nil {
			t.Error(err)
		}
	}()
	t.Cleanup(func() { <-done })
}

func watch(t *testing.T, s Subject) {
	ctx := ctxOf(t)
	const key = "groups/web/current"
	later(t, func() error { return s.Publisher.Put(ctx, key, []byte("1"), store.Any) })
	first, err := s.Host.Watch(ctx, key, store.Absent)
	if must(t, err); string(first.Value) != "1" {
		t.Fatalf("an object that has come is %q", first.Value)
	}
	later(t, func() error { return s.Publisher.Put(ctx, key, []byte("2"), store.Any) })
	second, err := s.Host.Watch(ctx, key, first.Version)
	if must(t, err); string(second.Value) != "2" {
		t.Fatalf("an object that has changed is %q", second.Value)
	}
	if at, err := s.Host.Watch(ctx, key, first.Version); err != nil || string(at.Value) != "2" {
		t.Errorf("what has changed before: %q, %v", at.Value, err)
	}
	later(t, func() error { return s.Publisher.Put(ctx, "groups/other/current", []byte("1"), store.Any) })
	short, cancel := context.WithTimeout(ctx, 400*time.Millisecond)
	defer cancel()
	if at, err := s.Host.Watch(short, key, second.Version); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("nothing has changed: %q, %v", at.Value, err)
	}
	later(t, func() error { return s.Publisher.Delete(ctx, key) })
	if at, err := s.Host.Watch(ctx, key, second.Version); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("an object that was removed: %q, %v", at.Value, err)
	}
}

func changes(t *testing.T, s Subject) {
	ctx := ctxOf(t)
	must(t, s.Publisher.Put(ctx, "bans/web/h1", []byte("1"), store.Any))
	must(t, s.Publisher.Put(ctx, "bans/web/h2", []byte("1"), store.Any))
	must(t, s.Publisher.Put(ctx, "bans/webshop/h1", []byte("1"), store.Any))
	all, err := s.Host.Changes(ctx, "bans/web/", "")
	if must(t, err); !all.All || len(all.Objects) != 2 || string(all.Objects["bans/web/h2"].Value) != "1" || all.Since == "" {
		t.Fatalf("at first: %+v", all)
	}
	later(t, func() error { return s.Publisher.Put(ctx, "bans/web/h2", []byte("2"), store.Any) })
	c, err := s.Host.Changes(ctx, "bans/web/", all.Since)
	if must(t, err); c.All || len(c.Objects) != 1 || string(c.Objects["bans/web/h2"].Value) != "2" || len(c.Gone) != 0 {
		t.Fatalf("after a change: %+v", c)
	}
	later(t, func() error { return s.Publisher.Delete(ctx, "bans/web/h1") })
	c, err = s.Host.Changes(ctx, "bans/web/", c.Since)
	if must(t, err); c.All || len(c.Objects) != 0 || !slices.Equal(c.Gone, []string{"bans/web/h1"}) {
		t.Fatalf("after a removal: %+v", c)
	}
	later(t, func() error { return s.Publisher.Put(ctx, "bans/webshop/h1", []byte("2"), store.Any) })
	short, cancel := context.WithTimeout(ctx, 400*time.Millisecond)
	defer cancel()
	if c, err := s.Host.Changes(short, "bans/web/", c.Since); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("nothing has changed: %+v, %v", c, err)
	}
	c, err = s.Host.Changes(ctx, "bans/web/", "an answer that nobody gave")
	if must(t, err); !c.All || len(c.Objects) != 1 {
		t.Errorf("asked with what the store does not know: %+v", c)
	}
}

func announce(t *testing.T, s Subject) {
	ctx := ctxOf(t)
	key := "hosts/" + s.HostName + "/present"
	p, err := s.Host.Announce(ctx, key, []byte("1"))
	must(t, err)
	if got, err := s.Publisher.Get(ctx, key); err != nil || string(got.Value) != "1" {
		t.Errorf("what is announced: %q, %v", got.Value, err)
	}
	must(t, p.Update(ctx, []byte("2")))
	got, err := s.Publisher.Get(ctx, key)
	if err != nil || string(got.Value) != "2" {
		t.Errorf("what is announced anew: %q, %v", got.Value, err)
	}
	if keys, err := s.Publisher.List(ctx, "hosts/"); err != nil || !slices.Equal(keys, []string{key}) {
		t.Errorf("what is announced lists as %q, %v", keys, err)
	}
	if s.Expiry > 0 { // it stays for as long as its process does
		time.Sleep(s.Expiry)
		if _, err := s.Publisher.Get(ctx, key); err != nil {
			t.Errorf("what is still announced: %v", err)
		}
	}
	must(t, p.Close())
	if _, err := s.Publisher.Watch(ctx, key, got.Version); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("what is no longer announced: %v", err)
	}
	if keys, err := s.Publisher.List(ctx, "hosts/"); err != nil || len(keys) != 0 {
		t.Errorf("it lists as %q, %v", keys, err)
	}
	if s.Abandon == nil {
		return
	}
	_, err = s.Publisher.Announce(ctx, "hosts/h9/present", []byte("1"))
	must(t, err)
	now, err := s.Host.Get(ctx, "hosts/h9/present")
	must(t, err)
	s.Abandon()
	if _, err := s.Host.Watch(ctx, "hosts/h9/present", now.Version); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("what a process has announced that was killed: %v", err)
	}
}

func size(t *testing.T, s Subject) {
	ctx := ctxOf(t)
	value := bytes.Repeat([]byte("0123456789abcdef"), store.MaxSize/16)
	must(t, s.Publisher.Put(ctx, "bundles/0123", value, store.Any))
	if got, err := s.Host.Get(ctx, "bundles/0123"); err != nil || !bytes.Equal(got.Value, value) {
		t.Errorf("the largest object has %d bytes, %v", len(got.Value), err)
	}
	if err := s.Publisher.Put(ctx, "bundles/0124", append(value, 0), store.Any); !errors.Is(err, store.ErrTooLarge) {
		t.Errorf("one that is too large: %v", err)
	}
}
