// SPDX-License-Identifier: Apache-2.0

// Package serve is the server of a fleet: it hands out a folder by HTTPS, tells at once of what changes, and lets each host
// write what it says of itself.
package serve

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/portcullis-firewall/portcullis/firewall/fleet"
	"github.com/portcullis-firewall/portcullis/firewall/fleet/store"
)

const (
	maxWait = 55 * time.Second
	minTTL  = 2 * time.Second
	maxTTL  = 10 * time.Minute
	listing = "application/vnd.portcullis.keys+json"
)

// Server answers hosts and publishers.
type Server struct {
	dir        *store.Dir
	publishers []string
	ctx        context.Context
	hub        hub

	mu       sync.Mutex
	presence map[string]*present // by key
}

// present is an object that a host announces here.
type present struct {
	store.Presence
	ttl   time.Duration
	timer *time.Timer
}

// New returns a server of a folder, until ctx ends. Publishers are the common names of certificates whose owners may write
// everything.
func New(ctx context.Context, root string, publishers []string) *Server {
	s := &Server{dir: store.NewDir(root), publishers: publishers, ctx: ctx, presence: make(map[string]*present)}
	s.hub = hub{ctx: ctx, entries: make(map[string]*entry)}
	return s
}

// ServeHTTP implements [http.Handler].
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	key := strings.TrimPrefix(r.URL.Path, "/")
	w.Header().Set("Cache-Control", "no-cache")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	name := commonName(r)
	if name != "" && s.isRevoked(name) {
		http.Error(w, "this host is revoked", http.StatusForbidden)
		return
	}
	switch r.Method {
	case http.MethodGet, http.MethodHead:
		if key == "" || strings.HasSuffix(key, "/") {
			s.list(w, r, key)
		} else {
			s.get(w, r, key)
		}
	case http.MethodPut, http.MethodDelete:
		if !s.mayWrite(name, key) {
			why := "show a certificate"
			if name != "" {
				why = fmt.Sprintf("the certificate is that of %q, who writes only below hosts/%s/", name, name)
			}
			http.Error(w, why, http.StatusForbidden)
			return
		}
		if r.Method == http.MethodPut {
			s.put(w, r, key)
		} else {
			s.remove(w, r, key)
		}
	default:
		w.Header().Set("Allow", "GET, HEAD, PUT, DELETE")
		http.Error(w, "method not allowed", http.StatusMethodNotAllowed)
	}
}

// commonName returns who has shown a certificate that is signed as this server demands, or "".
func commonName(r *http.Request) string {
	if r.TLS == nil || len(r.TLS.VerifiedChains) == 0 {
		return ""
	}
	return r.TLS.VerifiedChains[0][0].Subject.CommonName
}

// mayWrite reports whether somebody may write a key: a host what it says of itself, and whom it bans.
func (s *Server) mayWrite(name, key string) bool {
	if name == "" || store.CheckKey(key) != nil {
		return false
	}
	if slices.Contains(s.publishers, name) {
		return true
	}
	if fleet.CheckHost(name) != nil {
		return false
	}
	parts := strings.Split(key, "/")
	return parts[0] == "hosts" && parts[1] == name || parts[0] == "bans" && len(parts) == 3 && parts[2] == name
}

// isRevoked reports whether a pointer in the folder revokes a host.
func (s *Server) isRevoked(name string) bool {
	if slices.Contains(s.publishers, name) {
		return false
	}
	keys, err := s.dir.List(s.ctx, "groups/")
	if err != nil {
		return false
	}
	for _, key := range keys {
		object, err := s.dir.Get(s.ctx, key)
		if err != nil {
			continue
		}
		if p, err := fleet.PointerUnverified(object.Value); err == nil && slices.Contains(p.RevokedHosts, name) {
			return true
		}
	}
	return false
}

