// SPDX-License-Identifier: Apache-2.0

package member

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/portcullis-firewall/portcullis/firewall/fleet"
	"github.com/portcullis-firewall/portcullis/firewall/fleet/store"
)

// tellRules says what this host is to do for others now.
func (m *Member) tellRules() {
	r := rules{keys: fleet.Without(m.Config.Keys, m.state.RevokedKeys)}
	if m.inForce != nil {
		r.bans, r.probes = m.inForce.Bans, m.inForce.Probes
	}
	if m.offered != nil { // those that try it first are to be probed by all
		r.probes = append(slices.Clone(r.probes), m.offered.Probes...)
	}
	if m.pointer != nil {
		r.absent = m.pointer.RevokedHosts
		if slices.Contains(r.absent, m.Config.Name) {
			r.bans, r.probes = nil, nil
		}
	}
	select {
	case <-m.rules:
	default:
	}
	m.rules <- r
}

// beside does for other hosts what the bundles say.
func (m *Member) beside(ctx context.Context, s store.Store) {
	var now rules
	stop := func() {}
	for {
		var next rules
		select {
		case <-ctx.Done():
			stop()
			return
		case next = <-m.rules:
		}
		if reflect.DeepEqual(now, next) {
			continue
		}
		stop()
		now = next
		var work sync.WaitGroup
		running, cancel := context.WithCancel(ctx)
		stop = func() {
			cancel()
			work.Wait()
		}
		if slices.Contains((&fleet.Settings{Probes: now.probes}).Peers(), m.Config.Name) {
			work.Go(func() { m.answer(running, s, now) })
		}
		if now.bans != nil {
			work.Go(func() { m.followBans(running, s, now) })
		}
		if now.bans != nil && now.bans.Hosts {
			work.Go(func() { m.shareBans(running, s, now) })
		}
	}
}

// eachChange visits what changes below a prefix, for as long as ctx lasts. All says that the objects are all that there are.
func (m *Member) eachChange(ctx context.Context, s store.Store, prefix string, visit func(store.Changes)) {
	var wait backoff
	since := ""
	for {
		c, err := s.Changes(ctx, prefix, since)
		switch {
		case ctx.Err() != nil:
			return
		case errors.Is(err, store.ErrUnsupported):
			m.Log.Warn("%s tells nothing of other hosts: bans do not travel by it, nor does this host probe others: %v", m.Config.From, err)
			return
		case err != nil:
			sleep(ctx, wait.next())
			continue
		}
		since, wait = c.Since, 0
		visit(c)
	}
}

const (
	maxProbing    = 16 // hosts at a time
	probeAttempts = 5
)

// answer connects to hosts that have a bundle on trial which says that this one does.
func (m *Member) answer(ctx context.Context, s store.Store, r rules) {
	var mu sync.Mutex
	answers := make(fleet.ProbeAnswers)
	doing := make(map[string]string) // nonces, by hosts
	slots := make(chan struct{}, maxProbing)
	var work sync.WaitGroup
	defer work.Wait()
	put := func() {
		mu.Lock()
		text, err := json.Marshal(answers)
		mu.Unlock()
		var wait backoff
		for err == nil && ctx.Err() == nil {
			if failed := s.Put(ctx, fleet.ProbesKey(m.Config.Name), text, store.Any); failed == nil || store.IsFinal(failed) {
				return
			}
			sleep(ctx, wait.next())
		}
	}
	m.eachChange(ctx, s, fleet.HostsPrefix, func(c store.Changes) {
		for key, object := range c.Objects {
			host, isStatus := strings.CutSuffix(strings.TrimPrefix(key, fleet.HostsPrefix), "/status")
			if !isStatus || host == m.Config.Name || slices.Contains(r.absent, host) {
				continue
			}
			status, err := fleet.ParseStatus(host, object.Value)
			if err != nil {
				continue
			}
			if status.Probe == nil {
				delete(doing, host)
				mu.Lock()
				delete(answers, host) // which goes with the next answer
				mu.Unlock()
				continue
			}
			if doing[host] == status.Probe.Nonce {
				continue
			}
			doing[host] = status.Probe.Nonce
			work.Go(func() {
				select {
				case slots <- struct{}{}:
				case <-ctx.Done():
					return
				}
				defer func() { <-slots }()
				a := m.probe(ctx, status.Probe, r.probes)
				mu.Lock()
				answers[host] = a
				mu.Unlock()
				put()
			})
		}
	})
}

// probe connects to a host as a bundle says: no host can have this one connect to anything else.
func (m *Member) probe(ctx context.Context, request *fleet.ProbeRequest, signed []fleet.Probe) fleet.ProbeAnswer {
	a := fleet.ProbeAnswer{Nonce: request.Nonce, Done: make(map[string]string)}
	for _, p := range signed {
		text := p.String()
		if _, done := a.Done[text]; done || p.Connect != "" || !slices.Contains(p.From, m.Config.Name) ||
			!slices.ContainsFunc(request.Probes, func(q fleet.Probe) bool { return q.String() == text }) {
			continue
		}
		var err error
		for range probeAttempts {
			if err = connect(ctx, net.JoinHostPort(request.Address, strconv.Itoa(int(p.Port)))); err == nil || ctx.Err() != nil {
				break
			}
			sleep(ctx, probePause)
		}
		a.Done[text] = ""
		if err != nil {
			a.Done[text] = err.Error()
		}
	}
	return a
}
