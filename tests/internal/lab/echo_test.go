// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// sockets counts those that this process has open.
func sockets(t *testing.T) (n int) {
	t.Helper()
	paths, err := filepath.Glob("/proc/self/fd/*")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range paths {
		if target, err := os.Readlink(path); err == nil && strings.HasPrefix(target, "socket:") {
			n++
		}
	}
	return n
}

// A connection whose end never hears that the other one is gone ends with the test all the same.
func TestEchoEndsWithTheTest(t *testing.T) {
	RequireRoot(t)
	before := sockets(t)
	t.Run("that has it", func(t *testing.T) {
		l := New(t)
		l.Server.Echo(t, 7)
		var c net.Conn
		l.Client.Do(t, func() (err error) {
			c, err = net.DialTimeout("tcp", netip.AddrPortFrom(ServerV4, 7).String(), 3*time.Second)
			return err
		})
		defer c.Close()
		if _, err := c.Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Read(make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
		l.Server.IP(t, "link", "set", "eth0", "down")
	})
	left := 0
	for range 20 {
		if left = sockets(t) - before; left <= 0 {
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
	t.Errorf("%d sockets are left", left)
}
