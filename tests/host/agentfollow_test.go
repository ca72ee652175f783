// SPDX-License-Identifier: Apache-2.0

package host

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/portcullis-firewall/portcullis/loader"
	"github.com/portcullis-firewall/portcullis/policy"
	"github.com/portcullis-firewall/portcullis/tests/internal/lab"
)

// An address that moves from a router to a host behind it is no longer the router's, whose open ports are not its.
func TestAgentFollowsAddresses(t *testing.T) {
	l := lab.New(t)
	inside := l.AddInside(t)
	l.Server.Echo(t, 7)
	inside.Echo(t, 7)
	a := newAgent(t, l, "interfaces: [eth0]\nopen: [7/tcp]\n")
	a.runs()
	for _, moving := range []netip.Addr{netip.MustParseAddr("198.51.100.77"), netip.MustParseAddr("2001:db8:1::77")} {
		bits := map[bool]string{true: "/64", false: "/24"}[moving.Is6()]
		at := func(h *lab.Host, verb, dev string) {
			args := []string{"addr", verb, moving.String() + bits, "dev", dev}
			if verb == "add" && moving.Is6() {
				args = append(args, "nodad")
			}
			h.IP(t, args...)
		}
		at(l.Server, "add", "eth1")
		mustTalk(t, mustDial(t, l.Client, "tcp", moving, 7), "an address of the router")
		a.waitsFor("its entry", func() bool { return a.local(moving) })
		at(l.Server, "del", "eth1")
		a.waitsFor("end of its entry", func() bool { return !a.local(moving) })
		at(inside, "add", "eth0")
		before := counter(t, l, "forward")
		mustNotDial(t, l.Client, moving, 7)
		if got := counter(t, l, "forward"); got == before {
			t.Error("the packets were not judged as routed ones")
		}
	}
}

// local tells whether the filter takes packets to an address for the host's own without asking the routing table.
func (a *agent) local(addr netip.Addr) bool {
	a.t.Helper()
	name := map[bool]string{true: "local6", false: "local4"}[addr.Is6()]
	m, err := ebpf.LoadPinnedMap(filepath.Join(a.lab.PinPath, loader.Schema+"/maps", name), &ebpf.LoadPinOptions{ReadOnly: true})
	if err != nil {
		a.t.Fatal(err)
	}
	defer m.Close()
	key := append(binary.NativeEndian.AppendUint32(nil, uint32(addr.BitLen())), addr.AsSlice()...)
	err = m.Lookup(key, new(uint8))
	if err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
		a.t.Fatal(err)
	}
	return err == nil
}

// isOutdated reports whether the programs are loaded for another host than this is now.
func (a *agent) isOutdated() bool {
	a.t.Helper()
	return hostChanges(a.t, a.lab) != loader.HostChanges{}
}

func hostChanges(t *testing.T, l *lab.Lab) (d loader.HostChanges) {
	t.Helper()
	with(t, l, func(f *loader.Filter) (err error) {
		d, err = f.HostChanges()
		return err
	})
	return d
}

func TestHostChanges(t *testing.T) {
	l := lab.New(t)
	up(t, l, loader.ModeAuto, policyOf(t, "7/tcp"))
	with(t, l, func(f *loader.Filter) error {
		_, err := f.OpenRules(rules(t, "9/tcp"), true)
		return err
	})
	for want, change := range map[loader.HostChanges]func(){
		{MAC: "eth0", Changed: true}: func() { l.Server.IP(t, "link", "set", "eth0", "address", "02:00:00:00:00:77") },
	} {
		if got := hostChanges(t, l); got != (loader.HostChanges{}) {
			t.Errorf("nothing has changed, and the filter has %+v", got)
		}
		change()
		if got := hostChanges(t, l); got != want {
			t.Errorf("got %+v, want %+v", got, want)
		}
		upWith(t, l, loader.Options{}) // with the policy in force, whole
		if got := status(t, l).Rules; len(got) != 2 || got[0].Runtime || !got[1].Runtime {
			t.Errorf("the rules became %+v", got)
		}
	}
	if got := hostChanges(t, l); got != (loader.HostChanges{}) {
		t.Errorf("programs loaded anew have %+v", got)
	}
	down(t, l)
	if err := try(l, loader.Options{}); !errors.Is(err, loader.ErrNotRunning) {
		t.Errorf("there is no policy in force to load programs for, and up says %v", err)
	}
	mustBeClean(t, l)
}

