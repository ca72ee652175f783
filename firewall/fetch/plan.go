// SPDX-License-Identifier: Apache-2.0

package fetch

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/portcullis-firewall/portcullis/policy"
)

const (
	firstRetry = 10 * time.Second
	lastRetry  = time.Hour
	// jitter is the share of a wait by which it may be shorter or longer, so that not everybody asks at once.
	jitter = 0.1
)

// Report is what has become of one attempt to fetch a list.
type Report struct {
	List string // its name
	URL  string
	*Result
	Err error
	// Again is when it is tried again, of one that has failed.
	Again time.Duration
}

// Plan fetches lists as often as they want.
type Plan struct {
	fetcher *Fetcher
	reports chan Report
	changed chan struct{}

	mu    sync.Mutex
	lists []policy.List
	tries map[string]*try // by URL
}

// try is how a list fares.
type try struct {
	due    time.Time
	last   time.Time
	failed int           // in a row
	every  time.Duration // when it was planned
}

// NewPlan returns a plan without lists.
func NewPlan(f *Fetcher) *Plan {
	return &Plan{fetcher: f, reports: make(chan Report), changed: make(chan struct{}, 1), tries: make(map[string]*try)}
}

// Reports returns a channel of what becomes of each attempt. Nothing else is fetched until one is taken.
func (p *Plan) Reports() <-chan Report { return p.reports }

// Set makes these lists the ones that are fetched, those of them that have a URL. One whose copy is gone is due.
func (p *Plan) Set(lists []policy.List) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.lists = slices.DeleteFunc(slices.Clone(lists), func(l policy.List) bool { return l.URL == "" })
	wanted := make(map[string]bool)
	for _, l := range p.lists {
		wanted[l.URL] = true
		t := p.tries[l.URL]
		if t == nil {
			t = &try{}
			p.tries[l.URL] = t
		}
		if t.failed == 0 && (t.every != l.Every || l.Missing != "") {
			t.due, t.every = p.dueFirst(l), l.Every
			if soon := t.last.Add(firstRetry); t.due.Before(soon) {
				t.due = soon // whatever is wrong with the copy, it was fetched just now
			}
		}
	}
	for url := range p.tries {
		if !wanted[url] {
			delete(p.tries, url)
		}
	}
	p.wake()
}

// dueFirst returns when a list is due of which only the copy is known.
func (p *Plan) dueFirst(l policy.List) time.Time {
	confirmed, ok := p.fetcher.Store.Confirmed(l.URL)
	now := time.Now()
	if !ok || l.Missing != "" || confirmed.After(now) {
		return now
	}
	return confirmed.Add(jittered(l.Every))
}

// Retry makes what has failed due, as when the network has changed.
func (p *Plan) Retry() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, t := range p.tries {
		if t.failed > 0 {
			t.due = time.Now().Add(jittered(time.Second)) // the network is about to settle
		}
	}
	p.wake()
}

func (p *Plan) wake() {
	select {
	case p.changed <- struct{}{}:
	default:
	}
}

// Run fetches lists until ctx ends, one after the other.
func (p *Plan) Run(ctx context.Context) {
	for {
		l, wait := p.next()
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-p.changed:
			timer.Stop()
			continue
		case <-timer.C:
		}
		if l.URL == "" {
			continue
		}
		result, err := p.fetcher.Fetch(ctx, l)
		if ctx.Err() != nil {
			return
		}
		report := Report{List: l.Name, URL: l.URL, Result: result, Err: err}
		if err != nil {
			report.Err = fmt.Errorf("list %s from %s: %w", l.Name, l.URL, err)
		}
		report.Again = p.settle(l, err)
		select {
		case p.reports <- report:
		case <-ctx.Done():
			return
		}
	}
}

// next returns the list that is due next, and in how long that is.
func (p *Plan) next() (next policy.List, wait time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	wait = time.Hour
	for _, l := range p.lists {
		if left := time.Until(p.tries[l.URL].due); left < wait {
			next, wait = l, left
		}
	}
	for _, l := range p.lists { // one copy is for all of the same URL
		next.Admits = next.Admits || l.URL == next.URL && l.Admits
	}
	return next, max(wait, 0)
}

// settle plans the next attempt, and returns how long that is from now.
func (p *Plan) settle(l policy.List, err error) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	t := p.tries[l.URL]
	if t == nil {
		return 0 // nobody wants it any more
	}
	wait := l.Every
	if err == nil {
		t.failed = 0
	} else {
		wait = min(firstRetry<<min(t.failed, 16), lastRetry, max(l.Every, firstRetry))
		t.failed++
	}
	wait = jittered(wait)
	t.last = time.Now()
	t.due = t.last.Add(wait)
	return wait
}

func jittered(d time.Duration) time.Duration {
	return d + time.Duration((2*rand.Float64()-1)*jitter*float64(d))
}
