// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"errors"
	"fmt"
	"net"
	"os"

	"github.com/vishvananda/netlink"

	"github.com/portcullis-firewall/portcullis/host"
)

// loan is a real interface that the benchmark has taken into a room, and what it was like before.
type loan struct {
	name   string
	up     bool
	addrs  []netlink.Addr
	routes []netlink.Route
}

// borrow makes a stand of two real interfaces. They move into the rooms, so that no rule of the benchmark meets
// anybody else's packet, and come back with their addresses and routes. Should the process be killed, the kernel
// brings them back without.
func borrow(from, to string, force bool) (_ *stand, err error) {
	s := &stand{}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.close())
		}
	}()
	if from == to {
		return nil, fmt.Errorf("%s: two interfaces are needed, one to send from and one to send to", from)
	}
	var loans []*loan
	for _, name := range []string{from, to} {
		l, err := inspect(name, force)
		if err != nil {
			return nil, err
		}
		loans = append(loans, l)
	}
	home, err := namespace()
	if err != nil {
		return nil, err
	}
	s.undo = append(s.undo, home.Close)
	if err := s.openRooms(); err != nil {
		return nil, err
	}
	for i, room := range []*room{s.outside, s.inside} {
		if err := s.take(loans[i], room, home); err != nil {
			return nil, err
		}
	}
	if err := s.configure(from, to, true); err != nil {
		return nil, err
	}
	return s, s.outside.do(settle)
}

// inspect refuses interfaces that this host cannot do without.
func inspect(name string, force bool) (*loan, error) {
	link, err := netlink.LinkByName(name)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	l := &loan{name: name, up: link.Attrs().Flags&net.FlagUp != 0}
	if link.Attrs().Flags&net.FlagLoopback != 0 || link.Attrs().EncapType != "ether" {
		return nil, fmt.Errorf("%s: not an Ethernet interface", name)
	}
	if route, err := host.DefaultInterface(); err == nil && route == name && !force {
		return nil, fmt.Errorf("%s carries the default route of this host, which would be cut off for as long as the benchmark runs: "+
			"choose another, or use --force", name)
	}
	if l.addrs, err = netlink.AddrList(link, netlink.FAMILY_ALL); err != nil {
		return nil, fmt.Errorf("%s: list addresses: %w", name, err)
	}
	if addr := sessionAddr(); addr != nil && !force {
		for _, a := range l.addrs {
			if a.IP.Equal(addr) {
				return nil, fmt.Errorf("%s carries the ssh session of this command: choose another, or use --force", name)
			}
		}
	}
	if l.routes, err = netlink.RouteList(link, netlink.FAMILY_ALL); err != nil {
		return nil, fmt.Errorf("%s: list routes: %w", name, err)
	}
	return l, nil
}

// take moves an interface into a room.
func (s *stand) take(l *loan, to *room, home *os.File) error {
	link, err := netlink.LinkByName(l.name)
	if err != nil {
		return err
	}
	err = to.do(func() error {
		ns, err := namespace()
		if err != nil {
			return err
		}
		defer ns.Close()
		moved := make(chan error)
		go func() { moved <- netlink.LinkSetNsFd(link, int(ns.Fd())) }() // from a thread that is still at home
		return <-moved
	})
	if err != nil {
		return fmt.Errorf("%s: take it into a namespace: %w", l.name, err)
	}
	s.undo = append(s.undo, func() error {
		err := to.do(func() error {
			link, err := netlink.LinkByName(l.name)
			if err != nil {
				return err
			}
			return netlink.LinkSetNsFd(link, int(home.Fd()))
		})
		if err == nil {
			err = l.restore()
		}
		if err != nil {
			err = fmt.Errorf("%s: bring it back: %w", l.name, err)
		}
		return err
	})
	return nil
}

// restore gives an interface back its addresses and routes.
func (l *loan) restore() error {
	link, err := netlink.LinkByName(l.name)
	if err != nil {
		return err
	}
	if !l.up {
		return nil
	}
	if err := netlink.LinkSetUp(link); err != nil {
		return err
	}
	for _, a := range l.addrs {
		a.LinkIndex, a.Label = link.Attrs().Index, ""
		if err := netlink.AddrReplace(link, &a); err != nil {
			return fmt.Errorf("address %s: %w", a.IPNet, err)
		}
	}
	// Those that lead straight to the link first: the others are reached by them.
	for _, direct := range []bool{true, false} {
		for _, r := range l.routes {
			if direct != (r.Gw == nil) {
				continue
			}
			r.LinkIndex = link.Attrs().Index
			if err := netlink.RouteReplace(&r); err != nil {
				return fmt.Errorf("route %s: %w", r, err)
			}
		}
	}
	return nil
}

// sessionAddr is the address of this host that the ssh session of this command came to, or nil.
func sessionAddr() net.IP {
	var client, server string
	var from, to int
	if _, err := fmt.Sscan(os.Getenv("SSH_CONNECTION"), &client, &from, &server, &to); err != nil {
		return nil
	}
	return net.ParseIP(server)
}
