// SPDX-License-Identifier: Apache-2.0

package host

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/portcullis-firewall/portcullis/bpf"
	"github.com/portcullis-firewall/portcullis/loader"
	"github.com/portcullis-firewall/portcullis/policy"
	"github.com/portcullis-firewall/portcullis/tests/internal/frame"
	"github.com/portcullis-firewall/portcullis/tests/internal/lab"
)

// What administrators want of a gateway, with a card outside (eth0) and one to a network behind it (eth1).

// gateway is a policy with forward rules in their words, and others.
func gateway(t testing.TB, word, forward string, open ...string) *policy.Policy {
	t.Helper()
	p, err := policy.Parse("policy", fmt.Appendf(nil, "open: [%s]\nforward: {policy: %s, open: [%s]}\n", strings.Join(open, ", "), word, forward))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func forwardRules(t testing.TB, text string) []policy.Rule {
	t.Helper()
	out := rules(t, text)
	for i := range out {
		out[i].Forward = true
	}
	return out
}

func openForward(t testing.TB, l *lab.Lab, text string) {
	t.Helper()
	change(t, l, func(f *loader.Filter) error {
		_, err := f.OpenRules(forwardRules(t, text), false)
		return err
	})
}

func closeForward(t testing.TB, l *lab.Lab, text string) {
	t.Helper()
	change(t, l, func(f *loader.Filter) error {
		_, err := f.CloseRules(forwardRules(t, text), false)
		return err
	})
}

// behind are the addresses of the host inside, by family.
var behind = []netip.Addr{lab.InsideV4, lab.InsideV6}

// masquerade makes the server translate what leaves by eth0, and the client know nothing of the network inside.
func masquerade(t testing.TB, l *lab.Lab) {
	t.Helper()
	l.Client.IP(t, "route", "del", "198.51.100.0/24", "via", lab.ServerV4.String())
	l.Client.IP(t, "-6", "route", "del", "2001:db8:1::/64", "via", lab.ServerV6.String())
	l.Server.Run(t, "nft", "add table inet nat; add chain inet nat post { type nat hook postrouting priority srcnat; }; add rule inet nat post oifname eth0 masquerade")
}

// mustReachOut plays what a host behind the gateway does in the world outside.
func mustReachOut(t *testing.T, from *lab.Host, to netip.Addr, what string) {
	t.Helper()
	mustTalk(t, mustDial(t, from, "tcp", to, 7), what+", TCP")
	mustTalk(t, mustDial(t, from, "udp", to, 53), what+", UDP")
	if err := ping(from, to); err != nil {
		t.Errorf("%s: %v", what, err)
	}
	// A closed port of UDP: the error has to come back.
	c := mustDial(t, from, "udp", to, 9)
	c.SetDeadline(time.Now().Add(3 * time.Second))
	_, err := c.Write([]byte("?"))
	if err == nil {
		_, err = c.Read(make([]byte, 8))
	}
	if !errors.Is(err, unix.ECONNREFUSED) {
		t.Errorf("%s: a closed port of UDP says %v, want that it is refused", what, err)
	}
}

// The network behind a gateway begins outward, and nobody begins inward, with both cards filtered.
func TestGatewayOfALAN(t *testing.T) {
	eachMode(t, func(t *testing.T, l *lab.Lab, mode loader.Mode) {
		inside := l.AddInside(t)
		for _, f := range families {
			echoUDP(t, l.Client, f.client, 53)
		}
		l.Client.Echo(t, 7)
		inside.Echo(t, 7)
		upWith(t, l, loader.Options{Interfaces: both, Mode: mode, Policy: gateway(t, "drop", "all on eth1")})
		for i, f := range families {
			mustReachOut(t, inside, f.client, f.name)
			mustNotDial(t, l.Client, behind[i], 7)
			mustNotReach(t, l.Client, inside, behind[i])
			if ping(l.Client, behind[i]) == nil {
				t.Errorf("%s: a ping gets inside", f.name)
			}
			mustNotDial(t, inside, []netip.Addr{lab.RouterV4, lab.RouterV6}[i], 7) // which is the host itself
		}
		mustTrace(t, l, inside)
		masquerade(t, l)
		for _, f := range families {
			mustReachOut(t, inside, f.client, f.name+" masqueraded")
		}
		if n := ruleCount(t, l, "all on eth1"); n == 0 {
			t.Error("the rule counts nothing")
		}
	})
}

// ruleCount returns how many packets a rule let through.
func ruleCount(t testing.TB, l *lab.Lab, text string) uint64 {
	t.Helper()
	for _, r := range status(t, l).Rules {
		if r.Rule == text {
			return r.Packets
		}
	}
	t.Fatalf("there is no rule %q", text)
	return 0
}

// mustTrace sends from inside what a router behind the client answers with errors: the end of a life, and a packet that is
// too large.
func mustTrace(t *testing.T, l *lab.Lab, inside *lab.Host) {
	t.Helper()
	far := netip.MustParseAddr("203.0.113.5")
	addLink(t, l.Client, "dummy", "far", "type", "dummy")
	l.Client.IP(t, "link", "set", "far", "up", "mtu", "1280")
	l.Client.IP(t, "addr", "add", "203.0.113.1/24", "dev", "far")
	l.Client.IP(t, "neigh", "add", far.String(), "lladdr", "02:00:00:00:00:05", "dev", "far")
	l.Client.Sysctl(t, "ipv4/conf/all/forwarding", "1")
	l.Server.IP(t, "route", "add", "203.0.113.0/24", "via", lab.ClientV4.String())
	send := func(option, value, size int) error {
		c := mustDial(t, inside, "udp", far, 33434).(*net.UDPConn)
		raw, err := c.SyscallConn()
		if err != nil {
			t.Fatal(err)
		}
		raw.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, option, value) })
		if err != nil {
			t.Fatal(err)
		}
		raw.Control(func(fd uintptr) { unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_RECVERR, 1) })
		for range 30 {
			if _, err := c.Write(make([]byte, size)); err != nil {
				return err
			}
			time.Sleep(100 * time.Millisecond)
		}
		return nil
	}
	if err := send(unix.IP_TTL, 2, 32); !errors.Is(err, unix.EHOSTUNREACH) {
		t.Errorf("the end of a life two hops away says %v, want %v", err, unix.EHOSTUNREACH)
	}
	if err := send(unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_DO, 1400); !errors.Is(err, unix.EMSGSIZE) {
		t.Errorf("a packet that is too large says %v, want %v", err, unix.EMSGSIZE)
	}
}