func failed(w http.ResponseWriter, err error) {
	code := http.StatusServiceUnavailable
	switch {
	case errors.Is(err, fs.ErrNotExist):
		code = http.StatusNotFound
	case errors.Is(err, store.ErrConflict):
		code = http.StatusPreconditionFailed
	case errors.Is(err, store.ErrReadOnly):
		code = http.StatusMethodNotAllowed
	case errors.Is(err, store.ErrDenied):
		code = http.StatusForbidden
	case errors.Is(err, store.ErrTooLarge):
		code = http.StatusRequestEntityTooLarge
	}
	http.Error(w, http.StatusText(code), code)
}

// waitOf returns how long somebody wants to wait for a change.
func waitOf(r *http.Request) time.Duration {
	seconds, err := strconv.Atoi(r.Header.Get(store.WaitHeader))
	if err != nil || seconds <= 0 {
		return 0
	}
	return min(time.Duration(seconds)*time.Second, maxWait)
}

func versionOf(tag string) store.Version {
	if tag == `"absent"` {
		return store.Absent
	}
	return store.Version(strings.Trim(strings.TrimPrefix(tag, "W/"), `"`))
}

func (s *Server) get(w http.ResponseWriter, r *http.Request, key string) {
	if store.CheckKey(key) != nil {
		http.Error(w, "no such key", http.StatusBadRequest)
		return
	}
	object, err := s.dir.Get(r.Context(), key)
	tag := r.Header.Get("If-None-Match")
	if wait := waitOf(r); wait > 0 && tag != "" {
		w.Header().Set(store.WaitedHeader, "yes")
		ctx, cancel := context.WithTimeout(r.Context(), wait)
		for object.Version == versionOf(tag) && (err == nil || errors.Is(err, fs.ErrNotExist)) && ctx.Err() == nil {
			s.hub.wait(ctx, key, string(object.Version), func(ctx context.Context, seen string) (string, error) {
				next, err := s.dir.Watch(ctx, key, store.Version(seen))
				if errors.Is(err, fs.ErrNotExist) {
					err = nil
				}
				return string(next.Version), err
			})
			object, err = s.dir.Get(r.Context(), key)
		}
		cancel()
	}
	if err != nil {
		failed(w, err)
		return
	}
	w.Header().Set("ETag", `"`+string(object.Version)+`"`)
	w.Header().Set("Content-Type", "application/octet-stream")
	if tag != "" && versionOf(tag) == object.Version {
		w.WriteHeader(http.StatusNotModified)
		return
	}
	w.Header().Set("Content-Length", strconv.Itoa(len(object.Value)))
	_, _ = w.Write(object.Value)
}

func (s *Server) list(w http.ResponseWriter, r *http.Request, prefix string) {
	if store.CheckPrefix(prefix) != nil || r.Header.Get("Accept") != listing {
		http.Error(w, "no such key", http.StatusNotFound)
		return
	}
	var l store.Listing
	if r.URL.Query().Has(store.SinceQuery) && prefix != "" {
		c, err := s.changes(r, prefix, r.URL.Query().Get(store.SinceQuery))
		if err != nil {
			failed(w, err)
			return
		}
		if c == nil {
			w.WriteHeader(http.StatusNotModified)
			return
		}
		l = store.Listing{Keys: []string{}, All: c.All, Objects: make(map[string][]byte), Gone: c.Gone, Since: c.Since}
		for key, object := range c.Objects {
			l.Objects[key] = object.Value
		}
	} else {
		keys, err := s.dir.List(r.Context(), prefix)
		if err != nil {
			failed(w, err)
			return
		}
		l = store.Listing{Keys: keys, Objects: map[string][]byte{}, Gone: []string{}}
	}
	w.Header().Set("Content-Type", listing)
	_ = json.NewEncoder(w).Encode(l)
}

// changes returns what has changed below a prefix, or nil where nothing has for as long as is to be waited.
func (s *Server) changes(r *http.Request, prefix, since string) (*store.Changes, error) {
	if wait := waitOf(r); wait > 0 && since != "" {
		ctx, cancel := context.WithTimeout(r.Context(), wait)
		defer cancel()
		s.hub.wait(ctx, prefix, since, func(ctx context.Context, seen string) (string, error) {
			c, err := s.dir.Changes(ctx, prefix, seen)
			return c.Since, err
		})
	}
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	// What is there already comes at once; else nothing has changed.
	stop := time.AfterFunc(20*time.Millisecond, cancel)
	defer stop.Stop()
	c, err := s.dir.Changes(ctx, prefix, since)
	if err != nil && ctx.Err() != nil {
		return nil, r.Context().Err()
	}
	return &c, err
}

