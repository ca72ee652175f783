// SPDX-License-Identifier: Apache-2.0

package etcd_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/portcullis-firewall/portcullis/firewall/fleet"
	"github.com/portcullis-firewall/portcullis/firewall/fleet/store"
)

const group = "web"

// publisher publishes bundles, and remembers which.
type publisher struct {
	store   store.Store
	key     *fleet.PrivateKey
	filler  string    // of policies
	pointed time.Time // when the last one was pointed to

	mu        sync.Mutex
	serial    uint64
	published map[string]uint64 // serials by digest
}

func newPublisher(t *testing.T, s store.Store) *publisher {
	t.Helper()
	key, err := fleet.GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	return &publisher{store: s, key: key, published: map[string]uint64{}}
}

// keys returns what hosts verify with.
func (p *publisher) keys() []fleet.PublicKey { return []fleet.PublicKey{p.key.Public()} }

// publish publishes the next bundle, however long the store cannot be reached.
func (p *publisher) publish(t *testing.T) uint64 {
	t.Helper()
	p.mu.Lock()
	p.serial++
	serial := p.serial
	p.mu.Unlock()
	bundle := &fleet.Bundle{Group: group, Serial: serial, Policy: fmt.Sprintf("open: [%d/tcp]\n", 1000+serial) + p.filler}
	object, digest, err := bundle.Seal(p.key)
	if err != nil {
		t.Fatal(err)
	}
	p.mu.Lock()
	p.published[digest] = serial
	p.mu.Unlock()
	pointer := fleet.Pointer{Group: group, Target: fleet.Target{Bundle: digest, Serial: serial}}
	current, err := pointer.Seal(p.key)
	if err != nil {
		t.Fatal(err)
	}
	for _, put := range []struct {
		key   string
		value []byte
	}{{fleet.BundleKey(digest), object}, {fleet.PointerKey(group), current}} {
		p.pointed = time.Now()
		insist(t, func(ctx context.Context) error { return p.store.Put(ctx, put.key, put.value, store.Any) })
	}
	return serial
}

// insist does something until it succeeds.
func insist(t *testing.T, do func(context.Context) error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	for {
		err := do(ctx)
		if err == nil {
			return
		}
		if ctx.Err() != nil {
			t.Fatalf("it never succeeds: %v", err)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// host is what verifies and holds what its group is to run, as an agent does, and drops no packet.
type host struct {
	name  string
	store store.Store
	keys  []fleet.PublicKey
	tells bool // how it is, and that it is there

	mu      sync.Mutex
	serial  uint64
	bundles []string // digests of what was in force, one after the other
	refused []error
	lost    int // how often the store could not be reached
}

// What an agent waits after an error, more or less, at first and at most.
const minWait, maxWait = time.Second, time.Minute

// run follows the group until the context ends. It calls applied with each serial that is in force, unless that is nil.
func (h *host) run(ctx context.Context, applied func(serial uint64)) {
	var presence store.Presence
	version, wait := store.Absent, minWait
	for ctx.Err() == nil {
		if h.tells && presence == nil {
			presence, _ = h.store.Announce(ctx, fleet.PresenceKey(h.name), nil)
		}
		object, err := h.store.Watch(ctx, fleet.PointerKey(group), version)
		if err != nil {
			h.mu.Lock()
			h.lost++
			h.mu.Unlock()
			version = store.Absent
			select {
			case <-ctx.Done():
			case <-time.After(wait/2 + rand.N(wait)):
			}
			wait = min(2*wait, maxWait)
			continue
		}
		version, wait = object.Version, minWait
		switch serial, err := h.apply(ctx, object.Value); {
		case err == nil && applied != nil:
			applied(serial)
			if h.tells {
				h.tell(ctx, serial)
			}
		case errors.Is(err, errAgain):
			version = store.Absent
		}
	}
}

// tell says how the host is, once: what the store does not take, the next one tells.
func (h *host) tell(ctx context.Context, serial uint64) {
	status := fleet.Status{Name: h.name, Group: group, Serial: serial, Tried: serial, State: fleet.StateInForce}
	text, err := status.Text()
	if err == nil {
		err = h.store.Put(ctx, fleet.StatusKey(h.name), text, store.Any)
	}
	if err != nil {
		h.mu.Lock()
		h.lost++
		h.mu.Unlock()
	}
}

var (
	errAgain = errors.New("the store could not be reached")
	errOlder = errors.New("an older serial")
)

// apply puts in force what a pointer names, or notes why not.
func (h *host) apply(ctx context.Context, pointer []byte) (uint64, error) {
	serial, digest, err := h.verify(ctx, pointer)
	h.mu.Lock()
	defer h.mu.Unlock()
	switch {
	case err != nil:
		h.refused = append(h.refused, err)
	case serial < h.serial:
		err = errOlder
		h.refused = append(h.refused, err)
	case serial > h.serial:
		h.serial = serial
		h.bundles = append(h.bundles, digest)
	}
	return serial, err
}

func (h *host) verify(ctx context.Context, object []byte) (uint64, string, error) {
	pointer, _, err := fleet.OpenPointer(object, group, h.keys)
	if err != nil {
		return 0, "", err
	}
	target, ok := pointer.For(h.name)
	if !ok {
		return 0, "", errors.New("the host is of no wave")
	}
	bundle, err := h.store.Get(ctx, fleet.BundleKey(target.Bundle))
	if err != nil {
		return 0, "", fmt.Errorf("%w: %w", errAgain, err)
	}
	if _, _, err := fleet.OpenBundle(bundle.Value, target, group, h.keys); err != nil {
		return 0, "", err
	}
	return target.Serial, target.Bundle, nil
}

func (h *host) at() uint64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.serial
}

// converge waits until all hosts have a serial.
func converge(t *testing.T, hosts []*host, serial uint64, within time.Duration) time.Duration {
	t.Helper()
	begun := time.Now()
	for {
		behind := 0
		for _, h := range hosts {
			if h.at() != serial {
				behind++
			}
		}
		if behind == 0 {
			return time.Since(begun)
		}
		if time.Since(begun) > within {
			for _, h := range hosts {
				if h.at() != serial {
					t.Errorf("%s has %d, and refused %q", h.name, h.at(), h.refused)
				}
			}
			t.Fatalf("after %s, %d of %d hosts do not have bundle %d", within, behind, len(hosts), serial)
		}
		time.Sleep(20 * time.Millisecond)
	}
}
