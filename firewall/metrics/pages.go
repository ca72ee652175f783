// SPDX-License-Identifier: Apache-2.0

package metrics

import (
	"context"
	"net/http"
	"strconv"
	"sync"
	"time"
)

// pages answers scrapes out of pages that are made one at a time. Those who ask at the same time get the same one, and whoever
// does not read his holds up nobody, nor a copy of his own.
type pages struct {
	handler http.Handler

	mu      sync.Mutex
	last    *rendered
	making  chan struct{} // closed when the page that is being made is there; nil: none is
	allowed float64       // pages that may be made at once
	since   time.Time     // when that was true
}

// rendered is what a scrape gets.
type rendered struct {
	begun  time.Time // when what it tells was read
	status int
	header http.Header
	body   []byte
}

const (
	pagesAtOnce    = 4
	pagesPerSecond = 2 // beyond these: who asks more often gets what was read half a second ago

	pieceSize = 64 << 10
	pieceTime = 2 * time.Second // for so much of an answer to be read
)

func newPages(handler http.Handler) *pages {
	return &pages{handler: handler, allowed: pagesAtOnce, since: time.Now()}
}

// ServeHTTP implements [http.Handler].
func (p *pages) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	answer := p.get(r.Context())
	if answer == nil {
		return // whoever asked has gone
	}
	for name, values := range answer.header {
		w.Header()[name] = values
	}
	w.Header().Set("Content-Length", strconv.Itoa(len(answer.body)))
	w.WriteHeader(answer.status)
	end := time.Now().Add(answerTime)
	for body := answer.body; len(body) > 0; {
		deadline := time.Now().Add(pieceTime)
		if end.Before(deadline) {
			deadline = end
		}
		_ = http.NewResponseController(w).SetWriteDeadline(deadline) // or that of the server counts
		n, err := w.Write(body[:min(pieceSize, len(body))])
		if err != nil {
			return
		}
		body = body[n:]
	}
}

// get returns a page that was read after the call, or not long before it; nil once the context ends.
func (p *pages) get(ctx context.Context) *rendered {
	called := time.Now()
	for {
		p.mu.Lock()
		if p.last != nil && (p.last.begun.After(called) || p.making == nil && !p.allows()) {
			defer p.mu.Unlock()
			return p.last
		}
		if p.making == nil {
			p.allowed--
			p.making = make(chan struct{})
			go p.make(p.making)
		}
		making := p.making
		p.mu.Unlock()
		select {
		case <-making:
		case <-ctx.Done():
			return nil
		}
	}
}

// allows reports whether one more page may be made; the lock is held.
func (p *pages) allows() bool {
	now := time.Now()
	p.allowed = min(pagesAtOnce, p.allowed+pagesPerSecond*now.Sub(p.since).Seconds())
	p.since = now
	return p.allowed >= 1
}

func (p *pages) make(done chan struct{}) {
	made := &rendered{begun: time.Now(), status: http.StatusOK, header: make(http.Header)}
	defer func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.last, p.making = made, nil
		close(done)
	}()
	request, err := http.NewRequest(http.MethodGet, "/metrics", nil)
	if err != nil {
		made.status = http.StatusInternalServerError
		return
	}
	p.handler.ServeHTTP(made, request)
}

// Header implements [http.ResponseWriter], as do the following.
func (p *rendered) Header() http.Header { return p.header }

func (p *rendered) WriteHeader(status int) { p.status = status }

func (p *rendered) Write(b []byte) (int, error) {
	p.body = append(p.body, b...)
	return len(b), nil
}
