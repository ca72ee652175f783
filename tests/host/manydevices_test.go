// SPDX-License-Identifier: Apache-2.0

package host

import (
	"context"
	"fmt"
	"net/netip"
	"path/filepath"
	"testing"
	"time"

	"github.com/cilium/ebpf"

	"github.com/portcullis-firewall/portcullis/loader"
	"github.com/portcullis-firewall/portcullis/loader/pin"
	"github.com/portcullis-firewall/portcullis/tests/internal/lab"
)

const manyInterfaces = 12

// addManyInterfaces adds interfaces v0, v1 ... between client and server, and lets the probe send by each.
func addManyInterfaces(t *testing.T, l *lab.Lab, p *probe) (names []string) {
	t.Helper()
	for i := range manyInterfaces {
		name := fmt.Sprint("v", i)
		addNumberedVeth(t, l, name, i)
		names = append(names, name)
		p.outside = append(p.outside, outsider{l.Client, netip.AddrFrom4([4]byte{10, 9, byte(i), 1}), keptSocket(t, l.Client, 0)})
	}
	return names
}

func addNumberedVeth(t *testing.T, l *lab.Lab, name string, number int) {
	t.Helper()
	l.Server.IP(t, "link", "add", "name", name, "type", "veth", "peer", "name", name, "netns", l.Client.Name)
	for end, h := range []*lab.Host{l.Server, l.Client} {
		h.IP(t, "link", "set", name, "up")
		h.IP(t, "addr", "add", fmt.Sprintf("10.9.%d.%d/24", number, end+1), "dev", name)
	}
}

// programsOf returns how many different programs interfaces have for a direction.
func programsOf(t *testing.T, l *lab.Lab, names []string, direction string) int {
	t.Helper()
	ids := make(map[ebpf.ProgramID]bool)
	for _, name := range names {
		prog, err := ebpf.LoadPinnedProgram(pin.Program(filepath.Join(l.PinPath, loader.Schema, "policy"), name, direction), nil)
		if err != nil {
			t.Fatal(err)
		}
		info, err := prog.Info()
		prog.Close()
		if err != nil {
			t.Fatal(err)
		}
		id, _ := info.ID()
		ids[id] = true
	}
	return len(ids)
}

// Many interfaces of the same rules have one program for each direction, which the kernel verifies once, and filter as one
// interface does; a few have programs of their own. A device that comes again is known to them.
func TestManyInterfacesShareTheirPrograms(t *testing.T) {
	for _, mode := range []loader.Mode{loader.ModeNative, loader.ModeTC} {
		t.Run(string(mode), func(t *testing.T) {
			lab.NeedsVeth(t, "more interfaces")
			l := lab.New(t)
			p := newProbe(t, l)
			few := []string{"eth0"}
			names := append(few, addManyInterfaces(t, l, p)...)
			o := order{Interfaces: few, Mode: mode, Rules: []string{"7/udp", "8/udp", "9/udp"}}
			putInForce(t, l, o)
			o.Interfaces = names[:4]
			putInForce(t, l, o)
			if n := programsOf(t, l, names[:4], pin.Out); n != 4 {
				t.Errorf("4 interfaces have %d programs for what goes out", n)
			}
			o.Interfaces = names
			putInForce(t, l, o)
			for _, direction := range []string{pin.In, pin.Out} {
				if n := programsOf(t, l, names, direction); n != 1 {
					t.Errorf("%d interfaces have %d programs of direction %s", len(names), n, direction)
				}
			}
			p.mustSee(t, "9/udp")
			mustNotBeBypassed(t, l)
			// One of other rules has others.
			o.Rules = []string{"7/udp", "8/udp", "10/udp", "11/udp on v3"}
			putInForce(t, l, o)
			for _, direction := range []string{pin.In, pin.Out} {
				if n := programsOf(t, l, names, direction); n != 2 {
					t.Errorf("%d interfaces of two kinds have %d programs of direction %s", len(names), n, direction)
				}
			}
			o.Rules = []string{"7/udp", "8/udp", "10/udp"}
			putInForce(t, l, o)
			p.mustSee(t, "10/udp")
			l.Server.IP(t, "link", "del", "v3")
			addNumberedVeth(t, l, "v3", 3)
			l.Server.Do(t, func() error {
				report, err := loader.Attach(context.Background(), l.PinPath, loader.ModeAuto)
				if err == nil && len(report.Attached) != 1 {
					t.Errorf("attached again: %+v", report)
				}
				return err
			})
			p.mustSee(t, "10/udp")
			mustNotBeBypassed(t, l)
			with(t, l, func(f *loader.Filter) error {
				changes, err := f.HostChanges()
				if changes != (loader.HostChanges{}) {
					t.Errorf("programs do not know their devices: %+v", changes)
				}
				return err
			})
			down(t, l)
			mustBeClean(t, l)
		})
	}
}

// mustNotBeBypassed fails where the programs of an interface do not note that they run.
func mustNotBeBypassed(t *testing.T, l *lab.Lab) {
	t.Helper()
	with(t, l, func(f *loader.Filter) error {
		past, err := f.Bypassed(context.Background(), 100*time.Millisecond)
		if len(past) > 0 {
			t.Errorf("packets pass the programs by on %+v", past)
		}
		return err
	})
}
