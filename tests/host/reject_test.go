// SPDX-License-Identifier: Apache-2.0

package host

import (
	"errors"
	"net"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/portcullis-firewall/portcullis/loader"
	"github.com/portcullis-firewall/portcullis/policy"
	"github.com/portcullis-firewall/portcullis/tests/internal/lab"
)

// rejecting is policyOf that answers what is closed.
func rejecting(t testing.TB, texts ...string) *policy.Policy {
	p := policyOf(t, texts...)
	p.Input = policy.Reject
	return p
}

// mustRefuse fails unless a connection is refused at once.
func mustRefuse(t testing.TB, h *lab.Host, addr netip.Addr, port int) {
	t.Helper()
	begin := time.Now()
	c, err := dial(h, "tcp", addr, port, 3*time.Second)
	if err == nil {
		c.Close()
	}
	if took := time.Since(begin); !errors.Is(err, unix.ECONNREFUSED) || took > 500*time.Millisecond {
		t.Errorf("connecting to %s port %d ends with %v after %v, not with %v at once", addr, port, err, took, unix.ECONNREFUSED)
	}
}

// askRaw sends a packet of a protocol from a connected socket, and returns the error that an answer leaves there.
func askRaw(h *lab.Host, network string, addr netip.Addr, port int) error {
	return h.Try(func() error {
		to := addr.String()
		if port != 0 {
			to = netip.AddrPortFrom(addr, uint16(port)).String()
		}
		c, err := net.Dial(network, to)
		if err != nil {
			return err
		}
		defer c.Close()
		if _, err := c.Write([]byte("a query of some length")); err != nil {
			return err
		}
		c.SetReadDeadline(time.Now().Add(time.Second))
		_, err = c.Read(make([]byte, 1500))
		return err
	})
}

// Whoever comes to a closed port learns it at once, as from netfilter's REJECT.
func TestRejectTellsTheSender(t *testing.T) {
	eachMode(t, func(t *testing.T, l *lab.Lab, mode loader.Mode) {
		l.Server.Echo(t, 7)
		if mode == loader.ModeNative { // or the other end takes nothing from XDP
			l.Client.Run(t, "ethtool", "-K", "eth0", "gro", "on")
		}
		up(t, l, mode, rejecting(t, "80/tcp"))
		for _, f := range families {
			mustRefuse(t, l.Client, f.server, 7) // where somebody listens
			mustRefuse(t, l.Client, f.server, 9)
			if err := askRaw(l.Client, "udp", f.server, 54); !errors.Is(err, unix.ECONNREFUSED) {
				t.Errorf("%s: UDP ends with %v", f.name, err)
			}
			raw := "ip4:gre"
			if f.server.Is6() {
				raw = "ip6:gre"
			}
			if err := askRaw(l.Client, raw, f.server, 0); !errors.Is(err, unix.ECONNREFUSED) {
				t.Errorf("%s: GRE ends with %v", f.name, err)
			}
		}
		t.Log(status(t, l).Counters)
	})
}
