// SPDX-License-Identifier: Apache-2.0

package member

import (
	"context"
	"encoding/json"
	"errors"
	"maps"
	"net"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

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
	maxProbing = 16               // connections that are tried at a time
	longTrial  = 10 * time.Minute // no host is on trial for longer
)

// answers are what this host has found when it connected to others.
type answers struct {
	*Member
	store  store.Store
	signed []fleet.Probe
	slots  chan struct{}

	mu   sync.Mutex
	all  fleet.ProbeAnswers
	told string
}

// answer connects to hosts that have a bundle on trial which says that this one does.
func (m *Member) answer(ctx context.Context, s store.Store, r rules) {
	a := &answers{Member: m, store: s, signed: r.probes, slots: make(chan struct{}, maxProbing), all: make(fleet.ProbeAnswers)}
	type asked struct {
		nonce string
		end   context.CancelFunc
	}
	doing := make(map[string]asked) // by hosts
	var work sync.WaitGroup
	defer work.Wait()
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
			now := doing[host]
			if status.Probe != nil && status.Probe.Nonce == now.nonce {
				continue
			}
			if now.end != nil {
				now.end()
				delete(doing, host)
			}
			if status.Probe == nil {
				a.forget(host)
				continue
			}
			trying, end := context.WithTimeout(ctx, longTrial)
			doing[host] = asked{status.Probe.Nonce, end}
			work.Go(func() { a.try(trying, host, status.Probe) })
		}
	})
}

// try connects to a host as often as it takes, and tells it what comes of that.
func (a *answers) try(ctx context.Context, host string, request *fleet.ProbeRequest) {
	done := make(map[string]string)
	for ctx.Err() == nil {
		failed := false
		for _, p := range a.signed { // no host can have this one connect to anything else
			text := p.String()
			if why, tried := done[text]; tried && why == "" || p.Connect != "" || !slices.Contains(p.From, a.Config.Name) ||
				!slices.ContainsFunc(request.Probes, func(q fleet.Probe) bool { return q.String() == text }) {
				continue
			}
			select {
			case a.slots <- struct{}{}:
			case <-ctx.Done():
				return
			}
			err := connect(ctx, net.JoinHostPort(request.Address, strconv.Itoa(int(p.Port))))
			<-a.slots
			if ctx.Err() != nil {
				return
			}
			done[text] = ""
			if err != nil {
				done[text], failed = err.Error(), true
			}
		}
		if told := a.tell(ctx, host, fleet.ProbeAnswer{Nonce: request.Nonce, Done: maps.Clone(done)}); told && !failed {
			return
		}
		sleep(ctx, probePause)
	}
}

func (a *answers) forget(host string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.all, host) // which goes with the next answer
}

// tell puts an answer into the store, and reports whether it is there.
func (a *answers) tell(ctx context.Context, host string, answer fleet.ProbeAnswer) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.all[host] = answer
	text, err := json.Marshal(a.all)
	if err == nil && string(text) != a.told {
		if err = a.store.Put(ctx, fleet.ProbesKey(a.Config.Name), text, store.Any); err == nil {
			a.told = string(text)
		}
	}
	return err == nil
}
