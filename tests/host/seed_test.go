// SPDX-License-Identifier: Apache-2.0

package host

import (
	"context"
	"testing"

	"github.com/portcullis-firewall/portcullis/loader"
	"github.com/portcullis-firewall/portcullis/policy"
	"github.com/portcullis-firewall/portcullis/tests/internal/lab"
)

func TestConnectionsFromBeforeUpGoOn(t *testing.T) {
	eachMode(t, func(t *testing.T, l *lab.Lab, mode loader.Mode) {
		l.Server.Echo(t, 7)
		l.Client.Echo(t, 8)
		for _, f := range families {
			echoUDP(t, l.Client, f.client, 53)
			in := mustDial(t, l.Client, "tcp", f.server, 7)
			out := mustDial(t, l.Server, "tcp", f.client, 8)
			query := mustDial(t, l.Server, "udp", f.client, 53)
			mustTalk(t, in, "before")
			mustTalk(t, out, "before")

			report := up(t, l, mode, policy.Default())
			if report.Seeded < 3 {
				t.Errorf("%s: %d connections seeded, want 3 at least", f.name, report.Seeded)
			}
			mustTalk(t, in, "after")
			mustTalk(t, out, "after")
			mustTalk(t, query, "first words after")
			mustNotDial(t, l.Client, f.server, 7)
			l.Server.Do(t, func() error {
				_, err := loader.Down(context.Background(), l.PinPath, nil)
				return err
			})
		}
	})
}

// What netfilter tracks is entered too: behind NAT there is no socket of this host.
func TestConntrackEntriesAreSeeded(t *testing.T) {
	l := lab.New(t)
	l.Server.Run(t, "conntrack", "-I", "-p", "tcp", "-s", "192.0.2.2", "-d", "192.0.2.1",
		"--sport", "4000", "--dport", "5000", "--state", "ESTABLISHED", "-t", "100", "-u", "SEEN_REPLY,ASSURED",
		"-r", "10.1.1.1", "-q", "192.0.2.2", "--reply-port-src", "80", "--reply-port-dst", "4000")
	l.Server.Run(t, "conntrack", "-I", "-p", "udp", "-s", "192.0.2.2", "-d", "192.0.2.1",
		"--sport", "4001", "--dport", "5001", "-t", "20")
	l.Server.Run(t, "conntrack", "-I", "-p", "tcp", "-s", "2001:db8::2", "-d", "2001:db8::1",
		"--sport", "4000", "--dport", "5000", "--state", "ESTABLISHED", "-t", "100", "-u", "SEEN_REPLY,ASSURED")
	up(t, l, loader.ModeNative, policy.Default())
	var tcp, tcp6, udp bool
	with(t, l, func(f *loader.Filter) error {
		return f.Flows(func(flow loader.Flow) bool {
			if flow.Local.String() == "192.0.2.1:5000" && flow.Remote.String() == "192.0.2.2:4000" && flow.State == "tcp-established" {
				tcp = true
			}
			if flow.Local.String() == "[2001:db8::1]:5000" && flow.Remote.String() == "[2001:db8::2]:4000" {
				tcp6 = true
			}
			udp = udp || flow.Local.Port() == 5001
			return true
		})
	})
	if !tcp6 {
		t.Error("the IPv6 connection has no flow")
	}
	if !tcp {
		t.Error("the connection that is forwarded inwards has no flow")
	}
	if udp {
		t.Error("a query that nobody answered became a flow")
	}
}
