// SPDX-License-Identifier: Apache-2.0

package publish

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/portcullis-firewall/portcullis/firewall/fleet"
	"github.com/portcullis-firewall/portcullis/firewall/fleet/store"
)

// lab is a fleet whose hosts are goroutines, that do what they are told.
type lab struct {
	*Fleet
	t   *testing.T
	dir *store.Dir
	key *fleet.PrivateKey

	mu   sync.Mutex
	got  map[string][]uint64 // the serials that each host has taken, in order
	pres map[string]store.Presence
}

func newLab(t *testing.T) *lab {
	t.Helper()
	key, err := fleet.GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	dir := store.NewDir(t.TempDir())
	return &lab{Fleet: &Fleet{Store: dir, Keys: []fleet.PublicKey{key.Public()}}, t: t, dir: dir, key: key, got: make(map[string][]uint64), pres: make(map[string]store.Presence)}
}

// joins makes a host, which takes what it is to run as do says.
func (l *lab) joins(name string, do func(serial uint64) (fleet.State, string)) {
	l.t.Helper()
	p, err := l.dir.Announce(l.t.Context(), fleet.PresenceKey(name), nil)
	if err != nil {
		l.t.Fatal(err)
	}
	l.mu.Lock()
	l.pres[name] = p
	l.mu.Unlock()
	ctx, end := context.WithCancel(context.Background())
	done := make(chan struct{})
	l.t.Cleanup(func() {
		end()
		<-done
		_ = p.Close()
	})
	said := fleet.Status{Name: name, Group: "web", State: fleet.StateNone, Facts: fleet.Facts{Ports: map[string]fleet.Words{"app": {"8080"}}}}
	say := func() {
		text, err := said.Text()
		if err == nil {
			err = l.dir.Put(ctx, fleet.StatusKey(name), text, store.Any)
		}
		if err != nil && ctx.Err() == nil {
			l.t.Error(err)
		}
	}
	say()
	go func() {
		defer close(done)
		version := store.Absent
		for ctx.Err() == nil {
			object, err := l.dir.Watch(ctx, fleet.PointerKey("web"), version)
			if err != nil {
				continue
			}
			version = object.Version
			p, _, err := fleet.OpenPointer(object.Value, "web", l.Keys)
			if err != nil {
				continue // of a key that this host has not
			}
			t, ok := p.For(name)
			if !ok || t.Serial <= said.Serial || t.Serial == said.Tried {
				continue
			}
			l.mu.Lock()
			l.got[name] = append(l.got[name], t.Serial)
			l.mu.Unlock()
			said.Tried = t.Serial
			if said.State, said.Problem = do(t.Serial); said.State == fleet.StateInForce {
				said.Serial, said.Bundle = t.Serial, t.Bundle
			}
			say()
		}
	}()
}

func takes(uint64) (fleet.State, string) { return fleet.StateInForce, "" }

func (l *lab) took(name string) []uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.got[name])
}

func (l *lab) source(text string) *Source {
	l.t.Helper()
	return l.sourceOf(text, "")
}

func (l *lab) sourceOf(text, settings string) *Source {
	l.t.Helper()
	dir := l.t.TempDir()
	file, settingsFile := filepath.Join(dir, "policy.yaml"), ""
	err := errors.Join(os.WriteFile(file, []byte(text), 0o644), os.WriteFile(filepath.Join(dir, "bad.txt"), []byte("192.0.2.0/24\n"), 0o644))
	if settings != "" {
		settingsFile = filepath.Join(dir, "settings.yaml")
		err = errors.Join(err, os.WriteFile(settingsFile, []byte(settings), 0o644))
	}
	if err != nil {
		l.t.Fatal(err)
	}
	s, err := ReadSource(file, settingsFile)
	if err != nil {
		l.t.Fatal(err)
	}
	return s
}

func (l *lab) request(waves string) Request {
	l.t.Helper()
	w, err := ParseWaves(waves)
	if err != nil {
		l.t.Fatal(err)
	}
	return Request{Group: "web", Key: l.key, Waves: w, Patience: 20 * time.Second}
}