// A server behind the gateway is open at one port, and begins nothing, whether or not its card is filtered.
func TestServerBehindAGateway(t *testing.T) {
	for _, interfaces := range [][]string{{"eth0"}, both} {
		t.Run(strings.Join(interfaces, ","), func(t *testing.T) {
			eachMode(t, func(t *testing.T, l *lab.Lab, mode loader.Mode) {
				inside := l.AddInside(t)
				for _, port := range []int{443, 444, 7} {
					inside.Echo(t, port)
				}
				echoUDP(t, inside, lab.InsideV4, 53)
				l.Client.Echo(t, 7)
				l.Server.Echo(t, 443)
				const web, dns = "443/tcp on eth0 to 198.51.100.2,2001:db8:1::2", "53/udp on eth0 to 198.51.100.2"
				upWith(t, l, loader.Options{Interfaces: interfaces, Mode: mode, Policy: gateway(t, "drop", "'"+web+"'")})
				for i, f := range families {
					mustTalk(t, mustDial(t, l.Client, "tcp", behind[i], 443), f.name+", the server")
					mustNotDial(t, l.Client, behind[i], 444)
					mustNotDial(t, l.Client, f.server, 443) // the gateway itself
					mustNotDial(t, inside, f.client, 7)
					mustNotReach(t, inside, l.Client, f.client)
				}
				mustNotTalk(t, mustDial(t, l.Client, "udp", lab.InsideV4, 53), "not open yet")
				openForward(t, l, dns)
				mustTalk(t, mustDial(t, l.Client, "udp", lab.InsideV4, 53), "opened")
				// Of connections that go on, and not of what was refused, nor of UDP.
				if got := status(t, l).Flows; len(interfaces) == 1 && (got.Answered > 2 || got.Pending > 0) {
					t.Errorf("%+v: want a flow for each of two connections at most", got)
				}
				running := mustDial(t, l.Client, "tcp", lab.InsideV4, 443)
				mustTalk(t, running, "before the rule is closed")
				closeForward(t, l, web)
				mustTalk(t, running, "after the rule is closed")
				mustNotDial(t, l.Client, lab.InsideV4, 443)
				mustTalk(t, mustDial(t, l.Client, "udp", lab.InsideV4, 53), "still open")
			})
		})
	}
}

