// SPDX-License-Identifier: Apache-2.0

package serve

import (
	"context"
	"crypto/tls"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/portcullis-firewall/portcullis/firewall/fleet/store"
	"github.com/portcullis-firewall/portcullis/firewall/fleet/store/storetest"
)

// served is a folder behind a server.
type served struct {
	t      *testing.T
	root   string
	url    string
	issued string
	server *Server // nil: another one
	*Authority
}

func serve(t *testing.T, handler func(root string) http.Handler) *served {
	t.Helper()
	s := &served{t: t, root: t.TempDir(), issued: t.TempDir()}
	var err error
	if s.Authority, err = OpenAuthority(s.root); err != nil {
		t.Fatal(err)
	}
	pair, err := s.Server()
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewUnstartedServer(handler(s.root))
	server.TLS = &tls.Config{Certificates: []tls.Certificate{pair}, ClientCAs: s.Pool(), ClientAuth: tls.VerifyClientCertIfGiven}
	server.EnableHTTP2 = true
	server.StartTLS()
	t.Cleanup(func() {
		server.CloseClientConnections()
		server.Close()
	})
	s.url = server.URL
	return s
}

func fleetServer(t *testing.T) *served {
	ctx, end := context.WithCancel(context.Background())
	t.Cleanup(end)
	var server *Server
	s := serve(t, func(root string) http.Handler {
		server = New(ctx, root, []string{"publisher"})
		return server
	})
	s.server = server
	return s
}

// waiters returns how many wait for something to change.
func (s *served) waiters() (n int) {
	s.server.hub.mu.Lock()
	defer s.server.hub.mu.Unlock()
	for _, e := range s.server.hub.entries {
		n += e.waiting
	}
	return n
}

// as opens the store as somebody, or "" for nobody.
func (s *served) as(name string, ttl time.Duration) store.Store {
	s.t.Helper()
	o := store.Options{CA: AuthorityPath(s.root), TTL: ttl}
	if name != "" {
		if err := s.Issue(name, s.issued); err != nil {
			s.t.Fatal(err)
		}
		o.Certificate, o.Key = filepath.Join(s.issued, name+".crt"), filepath.Join(s.issued, name+".key")
	}
	w, err := store.OpenWeb(s.t.Context(), s.url, o)
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { w.Close() })
	return w
}

func TestStore(t *testing.T) {
	storetest.Run(t, func(t *testing.T) storetest.Subject {
		s := fleetServer(t)
		return storetest.Subject{Publisher: s.as("publisher", 5*time.Second), Host: s.as("h1", 5*time.Second), HostName: "h1", Expiry: 7 * time.Second}
	})
}

func TestWhoMayWrite(t *testing.T) {
	s := fleetServer(t)
	h1, nobody := s.as("h1", 0), s.as("", 0)
	for key, may := range map[string]bool{
		"hosts/h1/status": true, "hosts/h1/present": true, "bans/web/h1": true,
		"hosts/h10/status": false, "hosts/h2/status": false, "bans/web/h2": false, "groups/web/current": false, "bundles/00": false, "lists/00": false,
		"bans/h1/x": false, "groups/hosts/h1": false,
	} {
		if err := h1.Put(t.Context(), key, []byte("1"), store.Any); (err == nil) != may || !may && !errors.Is(err, store.ErrDenied) {
			t.Errorf("h1 puts %s: %v", key, err)
		}
		if err := h1.Delete(t.Context(), key); (err == nil) != may {
			t.Errorf("h1 removes %s: %v", key, err)
		}
		if err := nobody.Put(t.Context(), key, nil, store.Any); !errors.Is(err, store.ErrDenied) {
			t.Errorf("somebody without a certificate puts %s: %v", key, err)
		}
	}
}

// Many who wait for the same pointer are told at once, and the server watches for all of them together.
func TestManyWait(t *testing.T) {
	s := fleetServer(t)
	publisher := s.as("publisher", 0)
	if err := publisher.Put(t.Context(), "groups/web/current", []byte("1"), store.Any); err != nil {
		t.Fatal(err)
	}
	w := s.as("h1", 0)
	first, err := w.Get(t.Context(), "groups/web/current")
	if err != nil {
		t.Fatal(err)
	}
	const many = 200
	before := inotifies(t)
	ctx, end := context.WithTimeout(t.Context(), 30*time.Second)
	defer end()
	var waiting sync.WaitGroup
	for range many {
		waiting.Go(func() {
			if o, err := w.Watch(ctx, "groups/web/current", first.Version); err != nil || string(o.Value) != "2" {
				t.Errorf("watched %q, %v", o.Value, err)
			}
		})
	}
	for s.waiters() < many && ctx.Err() == nil {
		time.Sleep(10 * time.Millisecond)
	}
	if n := inotifies(t) - before; n > 2 {
		t.Errorf("the server watches %d times", n)
	}
	if err := publisher.Put(t.Context(), "groups/web/current", []byte("2"), store.Any); err != nil {
		t.Fatal(err)
	}
	waiting.Wait()
	if n := s.waiters(); n != 0 {
		t.Errorf("%d wait still", n)
	}
}

// inotifies returns how many of them this process has.
func inotifies(t *testing.T) (n int) {
	t.Helper()
	fds, err := filepath.Glob("/proc/self/fd/*")
	if err != nil {
		t.Fatal(err)
	}
	for _, fd := range fds {
		if to, _ := os.Readlink(fd); strings.Contains(to, "inotify") {
			n++
		}
	}
	return n
}

// A plain web server hands out pointer and bundles, and tells of nothing else.
func TestPlainWebServer(t *testing.T) {
	s := serve(t, func(root string) http.Handler { return http.FileServer(http.Dir(root)) })
	w := s.as("", 0)
	if err := store.NewDir(s.root).Put(t.Context(), "groups/web/current", []byte("1"), store.Any); err != nil {
		t.Fatal(err)
	}
	o, err := w.Watch(t.Context(), "groups/web/current", store.Absent)
	if err != nil || string(o.Value) != "1" {
		t.Fatalf("watched %q, %v", o.Value, err)
	}
	if _, err := w.Changes(t.Context(), "groups/web/", ""); !errors.Is(err, store.ErrUnsupported) {
		t.Errorf("changes: %v", err)
	}
	if _, err := w.List(t.Context(), "groups/"); !errors.Is(err, store.ErrUnsupported) {
		t.Errorf("list: %v", err)
	}
	if err := w.Put(t.Context(), "hosts/h1/status", nil, store.Any); err == nil {
		t.Error("a plain web server was written to")
	}
}

func TestServerOfAnotherAuthority(t *testing.T) {
	s, other := fleetServer(t), fleetServer(t)
	w, err := store.OpenWeb(t.Context(), s.url, store.Options{CA: AuthorityPath(other.root)})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Get(t.Context(), "groups/web/current"); err == nil || store.IsFinal(err) {
		t.Errorf("a server that nobody vouches for: %v", err)
	}
}