func TestPublishInWaves(t *testing.T) {
	l := newLab(t)
	const hosts = 40
	order := make(chan string, 2*hosts)
	for i := range hosts {
		name := fmt.Sprintf("h%d", i)
		l.joins(name, func(uint64) (fleet.State, string) {
			order <- name
			return fleet.StateInForce, ""
		})
	}
	report, err := l.Publish(t.Context(), l.source("open: [80/tcp]\n"), l.request(DefaultWaves))
	if err != nil || report.Serial != 1 || !report.Published {
		t.Fatalf("published %+v, %v", report, err)
	}
	if first := <-order; first != "h0" {
		t.Errorf("the first host is %s", first)
	}
	var names []string
	for _, w := range report.Waves {
		names = append(names, w.Wave)
		if !w.Done || w.InForce != w.Hosts {
			t.Errorf("wave %+v", w)
		}
	}
	if last := report.Waves[len(report.Waves)-1]; names[0] != "1 host" || last.Wave != "all" || last.Hosts != hosts || len(names) < 3 {
		t.Errorf("the waves are %q, and the last one is %+v", names, last)
	}
	c, err := l.Current(t.Context(), "web")
	if err != nil || c.Pointer.Wave != nil || c.Pointer.Before != nil {
		t.Errorf("in the end there is %+v, %v", c.Pointer, err)
	}
}

// Where a host of the first wave reverts, is lost or says nothing, no other host gets the bundle, and a rollback goes back to
// what the others run.
func TestWaveStops(t *testing.T) {
	for what, do := range map[string]struct {
		state fleet.State
		want  string
	}{
		"reverts": {fleet.StateReverted, "host h1: it is bad"},
		"refuses": {fleet.StateRefused, "host h1: it is bad"},
		"is lost": {fleet.StateTrying, "host h1 is lost"},
		"is mute": {fleet.StateTrying, "host h1 has not put it in force within"},
	} {
		t.Run(what, func(t *testing.T) {
			l := newLab(t)
			l.joins("h1", func(serial uint64) (fleet.State, string) {
				if serial != 2 {
					return fleet.StateInForce, ""
				}
				if what == "is lost" {
					l.mu.Lock()
					_ = l.pres["h1"].Close()
					l.mu.Unlock()
				}
				return do.state, "it is bad"
			})
			l.joins("h2", takes)
			if _, err := l.Publish(t.Context(), l.source("open: [80/tcp]\n"), l.request("1")); err != nil {
				t.Fatal(err)
			}
			r := l.request("1")
			if what == "is mute" {
				r.Patience = time.Second
			}
			report, err := l.Publish(t.Context(), l.sourceOf("open: [443/tcp]\n", "within: 2s"), r)
			var stopped *StoppedError
			if !errors.As(err, &stopped) || len(stopped.Wave.Failed) != 1 || !strings.HasPrefix(stopped.Wave.Failed[0], do.want) || report.Serial != 2 {
				t.Fatalf("published %+v, %v", report, err)
			}
			s, err := l.Status(t.Context(), "web")
			if err != nil || s.Wave != "h1" || s.Before != 1 || s.Serial != 2 || !s.Verified {
				t.Errorf("the status is %+v, %v", s, err)
			}
			if got := l.took("h2"); !slices.Equal(got, []uint64{1}) {
				t.Errorf("the other host has taken %v", got)
			}
			if report, err = l.Rollback(t.Context(), 0, l.request("none")); err != nil || report.Serial != 3 {
				t.Fatalf("rolled back to %+v, %v", report, err)
			}
			c, err := l.Current(t.Context(), "web")
			if err != nil || c.Bundle.Policy != "open: [80/tcp]\n" {
				t.Errorf("after that there is %+v, %v", c.Bundle, err)
			}
		})
	}
}

