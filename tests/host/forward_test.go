// SPDX-License-Identifier: Apache-2.0

package host

import (
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/portcullis-firewall/portcullis/loader"
	"github.com/portcullis-firewall/portcullis/policy"
	"github.com/portcullis-firewall/portcullis/tests/internal/lab"
)

// forwarding is a policy whose forward policy is f, with a port open that must not open the hosts behind.
func forwarding(t *testing.T, f policy.ForwardPolicy) *policy.Policy {
	p := policyOf(t, "7/tcp")
	p.Forward = f
	return p
}

func TestForwardPolicies(t *testing.T) {
	eachMode(t, func(t *testing.T, l *lab.Lab, mode loader.Mode) {
		inside := l.AddInside(t)
		for _, h := range []*lab.Host{l.Server, l.Client, inside} {
			h.Echo(t, 7)
		}
		for _, f := range families {
			insideAddr := lab.InsideV4
			if f.server.Is6() {
				insideAddr = lab.InsideV6
			}
			mustTalk(t, mustDial(t, l.Client, "tcp", insideAddr, 7), "routed without a filter")

			up(t, l, mode, forwarding(t, policy.ForwardDrop))
			mustNotDial(t, l.Client, insideAddr, 7)
			mustNotDial(t, inside, f.client, 7)
			if ping(l.Client, insideAddr) == nil {
				t.Errorf("%s: forward drop lets a ping through", f.name)
			}
			mustNotReach(t, inside, l.Client, f.client)
			mustTalk(t, mustDial(t, l.Client, "tcp", f.server, 7), "the host itself")
			mustTalk(t, mustDial(t, l.Server, "tcp", f.client, 7), "the host itself reaches out")

			up(t, l, mode, forwarding(t, policy.ForwardEstablished))
			mustNotDial(t, l.Client, insideAddr, 7)
			mustTalk(t, mustDial(t, inside, "tcp", f.client, 7), "from behind")
			if err := ping(inside, f.client); err != nil {
				t.Error(err)
			}

			up(t, l, mode, forwarding(t, policy.ForwardAccept))
			mustTalk(t, mustDial(t, l.Client, "tcp", insideAddr, 7), "into the network behind")
			mustTalk(t, mustDial(t, inside, "tcp", f.client, 7), "and out of it")
		}
	})
}

// An address that came after up is still ours: the routing table is asked.
func TestAddressAddedUnderForwarding(t *testing.T) {
	eachMode(t, func(t *testing.T, l *lab.Lab, mode loader.Mode) {
		l.AddInside(t)
		l.Server.Echo(t, 7)
		up(t, l, mode, forwarding(t, policy.ForwardDrop))
		l.Server.IP(t, "addr", "add", "192.0.2.33/24", "dev", "eth0")
		c, err := dial(l.Client, "tcp", lab.ServerV4.Next().Next(), 7, refusal) // nobody's address
		if err == nil {
			c.Close()
			t.Fatal("an address of nobody answers")
		}
		mustTalk(t, mustDial(t, l.Client, "tcp", netip.MustParseAddr("192.0.2.33"), 7), "the new address")
	})
}

// Behind masquerading the reply to an inside host comes to an address of ours, and is a flow of ours.
func TestMasquerade(t *testing.T) {
	eachMode(t, func(t *testing.T, l *lab.Lab, mode loader.Mode) {
		inside := l.AddInside(t)
		l.Client.Echo(t, 7)
		l.Client.IP(t, "route", "del", "198.51.100.0/24", "via", lab.ServerV4.String())
		l.Server.Run(t, "nft", "add table ip nat; add chain ip nat post { type nat hook postrouting priority srcnat; }; add rule ip nat post oifname eth0 masquerade")
		up(t, l, mode, forwarding(t, policy.ForwardEstablished))
		mustTalk(t, mustDial(t, inside, "tcp", lab.ClientV4, 7), "from behind the NAT")
		if err := ping(inside, lab.ClientV4); err != nil {
			t.Error(err)
		}
	})
}

