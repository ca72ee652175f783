// SPDX-License-Identifier: Apache-2.0

package member

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/portcullis-firewall/portcullis/firewall"
	"github.com/portcullis-firewall/portcullis/firewall/firewalltest"
	"github.com/portcullis-firewall/portcullis/firewall/fleet"
	"github.com/portcullis-firewall/portcullis/firewall/fleet/store"
	"github.com/portcullis-firewall/portcullis/policy"
)

const patience = 20 * time.Second

// lab is a host with a firewall that is none, and its store.
type lab struct {
	t      *testing.T
	dir    *store.Dir
	keys   []*fleet.PrivateKey // that the host trusts
	state  string
	runDir string
	config string
	kernel *firewalltest.Kernel
	opened func(store.Store) store.Store // what the host gets in place of the store; nil: that
	facts  fleet.Facts

	mu  sync.Mutex
	log strings.Builder
}

func newLab(t *testing.T) *lab {
	t.Helper()
	l := &lab{t: t, dir: store.NewDir(t.TempDir()), state: t.TempDir(), runDir: t.TempDir(), kernel: &firewalltest.Kernel{Route: "eth0"}}
	l.config = filepath.Join(t.TempDir(), "portcullis.yaml")
	for range 2 {
		k, err := fleet.GenerateKey()
		if err != nil {
			t.Fatal(err)
		}
		l.keys = append(l.keys, k)
	}
	return l
}

func (l *lab) write(level, format string, args ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	fmt.Fprintf(&l.log, level+format+"\n", args...)
}
func (l *lab) Error(format string, args ...any) { l.write("error: ", format, args...) }
func (l *lab) Warn(format string, args ...any)  { l.write("warning: ", format, args...) }
func (l *lab) Info(format string, args ...any)  { l.write("", format, args...) }

func (l *lab) logged() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.log.String()
}

func (l *lab) firewall() *firewall.Firewall {
	return firewall.New(firewall.Options{PinPath: "/sys/fs/bpf/none", Config: l.config, ConfigGiven: true, StateDir: l.state, RunDir: l.runDir, Kernel: l.kernel,
		Session: func() string { return "" }})
}

// runs runs the host until the test ends, or end is called.
func (l *lab) runs() (end func()) {
	l.t.Helper()
	fw := l.firewall()
	config := &fleet.Config{From: "test:", Group: "web", Name: "h1", Facts: l.facts}
	for _, k := range l.keys {
		config.Keys = append(config.Keys, k.Public())
	}
	m, err := New(Options{Firewall: fw, Config: config, Version: "test", Log: l, Openers: store.Openers{"test": func(context.Context, string, store.Options) (store.Store, error) {
		if l.opened == nil {
			return l.dir, nil
		}
		return l.opened(l.dir), nil
	}}})
	if err != nil {
		l.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		m.Run(ctx)
	}()
	end = sync.OnceFunc(func() {
		cancel()
		<-done
	})
	l.t.Cleanup(func() {
		end()
		if l.t.Failed() {
			l.t.Logf("the log:\n%s", l.logged())
		}
	})
	return end
}

// bundle puts a bundle into the store.
func (l *lab) bundle(key *fleet.PrivateKey, serial uint64, text string) fleet.Target {
	l.t.Helper()
	object, digest, err := (&fleet.Bundle{Group: "web", Serial: serial, Policy: text, Settings: fleet.Settings{Within: fleet.Duration(2 * time.Second)}}).Seal(key)
	if err == nil {
		err = l.dir.Put(l.t.Context(), fleet.BundleKey(digest), object, store.Any)
	}
	if err != nil {
		l.t.Fatal(err)
	}
	return fleet.Target{Bundle: digest, Serial: serial}
}

// points makes a bundle that of the group.
func (l *lab) points(key *fleet.PrivateKey, p fleet.Pointer) {
	l.t.Helper()
	p.Group = "web"
	object, err := p.Seal(key)
	if err == nil {
		err = l.dir.Put(l.t.Context(), fleet.PointerKey("web"), object, store.Any)
	}
	if err != nil {
		l.t.Fatal(err)
	}
}

func (l *lab) publishes(key *fleet.PrivateKey, serial uint64, text string) {
	l.t.Helper()
	l.points(key, fleet.Pointer{Target: l.bundle(key, serial, text)})
}

func (l *lab) says() fleet.Status {
	object, err := l.dir.Get(context.Background(), fleet.StatusKey("h1"))
	if err != nil {
		return fleet.Status{}
	}
	s, err := fleet.ParseStatus("h1", object.Value)
	if err != nil {
		l.t.Fatal(err)
	}
	return *s
}

func (l *lab) waitsFor(state fleet.State, tried uint64, problem string) {
	l.t.Helper()
	for end := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		s := l.says()
		if s.State == state && s.Tried == tried && strings.Contains(s.Problem, problem) {
			return
		}
		if time.Now().After(end) {
			l.t.Fatalf("want %s of %d with %q, and the host says %+v", state, tried, problem, s)
		}
	}
}

