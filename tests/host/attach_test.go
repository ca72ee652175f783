// SPDX-License-Identifier: Apache-2.0

package host

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
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

// try is Up that may fail.
func try(l *lab.Lab, o loader.Options) error {
	o.PinPath = l.PinPath
	return l.Server.Try(func() error {
		_, err := loader.Up(context.Background(), o)
		return err
	})
}

func down(t testing.TB, l *lab.Lab, interfaces ...string) (report *loader.DownReport) {
	t.Helper()
	l.Server.Do(t, func() (err error) {
		report, err = loader.Down(context.Background(), l.PinPath, interfaces)
		return err
	})
	return report
}

// mustBeClean fails when anything of ours is left on an interface or pinned.
func mustBeClean(t testing.TB, l *lab.Lab) {
	t.Helper()
	if _, err := os.Stat(l.PinPath); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%s is left: %v", l.PinPath, err)
	}
	mustHaveNothing(t, l, "eth0")
}

// mustHaveNothing fails when a program of ours is on an interface of the server.
func mustHaveNothing(t testing.TB, l *lab.Lab, dev string) {
	t.Helper()
	if qdiscs := l.Server.Run(t, "tc", "qdisc", "show", "dev", dev); strings.Contains(qdiscs, "clsact") {
		t.Errorf("a qdisc is left on %s: %s", dev, qdiscs)
	}
	for _, id := range programsOn(t, l, dev) {
		prog, err := ebpf.NewProgramFromID(id)
		if err != nil {
			t.Fatal(err)
		}
		if info, err := prog.Info(); err != nil || strings.HasPrefix(info.Name, "portcullis") {
			t.Errorf("program %d (%v) is left on %s: %v", id, info.Name, dev, err)
		}
		prog.Close()
	}
}

// programsOn lists the programs on an interface of the server, but for those in a qdisc.
func programsOn(t testing.TB, l *lab.Lab, dev string) (ids []ebpf.ProgramID) {
	t.Helper()
	l.Server.Do(t, func() error {
		device, err := netlink.LinkByName(dev)
		if err != nil {
			return err
		}
		if xdp := device.Attrs().Xdp; xdp != nil && xdp.Attached {
			ids = append(ids, ebpf.ProgramID(xdp.ProgId))
		}
		for _, hook := range []ebpf.AttachType{ebpf.AttachTCXIngress, ebpf.AttachTCXEgress} {
			result, err := link.QueryPrograms(link.QueryOptions{Target: device.Attrs().Index, Attach: hook})
			if errors.Is(err, link.ErrNotSupported) || errors.Is(err, unix.EINVAL) {
				continue // no TCX before Linux 6.6
			}
			if err != nil {
				return err
			}
			for _, p := range result.Programs {
				ids = append(ids, p.ID)
			}
		}
		return nil
	})
	return ids
}

func TestUpAndDownLeaveNothing(t *testing.T) {
	eachMode(t, func(t *testing.T, l *lab.Lab, mode loader.Mode) {
		l.Server.Echo(t, 7)
		up(t, l, mode, policy.Default())
		got := status(t, l).Interfaces
		if len(got) != 1 || got[0].Name != "eth0" || got[0].Mode != mode || !got[0].Present {
			t.Errorf("status says %+v", got)
		}
		mustNotDial(t, l.Client, lab.ServerV4, 7)
		down(t, l)
		mustBeClean(t, l)
		mustTalk(t, mustDial(t, l.Client, "tcp", lab.ServerV4, 7), "open again")
	})
}

// Before Linux 6.6 there is no TCX; the same story with clsact.
func TestClsact(t *testing.T) {
	l := lab.New(t)
	l.Server.Echo(t, 7)
	l.Client.Echo(t, 8)
	for _, mode := range []loader.Mode{loader.ModeTC, loader.ModeNative} {
		options := loader.Options{Interfaces: []string{"eth0"}, Mode: mode, Policy: policy.Default(), NoTCX: true}
		upWith(t, l, options)
		if got := status(t, l).Interfaces[0]; got.Egress != "clsact" || got.Mode != mode || !got.Present {
			t.Errorf("status says %+v", got)
		}
		for _, f := range families {
			mustNotDial(t, l.Client, f.server, 7)
			mustTalk(t, mustDial(t, l.Server, "tcp", f.client, 8), "out")
		}
		options.Policy = policyOf(t, "7/tcp")
		upWith(t, l, options)
		mustTalk(t, mustDial(t, l.Client, "tcp", lab.ServerV4, 7), "updated in place")
		down(t, l)
		mustBeClean(t, l)
	}
}

