// SPDX-License-Identifier: Apache-2.0

package host

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/portcullis-firewall/portcullis/loader"
	"github.com/portcullis-firewall/portcullis/policy"
	"github.com/portcullis-firewall/portcullis/tests/internal/frame"
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
		if got := counter(t, l, "rejected"); got < 8 {
			t.Errorf("%d packets counted under rejected, want 8 at least", got)
		}
		if got := counter(t, l, "closed port") + counter(t, l, "protocol"); got != 0 {
			t.Errorf("%d packets counted as dropped without an answer", got)
		}
		// Ours is never rejected: neither what answers this host, nor what it says itself.
		l.Client.Echo(t, 8)
		for _, f := range families {
			mustTalk(t, mustDial(t, l.Server, "tcp", f.client, 8), "hello")
			mustRefuse(t, l.Server, f.client, 9)
			if err := ping(l.Server, f.client); err != nil {
				t.Error(err)
			}
		}
	})
}

// A veth takes no answer from XDP unless its other end is made for that, so auto filters it in TC.
func TestAutoRejectsWhereItArrives(t *testing.T) {
	l := lab.New(t)
	if out := l.Server.Run(t, lab.NeedProgram(t, "ethtool"), "-i", "eth0"); !strings.Contains(out, "driver: veth\n") {
		t.Skip("the lab has no veth")
	}
	up(t, l, loader.ModeAuto, policyOf(t, "80/tcp"))
	mustNotDial(t, l.Client, lab.ServerV4, 9)
	report := up(t, l, loader.ModeAuto, rejecting(t, "80/tcp"))
	if len(report.Warnings) != 1 || !strings.Contains(report.Warnings[0], "GRO") {
		t.Errorf("up warns %q", report.Warnings)
	}
	for _, f := range families {
		mustRefuse(t, l.Client, f.server, 9)
	}
}

// What comes by a VLAN device of the filtered one is answered there, where the tag is to be seen. A native driver whose
// card takes it off does not say so, and gives no answer that would go elsewhere.
func TestRejectOnAVLAN(t *testing.T) {
	eachMode(t, func(t *testing.T, l *lab.Lab, mode loader.Mode) {
		for h, address := range map[*lab.Host]string{l.Server: "198.51.100.1/24", l.Client: "198.51.100.2/24"} {
			addLink(t, h, "VLAN", "link", "eth0", "name", "eth0.7", "type", "vlan", "id", "7")
			h.IP(t, "addr", "add", address, "dev", "eth0.7")
			h.IP(t, "link", "set", "eth0.7", "up")
		}
		l.Client.Run(t, "ethtool", "-K", "eth0", "gro", "on")
		up(t, l, mode, rejecting(t))
		server := netip.MustParseAddr("198.51.100.1")
		features := l.Server.Run(t, "ethtool", "-k", "eth0")
		if mode == loader.ModeNative && strings.Contains(features, "rx-vlan-offload: on") {
			mustNotDial(t, l.Client, server, 9)
			mustNotDial(t, l.Client, lab.ServerV4, 9)
			l.Client.Run(t, "ethtool", "-K", "eth0", "txvlan", "off") // now the tag is in the frame
		}
		mustRefuse(t, l.Client, server, 9)
		if err := askRaw(l.Client, "udp", server, 54); !errors.Is(err, unix.ECONNREFUSED) {
			t.Errorf("UDP ends with %v", err)
		}
	})
}

// A scanner calls a port closed that is rejected, and filtered where it is only dropped.
func TestRejectSeenByAScanner(t *testing.T) {
	nmap := lab.NeedProgram(t, "nmap")
	l := lab.New(t)
	l.Server.Echo(t, 7)
	for _, c := range []struct {
		policy *policy.Policy
		want   string
	}{{rejecting(t, "7/tcp"), "closed"}, {policyOf(t, "7/tcp"), "filtered"}} {
		up(t, l, loader.ModeTC, c.policy)
		out := l.Client.Run(t, nmap, "-n", "-Pn", "-sS", "-p7,9,23", "--max-retries", "1", lab.ServerV4.String())
		for _, want := range []string{"7/tcp  open", "9/tcp  " + c.want, "23/tcp " + c.want} {
			if !strings.Contains(out, want) {
				t.Errorf("nmap does not say %q:\n%s", want, out)
			}
		}
	}
}

// A device without link headers: a tunnel whose other end the test holds.
func TestRejectOnATunnel(t *testing.T) {
	for _, mode := range []loader.Mode{loader.ModeGeneric, loader.ModeTC} {
		t.Run(string(mode), func(t *testing.T) {
			l := lab.New(t)
			var tun *os.File
			l.Server.Do(t, func() (err error) {
				tun, err = openTun("tun7")
				return err
			})
			t.Cleanup(func() { tun.Close() })
			l.Server.IP(t, "addr", "add", "198.51.100.1/24", "dev", "tun7")
			l.Server.IP(t, "link", "set", "tun7", "up")
			upWith(t, l, loader.Options{Interfaces: []string{"tun7"}, Mode: mode, Policy: rejecting(t)})
			us, peer := netip.MustParseAddr("198.51.100.1"), netip.MustParseAddr("198.51.100.2")
			for name, c := range map[string]struct {
				sent     frame.Layer
				protocol uint8
			}{
				"TCP": {frame.TCP{SrcPort: 40000, DstPort: 23, Flags: frame.SYN, Seq: 7}, frame.ProtoTCP},
				"UDP": {frame.UDP{SrcPort: 40000, DstPort: 54}, frame.ProtoICMP},
			} {
				if _, err := tun.Write(frame.Build(frame.IPv4{Src: peer, Dst: us}, c.sent)); err != nil {
					t.Fatal(err)
				}
				if got, err := readFrom(tun, us, peer); err != nil || got.Protocol != c.protocol {
					t.Errorf("%s is answered with %+v, %v", name, got, err)
				}
			}
		})
	}
}

// openTun makes a tunnel of IP packets.
func openTun(name string) (*os.File, error) {
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	request, err := unix.NewIfreq(name)
	if err == nil {
		request.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI)
		err = unix.IoctlIfreq(fd, unix.TUNSETIFF, request)
	}
	if err != nil {
		unix.Close(fd)
		return nil, err
	}
	return os.NewFile(uintptr(fd), name), nil
}

// readFrom returns the next packet that one address sends to another.
func readFrom(tun *os.File, src, dst netip.Addr) (frame.Packet, error) {
	b := make([]byte, 2048)
	for {
		if err := tun.SetReadDeadline(time.Now().Add(time.Second)); err != nil {
			return frame.Packet{}, err
		}
		n, err := tun.Read(b)
		if err != nil {
			return frame.Packet{}, err
		}
		if p := frame.ReadIP(b[:n]); p.Src == src && p.Dst == dst {
			return p, nil
		}
	}
}