// open returns what is open once the host has ended.
func (l *lab) open() []string { return policy.Texts(l.kernel.Running.Open) }

// cut is a store that can be cut off.
type cut struct {
	store.Store
	off  *atomic.Bool
	when chan struct{} // closed then
}

var errCut = errors.New("it is cut off")

func (c cut) Get(ctx context.Context, key string) (store.Object, error) {
	if c.off.Load() {
		return store.Object{}, errCut
	}
	return c.Store.Get(ctx, key)
}

func (c cut) Watch(ctx context.Context, key string, version store.Version) (store.Object, error) {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	go func() {
		select {
		case <-c.when:
			stop()
		case <-ctx.Done():
		}
	}()
	object, err := c.Store.Watch(ctx, key, version)
	if c.off.Load() {
		return store.Object{}, errCut
	}
	return object, err
}

// A policy that cuts the host off from its store, and ends the watch for the next one, is found bad, and not tried again.
func TestPolicyCutsOffTheStore(t *testing.T) {
	l := newLab(t)
	l.publishes(l.keys[0], 1, "open: [80/tcp]\n")
	end := l.runs()
	l.waitsFor(fleet.StateInForce, 1, "")
	end()
	var off atomic.Bool
	var opened atomic.Int32
	when := make(chan struct{})
	l.opened = func(s store.Store) store.Store {
		if opened.Add(1) == 2 { // the one that is opened to show something
			off.Store(true)
			close(when)
			time.AfterFunc(4*time.Second, func() { off.Store(false) })
		}
		return cut{s, &off, when}
	}
	l.publishes(l.keys[0], 2, "open: [443/tcp]\n")
	end = l.runs()
	l.waitsFor(fleet.StateReverted, 2, "the store cannot be reached anew: it is cut off")
	time.Sleep(3 * time.Second)
	end()
	if n := strings.Count(l.logged(), "bundle 2 of group web is on trial"); n != 1 {
		t.Errorf("it was tried %d times", n)
	}
	if got := l.open(); !slices.Equal(got, []string{"80/tcp"}) {
		t.Errorf("%q is open", got)
	}
}

// What a host has taken it does not forget: serials and revoked keys outlive a start.
func TestWhatIsNotForgotten(t *testing.T) {
	l := newLab(t)
	old, next := l.keys[0], l.keys[1]
	l.publishes(old, 3, "open: [80/tcp]\n")
	end := l.runs()
	l.waitsFor(fleet.StateInForce, 3, "")
	l.points(next, fleet.Pointer{Target: l.bundle(next, 4, "open: [80/tcp]\n"), RevokedKeys: []fleet.KeyID{old.ID}})
	l.waitsFor(fleet.StateInForce, 4, "")
	if n := strings.Count(l.logged(), "is on trial"); n != 1 {
		t.Errorf("there were %d trials for one policy", n)
	}
	end()
	end = l.runs()
	l.publishes(next, 2, "open: [1-65535/tcp]\n")
	l.waitsFor(fleet.StateRefused, 2, "bundle 2 of group web is older than 4")
	l.publishes(old, 9, "open: [1-65535/tcp]\n")
	l.waitsFor(fleet.StateRefused, 0, "not signed by a key that is trusted here")
	l.points(next, fleet.Pointer{Target: l.bundle(old, 9, "open: [1-65535/tcp]\n")})
	l.waitsFor(fleet.StateRefused, 9, "not signed by a key that is trusted here")
	l.points(next, fleet.Pointer{Target: l.bundle(next, 4, "open: [1-65535/tcp]\n")})
	l.waitsFor(fleet.StateRefused, 4, "there are two bundles 4")
	l.points(next, fleet.Pointer{Target: l.bundle(next, 10, "open: [443/tcp]\n"), RevokedHosts: []string{"h1"}})
	l.waitsFor(fleet.StateRemoved, 10, "this host, h1, is revoked")
	end()
	if got := l.open(); !slices.Equal(got, []string{"80/tcp"}) {
		t.Errorf("%q is open", got)
	}
}

// A host that a wave has not reached runs what was before, also if it is new.
func TestHostOutsideOfAWave(t *testing.T) {
	l := newLab(t)
	before, now := l.bundle(l.keys[0], 1, "open: [80/tcp]\n"), l.bundle(l.keys[0], 2, "open: [443/tcp]\n")
	l.points(l.keys[0], fleet.Pointer{Target: now, Before: &before, Wave: &fleet.Wave{Hosts: []string{"h2"}}})
	end := l.runs()
	l.waitsFor(fleet.StateInForce, 1, "")
	l.points(l.keys[0], fleet.Pointer{Target: now, Before: &before, Wave: &fleet.Wave{Hosts: []string{"h2", "h1"}}})
	l.waitsFor(fleet.StateInForce, 2, "")
	// The smaller wave again, by somebody who controls the store.
	l.points(l.keys[0], fleet.Pointer{Target: now, Before: &before, Wave: &fleet.Wave{Hosts: []string{"h2"}}})
	time.Sleep(300 * time.Millisecond)
	l.waitsFor(fleet.StateInForce, 2, "")
	end()
	if got := l.open(); !slices.Equal(got, []string{"443/tcp"}) {
		t.Errorf("%q is open", got)
	}
}