// The network behind begins outward by a card that is not filtered, as it would by one that is.
func TestLANOnAnUnfilteredCard(t *testing.T) {
	eachMode(t, func(t *testing.T, l *lab.Lab, mode loader.Mode) {
		inside := l.AddInside(t)
		l.Client.Echo(t, 7)
		inside.Echo(t, 7)
		for _, f := range families {
			echoUDP(t, l.Client, f.client, 53)
		}
		up(t, l, mode, gateway(t, "drop", "7/tcp on eth1, 53/udp on eth1"))
		for i, f := range families {
			mustTalk(t, mustDial(t, inside, "tcp", f.client, 7), f.name)
			mustTalk(t, mustDial(t, inside, "udp", f.client, 53), f.name)
			if ping(inside, f.client) == nil {
				t.Errorf("%s: a ping gets out, which no rule lets through", f.name)
			}
			mustNotDial(t, l.Client, behind[i], 7)
		}
		openForward(t, l, "all on eth1")
		for _, f := range families {
			mustReachOut(t, inside, f.client, f.name)
		}
		masquerade(t, l)
		for _, f := range families {
			mustReachOut(t, inside, f.client, f.name+" masqueraded")
		}
		closeForward(t, l, "all on eth1")
		closeForward(t, l, "53/udp on eth1")
		mustTalk(t, mustDial(t, inside, "tcp", lab.ClientV4, 7), "what is still open")
		if ping(inside, lab.ClientV4) == nil {
			t.Error("a ping gets out of what was closed")
		}
	})
}

// A change of the policy cuts no connection that goes through, also where the rule that let it begin is gone.
func TestPolicyChangesOnARunningGateway(t *testing.T) {
	eachMode(t, func(t *testing.T, l *lab.Lab, mode loader.Mode) {
		inside := l.AddInside(t)
		l.Client.Echo(t, 7)
		inside.Echo(t, 443)
		const web = "443/tcp on eth0 to 198.51.100.2,2001:db8:1::2"
		change := func(p *policy.Policy) {
			upWith(t, l, loader.Options{Interfaces: both, Mode: mode, Policy: p})
		}
		both := gateway(t, "drop", "all on eth1, '"+web+"'")
		var out, in net.Conn
		mustGoOn := func(what string) {
			t.Helper()
			mustTalk(t, out, what+", outward")
			mustTalk(t, in, what+", inward")
		}
		begin := func() {
			t.Helper()
			out, in = mustDial(t, inside, "tcp", lab.ClientV4, 7), mustDial(t, l.Client, "tcp", lab.InsideV4, 443)
			mustGoOn("begun")
		}
		// Two rules let through the same connection, one of its packets in and one of those back.
		change(both)
		for _, left := range []string{"1/tcp on eth1", "all on eth1", "'" + web + "'"} {
			begin()
			change(gateway(t, "drop", left))
			mustGoOn("with no more than " + left)
			change(both)
		}
		for _, closed := range [][]string{{"all on eth1", web}, {web, "all on eth1"}} {
			begin()
			for _, rule := range closed {
				closeForward(t, l, rule)
				mustGoOn("after close of " + rule)
			}
			mustNotDial(t, l.Client, lab.InsideV4, 443)
			mustNotDial(t, inside, lab.ClientV4, 7)
			change(both)
		}
		begin()
		openRule(t, l, "8080/tcp")
		openForward(t, l, "80/tcp on eth0")
		mustGoOn("after open")
		change(gateway(t, "drop", "all on eth1, '"+web+"'", "22/tcp"))
		mustGoOn("after apply")
		change(gateway(t, "established", "'"+web+"'"))
		mustGoOn("under established")
		change(gateway(t, "drop", "1/tcp on eth1"))
		mustGoOn("without their rules")
		mustNotDial(t, l.Client, lab.InsideV4, 443)
		mustNotDial(t, inside, lab.ClientV4, 7)
		p := policyOf(t)
		change(p) // forward: drop
		mustGoOn("under drop alone")
		mustNotDial(t, inside, lab.ClientV4, 7)
	})
}

