// SPDX-License-Identifier: Apache-2.0

package store

import (
	"encoding/pem"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// A connection whose other end has vanished without a word is given up, and the next request goes by another one.
func TestWebServerVanishes(t *testing.T) {
	pingTime = 300 * time.Millisecond
	t.Cleanup(func() { pingTime = 10 * time.Second })
	var asked atomic.Int32
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.ProtoMajor != 2 {
			t.Errorf("asked by %s", r.Proto)
		}
		asked.Add(1)
		_, _ = io.WriteString(w, "1")
	}))
	server.EnableHTTP2 = true
	server.StartTLS()
	t.Cleanup(server.Close)
	ca := filepath.Join(t.TempDir(), "ca.crt")
	if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}), 0o644); err != nil {
		t.Fatal(err)
	}
	proxy, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { proxy.Close() })
	var vanished, connections atomic.Int32 // connections up to that number lead nowhere
	go func() {
		for {
			near, err := proxy.Accept()
			if err != nil {
				return
			}
			t.Cleanup(func() { near.Close() })
			far, err := net.Dial("tcp", server.Listener.Addr().String())
			if err != nil {
				t.Error(err)
				return
			}
			number := connections.Add(1)
			pass := func(to, from net.Conn) {
				b := make([]byte, 4096)
				for {
					n, err := from.Read(b)
					if err != nil {
						return
					}
					if number > vanished.Load() {
						_, _ = to.Write(b[:n])
					}
				}
			}
			go pass(near, far)
			go pass(far, near)
			t.Cleanup(func() { far.Close() })
		}
	}()
	w, err := OpenWeb(t.Context(), "https://"+proxy.Addr().String(), Options{CA: ca})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.Close() })
	if _, err := w.Get(t.Context(), "groups/web/current"); err != nil {
		t.Fatal(err)
	}
	vanished.Store(connections.Load())
	began := time.Now()
	for {
		_, err := w.Get(t.Context(), "groups/web/current")
		if err == nil {
			break
		}
		if time.Since(began) > 15*time.Second {
			t.Fatalf("after %v: %v", time.Since(began), err)
		}
		if strings.Contains(err.Error(), "certificate") {
			t.Fatal(err)
		}
	}
	if n := connections.Load(); n < 2 {
		t.Errorf("there were %d connections", n)
	}
}