func TestSecondUpUpdatesInPlace(t *testing.T) {
	eachMode(t, func(t *testing.T, l *lab.Lab, mode loader.Mode) {
		l.Server.Echo(t, 7)
		l.Server.Echo(t, 9)
		l.Client.Echo(t, 8)
		up(t, l, mode, policyOf(t, "7/tcp", "9/tcp"))
		out := mustDial(t, l.Server, "tcp", lab.ClientV4, 8)
		mustTalk(t, mustDial(t, l.Client, "tcp", lab.ServerV4, 9), "count me")
		live := mustDial(t, l.Client, "tcp", lab.ServerV4, 7)
		mustTalk(t, live, "live")
		before := status(t, l)

		// Port 7 goes, 9 stays and now is the first rule, 10 comes.
		report := up(t, l, loader.ModeAuto, policyOf(t, "9/tcp", "10/tcp"))
		if !report.Updated || report.Interfaces[0].Mode != mode {
			t.Errorf("the second up reports %+v", report)
		}
		after := status(t, l)
		hits := func(s *loader.Status, rule string) uint64 {
			for _, r := range s.Rules {
				if r.Rule == rule {
					return r.Packets
				}
			}
			return 0
		}
		if hits(after, "9/tcp") < hits(before, "9/tcp") || hits(before, "9/tcp") == 0 || hits(after, "10/tcp") != 0 {
			t.Errorf("hits were not kept: %+v then %+v", before.Rules, after.Rules)
		}
		mustTalk(t, out, "our flow is kept")
		mustTalk(t, live, "a connection of a port that went is kept")
		mustNotDial(t, l.Client, lab.ServerV4, 7)
		mustTalk(t, mustDial(t, l.Client, "tcp", lab.ServerV4, 9), "still open")
	})
}

func TestModeCanChange(t *testing.T) {
	l := lab.New(t)
	l.Server.Echo(t, 7)
	up(t, l, loader.ModeNative, policy.Default())
	up(t, l, loader.ModeTC, policy.Default())
	if got := status(t, l).Interfaces[0].Mode; got != loader.ModeTC {
		t.Errorf("mode is %s", got)
	}
	mustNotDial(t, l.Client, lab.ServerV4, 7)
	up(t, l, loader.ModeAuto, policy.Default()) // the one on standby is of another mode
	mustNotDial(t, l.Client, lab.ServerV4, 7)
	up(t, l, loader.ModeGeneric, policy.Default())
	if got := status(t, l).Interfaces[0].Mode; got != loader.ModeGeneric {
		t.Errorf("mode is %s", got)
	}
	mustNotDial(t, l.Client, lab.ServerV4, 7)
	err := try(l, loader.Options{Interfaces: []string{"eth0"}, Mode: loader.ModeNative, Policy: policy.Default()})
	if err == nil || !strings.Contains(err.Error(), "portcullis down eth0") {
		t.Errorf("generic to native: %v, want what to do", err)
	}
	mustNotDial(t, l.Client, lab.ServerV4, 7)
}

// foreign attaches an XDP program that is not ours.
func foreign(t *testing.T, h *lab.Host, dev string) ebpf.ProgramID {
	t.Helper()
	prog, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Name:         "stranger",
		Type:         ebpf.XDP,
		License:      "GPL",
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 2), asm.Return()},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { prog.Close() })
	h.Do(t, func() error {
		dev, err := netlink.LinkByName(dev)
		if err != nil {
			return err
		}
		l, err := link.AttachXDP(link.XDPOptions{Program: prog, Interface: dev.Attrs().Index})
		if err == nil {
			t.Cleanup(func() { l.Close() })
		}
		return err
	})
	info, err := prog.Info()
	if err != nil {
		t.Fatal(err)
	}
	id, _ := info.ID()
	return id
}