func (s *Server) put(w http.ResponseWriter, r *http.Request, key string) {
	value, err := io.ReadAll(http.MaxBytesReader(w, r.Body, store.MaxSize))
	if err != nil {
		http.Error(w, "too large, or cut off", http.StatusRequestEntityTooLarge)
		return
	}
	if ttl := r.Header.Get(store.TTLHeader); ttl != "" {
		d, err := time.ParseDuration(ttl)
		if err != nil || d < minTTL || d > maxTTL {
			http.Error(w, fmt.Sprintf("announce it for %s to %s", minTTL, maxTTL), http.StatusBadRequest)
			return
		}
		err = s.announce(r.Context(), key, value, d)
		if err != nil {
			failed(w, err)
			return
		}
		w.WriteHeader(http.StatusNoContent)
		return
	}
	on := store.Any
	if tag := r.Header.Get("If-Match"); tag != "" {
		on = versionOf(tag)
	} else if r.Header.Get("If-None-Match") == "*" {
		on = store.Absent
	}
	if err := s.dir.Put(r.Context(), key, value, on); err != nil {
		failed(w, err)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

func (s *Server) remove(w http.ResponseWriter, r *http.Request, key string) {
	s.mu.Lock()
	s.forget(key)
	s.mu.Unlock()
	if err := s.dir.Delete(r.Context(), key); err != nil {
		failed(w, err)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

// announce keeps an object there for as long as its host goes on to say so.
func (s *Server) announce(ctx context.Context, key string, value []byte, ttl time.Duration) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if p := s.presence[key]; p != nil && p.ttl == ttl {
		p.timer.Reset(ttl)
		return p.Update(ctx, value)
	}
	s.forget(key)
	// That of the folder is for when this server ends.
	kept, err := s.dir.AnnounceFor(ctx, key, value, max(ttl, store.DefaultTTL))
	if err != nil {
		return err
	}
	p := &present{Presence: kept, ttl: ttl}
	p.timer = time.AfterFunc(ttl, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.presence[key] == p {
			s.forget(key)
		}
	})
	s.presence[key] = p
	return nil
}

// forget removes an object that is announced. The caller has the lock.
func (s *Server) forget(key string) {
	if p := s.presence[key]; p != nil {
		delete(s.presence, key)
		p.timer.Stop()
		_ = p.Close()
	}
}

// hub has one watch for all who wait for the same thing: ten thousand hosts wait for one pointer.
type hub struct {
	ctx     context.Context
	mu      sync.Mutex
	entries map[string]*entry
}

type entry struct {
	changed chan struct{} // closed when it has
	waiting int
	stop    context.CancelFunc
}

// wait returns when something is no longer as it was seen, or ctx ends.
func (h *hub) wait(ctx context.Context, what, seen string, watch func(ctx context.Context, seen string) (string, error)) {
	id := what + " " + seen
	h.mu.Lock()
	e := h.entries[id]
	if e == nil {
		e = &entry{changed: make(chan struct{})}
		var watching context.Context
		watching, e.stop = context.WithCancel(h.ctx)
		h.entries[id] = e
		go func() {
			_, err := watch(watching, seen)
			if err != nil && watching.Err() == nil {
				select { // it cannot be looked at, which is not to be tried all the time
				case <-watching.Done():
				case <-time.After(time.Second):
				}
			}
			h.mu.Lock()
			defer h.mu.Unlock()
			if h.entries[id] == e {
				delete(h.entries, id)
			}
			close(e.changed)
		}()
	}
	e.waiting++
	h.mu.Unlock()
	select {
	case <-e.changed:
	case <-ctx.Done():
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if e.waiting--; e.waiting == 0 {
		e.stop()
		if h.entries[id] == e {
			delete(h.entries, id)
		}
	}
}
