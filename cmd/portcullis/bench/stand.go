// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"slices"

	"github.com/cilium/ebpf/link"
	"github.com/safchain/ethtool"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// The two hosts have addresses from the documentation prefixes. Everything else is behind the outside one.
var (
	outsideAddr = netip.MustParseAddr("192.0.2.2")
	insideAddr  = netip.MustParseAddr("192.0.2.1")
)

// end is one end of the cable.
type end struct {
	name  string
	index int
	mac   net.HardwareAddr
	veth  bool
}

// stand is a host to be protected, one outside, and the cable between them.
type stand struct {
	outside, inside *room
	from, to        end
	undo            []func() error
}

// newStand makes a stand of two rooms and a veth pair. A quiet one is for packets: nobody answers outside, and both
// ends poll, as network cards do. Else the devices are as the kernel makes them.
func newStand(quiet bool) (_ *stand, err error) {
	s := &stand{}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.close())
		}
	}()
	if err := s.openRooms(); err != nil {
		return nil, err
	}
	err = s.acrossTo(func(fd int) error {
		return netlink.LinkAdd(&netlink.Veth{
			LinkAttrs:     netlink.LinkAttrs{Name: "outside"},
			PeerName:      "inside",
			PeerNamespace: netlink.NsFd(fd),
		})
	})
	if err != nil {
		return nil, fmt.Errorf("make a veth pair: %w", err)
	}
	return s, s.configure("outside", "inside", quiet)
}

func (s *stand) openRooms() (err error) {
	for _, r := range []**room{&s.outside, &s.inside} {
		if *r, err = newRoom(); err != nil {
			return err
		}
		s.undo = append(s.undo, func() error { (*r).close(); return nil })
	}
	return nil
}

// acrossTo does work outside that needs the namespace inside.
func (s *stand) acrossTo(work func(namespace int) error) error {
	return s.inside.do(func() error {
		ns, err := namespace()
		if err != nil {
			return err
		}
		defer ns.Close()
		return s.outside.do(func() error { return work(int(ns.Fd())) })
	})
}

// configure gives both ends their addresses and settings.
func (s *stand) configure(from, to string, quiet bool) error {
	for _, side := range []struct {
		room *room
		end  *end
		name string
		addr netip.Addr
	}{{s.outside, &s.from, from, outsideAddr}, {s.inside, &s.to, to, insideAddr}} {
		if err := side.room.do(func() (err error) {
			*side.end, err = plug(side.name, side.addr, quiet)
			return err
		}); err != nil {
			return fmt.Errorf("%s: %w", side.name, err)
		}
	}
	for _, side := range []struct {
		room     *room
		end, far end
		addr     netip.Addr
	}{{s.outside, s.from, s.to, insideAddr}, {s.inside, s.to, s.from, outsideAddr}} {
		if err := side.room.do(func() error { return introduce(side.end, side.far, side.addr) }); err != nil {
			return fmt.Errorf("%s: %w", side.end.name, err)
		}
	}
	if err := s.inside.do(func() error { return routeOut(s.to) }); err != nil {
		return err
	}
	if !quiet {
		return nil
	}
	return s.outside.do(func() error { return s.silence() })
}

// plug brings an interface up. Nothing may be heard on it but what is sent on purpose, so there is no IPv6, which
// speaks first.
func plug(name string, addr netip.Addr, quiet bool) (e end, err error) {
	for _, key := range []string{"ipv4/conf/all/rp_filter", "ipv4/conf/" + name + "/rp_filter"} {
		if err := setting(key, "0"); err != nil {
			return e, err
		}
	}
	if err := setting("ipv6/conf/"+name+"/disable_ipv6", "1"); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return e, err
	}
	l, err := netlink.LinkByName(name)
	if err != nil {
		return e, err
	}
	e = end{name, l.Attrs().Index, slices.Clone(l.Attrs().HardwareAddr), l.Type() == "veth"}
	if lo, err := netlink.LinkByName("lo"); err != nil {
		return e, err
	} else if err := netlink.LinkSetUp(lo); err != nil {
		return e, err
	}
	if err := netlink.LinkSetUp(l); err != nil {
		return e, err
	}
	if quiet && e.veth {
		if err := poll(name); err != nil {
			return e, err
		}
	}
	return e, netlink.AddrReplace(l, &netlink.Addr{IPNet: &net.IPNet{IP: addr.AsSlice(), Mask: net.CIDRMask(24, 32)}})
}

// poll makes a veth receive as a network card does, in polls of up to 64 frames. Without, frames from XDP do not get
// in where there is no XDP program, and those from pktgen crowd the queue of the CPU.
// It has to be up: else the other end does not learn that it may send frames from XDP here.
func poll(name string) error {
	tool, err := ethtool.NewEthtool()
	if err != nil {
		return err
	}
	defer tool.Close()
	return tool.Change(name, map[string]bool{"rx-gro": true, "tx-tcp-segmentation": false})
}

// introduce tells an interface who is at the other end, so that nobody asks.
func introduce(e, far end, addr netip.Addr) error {
	return netlink.NeighSet(&netlink.Neigh{
		LinkIndex:    e.index,
		State:        netlink.NUD_PERMANENT,
		IP:           addr.AsSlice(),
		HardwareAddr: far.mac,
	})
}

func routeOut(e end) error {
	return netlink.RouteReplace(&netlink.Route{LinkIndex: e.index, Gw: outsideAddr.AsSlice()})
}

// silence drops what comes to the outside host, which otherwise would answer.
func (s *stand) silence() error {
	drop, err := verdictProgram(xdpDrop)
	if err != nil {
		return err
	}
	defer drop.Close()
	l, err := link.AttachXDP(link.XDPOptions{Program: drop, Interface: s.from.index})
	if err != nil {
		return fmt.Errorf("%s: attach an XDP program: %w", s.from.name, err)
	}
	s.undo = append(s.undo, l.Close)
	return nil
}

// received returns the frames that the inside device has taken in.
func (s *stand) received() (n uint64, err error) {
	err = s.inside.do(func() error {
		l, err := netlink.LinkByIndex(s.to.index)
		if err == nil {
			n = l.Attrs().Statistics.RxPackets
		}
		return err
	})
	return n, err
}

func (s *stand) close() error {
	var errs []error
	for _, step := range slices.Backward(s.undo) {
		errs = append(errs, step())
	}
	s.undo = nil
	return errors.Join(errs...)
}

// settle holds the calling thread to one CPU, the last that it may use: the first is where interrupts go.
func settle() error {
	var allowed, last unix.CPUSet
	if err := unix.SchedGetaffinity(0, &allowed); err != nil {
		return err
	}
	for cpu := len(allowed)*64 - 1; cpu >= 0; cpu-- {
		if allowed.IsSet(cpu) {
			last.Set(cpu)
			break
		}
	}
	return unix.SchedSetaffinity(0, &last)
}
