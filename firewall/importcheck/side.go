// SPDX-License-Identifier: Apache-2.0

package importcheck

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/portcullis-firewall/portcullis/firewall/nflog"
)

const (
	logGroup = 5
	patience = 10 * time.Second
)

// observe is behind every filter of input, so it sees what was let in. What the host has to say is nobody's business.
const observe = "*security\n-A INPUT -j NFLOG --nflog-group 5\nCOMMIT\n*raw\n-A OUTPUT -j DROP\nCOMMIT\n"

// side is one of the two hosts that get the same packets, with a wire from here to each of its cards.
type side struct {
	*space
	name  string
	log   *nflog.Reader
	arp   int            // hears barriers
	wires map[string]int // index of the near end, by card
	send  int
	last  string // the card that got the last packet
	sent  uint32 // barriers
}

// newSide makes a host with some cards, whose other ends are in the namespace here.
func newSide(name, here string, cards []string) (*side, error) {
	s := &side{name: name, wires: make(map[string]int), arp: -1, send: -1}
	var err error
	if s.space, err = newSpace(); err != nil {
		return nil, err
	}
	if err := s.setUp(here, cards); err != nil {
		s.end()
		return nil, err
	}
	return s, nil
}

func (s *side) setUp(here string, cards []string) (err error) {
	var far, near strings.Builder
	far.WriteString("link set lo up\n")
	for i, card := range cards {
		wire := fmt.Sprintf("%s%d", s.name, i)
		fmt.Fprintf(&far, "link add name %s type veth peer name %s netns %s\nlink set %s address %s\nlink set %s up\n",
			card, wire, here, card, net.HardwareAddr(hostMAC[:]), card)
		fmt.Fprintf(&near, "link set %s address %s\nlink set %s up\n", wire, net.HardwareAddr(peerMAC[:]), wire)
	}
	off := map[string]string{"ipv6/conf/default/accept_dad": "0", "ipv6/conf/default/accept_ra": "0", "ipv4/conf/default/rp_filter": "0", "ipv4/conf/all/rp_filter": "0",
		"ipv6/conf/default/router_solicitations": "0"}
	if err := s.sysctl(off); err != nil {
		return err
	}
	if err := s.run(far.String(), "ip", "-batch", "-"); err != nil {
		return err
	}
	if err := run(near.String(), "ip", "-batch", "-"); err != nil {
		return err
	}
	for _, tool := range tools {
		if err := s.run(observe, tool); err != nil {
			return err
		}
	}
	if s.send, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0); err != nil {
		return fmt.Errorf("open a packet socket: %w", err)
	}
	for i, card := range cards {
		device, err := net.InterfaceByName(fmt.Sprintf("%s%d", s.name, i))
		if err != nil {
			return err
		}
		s.wires[card] = device.Index
	}
	return s.do(func() (err error) {
		if s.log, err = nflog.Listen(logGroup, patience); err != nil {
			return err
		}
		kind := int(networkOrder(unix.ETH_P_ARP))
		if s.arp, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, kind); err != nil {
			return fmt.Errorf("open a packet socket: %w", err)
		}
		timeout := unix.NsecToTimeval(int64(patience))
		return unix.SetsockoptTimeval(s.arp, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &timeout)
	})
}

func networkOrder(n uint16) uint16 {
	return binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, n))
}

func (s *side) close() {
	if s.log != nil {
		s.log.Close()
	}
	for _, fd := range []int{s.arp, s.send} {
		if fd >= 0 {
			unix.Close(fd)
		}
	}
	s.end()
}

// own gives the host addresses.
func (s *side) own(card string, addrs []netip.Addr) error {
	var b strings.Builder
	for _, a := range addrs {
		nodad := ""
		if a.Is6() {
			nodad = " nodad"
		}
		fmt.Fprintf(&b, "addr replace %s/%d dev %s%s\n", a, a.BitLen(), card, nodad)
	}
	return s.run(b.String(), "ip", "-batch", "-")
}

// put sends a frame to a card, and again where a slow machine has a queue full of what came before.
func (s *side) put(card string, frame []byte) (err error) {
	s.last = card
	for range 200 {
		if err = unix.Sendto(s.send, frame, 0, &unix.SockaddrLinklayer{Ifindex: s.wires[card]}); !errors.Is(err, unix.ENOBUFS) {
			return err
		}
		time.Sleep(time.Millisecond)
	}
	return err
}

// seen returns the markers of the packets that were let in since it was last asked.
func (s *side) seen() (markers []uint16, err error) {
	if s.last == "" {
		return nil, nil
	}
	s.sent++
	if err := s.put(s.last, barrier(s.sent)); err != nil {
		return nil, err
	}
	buffer := make([]byte, 256)
	for {
		n, _, err := unix.Recvfrom(s.arp, buffer, 0)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("the end of what was sent does not arrive: %w", err)
		}
		if number, ok := barrierOf(buffer[:n]); ok && number == s.sent {
			break
		}
	}
	for {
		p, err := s.log.Waiting()
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return markers, nil
		}
		if err != nil {
			return nil, fmt.Errorf("read what was let in: %w", err)
		}
		if m, ok := markerOf(p.Data); ok {
			markers = append(markers, m)
		}
	}
}
