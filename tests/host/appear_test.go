// SPDX-License-Identifier: Apache-2.0

package host

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"

	"github.com/portcullis-firewall/portcullis/loader"
	"github.com/portcullis-firewall/portcullis/policy"
	"github.com/portcullis-firewall/portcullis/tests/internal/frame"
	"github.com/portcullis-firewall/portcullis/tests/internal/lab"
)

// protectedWithin is how soon an interface that appears has to be filtered.
const protectedWithin = 100 * time.Millisecond

// appear makes the wire between server and client anew, under a name at the server, and has the client send to a
// closed port there all the time. It returns how long after the interface came into being a datagram last got in.
func appear(t *testing.T, l *lab.Lab, iface string) (open time.Duration) {
	t.Helper()
	// No neighbour has to be asked for: what is sent is sent at once.
	mac := map[*lab.Host]net.HardwareAddr{l.Server: {2, 0, 0, 0, 0, 1}, l.Client: {2, 0, 0, 0, 0, 2}}
	finish := func(h *lab.Host, name string, own, peer netip.Addr, peerMAC net.HardwareAddr) error {
		return h.Try(func() error {
			dev, err := netlink.LinkByName(name)
			if err != nil {
				return err
			}
			if err := netlink.LinkSetUp(dev); err != nil {
				return err
			}
			network := &net.IPNet{IP: own.AsSlice(), Mask: net.CIDRMask(24, 32)}
			if err := netlink.AddrAdd(dev, &netlink.Addr{IPNet: network}); err != nil {
				return err
			}
			return netlink.NeighSet(&netlink.Neigh{LinkIndex: dev.Attrs().Index, IP: peer.AsSlice(), HardwareAddr: peerMAC, State: netlink.NUD_PERMANENT})
		})
	}
	sink := listenUDP(t, l.Server)
	defer sink.Close()
	client, err := netns.GetFromName(l.Client.Name)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	l.Server.Do(t, func() error {
		return netlink.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: iface, HardwareAddr: mac[l.Server]}, PeerName: "eth0",
			PeerHardwareAddr: mac[l.Client], PeerNamespace: netlink.NsFd(client)})
	})
	born := time.Now()
	if err := finish(l.Client, "eth0", lab.ClientV4, lab.ServerV4, mac[l.Server]); err != nil {
		t.Fatal(err)
	}
	if err := finish(l.Server, iface, lab.ServerV4, lab.ClientV4, mac[l.Client]); err != nil {
		t.Fatal(err)
	}
	ready := time.Since(born)
	stop := make(chan struct{})
	defer close(stop)
	c, err := dial(l.Client, "udp", lab.ServerV4, 5000, time.Second)
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		defer c.Close()
		for tick := time.Tick(time.Millisecond / 2); ; {
			select {
			case <-stop:
				return
			case <-tick:
				c.Write([]byte("let me in"))
			}
		}
	}()
	// Nothing for a second, and it stays so.
	got := 0
	b := make([]byte, 64)
	for sink.SetReadDeadline(time.Now().Add(time.Second)); ; sink.SetReadDeadline(time.Now().Add(time.Second)) {
		if _, err := sink.Read(b); err != nil {
			break
		}
		got++
		open = time.Since(born)
		if open > patience {
			t.Fatalf("%s is still open", iface)
		}
	}
	t.Logf("traffic began after %v; %d datagrams got in, the last after %v", ready, got, open)
	return open
}

func listenUDP(t *testing.T, h *lab.Host) (c *net.UDPConn) {
	t.Helper()
	h.Do(t, func() (err error) {
		c, err = net.ListenUDP("udp4", &net.UDPAddr{Port: 5000})
		return err
	})
	return c
}

// mustBeSoon judges some times, of which a busy machine may have spoilt half.
func mustBeSoon(t *testing.T, times ...time.Duration) {
	t.Helper()
	limit := protectedWithin
	if lab.Emulated() {
		limit *= 4
	}
	slices.Sort(times)
	if median := times[(len(times)-1)/2]; median > limit {
		t.Errorf("it took %v, want %v at most", times, limit)
	}
}