// What netfilter tracks and routes goes on from the moment on at which the filter is there, as it does with a rule for
// what is ESTABLISHED: connections of either direction, and also where their addresses are translated.
func TestRoutedConnectionsFromBeforeUpGoOn(t *testing.T) {
	for _, translated := range []bool{false, true} {
		for _, interfaces := range [][]string{{"eth0"}, {"eth0", "eth1"}} {
			t.Run(fmt.Sprintf("%v/translated %t", interfaces, translated), func(t *testing.T) {
				l := lab.New(t)
				inside := l.AddInside(t)
				l.Client.Echo(t, 7)
				inside.Echo(t, 443)
				echoUDP(t, l.Client, lab.ClientV4, 53)
				in := []net.Conn{}
				l.Server.Run(t, "nft", "add table ip track; add chain ip track forward { type filter hook forward priority 0; }; add rule ip track forward ct state new accept")
				if translated {
					masquerade(t, l)
				} else {
					in = append(in, mustDial(t, l.Client, "tcp", lab.InsideV4, 443))
				}
				conns := append(in, mustDial(t, inside, "tcp", lab.ClientV4, 7), mustDial(t, inside, "udp", lab.ClientV4, 53))
				for _, c := range conns {
					mustTalk(t, c, "before")
				}
				time.Sleep(2500 * time.Millisecond) // until UDP is a stream
				mustTalk(t, conns[len(conns)-1], "once more")
				upWith(t, l, loader.Options{Interfaces: interfaces, Policy: gateway(t, "drop", "1/tcp on eth1")})
				for _, c := range conns {
					mustTalk(t, c, "after")
				}
				if !translated {
					mustNotDial(t, l.Client, lab.InsideV4, 443)
				}
				mustNotDial(t, inside, lab.ClientV4, 7)
			})
		}
	}
}

// close --forward --kill cuts the connections that the rule let through, whoever keeps them, and no others.
func TestKillOfRoutedConnections(t *testing.T) {
	const web = "443/tcp on eth0 to 198.51.100.2"
	for _, c := range []struct {
		name       string
		interfaces []string
		translated bool
	}{{"both cards", both, false}, {"one card", []string{"eth0"}, false}, {"masqueraded", both, true}, {"masqueraded, one card", []string{"eth0"}, true}} {
		t.Run(c.name, func(t *testing.T) {
			l := lab.New(t)
			inside := l.AddInside(t)
			l.Client.Echo(t, 7)
			l.Client.Echo(t, 8)
			inside.Echo(t, 443)
			l.Server.Echo(t, 22)
			var in net.Conn
			if c.translated {
				masquerade(t, l)
			}
			upWith(t, l, loader.Options{Interfaces: c.interfaces, Policy: gateway(t, "drop", "7/tcp on eth1, 8/tcp on eth1, '"+web+"'", "22/tcp")})
			cut, other := mustDial(t, inside, "tcp", lab.ClientV4, 7), mustDial(t, inside, "tcp", lab.ClientV4, 8)
			local, own := mustDial(t, l.Client, "tcp", lab.ServerV4, 22), mustDial(t, l.Server, "tcp", lab.ClientV4, 7)
			others := []net.Conn{other, local, own}
			if !c.translated {
				in = mustDial(t, l.Client, "tcp", lab.InsideV4, 443)
				others = append(others, in)
			}
			for _, c := range append(others, cut) {
				mustTalk(t, c, "begun")
			}
			for range 3 { // which are over, and have flows
				over := mustDial(t, inside, "tcp", lab.ClientV4, 7)
				mustTalk(t, over, "over")
				over.Close()
			}
			time.Sleep(100 * time.Millisecond)
			kill := func(rule string) {
				t.Helper()
				change(t, l, func(f *loader.Filter) error {
					report, err := f.CloseRules(forwardRules(t, rule), true)
					if err == nil && report.Killed != 1 {
						t.Errorf("%d connections of %s were cut, want 1", report.Killed, rule)
					}
					return err
				})
			}
			kill("7/tcp on eth1")
			mustNotTalk(t, cut, "what the rule let through")
			for _, c := range others {
				mustTalk(t, c, "what it did not")
			}
			openForward(t, l, "7/tcp on eth1")
			mustNotTalk(t, cut, "what was cut, when the rule is back")
			again := mustDial(t, inside, "tcp", lab.ClientV4, 7)
			mustTalk(t, again, "begun again")
			if !c.translated {
				openForward(t, l, "all on eth1")
				mustTalk(t, in, "by two rules")
				kill(web)
				closeForward(t, l, "all on eth1")
				mustNotTalk(t, in, "what came in by the rule")
			}
		})
	}
}