func TestAgentRespectsDown(t *testing.T) {
	lab.NeedsVeth(t, "deletes an interface")
	l := lab.New(t)
	inside := l.AddInside(t)
	l.Server.Echo(t, 7)
	a := newAgent(t, l, "interfaces: [eth0, eth1]\n")
	a.runs()
	flap := func() {
		l.Server.IP(t, "link", "del", "eth1")
		l.Server.IP(t, "link", "add", "name", "eth1", "type", "veth", "peer", "name", "eth0", "netns", inside.Name)
	}

	// One of two, in the middle of its coming back.
	for i := range 5 {
		flapped := make(chan struct{})
		go func() {
			defer close(flapped)
			time.Sleep(time.Duration(i) * 4 * time.Millisecond)
			flap()
		}()
		a.types("down", "eth1")
		<-flapped
		flap()
		a.writes("interfaces: [eth0, eth1]\nopen: [http]\n")
		a.opens("http")
		time.Sleep(300 * time.Millisecond)
		if a.filters("eth1") || !a.filters("eth0") {
			t.Fatalf("after \"down eth1\" there is %+v", status(t, l).Interfaces)
		}
		a.writes("interfaces: [eth0, eth1]\n")
		a.closes("http")
		a.signals(unix.SIGHUP)
		a.waitsFor("eth1 by SIGHUP", func() bool { return a.filters("eth1") })
	}

	a.types("down")
	a.waitsFor("word of it", func() bool { return a.says("unprotected") })
	flap()
	a.writes("interfaces: [eth0, eth1]\nopen: [http]\n")
	l.Server.Sysctl(t, "ipv6/conf/all/forwarding", "0")
	time.Sleep(time.Second)
	mustBeClean(t, l)
	mustTalk(t, mustDial(t, l.Client, "tcp", lab.ServerV4, 7), "nothing filters")

	a.signals(unix.SIGHUP)
	a.waitsFor("filter", func() bool { return a.says("filtering eth0, eth1") })
	mustNotDial(t, l.Client, lab.ServerV4, 7)

	// And what up puts up the agent keeps.
	a.types("down")
	a.waitsFor("word of it", func() bool { return a.says("unprotected") })
	a.types("--config", a.file(), "up", "eth1")
	a.waitsFor("word of it", func() bool { return a.says("filtering eth1") })
	flap()
	a.waitsFor("eth1", func() bool { return a.filters("eth1") })
	if got := status(t, l).Interfaces; len(got) != 1 {
		t.Errorf("filtered are %+v, want eth1 alone", got)
	}
}

// Down while programs are being loaded for a change of the host.
func TestDownDuringARenewal(t *testing.T) {
	l := lab.New(t)
	a := newAgent(t, l, "interfaces: [eth0]\n")
	a.runs()
	for i := range 4 {
		l.Server.Sysctl(t, "ipv4/conf/all/forwarding", []string{"1", "0"}[i%2])
		time.Sleep(time.Duration(i) * 90 * time.Millisecond)
		a.types("down")
		time.Sleep(time.Second)
		if _, err := os.Stat(l.PinPath); !errors.Is(err, os.ErrNotExist) {
			t.Fatalf("%d: the filter came back after down: %v", i, err)
		}
		a.signals(unix.SIGHUP)
		a.waitsFor("filter", func() bool {
			_, err := os.Stat(l.PinPath)
			return err == nil && a.says("filtering eth0")
		})
	}
}

// An interface belongs to the filter until it is taken off, whoever replaces the policy while it is gone.
func TestUpKeepsAnInterfaceThatIsGone(t *testing.T) {
	lab.NeedsVeth(t, "deletes its interface")
	l := lab.New(t)
	l.AddInside(t)
	upWith(t, l, loader.Options{Interfaces: []string{"eth0", "eth1"}, Policy: policy.Default()})
	l.Server.IP(t, "link", "del", "eth1")
	if report := up(t, l, loader.ModeAuto, policy.Default()); len(report.Warnings) != 1 {
		t.Errorf("up says %q of the interface that is gone", report.Warnings)
	}
	if got := status(t, l).Interfaces; len(got) != 2 || got[1].Name != "eth1" || got[1].Present {
		t.Errorf("status says %+v", got)
	}
	down(t, l, "eth1")
	if got := status(t, l).Interfaces; len(got) != 1 {
		t.Errorf("after down status says %+v", got)
	}
	down(t, l)
	mustBeClean(t, l)
}