func TestForeignProgramIsNotReplaced(t *testing.T) {
	for _, mode := range []loader.Mode{loader.ModeAuto, loader.ModeNative, loader.ModeGeneric} {
		t.Run(string(mode), func(t *testing.T) {
			l := lab.New(t)
			id := foreign(t, l.Server, "eth0")
			err := try(l, loader.Options{Interfaces: []string{"eth0"}, Mode: mode, Policy: policy.Default()})
			if !errors.Is(err, loader.ErrForeignProgram) {
				t.Fatalf("got %v", err)
			}
			for _, want := range []string{"eth0", "stranger", fmt.Sprint(id), "--mode tc"} {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("the error %q does not say %q", err, want)
				}
			}
			if _, err := os.Stat(l.PinPath); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("pins are left: %v", err)
			}
			mustHaveNothing(t, l, "eth0")
			l.Server.Echo(t, 7)
			up(t, l, loader.ModeTC, policy.Default()) // beside it there is room
			mustNotDial(t, l.Client, lab.ServerV4, 7)
			down(t, l)
		})
	}
}

func TestHalfDoneAttachIsUndone(t *testing.T) {
	l := lab.New(t)
	l.Server.IP(t, "link", "add", "eth1", "type", "veth", "peer", "name", "eth2")
	foreign(t, l.Server, "eth1")
	l.Server.Echo(t, 7)
	both := loader.Options{Interfaces: []string{"eth0", "eth1"}, Policy: policy.Default()}
	if err := try(l, both); !errors.Is(err, loader.ErrForeignProgram) {
		t.Fatalf("got %v", err)
	}
	mustBeClean(t, l)
	mustTalk(t, mustDial(t, l.Client, "tcp", lab.ServerV4, 7), "nothing filters")

	// The same over a running filter: it goes on with the policy that it had.
	up(t, l, loader.ModeNative, policyOf(t, "7/tcp"))
	if err := try(l, both); !errors.Is(err, loader.ErrForeignProgram) {
		t.Fatalf("got %v", err)
	}
	mustTalk(t, mustDial(t, l.Client, "tcp", lab.ServerV4, 7), "the old policy")
	if got := status(t, l); len(got.Interfaces) != 1 || len(got.Rules) != 1 {
		t.Errorf("status says %+v", got)
	}
}

func TestUnknownInterfaceAndLoopback(t *testing.T) {
	l := lab.New(t)
	for name, want := range map[string]string{"eth9": "found: eth0", "lo": "loopback"} {
		err := try(l, loader.Options{Interfaces: []string{name}, Policy: policy.Default()})
		if err == nil || !strings.Contains(err.Error(), name) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v", name, err)
		}
	}
	mustBeClean(t, l)
}

func TestNamespacesDoNotMeet(t *testing.T) {
	a, b := lab.New(t), lab.New(t)
	a.Server.Echo(t, 7)
	b.Server.Echo(t, 7)
	up(t, a, loader.ModeNative, policy.Default())
	up(t, b, loader.ModeTC, policyOf(t, "7/tcp"))
	mustNotDial(t, a.Client, lab.ServerV4, 7)
	mustTalk(t, mustDial(t, b.Client, "tcp", lab.ServerV4, 7), "hello")

	err := b.Server.Try(func() error {
		_, err := loader.Open(context.Background(), a.PinPath)
		return err
	})
	if !errors.Is(err, loader.ErrOtherNamespace) {
		t.Errorf("another namespace's filter: %v", err)
	}
	down(t, b)
	mustNotDial(t, a.Client, lab.ServerV4, 7)
}

// What a namespace leaves behind stands in nobody's way.
func TestPinsOfADeadNamespace(t *testing.T) {
	dead, l := lab.New(t), lab.New(t)
	up(t, dead, loader.ModeNative, policy.Default())
	l.PinPath = dead.PinPath
	if out, err := exec.Command("ip", "netns", "del", dead.Server.Name).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	var err error
	for range 300 { // the kernel takes a namespace down in its own time
		err = try(l, loader.Options{Interfaces: []string{"eth0"}, Policy: policy.Default()})
		if !errors.Is(err, loader.ErrOtherNamespace) {
			break
		}
		time.Sleep(100 * time.Millisecond)
	}
	if err != nil {
		t.Fatal(err)
	}
	l.Server.Echo(t, 7)
	mustNotDial(t, l.Client, lab.ServerV4, 7)
}

