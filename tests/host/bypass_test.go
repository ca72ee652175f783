// SPDX-License-Identifier: Apache-2.0

package host

import (
	"context"
	"errors"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/portcullis-firewall/portcullis/loader"
	"github.com/portcullis-firewall/portcullis/policy"
	"github.com/portcullis-firewall/portcullis/tests/internal/lab"
)

// past looks whether packets come past the filter.
func past(t testing.TB, l *lab.Lab, patience time.Duration) (names []string) {
	t.Helper()
	with(t, l, func(f *loader.Filter) error {
		found, err := f.Bypassed(context.Background(), patience)
		for _, i := range found {
			names = append(names, i.Name)
		}
		return err
	})
	return names
}

// attachTC puts a program before others at the ingress of an interface of the server, until the test ends.
func attachTC(t testing.TB, l *lab.Lab, dev string, instructions ...asm.Instruction) {
	t.Helper()
	prog, err := ebpf.NewProgram(&ebpf.ProgramSpec{Name: "stranger", Type: ebpf.SchedCLS, License: "GPL", Instructions: instructions})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { prog.Close() })
	err = l.Server.Try(func() error {
		d, err := netlink.LinkByName(dev)
		if err != nil {
			return err
		}
		at, err := link.AttachTCX(link.TCXOptions{Program: prog, Interface: d.Attrs().Index, Attach: ebpf.AttachTCXIngress, Anchor: link.Head()})
		if err == nil {
			t.Cleanup(func() { at.Close() })
		}
		return err
	})
	if errors.Is(err, link.ErrNotSupported) || errors.Is(err, unix.EINVAL) {
		t.Skip("needs TCX, which Linux has since 6.6")
	}
	if err != nil {
		t.Fatal(err)
	}
}

// deviceOf returns the index and the MAC address of an interface of a host.
func deviceOf(t testing.TB, h *lab.Host, name string) (index int, mac string) {
	t.Helper()
	h.Do(t, func() error {
		d, err := netlink.LinkByName(name)
		if err == nil {
			index, mac = d.Attrs().Index, d.Attrs().HardwareAddr.String()
		}
		return err
	})
	return index, mac
}

// detour makes the server's eth0 take in what the client sends to it, and not run XDP: a second link, from which a
// program hands the packets to the stack as if eth0 had received them. So does a driver that has forgotten its program.
func detour(t testing.TB, l *lab.Lab) {
	t.Helper()
	l.Server.IP(t, "link", "add", "name", "eth9", "type", "veth", "peer", "name", "eth9", "netns", l.Client.Name)
	index, mac := deviceOf(t, l.Server, "eth0")
	const ingress = 1 // BPF_F_INGRESS
	attachTC(t, l, "eth9", asm.Mov.Imm(asm.R1, int32(index)), asm.Mov.Imm(asm.R2, ingress), asm.FnRedirect.Call(), asm.Return())
	for _, h := range []*lab.Host{l.Server, l.Client} {
		h.Sysctl(t, "ipv4/conf/all/rp_filter", "0")
		h.Sysctl(t, "ipv4/conf/eth0/rp_filter", "0")
		h.IP(t, "link", "set", "eth9", "up")
	}
	l.Client.IP(t, "route", "add", lab.ServerV4.String()+"/32", "dev", "eth9", "src", lab.ClientV4.String())
	l.Client.IP(t, "neigh", "add", lab.ServerV4.String(), "lladdr", mac, "dev", "eth9")
	// And nothing else comes in on eth0 itself: no ARP, no multicast listener reports.
	l.Client.Sysctl(t, "ipv6/conf/eth0/disable_ipv6", "1")
	_, client := deviceOf(t, l.Client, "eth0")
	l.Server.IP(t, "neigh", "replace", lab.ClientV4.String(), "lladdr", client, "dev", "eth0")
}

func TestPacketsPastTheFilterAreSeen(t *testing.T) {
	lab.NeedsVeth(t, "the detour takes a second link")
	l := lab.New(t)
	l.Server.Echo(t, 7)
	detourOf := func() { mustTalk(t, mustDial(t, l.Client, "tcp", lab.ServerV4, 7), "past the filter") }
	up(t, l, loader.ModeNative, policy.Default())
	mustNotDial(t, l.Client, lab.ServerV4, 7)
	detour(t, l)
	time.Sleep(300 * time.Millisecond) // what the program saw is of the past
	if got := past(t, l, 0); len(got) != 0 {
		t.Errorf("without a packet %v is said to be open", got)
	}
	end := knocking(l, 7)
	if got := past(t, l, patience); len(got) != 1 || got[0] != "eth0" {
		t.Errorf("packets come past the filter on eth0, and are seen on %v", got)
	}
	end()
	detourOf()

	// up mends it, if it may look, and as long as packets come.
	end = knocking(l, 7)
	report := upWith(t, l, loader.Options{Interfaces: []string{"eth0"}, Policy: policy.Default(), Look: true})
	end()
	if got := status(t, l).Interfaces[0].Mode; got != loader.ModeTC || len(report.Warnings) != 1 || !strings.Contains(report.Warnings[0], "past its XDP program") {
		t.Errorf("up left %s, and said %q", got, report.Warnings)
	}
	mustNotDial(t, l.Client, lab.ServerV4, 7)
	time.Sleep(300 * time.Millisecond)
	if got := past(t, l, time.Second); len(got) != 0 {
		t.Errorf("%v is said to be open, and TC filters", got)
	}

	// TC programs can be taken out of the way, too.
	attachTC(t, l, "eth0", asm.Mov.Imm(asm.R0, 0), asm.Return()) // TCX_PASS, which ends the chain
	time.Sleep(300 * time.Millisecond)
	defer knocking(l, 7)()
	if got := past(t, l, patience); len(got) != 1 {
		t.Errorf("another program ends the chain before the filter, and packets past it are seen on %v", got)
	}
}

