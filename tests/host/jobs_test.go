// SPDX-License-Identifier: Apache-2.0

package host

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"testing"
	"time"

	"github.com/portcullis-firewall/portcullis/loader"
	"github.com/portcullis-firewall/portcullis/policy"
	"github.com/portcullis-firewall/portcullis/tests/internal/frame"
	"github.com/portcullis-firewall/portcullis/tests/internal/lab"
)

// What administrators of a second server want, on a host with a card outside (eth0), one inside (eth1), a tunnel (wg0) and a
// bridge with two containers.

const greProtocol = 47

// dialFrom is dial from one of the addresses of a host.
func dialFrom(h *lab.Host, source string, to netip.Addr, port int) (c net.Conn, err error) {
	err = h.Try(func() (err error) {
		d := net.Dialer{Timeout: refusal, LocalAddr: &net.TCPAddr{IP: net.ParseIP(source)}}
		c, err = d.Dial("tcp", netip.AddrPortFrom(to, uint16(port)).String())
		return err
	})
	return c, err
}

// mustSend fails unless a packet of an IP protocol comes in at the server, or unless none does.
func mustSend(t *testing.T, from *lab.Host, source string, l *lab.Lab, protocol int, arrives bool) {
	t.Helper()
	listen := func(h *lab.Host, addr string) (c *net.IPConn) {
		h.Do(t, func() (err error) {
			c, err = net.ListenIP(fmt.Sprintf("ip4:%d", protocol), &net.IPAddr{IP: net.ParseIP(addr)})
			return err
		})
		return c
	}
	server, sender := listen(l.Server, lab.ServerV4.String()), listen(from, source)
	defer server.Close()
	defer sender.Close()
	if _, err := sender.WriteTo(make([]byte, 32), &net.IPAddr{IP: lab.ServerV4.AsSlice()}); err != nil {
		t.Fatal(err)
	}
	server.SetReadDeadline(time.Now().Add(refusal))
	_, _, err := server.ReadFrom(make([]byte, 64))
	if err == nil != arrives {
		t.Errorf("a packet of protocol %d from %s: arrives is %t, want %t", protocol, source, err == nil, arrives)
	}
}

// A tunnel of GRE comes in from the other end of it alone.
func TestProtocolFromAPeer(t *testing.T) {
	eachMode(t, func(t *testing.T, l *lab.Lab, mode loader.Mode) {
		l.Client.IP(t, "addr", "add", "192.0.2.77/24", "dev", "eth0")
		upOn(t, l, mode, []string{"eth0"}, "gre from 192.0.2.2", "vrrp on eth1")
		mustSend(t, l.Client, "192.0.2.2", l, greProtocol, true)
		mustSend(t, l.Client, "192.0.2.77", l, greProtocol, false)
		mustSend(t, l.Client, "192.0.2.2", l, 112, false)
		openRule(t, l, "vrrp on eth0")
		mustSend(t, l.Client, "192.0.2.77", l, 112, true)
		closeRule(t, l, "gre from 192.0.2.2", false)
	})
}

// From the backup host everything comes in: any port, any protocol, and the pings that are refused to others.
func TestAllFromAHost(t *testing.T) {
	eachMode(t, func(t *testing.T, l *lab.Lab, mode loader.Mode) {
		l.Client.IP(t, "addr", "add", "192.0.2.77/24", "dev", "eth0")
		l.Server.Echo(t, 10000)
		p := policyOf(t, "all from 192.0.2.77", "80/tcp")
		p.ICMP = policy.ICMP{Mode: policy.ICMPDrop}
		upWith(t, l, loader.Options{Interfaces: []string{"eth0"}, Mode: mode, Policy: p})
		c, err := dialFrom(l.Client, "192.0.2.77", lab.ServerV4, 10000)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		mustTalk(t, c, "from the backup host")
		mustNotDial(t, l.Client, lab.ServerV4, 10000)
		mustSend(t, l.Client, "192.0.2.77", l, greProtocol, true)
		mustSend(t, l.Client, "192.0.2.2", l, greProtocol, false)
		for source, answered := range map[string]bool{"192.0.2.77": true, "192.0.2.2": false} {
			out, err := l.Client.Command("ping", "-n", "-c1", "-W1", "-I", source, lab.ServerV4.String()).CombinedOutput()
			if err == nil != answered {
				t.Errorf("a ping from %s: answered is %t, want %t: %s", source, err == nil, answered, out)
			}
		}
	})
}

// A service is open at one of the host's addresses, as that of a virtual server.
func TestRuleToAnAddress(t *testing.T) {
	eachMode(t, func(t *testing.T, l *lab.Lab, mode loader.Mode) {
		vip := netip.MustParseAddr("192.0.2.33")
		l.Server.IP(t, "addr", "add", vip.String()+"/24", "dev", "eth0")
		l.Server.Echo(t, 443)
		upOn(t, l, mode, []string{"eth0"}, "443/tcp to 192.0.2.33")
		mustTalk(t, mustDial(t, l.Client, "tcp", vip, 443), "the virtual server")
		mustNotDial(t, l.Client, lab.ServerV4, 443)
	})
}