func TestAgentFiltersAnInterfaceMadeAnew(t *testing.T) {
	lab.NeedsVeth(t, "deletes its interface")
	eachMode(t, func(t *testing.T, l *lab.Lab, mode loader.Mode) {
		a := newAgent(t, l, "interfaces: [eth0]\nopen: [7/tcp]\n")
		a.runs("--mode", string(mode))
		l.Server.Echo(t, 7)
		l.Server.Echo(t, 9)
		var times []time.Duration
		for range 4 {
			l.Server.IP(t, "link", "del", "eth0")
			times = append(times, appear(t, l, "eth0"))
			if got := status(t, l).Interfaces[0]; got.Mode != mode || !got.Present {
				t.Errorf("it came back as %+v", got)
			}
		}
		mustBeSoon(t, times...)
		if got := counter(t, l, "closed port"); got == 0 {
			t.Error("nothing reached the filter: the test shows nothing")
		}
		mustTalk(t, mustDial(t, l.Client, "tcp", lab.ServerV4, 7), "the open port")
		mustNotDial(t, l.Client, lab.ServerV4, 9)
	})
}

func TestAgentWaitsForAnInterface(t *testing.T) {
	lab.NeedsVeth(t, "deletes its interface")
	eachMode(t, func(t *testing.T, l *lab.Lab, mode loader.Mode) {
		l.Server.IP(t, "link", "del", "eth0")
		a := newAgent(t, l, "interfaces: [wan.0]\n")
		a.runs("--mode", string(mode))
		a.waitsFor("programs that are kept ready", func() bool { return a.prepared(6) })
		mustBeSoon(t, appear(t, l, "wan.0"))
		if got := status(t, l).Interfaces; len(got) != 1 || got[0].Mode != mode || !got[0].Present {
			t.Errorf("status says %+v", got)
		}
		l.Client.Echo(t, 8)
		mustTalk(t, mustDial(t, l.Server, "tcp", lab.ClientV4, 8), "outward")
		// In the end the programs know the MAC.
		a.waitsFor("programs of its own", func() bool { return !a.isOutdated() })
		mustNotDial(t, l.Client, lab.ServerV4, 9)
	})
}

// An interface whose frames begin with the IP header needs other programs, also where an Ethernet had its name.
func TestAgentFiltersALinkWithoutEthernet(t *testing.T) {
	for _, mode := range []loader.Mode{loader.ModeAuto, loader.ModeTC} {
		t.Run(string(mode), func(t *testing.T) {
			l := lab.New(t)
			a := newAgent(t, l, "interfaces: [eth0, wg0]\n")
			a.runs("--mode", string(mode))
			a.waitsFor("programs that are kept ready", func() bool { return a.prepared(6) })
			sink := listenUDP(t, l.Server)
			defer sink.Close()
			for range 2 {
				l.Server.IP(t, "link", "add", "wg0", "type", "veth", "peer", "name", "wg1")
				a.waitsFor("filter on an Ethernet", func() bool { return a.filters("wg0") })
				l.Server.IP(t, "link", "del", "wg0")
				a.mustFilterTunnel(sink)
			}
		})
	}
}

func TestAttachTakesNoProgramForAnotherLink(t *testing.T) {
	l := lab.New(t)
	l.Server.IP(t, "link", "add", "wg0", "type", "veth", "peer", "name", "wg1")
	upWith(t, l, loader.Options{Interfaces: []string{"wg0"}, Mode: loader.ModeTC, Policy: policy.Default()})
	l.Server.IP(t, "link", "del", "wg0")
	wire := tun(t, l.Server, "wg0")
	defer wire.Close()
	l.Server.Do(t, func() error {
		report, err := loader.Attach(context.Background(), l.PinPath, loader.ModeAuto)
		if err == nil && (len(report.Attached) != 0 || len(report.Slow) != 1 || report.Slow[0].Mode != loader.ModeTC) {
			t.Errorf("a tunnel where an Ethernet was: %+v", report)
		}
		return err
	})
}

// A device that goes while it is looked at must not leave its successor with another mode, nor an error: what was seen
// on it was our own program.
func TestAttachWhileAnInterfaceIsMadeAnew(t *testing.T) {
	l := lab.New(t)
	wire := []string{"link", "add", "wan0", "type", "veth", "peer", "name", "wan1"}
	l.Server.IP(t, wire...)
	upWith(t, l, loader.Options{Interfaces: []string{"wan0"}, Mode: loader.ModeNative, Policy: policy.Default()})
	end, attached := make(chan struct{}), make(chan error, 1)
	go func() {
		attached <- l.Server.Try(func() error {
			for {
				report, err := loader.Attach(context.Background(), l.PinPath, loader.ModeNative)
				if err == nil && (report.Warnings != nil || report.Slow != nil) {
					err = fmt.Errorf("a device that came back as it was: %+v", report)
				}
				if err != nil {
					return err
				}
				select {
				case <-end:
					return nil
				default:
				}
			}
		})
	}()
	const times = 150
	l.Server.Do(t, func() error {
		for range times {
			old, err := netlink.LinkByName("wan0")
			if err != nil {
				return err
			}
			if err := netlink.LinkDel(old); err != nil {
				return err
			}
			if err := netlink.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "wan0"}, PeerName: "wan1"}); err != nil {
				return err
			}
			time.Sleep(10 * time.Millisecond) // in which it is mostly filtered again
		}
		return nil
	})
	close(end)
	if err := <-attached; err != nil {
		t.Fatal(err)
	}
	l.Server.Do(t, func() error {
		_, err := loader.Attach(context.Background(), l.PinPath, loader.ModeNative)
		return err
	})
	if i := status(t, l).Interfaces[0]; !i.Present || i.Mode != loader.ModeNative {
		t.Errorf("in the end it is %+v", i)
	}
}