func TestRollback(t *testing.T) {
	l := newLab(t)
	policyOf := func(n int) string { return fmt.Sprintf("open: [%d/tcp]\n", n) }
	for n := range 4 {
		if _, err := l.Publish(t.Context(), l.source(policyOf(n+1)), l.request("none")); err != nil {
			t.Fatal(err)
		}
	}
	for i, want := range []int{3, 2, 1} {
		report, err := l.Rollback(t.Context(), 0, l.request("none"))
		if err != nil || report.Serial != uint64(5+i) {
			t.Fatalf("%+v, %v", report, err)
		}
		if c, err := l.Current(t.Context(), "web"); err != nil || c.Bundle.Policy != policyOf(want) {
			t.Errorf("rollback %d leads to %q, %v", i+1, c.Bundle.Policy, err)
		}
	}
	if _, err := l.Rollback(t.Context(), 0, l.request("none")); err == nil || !strings.Contains(err.Error(), "no bundle of group web to go back to") {
		t.Errorf("before the first one: %v", err)
	}
	if report, err := l.Rollback(t.Context(), 3, l.request("none")); err != nil || report.Serial != 8 {
		t.Errorf("back to a serial: %+v, %v", report, err)
	}
	if c, err := l.Current(t.Context(), "web"); err != nil || c.Bundle.Policy != policyOf(3) {
		t.Errorf("bundle 3 is %q, %v", c.Bundle.Policy, err)
	}
	if _, err := l.Publish(t.Context(), l.source(policyOf(9)), l.request("none")); err != nil {
		t.Fatal(err)
	}
	for _, want := range []int{3, 2} {
		if _, err := l.Rollback(t.Context(), 0, l.request("none")); err != nil {
			t.Fatal(err)
		}
		if c, err := l.Current(t.Context(), "web"); err != nil || c.Bundle.Policy != policyOf(want) {
			t.Errorf("a rollback after that leads to %q, %v", c.Bundle.Policy, err)
		}
	}
	if _, err := l.Rollback(t.Context(), 77, l.request("none")); err == nil || !strings.Contains(err.Error(), "has no bundle 77") {
		t.Errorf("a serial that there never was: %v", err)
	}
	if _, err := l.Rollback(t.Context(), 0, Request{Group: "db", Key: l.key}); err == nil || !strings.Contains(err.Error(), `no group "db": there are web`) {
		t.Errorf("another group: %v", err)
	}
}

func TestRevoke(t *testing.T) {
	l := newLab(t)
	l.joins("h1", takes)
	next, err := fleet.GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	l.Keys = append(l.Keys, next.Public())
	if _, err := l.Publish(t.Context(), l.source("open: [80/tcp]\n"), l.request("none")); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Revoke(t.Context(), RevokeRequest{Keys: []fleet.KeyID{l.key.ID}}, l.request("none")); err == nil || !strings.Contains(err.Error(), "cannot revoke itself") {
		t.Errorf("a key revokes itself: %v", err)
	}
	report, err := l.Revoke(t.Context(), RevokeRequest{Keys: []fleet.KeyID{l.key.ID}, Hosts: []string{"h1"}}, Request{Group: "web", Key: next})
	if err != nil || report.Serial != 2 {
		t.Fatalf("revoked %+v, %v", report, err)
	}
	object, err := l.dir.Get(t.Context(), fleet.PointerKey("web"))
	if err != nil {
		t.Fatal(err)
	}
	p, by, err := fleet.OpenPointer(object.Value, "web", l.Keys)
	if err != nil || by != next.ID || !slices.Equal(p.RevokedKeys, []fleet.KeyID{l.key.ID}) || !slices.Equal(p.RevokedHosts, []string{"h1"}) {
		t.Errorf("the pointer is %+v by %s, %v", p, by, err)
	}
	if _, err := l.Publish(t.Context(), l.source("open: [1-65535/tcp]\n"), l.request("none")); err == nil || !strings.Contains(err.Error(), "is revoked") {
		t.Errorf("a key that is revoked signs: %v", err)
	}
	if hosts, err := l.Hosts(t.Context(), "web", p.RevokedHosts); err != nil || len(hosts) != 0 {
		t.Errorf("the hosts are %v, %v", hosts, err)
	}
	if report, err = l.Publish(t.Context(), l.source("open: [443/tcp]\n"), Request{Group: "web", Key: next}); err != nil || report.Serial != 3 {
		t.Errorf("the other key publishes %+v, %v", report, err)
	}
}