// A source that connects too often waits, and others do not.
func TestLimitedSSH(t *testing.T) {
	l := lab.New(t)
	l.Client.IP(t, "addr", "add", "192.0.2.77/24", "dev", "eth0")
	l.Server.Echo(t, 22)
	upOn(t, l, loader.ModeAuto, []string{"eth0"}, "22/tcp limit 6/hour burst 3")
	for i := range 3 {
		mustTalk(t, mustDial(t, l.Client, "tcp", lab.ServerV4, 22), fmt.Sprint("attempt ", i))
	}
	mustNotDial(t, l.Client, lab.ServerV4, 22)
	c, err := dialFrom(l.Client, "192.0.2.77", lab.ServerV4, 22)
	if err != nil {
		t.Fatalf("another source: %v", err)
	}
	c.Close()
	if counter(t, l, "limit") == 0 {
		t.Error("nothing is counted under limit")
	}
	openRule(t, l, "22/tcp from 192.0.2.2") // the most generous decides
	mustTalk(t, mustDial(t, l.Client, "tcp", lab.ServerV4, 22), "without a limit")
}

// A VPN: its port is open outside, and a service inside it alone, on a tunnel that comes when the VPN starts.
func TestServiceInsideAVPN(t *testing.T) {
	for _, mode := range []loader.Mode{loader.ModeAuto, loader.ModeTC} {
		t.Run(string(mode), func(t *testing.T) {
			l := lab.New(t)
			upOn(t, l, mode, []string{"eth0", "wg*"}, "51820/udp on eth0", "5000/udp on wg*")
			prepareAll(t, l)
			echoUDP(t, l.Server, lab.ServerV4, 51820)
			mustTalk(t, mustDial(t, l.Client, "udp", lab.ServerV4, 51820), "handshake")
			wire := tun(t, l.Server, "wg0")
			defer wire.Close()
			if report := attach(t, l); len(report.Attached) != 1 {
				t.Fatalf("the tunnel is not filtered: %+v", report)
			}
			sink := listenUDP(t, l.Server)
			defer sink.Close()
			mustGet(t, wire, sink, 5000, true)
			if before := counter(t, l, "closed port"); before != 0 {
				t.Errorf("%d packets were dropped before", before)
			}
			sendInto(t, wire, 51820)
			if counter(t, l, "closed port") != 1 {
				t.Error("the port of the VPN is open inside it")
			}
			c := mustDial(t, l.Client, "udp", lab.ServerV4, 5000)
			c.Write([]byte("let me in"))
			sink.SetReadDeadline(time.Now().Add(refusal))
			if _, err := sink.Read(make([]byte, 64)); err == nil {
				t.Error("the service is open outside the VPN")
			}
		})
	}
}

func sendInto(t *testing.T, wire *os.File, port uint16) {
	t.Helper()
	if _, err := wire.Write(frame.Build(frame.IPv4{Src: lab.InsideV4, Dst: lab.RouterV4}, frame.UDP{SrcPort: 1, DstPort: port})); err != nil {
		t.Fatal(err)
	}
}

// mustGet sends a datagram into a tunnel, which has to come in at a socket, or has not to.
func mustGet(t *testing.T, wire *os.File, sink *net.UDPConn, port uint16, arrives bool) {
	t.Helper()
	sendInto(t, wire, port)
	sink.SetReadDeadline(time.Now().Add(refusal))
	if _, err := sink.Read(make([]byte, 64)); err == nil != arrives {
		t.Errorf("a datagram to port %d of a tunnel: arrives is %t, want %t", port, err == nil, arrives)
	}
}

// Two containers on a bridge: they reach out and each other, and the port that is published for one of them is open by
// the card for which a rule says so.
func TestContainersOnABridge(t *testing.T) {
	eachMode(t, func(t *testing.T, l *lab.Lab, mode loader.Mode) {
		inside := l.AddInside(t)
		l.Server.IP(t, "link", "add", "br0", "type", "bridge")
		l.Server.IP(t, "link", "set", "br0", "up")
		l.Server.IP(t, "addr", "add", "10.0.30.1/24", "dev", "br0")
		var guests []*lab.Host
		for i, address := range []string{"10.0.30.2", "10.0.30.3"} {
			guest := l.AddHost(t, fmt.Sprint("guest", i))
			port := fmt.Sprint("port", i)
			l.Server.IP(t, "link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", guest.Name)
			l.Server.IP(t, "link", "set", port, "master", "br0", "up")
			guest.IP(t, "link", "set", "eth0", "up")
			guest.IP(t, "addr", "add", address+"/24", "dev", "eth0")
			guest.IP(t, "route", "add", "default", "via", "10.0.30.1")
			guest.Echo(t, 80)
			guests = append(guests, guest)
		}
		l.Server.Run(t, "nft", "add table ip nat; add chain ip nat pre { type nat hook prerouting priority dstnat; }; "+
			"add rule ip nat pre fib daddr type local tcp dport 8080 dnat to 10.0.30.2:80; "+
			"add chain ip nat post { type nat hook postrouting priority srcnat; }; add rule ip nat post ip saddr 10.0.30.0/24 oifname != br0 masquerade")
		l.Client.Echo(t, 7)
		p := policyOf(t, "8080/tcp on eth0")
		p.Forward = policy.ForwardEstablished
		upWith(t, l, loader.Options{Interfaces: both, Mode: mode, Policy: p})
		mustTalk(t, mustDial(t, guests[0], "tcp", netip.MustParseAddr("10.0.30.3"), 80), "to the other container")
		for _, guest := range guests {
			mustTalk(t, mustDial(t, guest, "tcp", lab.ClientV4, 7), "out of a container")
		}
		mustTalk(t, mustDial(t, l.Client, "tcp", lab.ServerV4, 8080), "the published port")
		mustNotDial(t, inside, lab.RouterV4, 8080)
		mustNotDial(t, l.Client, lab.ServerV4, 80)
		openRule(t, l, "8080/tcp on eth1")
		mustTalk(t, mustDial(t, inside, "tcp", lab.RouterV4, 8080), "opened inside, too")
	})
}
