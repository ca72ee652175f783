// SPDX-License-Identifier: Apache-2.0

package host

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/portcullis-firewall/portcullis/loader"
	"github.com/portcullis-firewall/portcullis/policy"
	"github.com/portcullis-firewall/portcullis/tests/internal/lab"
)

// addLink runs ip link add in a host. It skips the test where the kernel has no links of that type.
func addLink(t *testing.T, h *lab.Host, kind string, args ...string) {
	t.Helper()
	out, err := h.Command("ip", append([]string{"link", "add"}, args...)...).CombinedOutput()
	switch {
	case err == nil:
	case strings.Contains(string(out), "Unknown device type"):
		t.Skipf("this kernel has no %s", kind)
	default:
		t.Fatalf("add a %s: %v: %s", kind, err, out)
	}
}

// families10 are the two ends of the VLAN 10 that addVLAN makes on the link.
var families10 = []struct{ server, client netip.Addr }{
	{netip.MustParseAddr("203.0.113.1"), netip.MustParseAddr("203.0.113.2")},
	{netip.MustParseAddr("2001:db8:10::1"), netip.MustParseAddr("2001:db8:10::2")},
}

func addVLAN(t *testing.T, l *lab.Lab) {
	t.Helper()
	for _, h := range []*lab.Host{l.Server, l.Client} {
		addLink(t, h, "VLAN", "link", "eth0", "name", "eth0.10", "type", "vlan", "id", "10")
		h.IP(t, "link", "set", "eth0.10", "up")
	}
	for _, f := range families10 {
		for h, addr := range map[*lab.Host]netip.Addr{l.Server: f.server, l.Client: f.client} {
			bits := map[bool]string{true: "/64", false: "/24"}[addr.Is6()]
			args := []string{"addr", "add", addr.String() + bits, "dev", "eth0.10"}
			if addr.Is6() {
				args = append(args, "nodad")
			}
			h.IP(t, args...)
		}
	}
}

// A VLAN is filtered on its own interface. No VLAN has native XDP.
func TestVLANIsAnInputOfItsOwn(t *testing.T) {
	for _, mode := range []loader.Mode{loader.ModeAuto, loader.ModeGeneric, loader.ModeTC} {
		t.Run(string(mode), func(t *testing.T) {
			l := lab.New(t)
			addVLAN(t, l)
			l.Server.Echo(t, 7)
			l.Server.Echo(t, 9)
			l.Client.Echo(t, 8)
			report := upWith(t, l, loader.Options{Interfaces: []string{"eth0.10"}, Mode: mode, Policy: policyOf(t, "9/tcp")})
			if mode == loader.ModeAuto && (report.Interfaces[0].Mode != loader.ModeTC || len(report.Warnings) != 1) {
				t.Errorf("up reports %+v, want TC and a warning of why", report)
			}
			for _, f := range families10 {
				mustNotDial(t, l.Client, f.server, 7)
				mustTalk(t, mustDial(t, l.Client, "tcp", f.server, 9), "open")
				mustTalk(t, mustDial(t, l.Server, "tcp", f.client, 8), "out")
			}
			mustTalk(t, mustDial(t, l.Client, "tcp", lab.ServerV4, 7), "eth0 itself is not filtered")
			down(t, l)
			mustTalk(t, mustDial(t, l.Client, "tcp", families10[0].server, 7), "open again")
		})
	}
}

// What comes in on eth0 is decided by the policy of eth0, tagged or not, and wherever the kernel keeps the tag.
func TestVLANBehindAFilteredInterface(t *testing.T) {
	eachMode(t, func(t *testing.T, l *lab.Lab, mode loader.Mode) {
		addVLAN(t, l)
		l.Server.Echo(t, 7)
		l.Server.Echo(t, 9)
		l.Client.Echo(t, 8)
		up(t, l, mode, policyOf(t, "9/tcp"))
		for _, f := range families10 {
			mustNotDial(t, l.Client, f.server, 7)
			mustTalk(t, mustDial(t, l.Client, "tcp", f.server, 9), "open")
			mustTalk(t, mustDial(t, l.Server, "tcp", f.client, 8), "out")
		}
	})
}