// The forward policy is in force from the moment on at which the host begins to forward, and nobody has to notice.
func TestForwardingThatBeginsLater(t *testing.T) {
	eachMode(t, func(t *testing.T, l *lab.Lab, mode loader.Mode) {
		inside := l.AddInside(t)
		switchForwarding := func(to string) {
			for _, family := range []string{"ipv4", "ipv6"} {
				l.Server.Sysctl(t, family+"/conf/all/forwarding", to)
			}
		}
		switchForwarding("0")
		for _, h := range []*lab.Host{l.Server, l.Client, inside} {
			h.Echo(t, 7)
		}
		for _, p := range []policy.ForwardPolicy{policy.ForwardDrop, policy.ForwardEstablished, policy.ForwardAccept} {
			up(t, l, mode, forwarding(t, p))
			for i, f := range families {
				behind := []netip.Addr{lab.InsideV4, lab.InsideV6}[i]
				mustTalk(t, mustDial(t, l.Client, "tcp", f.server, 7), "the host itself")
				mustNotDial(t, l.Client, behind, 7)
			}
			switchForwarding("1")
			for i, f := range families {
				behind := []netip.Addr{lab.InsideV4, lab.InsideV6}[i]
				mustTalk(t, mustDial(t, l.Client, "tcp", f.server, 7), "the host itself, which forwards")
				if p == policy.ForwardAccept {
					mustTalk(t, mustDial(t, l.Client, "tcp", behind, 7), "through the host")
				} else {
					mustNotDial(t, l.Client, behind, 7)
				}
				if p == policy.ForwardDrop {
					mustNotReach(t, inside, l.Client, f.client)
				} else {
					mustTalk(t, mustDial(t, inside, "tcp", f.client, 7), "out of the host")
				}
			}
			if w := status(t, l).Warnings; len(w) != 0 {
				t.Errorf("warnings without a reason: %q", w)
			}
			switchForwarding("0")
		}
	})
}

// An address that comes after up can be reached, whether the host forwards or not.
func TestAddressThatComesLater(t *testing.T) {
	eachMode(t, func(t *testing.T, l *lab.Lab, mode loader.Mode) {
		l.Server.Echo(t, 7)
		up(t, l, mode, forwarding(t, policy.ForwardDrop))
		for _, late := range []string{"192.0.2.34/24", "2001:db8::34/64"} {
			args := []string{"addr", "add", late, "dev", "eth0"}
			if addr := netip.MustParsePrefix(late).Addr(); addr.Is6() {
				args = append(args, "nodad")
			}
			l.Server.IP(t, args...)
			addr := netip.MustParsePrefix(late).Addr()
			mustTalk(t, mustDial(t, l.Client, "tcp", addr, 7), "the new address")
			mustNotDial(t, l.Client, addr, 9)
			if got := counter(t, l, "closed port"); got == 0 {
				t.Errorf("what goes to port 9 of %s is not judged as this host's", addr)
			}
		}
	})
}

// mustNotReach fails when a datagram gets from one host to the other, answer or none.
func mustNotReach(t *testing.T, from, to *lab.Host, addr netip.Addr) {
	t.Helper()
	var c net.PacketConn
	to.Do(t, func() (err error) {
		c, err = net.ListenPacket("udp", netip.AddrPortFrom(addr, 4444).String())
		return err
	})
	defer c.Close()
	if _, err := fmt.Fprint(mustDial(t, from, "udp", addr, 4444), "one way"); err != nil {
		t.Fatal(err)
	}
	c.SetReadDeadline(time.Now().Add(refusal))
	if n, _, err := c.ReadFrom(make([]byte, 64)); err == nil {
		t.Errorf("%d bytes were routed to %s", n, addr)
	}
}

// A bridge is no router: what it passes on for other hosts is theirs, both ways.
func TestBridgePortPassesOtherHostsTraffic(t *testing.T) {
	eachMode(t, func(t *testing.T, l *lab.Lab, mode loader.Mode) {
		inside := l.AddInside(t) // makes the server forward
		l.Server.IP(t, "link", "add", "br0", "type", "bridge")
		l.Server.IP(t, "link", "set", "br0", "up")
		for _, port := range []string{"eth0", "eth1"} {
			l.Server.IP(t, "link", "set", port, "master", "br0")
		}
		inside.IP(t, "addr", "add", "192.0.2.9/24", "dev", "eth0")
		behind := netip.MustParseAddr("192.0.2.9")
		inside.Echo(t, 7)
		l.Client.Echo(t, 8)
		report := up(t, l, mode, policy.Default())
		if len(report.Warnings) != 1 || !strings.Contains(report.Warnings[0], "br0") {
			t.Errorf("warnings: %q", report.Warnings)
		}
		mustTalk(t, mustDial(t, l.Client, "tcp", behind, 7), "through the bridge")
		mustTalk(t, mustDial(t, inside, "tcp", lab.ClientV4, 8), "and out of it")
	})
}