// The rules are in force from the moment on at which the host begins to forward.
func TestForwardRulesBeforeForwarding(t *testing.T) {
	eachMode(t, func(t *testing.T, l *lab.Lab, mode loader.Mode) {
		inside := l.AddInside(t)
		forward := func(to string) {
			for _, family := range []string{"ipv4", "ipv6"} {
				l.Server.Sysctl(t, family+"/conf/all/forwarding", to)
			}
		}
		forward("0")
		l.Client.Echo(t, 7)
		inside.Echo(t, 7)
		upWith(t, l, loader.Options{Interfaces: both, Mode: mode, Policy: gateway(t, "drop", "all on eth1")})
		for i, f := range families {
			mustNotDial(t, inside, f.client, 7)
			mustNotDial(t, l.Client, behind[i], 7)
		}
		forward("1")
		for i, f := range families {
			mustTalk(t, mustDial(t, inside, "tcp", f.client, 7), f.name)
			mustNotDial(t, l.Client, behind[i], 7)
		}
	})
}

// What comes in by an interface that is let go, is no longer taken for judged where it leaves.
func TestDownOfOneCardOfAGateway(t *testing.T) {
	l := lab.New(t)
	inside := l.AddInside(t)
	l.Client.Echo(t, 7)
	upWith(t, l, loader.Options{Interfaces: both, Policy: gateway(t, "drop", "8/tcp on eth1, 7/tcp on lan0")})
	mustNotDial(t, inside, lab.ClientV4, 7)
	l.Server.Do(t, func() error {
		_, err := loader.Down(t.Context(), l.PinPath, []string{"eth1"})
		return err
	})
	mustNotDial(t, inside, lab.ClientV4, 7)
	openForward(t, l, "7/tcp on eth1")
	mustTalk(t, mustDial(t, inside, "tcp", lab.ClientV4, 7), "by a rule")
	closeForward(t, l, "7/tcp on eth1")

	// Under another name other rules count for it, once the filter knows.
	changeName(t, l, "eth1", "lan0")
	mustNotDial(t, inside, lab.ClientV4, 7)
	if w := status(t, l).Warnings; len(w) != 1 || !strings.HasPrefix(w[0], "lan0: ") {
		t.Errorf("warnings %q, want one about lan0", w)
	}
	syncHost(t, l)
	mustTalk(t, mustDial(t, inside, "tcp", lab.ClientV4, 7), "by the rule of its new name")
	if w := status(t, l).Warnings; len(w) != 0 {
		t.Errorf("warnings %q", w)
	}
}