// The addresses of an interface in a VRF are in the VRF's own table, and are this host's all the same.
func TestVRFAddressesAreLocal(t *testing.T) {
	eachMode(t, func(t *testing.T, l *lab.Lab, mode loader.Mode) {
		addLink(t, l.Server, "VRF", "name", "blue", "type", "vrf", "table", "10")
		inside := l.AddInside(t) // makes the server forward
		l.Server.IP(t, "link", "set", "blue", "up")
		for dev, addr := range map[string]netip.Addr{"eth0": lab.ServerV6, "eth1": lab.RouterV6} {
			l.Server.IP(t, "link", "set", dev, "master", "blue") // which takes the IPv6 addresses away
			l.Server.IP(t, "addr", "replace", addr.String()+"/64", "dev", dev, "nodad")
		}
		l.Server.Sysctl(t, "ipv4/tcp_l3mdev_accept", "1")
		l.Server.Echo(t, 7)
		inside.Echo(t, 7)
		table := l.Server.IP(t, "route", "show", "table", "10", "type", "local")
		if !strings.Contains(table, lab.ServerV4.String()) {
			t.Fatalf("table 10 has no local route to the server: %s", table)
		}

		up(t, l, mode, forwarding(t, policy.ForwardDrop))
		l.Server.IP(t, "addr", "add", "192.0.2.33/24", "dev", "eth0")
		for _, addr := range []netip.Addr{lab.ServerV4, lab.ServerV6, lab.RouterV4, netip.MustParseAddr("192.0.2.33")} {
			mustTalk(t, mustDial(t, l.Client, "tcp", addr, 7), "the host itself")
			mustNotDial(t, l.Client, addr, 9)
		}
		mustNotDial(t, l.Client, lab.InsideV4, 7)
		mustNotDial(t, l.Client, lab.InsideV6, 7)
		if got := counter(t, l, "closed port"); got < 4 {
			t.Errorf("%d packets counted under closed port, want 4 at least", got)
		}
		if got := counter(t, l, "forward"); got < 2 {
			t.Errorf("%d packets counted under forward, want 2 at least", got)
		}

		up(t, l, mode, forwarding(t, policy.ForwardAccept))
		mustTalk(t, mustDial(t, l.Client, "tcp", lab.InsideV4, 7), "routed inside the VRF")
	})
}

// What cannot be made right is said when the filter goes up, with the names of the devices.
func TestTopologyIsSaid(t *testing.T) {
	l := lab.New(t)
	if w := up(t, l, loader.ModeTC, policy.Default()).Warnings; len(w) != 0 {
		t.Errorf("warnings without a reason: %q", w)
	}
	l.Server.IP(t, "link", "add", "name", "eth1", "type", "veth", "peer", "name", "eth1", "netns", l.Client.Name)
	l.Server.IP(t, "link", "set", "eth1", "up")
	l.Server.IP(t, "route", "add", "198.51.100.7", "dev", "eth1", "src", lab.ServerV4.String())
	if w := up(t, l, loader.ModeTC, policy.Default()).Warnings; len(w) != 1 || !strings.HasPrefix(w[0], "eth1 is not filtered") {
		t.Errorf("with a route by eth1 from an address of eth0: %q", w)
	}
	l.Server.IP(t, "route", "del", "198.51.100.7")
	addLink(t, l.Server, "macvlan", "mv0", "link", "eth0", "address", "02:00:00:00:00:cc", "type", "macvlan", "mode", "bridge")
	l.Server.IP(t, "link", "set", "mv0", "up")
	if w := up(t, l, loader.ModeTC, policy.Default()).Warnings; len(w) != 0 {
		t.Errorf("with a macvlan of this host: %q", w)
	}
	l.Server.IP(t, "link", "set", "mv0", "netns", l.Client.Name)
	l.Client.IP(t, "link", "set", "mv0", "up")
	if w := up(t, l, loader.ModeTC, policy.Default()).Warnings; len(w) != 1 || !strings.Contains(w[0], "02:00:00:00:00:cc") {
		t.Errorf("with a macvlan of another namespace: %q", w)
	}
}
