// SPDX-License-Identifier: Apache-2.0

package member

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/portcullis-firewall/portcullis/firewall/fleet"
	"github.com/portcullis-firewall/portcullis/firewall/fleet/store"
)

const (
	probeTime  = 2 * time.Second        // for a connection
	probePause = 300 * time.Millisecond // from one that fails to the next
)

// shown returns why nothing shows that this host can be reached under the policy on trial: by a connection to the store that
// is made now, and by the probes of the bundle.
func (m *Member) shown(ctx context.Context, b *fleet.Bundle) error {
	s, err := m.open(ctx)
	if err != nil {
		return err
	}
	defer s.Close()
	if err := m.until(ctx, func() error {
		bounded, cancel := context.WithTimeout(ctx, 2*probeTime)
		defer cancel()
		_, err := s.Get(bounded, fleet.PointerKey(m.Config.Group))
		return err
	}); err != nil {
		return fmt.Errorf("the store cannot be reached anew: %w", err)
	}
	var others []fleet.Probe
	for _, p := range b.Probes {
		if p.Connect == "" {
			others = append(others, p)
			continue
		}
		if err := m.until(ctx, func() error { return connect(ctx, p.Connect) }); err != nil {
			return fmt.Errorf("probe %q: %w", p, err)
		}
	}
	if len(others) == 0 {
		return nil
	}
	return m.askPeers(ctx, s, others)
}

// until tries until it succeeds, or the time is up, and returns the last error.
func (m *Member) until(ctx context.Context, try func() error) (err error) {
	for {
		failed := try()
		if failed == nil {
			return nil
		}
		if err = cmp.Or(err, failed); ctx.Err() == nil {
			err = failed
		}
		if ctx.Err() != nil {
			return err
		}
		sleep(ctx, probePause)
	}
}

func connect(ctx context.Context, address string) error {
	d := net.Dialer{Timeout: probeTime}
	c, err := d.DialContext(ctx, "tcp", address)
	if err != nil {
		return err
	}
	return c.Close()
}

// askPeers has other hosts connect to this one.
func (m *Member) askPeers(ctx context.Context, s store.Store, probes []fleet.Probe) error {
	address := m.Config.Address
	if address == "" {
		var err error
		if address, err = m.ownAddress(); err != nil {
			return err
		}
	}
	request := &fleet.ProbeRequest{Nonce: rand.Text(), Address: address, Probes: probes}
	m.change(func(s *fleet.Status) { s.Probe = request })
	if err := m.until(ctx, func() error { return m.putStatus(ctx, s) }); err != nil {
		return fmt.Errorf("ask others to probe this host: %w", err)
	}
	for _, p := range probes {
		if err := m.askOne(ctx, s, request.Nonce, p); err != nil {
			return fmt.Errorf("probe %q: %w", p, err)
		}
	}
	return nil
}

// askOne waits until a host has connected to this one for a probe.
func (m *Member) askOne(ctx context.Context, s store.Store, nonce string, p fleet.Probe) error {
	peers := slices.DeleteFunc(slices.Clone(p.From), func(name string) bool { return name == m.Config.Name })
	if len(peers) == 0 {
		return errors.New("no other host is named that could")
	}
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	type result struct {
		peer string
		err  error
	}
	results := make(chan result, len(peers))
	for _, peer := range peers {
		go func() { results <- result{peer, m.awaitAnswer(ctx, s, peer, nonce, p)} }()
	}
	var failed []string
	for range peers {
		r := <-results
		if r.err == nil {
			return nil
		}
		failed = append(failed, r.peer+": "+r.err.Error())
	}
	slices.Sort(failed)
	return errors.New(strings.Join(failed, "; "))
}

// awaitAnswer waits until a peer has connected to this host. It goes on trying, and says what came of it last.
func (m *Member) awaitAnswer(ctx context.Context, s store.Store, peer, nonce string, p fleet.Probe) error {
	version, last := store.Absent, "it has not answered"
	for {
		object, err := s.Watch(ctx, fleet.ProbesKey(peer), version)
		if ctx.Err() != nil {
			return errors.New(last)
		}
		if err != nil {
			version = store.Absent // there is none yet, or the store is away
			if !errors.Is(err, fs.ErrNotExist) {
				last = err.Error()
			}
			sleep(ctx, probePause)
			continue
		}
		version = object.Version
		var answers fleet.ProbeAnswers
		if json.Unmarshal(object.Value, &answers) != nil {
			continue
		}
		a := answers[m.Config.Name]
		if why, done := a.Done[p.String()]; done && a.Nonce == nonce {
			if why == "" {
				return nil
			}
			last = fmt.Sprintf("%.200s", why)
		}
	}
}

// ownAddress returns the one from which this host reaches others.
func (m *Member) ownAddress() (string, error) {
	for _, to := range []string{"192.0.2.1:9", "[2001:db8::1]:9"} { // nothing is sent
		c, err := net.Dial("udp", to)
		if err != nil {
			continue
		}
		defer c.Close()
		return c.LocalAddr().(*net.UDPAddr).IP.String(), nil
	}
	return "", errors.New("this host has no address that others could connect to: write \"address:\" in its fleet.yaml")
}