func TestInterfaceMadeAnew(t *testing.T) {
	lab.NeedsVeth(t, "deletes its interface")
	l := lab.New(t)
	up(t, l, loader.ModeNative, policy.Default())
	l.Server.IP(t, "link", "del", "eth0")
	awaited := func() (text string) {
		i := status(t, l).Interfaces[0]
		l.Server.Do(t, func() error {
			text = i.AwaitedText(false)
			return nil
		})
		return text
	}
	const gone = "eth0 is gone: \"portcullis run\" filters it when it is back"
	if s, text := status(t, l), awaited(); s.Interfaces[0].Present || text != gone {
		t.Errorf("status of a filter without its interface: %q, present %v", text, s.Interfaces[0].Present)
	}
	l.Server.IP(t, "link", "add", "name", "eth0", "type", "veth", "peer", "name", "eth0", "netns", l.Client.Name)
	for h, addr := range map[*lab.Host]string{l.Server: "192.0.2.1/24", l.Client: "192.0.2.2/24"} {
		h.IP(t, "link", "set", "eth0", "up")
		h.IP(t, "addr", "add", addr, "dev", "eth0")
	}
	const recreated = "eth0 was deleted and re-created, and is not filtered: run \"portcullis up eth0\""
	if s, text := status(t, l), awaited(); s.Interfaces[0].Present || text != "" || !slices.Contains(s.Warnings, recreated) {
		t.Errorf("another interface of the same name is taken for filtered: %q, warnings %q", text, s.Warnings)
	}
	l.Server.Echo(t, 7)
	up(t, l, loader.ModeNative, policy.Default())
	mustNotDial(t, l.Client, lab.ServerV4, 7)
	if s := status(t, l); !s.Interfaces[0].Present {
		t.Errorf("status after the second up: %+v", s)
	}
}

// A MAC that changes under the filter must not make its own frames look like another host's.
func TestChangedMACDoesNotOpenTheHost(t *testing.T) {
	eachMode(t, func(t *testing.T, l *lab.Lab, mode loader.Mode) {
		l.Server.Echo(t, 7)
		up(t, l, mode, policy.Default())
		l.Server.IP(t, "link", "set", "eth0", "address", "02:00:00:00:00:77")
		l.Client.Command("ip", "neigh", "flush", "dev", "eth0").Run()
		mustNotDial(t, l.Client, lab.ServerV4, 7)
		if got := counter(t, l, "closed port"); got == 0 {
			t.Error("nothing reached the filter: the test shows nothing")
		}
	})
}

func TestInterfaceNameWithDot(t *testing.T) {
	l := lab.New(t)
	l.Server.IP(t, "link", "add", "br.10", "type", "bridge")
	l.Server.IP(t, "link", "set", "br.10", "up")
	upWith(t, l, loader.Options{Interfaces: []string{"br.10"}, Policy: policy.Default()})
	if got := status(t, l).Interfaces; len(got) != 1 || got[0].Name != "br.10" || !got[0].Present {
		t.Errorf("status says %+v", got)
	}
	down(t, l)
}

func TestOneInterfaceOfTwoGoesDown(t *testing.T) {
	l := lab.New(t)
	inside := l.AddInside(t)
	l.Server.Echo(t, 7)
	upWith(t, l, loader.Options{Interfaces: []string{"eth0", "eth1"}, Policy: policy.Default()})
	mustNotDial(t, l.Client, lab.ServerV4, 7)
	mustNotDial(t, inside, lab.RouterV4, 7)
	down(t, l, "eth1")
	mustTalk(t, mustDial(t, inside, "tcp", lab.RouterV4, 7), "open here")
	mustNotDial(t, l.Client, lab.ServerV4, 7)
	down(t, l)
	mustBeClean(t, l)
}