// A look that finds nothing amiss where nothing is.
func TestNoPacketComesPastTheFilter(t *testing.T) {
	look := func(t *testing.T, l *lab.Lab, what string, traffic func()) {
		t.Helper()
		time.Sleep(300 * time.Millisecond)
		stop, stopped := make(chan struct{}), make(chan struct{})
		go func() {
			defer close(stopped)
			for {
				select {
				case <-stop:
					return
				case <-time.After(300 * time.Millisecond): // so seldom that looks begin without
					traffic()
				}
			}
		}()
		defer func() {
			close(stop)
			<-stopped
		}()
		for range 8 {
			time.Sleep(130 * time.Millisecond)
			if got := past(t, l, 250*time.Millisecond); len(got) != 0 {
				t.Fatalf("%s: packets are said to come past the filter on %v", what, got)
			}
		}
	}
	eachMode(t, func(t *testing.T, l *lab.Lab, mode loader.Mode) {
		l.Server.Echo(t, 7)
		wire := l.Client.Wire(t, "eth0")
		up(t, l, mode, policyOf(t, "7/tcp"))
		look(t, l, "idle", func() {})
		connect := func(addr netip.Addr, port int) func() {
			return func() {
				if c, err := dial(l.Client, "tcp", addr, port, 50*time.Millisecond); err == nil {
					c.Close()
				}
			}
		}
		look(t, l, "closed port", connect(lab.ServerV4, 9))
		look(t, l, "open port", connect(lab.ServerV6, 7))
		arp := append([]byte{255, 255, 255, 255, 255, 255, 2, 0, 0, 0, 0, 9, 8, 6}, make([]byte, 46)...)
		look(t, l, "ARP alone", func() { wire.Send(arp) })
		other := append([]byte{2, 0, 0, 0, 0, 8, 2, 0, 0, 0, 0, 9, 8, 6}, make([]byte, 46)...)
		l.Server.IP(t, "link", "set", "eth0", "promisc", "on")
		look(t, l, "another host's", func() { wire.Send(other) })
		l.Server.IP(t, "link", "add", "br0", "type", "bridge")
		l.Server.IP(t, "link", "set", "br0", "up")
		l.Server.IP(t, "link", "set", "eth0", "master", "br0")
		look(t, l, "bridge port", func() { wire.Send(arp); wire.Send(other) })
	})
}

func TestTheAgentClosesWhatTheDriverOpens(t *testing.T) {
	lab.NeedsVeth(t, "the detour takes a second link")
	l := lab.New(t)
	l.Server.Echo(t, 7)
	l.Client.Echo(t, 8)
	a := newAgent(t, l, "interfaces: [eth0]\n")
	a.runs("--mode", "native")
	out := mustDial(t, l.Server, "tcp", lab.ClientV4, 8)
	mustTalk(t, out, "before")
	detour(t, l)
	a.waitsFor("TC", func() bool {
		if c, err := dial(l.Client, "tcp", lab.ServerV4, 7, 50*time.Millisecond); err == nil {
			c.Close()
		}
		return status(t, l).Interfaces[0].Mode == loader.ModeTC
	})
	mustNotDial(t, l.Client, lab.ServerV4, 7)
	mustTalk(t, out, "after")
	if log := a.logged(); !strings.Contains(log, "the driver veth did not run its XDP program") {
		t.Errorf("the agent's log is\n%s", log)
	}
	if out := a.types("status"); !strings.Contains(out, "eth0       TC") {
		t.Errorf("status prints\n%s", out)
	}
}

// What a bond's ports take for themselves is no packet of the bond, though its counters say so.
func TestNoPacketComesPastTheFilterOfABond(t *testing.T) {
	lab.NeedsVeth(t, "a bond has two ports")
	for _, kind := range []string{"active-backup", "802.3ad"} {
		for _, mode := range modes {
			t.Run(kind+", "+string(mode), func(t *testing.T) {
				l := lab.New(t)
				l.Server.IP(t, "link", "add", "name", "eth1", "type", "veth", "peer", "name", "eth1", "netns", l.Client.Name)
				for _, h := range []*lab.Host{l.Server, l.Client} {
					addLink(t, h, "bond", "bond0", "type", "bond", "mode", kind, "miimon", "100")
					if kind == "802.3ad" {
						h.IP(t, "link", "set", "bond0", "type", "bond", "lacp_rate", "fast")
					}
					for _, port := range []string{"eth0", "eth1"} {
						h.IP(t, "link", "set", port, "down")
						h.IP(t, "link", "set", port, "master", "bond0")
					}
					h.IP(t, "link", "set", "bond0", "up")
				}
				l.Server.IP(t, "addr", "add", "203.0.113.1/24", "dev", "bond0")
				l.Client.IP(t, "addr", "add", "203.0.113.2/24", "dev", "bond0")
				if err := try(l, loader.Options{Interfaces: []string{"bond0"}, Mode: mode, Policy: policy.Default()}); err != nil {
					t.Skipf("this kernel's bond takes no XDP in this mode: %v", err)
				}
				reached := false
				for range 12 {
					time.Sleep(130 * time.Millisecond)
					if got := past(t, l, 700*time.Millisecond); len(got) != 0 {
						t.Fatalf("packets are said to come past the filter on %v", got)
					}
					err := ping(l.Client, families10[0].server)
					reached = reached || err == nil
				}
				if !reached {
					t.Error("nothing came through the bond: the test shows nothing")
				}
			})
		}
	}
}