// Bans outlive the key that has signed them.
func TestRevokeSignsBansAnew(t *testing.T) {
	l := newLab(t)
	next, err := fleet.GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	l.Keys = append(l.Keys, next.Public())
	if _, err := l.Publish(t.Context(), l.sourceOf("open: [80/tcp]\n", "bans: {}\n"), l.request("none")); err != nil {
		t.Fatal(err)
	}
	r := BanRequest{Group: "web", Key: l.key, Prefixes: []netip.Prefix{netip.MustParsePrefix("203.0.113.7/32")}}
	if _, err := l.Ban(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Revoke(t.Context(), RevokeRequest{Keys: []fleet.KeyID{l.key.ID}}, Request{Group: "web", Key: next}); err != nil {
		t.Fatal(err)
	}
	object, err := l.dir.Get(t.Context(), fleet.BansKey("web", fleet.OperatorBans))
	if err != nil {
		t.Fatal(err)
	}
	if list, err := fleet.OpenBans(object.Value, "web", fleet.OperatorBans, []fleet.PublicKey{next.Public()}); err != nil || len(list.Bans) != 1 || list.Serial != 2 {
		t.Errorf("the bans are %+v, %v", list, err)
	}
	r.Key, r.Prefixes[0] = next, netip.MustParsePrefix("203.0.113.8/32")
	if report, err := l.Ban(t.Context(), r); err != nil || report.Bans != 2 {
		t.Errorf("the other key bans %+v, %v", report, err)
	}
}

// What is wrong for one host is not published for any.
func TestPublishChecksForEachHost(t *testing.T) {
	l := newLab(t)
	l.joins("h1", takes)
	for text, want := range map[string]string{
		"open: [{{ports.app}}/tcp, {{ports.web}}/tcp]\n": "on host h1: the group's policy:1: host h1 has no fact ports.web",
		"open: [htttp]\n": "on host h1: the group's policy:1:8: ",
		"lists: {x: {file: /etc/x.txt}}\nblock: ['@x']\n": "is a file of the host",
	} {
		agreed := false
		r := l.request("none")
		r.Agree = func(*Report) error { agreed = true; return nil }
		if _, err := l.Publish(t.Context(), l.source(text), r); err == nil || !strings.Contains(err.Error(), want) || agreed {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
	}
	if c, err := l.Current(t.Context(), "web"); err != nil || c.Pointer != nil {
		t.Errorf("there is %+v, %v", c, err)
	}
	r := l.request("none")
	r.Agree = func(*Report) error { return errors.New("no") }
	if _, err := l.Publish(t.Context(), l.source("open: [ssh]\n"), r); err == nil {
		t.Error("it was published against somebody's will")
	}
	if keys, err := l.dir.List(t.Context(), "bundles/"); err != nil || len(keys) != 0 {
		t.Errorf("there is %q, %v", keys, err)
	}
	report, err := l.Publish(t.Context(), l.source("lists: {bad: {file: bad.txt}}\nblock: ['@bad']\nopen: [{{ports.app}}/tcp]\n"), l.request("none"))
	if err != nil || len(report.Differences) != 1 || !slices.Contains(report.Differences[0].Packets, "8080/tcp: nobody -> anybody") {
		t.Errorf("published %+v, %v", report, err)
	}
	// A store that was restored from before knows less than its hosts.
	text, err := (&fleet.Status{Name: "h9", Group: "web", Serial: 12, State: fleet.StateInForce}).Text()
	if err != nil {
		t.Fatal(err)
	}
	if err := l.dir.Put(t.Context(), fleet.StatusKey("h9"), text, store.Any); err != nil {
		t.Fatal(err)
	}
	if report, err = l.Publish(t.Context(), l.source("open: [ssh]\n"), l.request("none")); err != nil || report.Serial != 13 || len(report.Warnings) != 1 {
		t.Errorf("published %+v, %v", report, err)
	}
}

// Two who publish at once do not overwrite one another.
func TestPublishAtOnce(t *testing.T) {
	l := newLab(t)
	var g sync.WaitGroup
	var mu sync.Mutex
	serials := make(map[uint64]int)
	for i := range 6 {
		g.Go(func() {
			f := &Fleet{Store: l.dir, Keys: slices.Clone(l.Keys)}
			report, err := f.Publish(t.Context(), l.source(fmt.Sprintf("open: [%d/tcp]\n", i+1)), l.request("none"))
			mu.Lock()
			defer mu.Unlock()
			switch {
			case err == nil:
				serials[report.Serial]++
			case !strings.Contains(err.Error(), "somebody else has published"):
				t.Error(err)
			}
		})
	}
	g.Wait()
	for serial, n := range serials {
		if n != 1 {
			t.Errorf("%d have published bundle %d", n, serial)
		}
	}
	if c, err := l.Current(t.Context(), "web"); err != nil || serials[c.Pointer.Serial] != 1 {
		t.Errorf("in the end there is %+v, %v; published were %v", c.Pointer, err, serials)
	}
}

func TestBan(t *testing.T) {
	l := newLab(t)
	if _, err := l.Publish(t.Context(), l.source("open: [80/tcp]\n"), l.request("none")); err != nil {
		t.Fatal(err)
	}
	ban := func(end bool, addresses ...string) (*BanReport, error) {
		r := BanRequest{Group: "web", Key: l.key, End: end, For: time.Hour}
		for _, a := range addresses {
			r.Prefixes = append(r.Prefixes, netip.MustParsePrefix(a))
		}
		return l.Ban(t.Context(), r)
	}
	if _, err := ban(false, "203.0.113.7/32"); err == nil || !strings.Contains(err.Error(), "bans do not travel in group web") {
		t.Errorf("bans do not travel: %v", err)
	}
	if _, err := l.Publish(t.Context(), l.sourceOf("open: [80/tcp]\n", "bans: {most: 2}\n"), l.request("none")); err != nil {
		t.Fatal(err)
	}
	if r, err := ban(false, "203.0.113.7/32", "203.0.113.8/32"); err != nil || r.Bans != 2 {
		t.Errorf("banned %+v, %v", r, err)
	}
	if r, err := ban(false, "203.0.113.7/32"); err != nil || r.Bans != 2 {
		t.Errorf("banned again %+v, %v", r, err)
	}
	if _, err := ban(false, "203.0.113.9/32"); err == nil || !strings.Contains(err.Error(), "has 2 at most") {
		t.Errorf("more than may be: %v", err)
	}
	if r, err := ban(true, "203.0.113.7/32"); err != nil || r.Bans != 1 {
		t.Errorf("ended %+v, %v", r, err)
	}
	if _, err := ban(true, "203.0.113.7/32"); err == nil {
		t.Error("the ban of who is not banned ended")
	}
	object, err := l.dir.Get(t.Context(), fleet.BansKey("web", fleet.OperatorBans))
	if err != nil {
		t.Fatal(err)
	}
	list, err := fleet.OpenBans(object.Value, "web", fleet.OperatorBans, l.Keys)
	if err != nil || len(list.Bans) != 1 || list.Serial != 3 || list.Bans[0].Seconds != 3600 {
		t.Errorf("there is %+v, %v", list, err)
	}
	if list.Forget(time.Now().Add(2 * time.Hour)); len(list.Bans) != 0 {
		t.Errorf("bans that have ended stay: %+v", list)
	}
}
