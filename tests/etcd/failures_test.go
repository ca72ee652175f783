// SPDX-License-Identifier: Apache-2.0

package etcd_test

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/portcullis-firewall/portcullis/firewall/fleet"
	"github.com/portcullis-firewall/portcullis/firewall/fleet/store"
	"github.com/portcullis-firewall/portcullis/tests/internal/etcdcluster"
)

var rounds = flag.Int("rounds", 1, "how often each failure of a cluster happens")

// Whatever becomes of members while bundles are published, every host comes to have the last one, and none ever has what
// was not published, or an older one than it had.
func TestMembersFail(t *testing.T) {
	const (
		many   = 12
		within = 90 * time.Second // hosts come back one after the other
	)
	c := etcdcluster.Start(t, 3)
	p := newPublisher(t, c.Open(t))
	p.publish(t)
	ctx, stop := context.WithCancel(t.Context())
	var running sync.WaitGroup
	var hosts []*host
	for i := range many {
		h := &host{name: fmt.Sprintf("h%d", i), store: c.Open(t), keys: p.keys()}
		hosts = append(hosts, h)
		running.Go(func() { h.run(ctx, nil) })
	}
	defer running.Wait()
	defer stop()
	converge(t, hosts, 1, within)

	var last uint64
	publish := func(times int) {
		for range times {
			last = p.publish(t)
		}
	}
	settled := func(t *testing.T) {
		t.Helper()
		last = p.publish(t)
		t.Logf("all hosts have bundle %d after %s", last, converge(t, hosts, last, within).Round(time.Millisecond))
	}
	for round := range *rounds {
		if t.Failed() {
			return // what is broken by now breaks what follows
		}
		t.Run(fmt.Sprintf("a member is killed/%d", round), func(t *testing.T) {
			m := c.Members[round%len(c.Members)]
			m.Kill()
			publish(3)
			settled(t)
			m.Start(t)
			publish(3)
			settled(t)
		})
		t.Run(fmt.Sprintf("the leader is killed/%d", round), func(t *testing.T) {
			m := c.Leader(t)
			m.Kill()
			publish(3)
			settled(t)
			m.Start(t)
			c.Wait(t)
		})
		t.Run(fmt.Sprintf("the leader is cut off/%d", round), func(t *testing.T) {
			m := c.Leader(t)
			m.Cut(t)
			publish(3)
			settled(t)
			m.Mend(t)
			publish(3)
			settled(t)
			c.Wait(t)
		})
		t.Run(fmt.Sprintf("revisions are compacted/%d", round), func(t *testing.T) {
			var compacting sync.WaitGroup
			compacting.Go(func() {
				for range 5 {
					compact(t, c)
				}
			})
			publish(10)
			compacting.Wait()
			settled(t)
		})
		t.Run(fmt.Sprintf("all members are killed/%d", round), func(t *testing.T) {
			for _, m := range c.Members {
				m.Kill()
			}
			for _, m := range c.Members {
				m.Start(t)
			}
			publish(3)
			settled(t)
			c.Wait(t)
		})
		t.Run(fmt.Sprintf("an old snapshot is restored/%d", round), func(t *testing.T) {
			file := c.Snapshot(t)
			publish(5)
			converge(t, hosts, last, within)
			c.Restore(t, file) // hosts see an older pointer now
			for _, h := range hosts {
				if h.at() != last {
					t.Errorf("%s went back to %d", h.name, h.at())
				}
			}
			settled(t)
			// The cluster counts on from the snapshot, and may have nothing yet of the revisions that hosts knew.
			for range 8 {
				settled(t)
			}
		})
	}
	stop()
	running.Wait()

	for _, h := range hosts {
		serial := uint64(0)
		for _, digest := range h.bundles {
			n, published := p.published[digest]
			if !published || n <= serial {
				t.Errorf("%s had bundle %s, number %d, after number %d", h.name, digest, n, serial)
			}
			serial = n
		}
		for _, err := range h.refused {
			if err := err.Error(); err != errOlder.Error() && !strings.Contains(err, errAgain.Error()) {
				t.Errorf("%s refused: %s", h.name, err)
			}
		}
	}
}

// compact forgets all revisions but the last.
func compact(t *testing.T, c *etcdcluster.Cluster) {
	t.Helper()
	out := c.Etcdctl(t, "get", "/none", "-w", "json")
	var answer struct {
		Header struct {
			Revision int64 `json:"revision"`
		} `json:"header"`
	}
	if err := json.Unmarshal([]byte(out), &answer); err != nil {
		t.Fatalf("%s: %v", out, err)
	}
	if out, err := c.TryEtcdctl("compact", fmt.Sprint(answer.Header.Revision)); err != nil && !strings.Contains(out, "has been compacted") {
		t.Fatalf("compact: %v\n%s", err, out)
	}
}

// A host that was cut off while what it had not seen was compacted has the last bundle afterwards.
func TestCompactedMeanwhile(t *testing.T) {
	c := etcdcluster.Start(t, 1)
	p := newPublisher(t, c.Open(t))
	h := &host{name: "h1", store: c.Open(t), keys: p.keys()}
	ctx, stop := context.WithCancel(t.Context())
	var running sync.WaitGroup
	defer running.Wait()
	defer stop()
	running.Go(func() { h.run(ctx, nil) })
	converge(t, []*host{h}, p.publish(t), time.Minute)

	c.Members[0].Kill()
	c.Members[0].Start(t)
	c.Wait(t)
	p.store = c.Open(t) // the host takes its time to come back, and this one does not
	var last uint64
	for range 5 {
		last = p.publish(t)
	}
	compact(t, c)
	converge(t, []*host{h}, last, time.Minute)
	if n := len(h.bundles); n > 3 {
		t.Logf("the host came back at once, and had %d bundles", n)
	}
}

// An object is announced for as long as its process lives, whatever becomes of the lease.
func TestPresence(t *testing.T) {
	c := etcdcluster.Start(t, 1)
	o := c.User(t, "h1")
	o.TTL = 3 * time.Second
	s := etcdcluster.Open(t, c.URL(), o)
	operator := c.Open(t)
	key := fleet.PresenceKey("h1")
	p, err := s.Announce(t.Context(), key, []byte("here"))
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	present := func(when, want string) {
		t.Helper()
		var got store.Object
		var err error
		for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
			if got, err = operator.Get(t.Context(), key); err == nil && string(got.Value) == want {
				return
			}
		}
		t.Fatalf("%s: %q, %v", when, got.Value, err)
	}
	present("at first", "here")
	leases := func() []string {
		return strings.Fields(c.Etcdctl(t, "lease", "list"))[3:] // found 1 leases
	}

	c.Etcdctl(t, "lease", "revoke", leases()[0])
	if _, err := operator.Get(t.Context(), key); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the lease has no object: %v", err)
	}
	present("after the lease was revoked", "here")

	file := c.Snapshot(t)
	c.Members[0].Kill()
	time.Sleep(4 * time.Second) // longer than the lease
	c.Members[0].Start(t)
	c.Wait(t)
	present("after the cluster was away", "here")

	if err := p.Update(t.Context(), []byte("elsewhere")); err != nil {
		t.Fatal(err)
	}
	c.Restore(t, file) // in which there is the lease, with what was announced then
	present("after a restoration", "elsewhere")

	for deadline := time.Now().Add(time.Minute); len(leases()) > 1; time.Sleep(100 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("leases stay behind: %q", leases())
		}
	}
}