// A policy under which the agent is killed again and again is given up.
func TestPolicyKillsTheAgent(t *testing.T) {
	l := newLab(t)
	target := l.bundle(l.keys[0], 1, "open: [80/tcp]\n")
	text, err := json.Marshal(&state{Serials: map[string]uint64{}, Trying: &attempt{offer{target, fleet.Digest([]byte("open: [80/tcp]\n"))}, maxAttempts}})
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.Mkdir(filepath.Join(l.state, "fleet"), 0o700), os.WriteFile(filepath.Join(l.state, "fleet", stateFile), text, 0o600)); err != nil {
		t.Fatal(err)
	}
	l.points(l.keys[0], fleet.Pointer{Target: target})
	end := l.runs()
	l.waitsFor(fleet.StateReverted, 1, "the agent was killed 3 times while it was on trial")
	end()
	if l.kernel.Running != nil {
		t.Error("it is in force")
	}
}

// When the facts of a host change, so does what its bundle comes to.
func TestFactsChange(t *testing.T) {
	l := newLab(t)
	l.facts.Ports = map[string]fleet.Words{"app": {"80"}}
	l.publishes(l.keys[0], 1, "open: [{{ports.app}}/tcp]\n")
	for _, port := range []string{"80", "443"} {
		l.facts.Ports["app"] = fleet.Words{port}
		end := l.runs()
		for stop := time.Now().Add(patience); !slices.Equal(l.says().Facts.Ports["app"], l.facts.Ports["app"]) || l.says().State != fleet.StateInForce; time.Sleep(10 * time.Millisecond) {
			if time.Now().After(stop) {
				t.Fatalf("the host says %+v", l.says())
			}
		}
		time.Sleep(300 * time.Millisecond)
		l.waitsFor(fleet.StateInForce, 1, "")
		end()
		if got := l.open(); !slices.Equal(got, []string{port + "/tcp"}) {
			t.Errorf("with port %s, %q is open", port, got)
		}
	}
}

// A policy that somebody else has on trial is waited for, and that is no attempt.
func TestSomebodyElseTries(t *testing.T) {
	l := newLab(t)
	other := filepath.Join(t.TempDir(), "other.yaml")
	if err := os.WriteFile(other, []byte("open: [22/tcp]\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	fw := l.firewall()
	if _, err := fw.Try(t.Context(), firewall.TryRequest{File: other, Timeout: time.Minute}); err != nil {
		t.Fatal(err)
	}
	l.publishes(l.keys[0], 1, "open: [80/tcp]\n")
	end := l.runs()
	for stop := time.Now().Add(patience); !strings.Contains(l.says().Problem, "is on trial for another"); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(stop) {
			t.Fatalf("the host says %+v", l.says())
		}
	}
	if s, err := (disk{filepath.Join(l.state, "fleet")}).read(); err != nil || s.Trying != nil {
		t.Errorf("it is kept as an attempt: %+v, %v", s, err)
	}
	if _, err := fw.Revert(t.Context()); err != nil {
		t.Fatal(err)
	}
	l.waitsFor(fleet.StateInForce, 1, "")
	end()
}

// Where nothing can be written down, nothing is tried; a bundle may come before its list, or after it.
func TestNothingCanBeWritten(t *testing.T) {
	l := newLab(t)
	l.publishes(l.keys[0], 1, "open: [80/tcp]\n")
	if err := os.WriteFile(filepath.Join(l.state, "fleet"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	fw := firewall.New(firewall.Options{PinPath: "/sys/fs/bpf/none", StateDir: l.state, RunDir: t.TempDir(), Kernel: l.kernel})
	if _, err := New(Options{Firewall: fw, Config: &fleet.Config{Group: "web", Name: "h1"}, Log: l}); err == nil {
		t.Error("a host whose state cannot be read takes part")
	}
	if err := os.Remove(filepath.Join(l.state, "fleet")); err != nil {
		t.Fatal(err)
	}
	missing := l.bundle(l.keys[0], 2, "open: [443/tcp]\n")
	object, err := l.dir.Get(t.Context(), fleet.BundleKey(missing.Bundle))
	if err == nil {
		err = l.dir.Delete(t.Context(), fleet.BundleKey(missing.Bundle))
	}
	if err != nil {
		t.Fatal(err)
	}
	l.points(l.keys[0], fleet.Pointer{Target: missing})
	end := l.runs()
	for stop := time.Now().Add(patience); !strings.Contains(l.logged(), "is not there yet"); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(stop) {
			t.Fatal("nothing is said of the bundle that is missing")
		}
	}
	if err := l.dir.Put(t.Context(), fleet.BundleKey(missing.Bundle), object.Value, store.Any); err != nil {
		t.Fatal(err)
	}
	l.waitsFor(fleet.StateInForce, 2, "")
	end()
}