// An interface that could not be filtered when it came back is filtered as it was when it can.
func TestAttachKeepsTheModeThroughAFailure(t *testing.T) {
	l := lab.New(t)
	wire := []string{"link", "add", "wan0", "type", "veth", "peer", "name", "wan1"}
	l.Server.IP(t, wire...)
	upWith(t, l, loader.Options{Interfaces: []string{"wan0"}, Mode: loader.ModeGeneric, NoTCX: true, Policy: policy.Default()})
	before := status(t, l).Interfaces
	attach := func() (report *loader.AttachReport, err error) {
		l.Server.Do(t, func() error {
			report, err = loader.Attach(context.Background(), l.PinPath, loader.ModeNative)
			return nil
		})
		return report, err
	}
	l.Server.IP(t, "link", "del", "wan0")
	l.Server.IP(t, wire...)
	foreign(t, l.Server, "wan0")
	if report, err := attach(); !errors.Is(err, loader.ErrForeignProgram) {
		t.Fatalf("somebody else's program is there: %+v, %v", report, err)
	}
	l.Server.IP(t, "link", "del", "wan0")
	l.Server.IP(t, wire...)
	if report, err := attach(); err != nil || len(report.Attached) != 1 {
		t.Fatalf("it is back: %+v, %v", report, err)
	}
	if after := status(t, l).Interfaces; !slices.Equal(before, after) {
		t.Errorf("it was %+v, and came back as %+v", before, after)
	}
}

// mustFilterTunnel makes a tunnel of the name wg0, sees to it that a closed port gets nothing from there and what the
// server asks is answered, and takes it away.
func (a *agent) mustFilterTunnel(closed *net.UDPConn) {
	t, l := a.t, a.lab
	t.Helper()
	wire := tun(t, l.Server, "wg0")
	defer wire.Close()
	a.waitsFor("filter on a tunnel", func() bool { return a.filters("wg0") })
	send := func(from, to uint16) {
		t.Helper()
		packet := frame.Build(frame.IPv4{Src: lab.InsideV4, Dst: lab.RouterV4}, frame.UDP{SrcPort: from, DstPort: to})
		if _, err := wire.Write(packet); err != nil {
			t.Fatal(err)
		}
	}
	b := make([]byte, 64)
	before := counter(t, l, "closed port")
	send(1, 5000)
	closed.SetReadDeadline(time.Now().Add(refusal))
	if _, err := closed.Read(b); err == nil {
		t.Error("a closed port is open on a tunnel")
	}
	if got := counter(t, l, "closed port") - before; got != 1 {
		t.Errorf("%d packets counted under closed port, want 1", got)
	}

	c := mustDial(t, l.Server, "udp", lab.InsideV4, 7)
	if _, err := c.Write([]byte("query")); err != nil {
		t.Fatal(err)
	}
	send(7, c.LocalAddr().(*net.UDPAddr).AddrPort().Port())
	c.SetReadDeadline(time.Now().Add(3 * time.Second))
	if _, err := c.Read(b); err != nil {
		t.Errorf("an answer does not come in by a tunnel: %v", err)
	}
}

// tun makes a device without Ethernet at a host, on which that has the router's address, and returns its other end.
func tun(t *testing.T, h *lab.Host, name string) (wire *os.File) {
	t.Helper()
	return tunnel(t, h, name, lab.RouterV4.String()+"/24")
}

// tunnel is tun with an address.
func tunnel(t *testing.T, h *lab.Host, name, address string) (wire *os.File) {
	t.Helper()
	h.Do(t, func() (err error) {
		wire, err = openTun(name)
		return err
	})
	h.IP(t, "link", "set", name, "up")
	h.IP(t, "addr", "add", address, "dev", name)
	return wire
}
