// SPDX-License-Identifier: Apache-2.0

// Package host tests the firewall between two hosts with real sockets: what
// connects, what does not, and what goes on living.
package host

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/portcullis-firewall/portcullis/loader"
	"github.com/portcullis-firewall/portcullis/policy"
	"github.com/portcullis-firewall/portcullis/tests/internal/lab"
)

// refusal is how long a test waits for an answer that should not come.
const refusal = 400 * time.Millisecond

var modes = []loader.Mode{loader.ModeNative, loader.ModeGeneric, loader.ModeTC}

// families are the two ends of the link in both families.
var families = []struct {
	name           string
	server, client netip.Addr
}{
	{"IPv4", lab.ServerV4, lab.ClientV4},
	{"IPv6", lab.ServerV6, lab.ClientV6},
}

func rules(t testing.TB, texts ...string) []policy.Rule {
	t.Helper()
	var out []policy.Rule
	for _, text := range texts {
		r, err := policy.ParseRule(text)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, r)
	}
	return out
}

// policyOf is the default policy with some rules.
func policyOf(t testing.TB, texts ...string) *policy.Policy {
	p := policy.Default()
	p.Open = rules(t, texts...)
	return p
}

// up filters the server's eth0.
func up(t testing.TB, l *lab.Lab, mode loader.Mode, p *policy.Policy) *loader.UpReport {
	t.Helper()
	return upWith(t, l, loader.Options{Interfaces: []string{"eth0"}, Mode: mode, Policy: p})
}

func upWith(t testing.TB, l *lab.Lab, o loader.Options) (report *loader.UpReport) {
	t.Helper()
	o.PinPath = l.PinPath
	l.Server.Do(t, func() (err error) {
		report, err = loader.Up(context.Background(), o)
		return err
	})
	return report
}

// with opens the running filter.
func with(t testing.TB, l *lab.Lab, work func(f *loader.Filter) error) {
	t.Helper()
	withOpened(t, l, func(pinPath string) (*loader.Filter, error) { return loader.Open(context.Background(), pinPath) }, work)
}

// change is with, as commands do it that change the filter.
func change(t testing.TB, l *lab.Lab, work func(f *loader.Filter) error) {
	t.Helper()
	withOpened(t, l, func(pinPath string) (*loader.Filter, error) {
		return loader.OpenToChange(context.Background(), pinPath)
	}, work)
}

func withOpened(t testing.TB, l *lab.Lab, open func(pinPath string) (*loader.Filter, error), work func(f *loader.Filter) error) {
	t.Helper()
	l.Server.Do(t, func() error {
		f, err := open(l.PinPath)
		if err != nil {
			return err
		}
		defer f.Close()
		return work(f)
	})
}

func openRule(t testing.TB, l *lab.Lab, text string) {
	t.Helper()
	change(t, l, func(f *loader.Filter) error {
		_, err := f.OpenRules(rules(t, text), false)
		return err
	})
}

func closeRule(t testing.TB, l *lab.Lab, text string, kill bool) (report *loader.CloseReport) {
	t.Helper()
	change(t, l, func(f *loader.Filter) (err error) {
		report, err = f.CloseRules(rules(t, text), kill)
		return err
	})
	return report
}

func status(t testing.TB, l *lab.Lab) (s *loader.Status) {
	t.Helper()
	with(t, l, func(f *loader.Filter) (err error) {
		s, err = f.Status()
		return err
	})
	return s
}

// counter returns the packets of one reason, those that it lets pass and those that it drops.
func counter(t testing.TB, l *lab.Lab, reason string) (packets uint64) {
	t.Helper()
	known := false
	for _, c := range status(t, l).Counters {
		if c.Reason == reason {
			known = true
			packets += c.Packets
		}
	}
	if !known {
		t.Fatalf("there is no reason %q", reason)
	}
	return packets
}

// echoUDP answers every datagram on a port of a host until the test ends.
func echoUDP(t testing.TB, h *lab.Host, addr netip.Addr, port int) {
	t.Helper()
	h.Do(t, func() error {
		c, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(addr, uint16(port))))
		if err != nil {
			return err
		}
		t.Cleanup(func() { c.Close() })
		go func() {
			b := make([]byte, 2048)
			for {
				n, peer, err := c.ReadFromUDP(b)
				if err != nil {
					return
				}
				c.WriteToUDP(b[:n], peer)
			}
		}()
		return nil
	})
}

// dial connects from a host.
func dial(h *lab.Host, network string, addr netip.Addr, port int, timeout time.Duration) (c net.Conn, err error) {
	err = h.Try(func() (err error) {
		c, err = net.DialTimeout(network, netip.AddrPortFrom(addr, uint16(port)).String(), timeout)
		return err
	})
	return c, err
}

// mustDial is dial that has to succeed.
func mustDial(t testing.TB, h *lab.Host, network string, addr netip.Addr, port int) net.Conn {
	t.Helper()
	c, err := dial(h, network, addr, port, 3*time.Second)
	if err != nil {
		t.Fatalf("connect to %s port %d: %v", addr, port, err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// mustNotDial fails when there is any answer, a reset too.
func mustNotDial(t testing.TB, h *lab.Host, addr netip.Addr, port int) {
	t.Helper()
	c, err := dial(h, "tcp", addr, port, refusal)
	if err == nil {
		c.Close()
		t.Fatalf("%s port %d answers", addr, port)
	}
	var timeout net.Error
	if !errors.As(err, &timeout) || !timeout.Timeout() {
		t.Fatalf("%s port %d: want no answer at all, got %v", addr, port, err)
	}
}

// talk sends a line and expects it back.
func talk(c net.Conn, text string, timeout time.Duration) error {
	c.SetDeadline(time.Now().Add(timeout))
	if _, err := fmt.Fprintf(c, "%s\n", text); err != nil {
		return err
	}
	b := make([]byte, len(text)+1)
	for got := 0; got < len(b); {
		n, err := c.Read(b[got:])
		if err != nil {
			return err
		}
		got += n
	}
	if string(b) != text+"\n" {
		return fmt.Errorf("sent %.40q, got %.40q", text, b)
	}
	return nil
}

func mustTalk(t testing.TB, c net.Conn, text string) {
	t.Helper()
	if err := talk(c, text, 3*time.Second); err != nil {
		t.Fatalf("talk to %s: %v", c.RemoteAddr(), err)
	}
}

func mustNotTalk(t testing.TB, c net.Conn, text string) {
	t.Helper()
	if talk(c, text, refusal) == nil {
		t.Fatalf("%s still answers", c.RemoteAddr())
	}
}

// ping sends one echo request.
func ping(h *lab.Host, addr netip.Addr) error {
	out, err := h.Command("ping", "-n", "-c1", "-W1", addr.String()).CombinedOutput()
	if err != nil {
		return fmt.Errorf("ping %s: %w: %s", addr, err, out)
	}
	return nil
}

// eachMode runs a test in every mode, in a lab of its own.
func eachMode(t *testing.T, test func(t *testing.T, l *lab.Lab, mode loader.Mode)) {
	lab.RequireRoot(t)
	for _, mode := range modes {
		t.Run(string(mode), func(t *testing.T) { test(t, lab.New(t), mode) })
	}
}
