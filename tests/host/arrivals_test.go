// SPDX-License-Identifier: Apache-2.0

package host

import (
	"net/netip"
	"slices"
	"testing"

	"github.com/portcullis-firewall/portcullis/host"
	"github.com/portcullis-firewall/portcullis/tests/internal/lab"
)

// Packets may meet a filter where they come in and on what that stands on, and not on what stands beside it.
func TestArrivals(t *testing.T) {
	l := lab.New(t)
	l.AddInside(t)
	addVeth(t, l, "guest0", "guest1")
	l.Server.IP(t, "link", "add", "br0", "type", "bridge")
	for _, port := range []string{"guest0", "guest1"} {
		l.Server.IP(t, "link", "set", port, "master", "br0", "up")
	}
	l.Server.IP(t, "link", "set", "br0", "up")
	l.Server.IP(t, "addr", "add", "10.0.30.1/24", "dev", "br0")
	for _, c := range []struct {
		local, remote string
		want          []string
	}{
		{"192.0.2.1", "192.0.2.2", []string{"eth0"}},
		{"198.51.100.1", "198.51.100.2", []string{"eth1"}},
		{"10.0.30.1", "10.0.30.2", []string{"br0", "guest0", "guest1"}},
		{"192.0.2.1", "198.51.100.2", []string{"eth0", "eth1"}}, // to the address of another interface
		{"192.0.2.99", "192.0.2.2", []string{"eth0"}},           // to one that is gone
		{"2001:db8:1::1", "2001:db8:1::2", []string{"eth1"}},
	} {
		mustArrive(t, l, c.local, c.remote, c.want...)
	}
}

func mustArrive(t *testing.T, l *lab.Lab, local, remote string, want ...string) {
	t.Helper()
	l.Server.Do(t, func() error {
		at := func(text string) netip.AddrPort { return netip.AddrPortFrom(netip.MustParseAddr(text), 22) }
		got, err := host.Arrivals(host.Connection{Local: at(local), Remote: at(remote)})
		slices.Sort(got)
		if err == nil && !slices.Equal(got, want) {
			t.Errorf("from %s to %s: by %q, want %q", remote, local, got, want)
		}
		return err
	})
}

// Of two VLANs on one card neither sees the packets of the other.
func TestArrivalsOnVLANs(t *testing.T) {
	l := lab.New(t)
	for _, id := range []string{"10", "20"} {
		addLink(t, l.Server, "VLAN", "link", "eth0", "name", "eth0."+id, "type", "vlan", "id", id)
		l.Server.IP(t, "link", "set", "eth0."+id, "up")
		l.Server.IP(t, "addr", "add", "10.0."+id+".1/24", "dev", "eth0."+id)
	}
	mustArrive(t, l, "10.0.10.1", "10.0.10.2", "eth0", "eth0.10")
	mustArrive(t, l, "192.0.2.1", "192.0.2.2", "eth0")
}