// What comes in by an interface that is let go counts as judged no longer, also where the rules cannot be read by which
// the list of interfaces is brought in line.
func TestDownOfOneCardOfADamagedGateway(t *testing.T) {
	l := lab.New(t)
	inside := l.AddInside(t)
	l.Client.Echo(t, 7)
	upWith(t, l, loader.Options{Interfaces: both, Policy: gateway(t, "drop", "8/tcp on eth1")})
	m, err := ebpf.LoadPinnedMap(filepath.Join(l.PinPath, loader.Schema, "policy/rules"), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	beyond := bpf.FirewallRule{Offset: 1 << 31, Length: 8}
	if err := m.Put(uint32(9), beyond); err != nil {
		t.Fatal(err)
	}
	l.Server.Do(t, func() error {
		if _, err := loader.Down(t.Context(), l.PinPath, []string{"eth1"}); err == nil {
			t.Error("down does not say that the list is not in line")
		}
		return nil
	})
	mustNotDial(t, inside, lab.ClientV4, 7)
}

func syncHost(t testing.TB, l *lab.Lab) {
	t.Helper()
	change(t, l, func(f *loader.Filter) error { return f.SyncHost() })
}

// A LAN on a VLAN: what comes in by that has met the filter on the card below.
func TestGatewayOfAVLAN(t *testing.T) {
	eachMode(t, func(t *testing.T, l *lab.Lab, mode loader.Mode) {
		inside := l.AddInside(t)
		for h, card := range map[*lab.Host]string{l.Server: "eth1", inside: "eth0"} {
			addLink(t, h, "VLAN", "link", card, "name", "v10", "type", "vlan", "id", "10")
			h.IP(t, "link", "set", "v10", "up")
		}
		l.Server.IP(t, "addr", "add", "10.0.10.1/24", "dev", "v10")
		inside.IP(t, "addr", "add", "10.0.10.2/24", "dev", "v10")
		inside.IP(t, "route", "replace", "default", "via", "10.0.10.1")
		l.Client.IP(t, "route", "add", "10.0.10.0/24", "via", lab.ServerV4.String())
		l.Client.Echo(t, 7)
		inside.Echo(t, 7)
		upWith(t, l, loader.Options{Interfaces: both, Mode: mode, Policy: gateway(t, "drop", "8/tcp on eth1")})
		mustNotDial(t, inside, lab.ClientV4, 7)
		openForward(t, l, "all on eth1")
		mustTalk(t, mustDial(t, inside, "tcp", lab.ClientV4, 7), "out of the VLAN")
		mustNotDial(t, l.Client, netip.MustParseAddr("10.0.10.2"), 7)
	})
}

// Who comes by a VPN gets to the network behind this host, by a rule of the tunnel, filtered or not.
func TestVPNToALAN(t *testing.T) {
	for _, filtered := range []bool{false, true} {
		for _, mode := range []loader.Mode{loader.ModeAuto, loader.ModeTC} {
			t.Run(fmt.Sprintf("%s/filtered %t", mode, filtered), func(t *testing.T) {
				l := lab.New(t)
				inside := l.AddInside(t)
				wire := tunnel(t, l.Server, "wg0", "10.8.0.1/24")
				defer wire.Close()
				interfaces := both
				if filtered {
					interfaces = append([]string{"wg0"}, both...)
				}
				upWith(t, l, loader.Options{Interfaces: interfaces, Mode: mode, Policy: gateway(t, "drop", "5000/udp on wg* to 198.51.100.2")})
				var sink *net.UDPConn
				inside.Do(t, func() (err error) {
					sink, err = net.ListenUDP("udp", &net.UDPAddr{IP: lab.InsideV4.AsSlice(), Port: 5000})
					return err
				})
				defer sink.Close()
				peer := netip.MustParseAddr("10.8.0.2")
				send := func(src netip.Addr, arrives bool) {
					t.Helper()
					datagram := frame.Build(frame.IPv4{Src: src, Dst: lab.InsideV4}, frame.UDP{SrcPort: 4000, DstPort: 5000})
					if _, err := wire.Write(datagram); err != nil {
						t.Fatal(err)
					}
					sink.SetReadDeadline(time.Now().Add(refusal))
					_, from, err := sink.ReadFromUDPAddrPort(make([]byte, 64))
					if (err == nil) != arrives {
						t.Fatalf("a datagram of the tunnel: %v, arrives is to be %t", err, arrives)
					}
					if err != nil {
						return
					}
					if _, err := sink.WriteToUDPAddrPort([]byte("back"), from); err != nil {
						t.Fatal(err)
					}
					if _, err := readFrom(wire, lab.InsideV4, src); err != nil {
						t.Errorf("no answer comes back by the tunnel: %v", err)
					}
				}
				send(peer, true)
				closeForward(t, l, "5000/udp on wg* to 198.51.100.2")
				send(netip.MustParseAddr("10.8.0.3"), false)
			})
		}
	}
}
