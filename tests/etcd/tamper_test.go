// SPDX-License-Identifier: Apache-2.0

package etcd_test

import (
	"bytes"
	"context"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/portcullis-firewall/portcullis/firewall/fleet"
	"github.com/portcullis-firewall/portcullis/firewall/fleet/store"
	"github.com/portcullis-firewall/portcullis/tests/internal/etcdcluster"
	"github.com/portcullis-firewall/portcullis/tests/internal/lab"
)

// tamperer passes on what goes between a client and etcd, and changes it on the way to the client.
type tamperer struct {
	from, to []byte // of the same length
	honest   atomic.Bool
	changed  atomic.Int32
}

// serve listens on loopback and connects to address. It returns where it listens.
func (p *tamperer) serve(t *testing.T, address string) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	t.Cleanup(all.Wait)
	t.Cleanup(func() { listener.Close() })
	all.Go(func() {
		for {
			client, err := listener.Accept()
			if err != nil {
				return
			}
			server, err := net.Dial("tcp", address)
			if err != nil {
				client.Close()
				continue
			}
			t.Cleanup(func() { client.Close(); server.Close() })
			all.Go(func() { p.copy(server, client, false) })
			all.Go(func() { p.copy(client, server, true) })
		}
	})
	return listener.Addr().String()
}

func (p *tamperer) copy(to, from net.Conn, change bool) {
	defer to.Close()
	buffer := make([]byte, 1<<20)
	for {
		n, err := from.Read(buffer)
		if err != nil {
			return
		}
		text := buffer[:n]
		if found := bytes.Count(text, p.from); change && !p.honest.Load() && found > 0 {
			p.changed.Add(int32(found))
			text = bytes.ReplaceAll(text, p.from, p.to)
		}
		if _, err := to.Write(text); err != nil {
			return
		}
	}
}

// A bundle that is changed on its way, which tcpdump sees it do, is refused, and so is one that is changed in etcd, by
// whoever has taken that over: no port opens without a signature.
func TestTampered(t *testing.T) {
	tcpdump := lab.NeedProgram(t, "tcpdump")
	plain := etcdcluster.Plain(t) // as only loopback may be
	operator := etcdcluster.Open(t, "etcd://"+plain, store.Options{})
	p := newPublisher(t, operator)
	p.publish(t)

	way := &tamperer{from: []byte("1002/tcp"), to: []byte("9999/tcp")}
	through := way.serve(t, plain)
	h := &host{name: "h1", store: etcdcluster.Open(t, "etcd://"+through, store.Options{}), keys: p.keys()}
	ctx, stop := context.WithCancel(t.Context())
	var running sync.WaitGroup
	defer running.Wait()
	defer stop()
	running.Go(func() { h.run(ctx, nil) })
	converge(t, []*host{h}, 1, time.Minute)

	seen := filepath.Join(t.TempDir(), "seen.pcap")
	_, port, err := net.SplitHostPort(through)
	if err != nil {
		t.Fatal(err)
	}
	capture := exec.Command(tcpdump, "--immediate-mode", "-U", "-n", "-s", "0", "-i", "lo", "-w", seen, "src port "+port)
	said, err := capture.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := capture.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		capture.Process.Kill()
		capture.Wait()
	}()
	line := make([]byte, 200) // "listening on lo"
	if n, err := said.Read(line); err != nil {
		t.Fatalf("tcpdump: %s %v", line[:n], err)
	}

	p.publish(t) // with 1002/tcp open
	refused := func(how string, want int) {
		t.Helper()
		for deadline := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
			h.mu.Lock()
			n, at := len(h.refused), h.serial
			var last error
			if n > 0 {
				last = h.refused[n-1]
			}
			h.mu.Unlock()
			if n >= want && at == 1 {
				t.Logf("%s: %v", how, last)
				return
			}
			if at != 1 || time.Now().After(deadline) {
				t.Fatalf("%s: the host has bundle %d, and has refused %q", how, at, h.refused)
			}
		}
	}
	refused("changed on its way", 1)
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		packets, err := os.ReadFile(seen)
		if err == nil && bytes.Contains(packets, way.to) && !bytes.Contains(packets, way.from) {
			break
		}
		if time.Now().After(deadline) {
			t.Errorf("tcpdump did not see the bundle that was changed, in %d bytes, where %d texts were changed: %v", len(packets), way.changed.Load(), err)
			break
		}
	}

	// Whoever has etcd writes what he likes, and signs it with what he has.
	key, err := fleet.GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	evil := &fleet.Bundle{Group: group, Serial: 3, Policy: "open: [all]\n"}
	object, digest, err := evil.Seal(key)
	if err != nil {
		t.Fatal(err)
	}
	pointer, err := (&fleet.Pointer{Group: group, Target: fleet.Target{Bundle: digest, Serial: 3}}).Seal(key)
	if err != nil {
		t.Fatal(err)
	}
	put := func(key string, value []byte) {
		t.Helper()
		if err := operator.Put(ctx, key, value, store.Any); err != nil {
			t.Fatal(err)
		}
	}
	put(fleet.BundleKey(digest), object)
	put(fleet.PointerKey(group), pointer)
	refused("signed by a stranger", 2)
	// A pointer that the fleet has signed, and under its digest a bundle that it has not.
	good, err := (&fleet.Pointer{Group: group, Target: fleet.Target{Bundle: digest, Serial: 3}}).Seal(p.key)
	if err != nil {
		t.Fatal(err)
	}
	put(fleet.PointerKey(group), good)
	refused("a bundle of a stranger", 3)
	put(fleet.PointerKey(group), bytes.Replace(good, []byte(`"serial":3`), []byte(`"serial":4`), 1))
	refused("another serial", 4)
	if err := operator.Delete(ctx, fleet.PointerKey(group)); err != nil {
		t.Fatal(err)
	}
	put(fleet.PointerKey(group), []byte("nonsense"))
	refused("nonsense", 5)

	way.honest.Store(true)
	h.mu.Lock()
	h.refused = nil
	h.mu.Unlock()
	p.serial = 4
	converge(t, []*host{h}, p.publish(t), time.Minute)
	for _, err := range h.refused {
		if !errors.Is(err, fleet.ErrSignature) && !strings.Contains(err.Error(), "digest") {
			t.Errorf("refused: %v", err)
		}
	}
}
