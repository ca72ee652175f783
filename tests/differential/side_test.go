// SPDX-License-Identifier: Apache-2.0

package differential

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/portcullis-firewall/portcullis/firewall/nflog"
	"github.com/portcullis-firewall/portcullis/tests/internal/frame"
	"github.com/portcullis-firewall/portcullis/tests/internal/lab"
)

// The same addresses on both sides, so that the same frames fit.
var (
	serverMAC = frame.MAC{2, 0, 0, 0, 0, 1}
	clientMAC = frame.MAC{2, 0, 0, 0, 0, 2}
	otherV4   = netip.MustParseAddr("192.0.2.3")
	otherV6   = netip.MustParseAddr("2001:db8::3")
	secondV4  = netip.MustParseAddr("192.0.2.10") // of the server
	secondV6  = netip.MustParseAddr("2001:db8::10")
	linkLocal = netip.MustParseAddr("fe80::1") // of the server, too
)

// logGroup is the group that the observers log to, and logPatience how long to wait for a packet.
const (
	logGroup    = 5
	logPatience = 5 * time.Second
)

// ours marks the packets that a step sends from the server. What the server's kernel has to say by itself (RST, ICMP,
// neighbour discovery) has no mark, and is dropped before connection tracking and TC can see it.
const ours = 0x1ab

// The observers stand behind every filter, so they see what was let in. The one for ARP tells that everything sent
// before has been decided. The rule that matches nothing makes the kernel reassemble fragments before INPUT, as it does
// for netfilter: IPv6 would do so behind the observer.
const observers = `
table inet observer {
	chain reassemble {
		type filter hook prerouting priority -300;
		meta mark 0x7777 meta l4proto tcp tproxy ip to :1
		meta mark 0x7777 meta l4proto tcp tproxy ip6 to :1
	}
	chain input { type filter hook input priority 50; log group 5; }
	chain mute { type filter hook output priority -450; meta mark != 0x1ab drop; }
}
table arp observer {
	chain input { type filter hook input priority 0; log group 5; }
}
`

const muteHost = `table inet mute { chain out { type filter hook output priority -450; drop; }; }`

// side is one of the two that are compared: a lab whose server filters in its own way.
type side struct {
	name  string
	lab   *lab.Lab
	flush func() error // forgets all state

	setPort func(open bool) error // the changing one
	opened  bool

	log          *nflog.Reader
	wire         lab.Wire // of the client
	behind       lab.Wire // of the host inside, where the server routes
	hops         []hop
	raw4, raw6   int // raw sockets of the server
	cpu          int
	barriers     uint32
	lastMarker   uint32
	afterInbound bool
}

func newSide(t testing.TB, name string, w world) *side {
	t.Helper()
	s := &side{name: name, lab: lab.New(t), flush: func() error { return nil }}
	server, client := s.lab.Server, s.lab.Client
	var inside *lab.Host
	if w.forwarding {
		inside = s.addInside(t)
	}
	if w.notOnEth0 {
		server.Sysctl(t, "ipv6/conf/eth0/forwarding", "0")
	}
	for _, h := range []struct {
		host *lab.Host
		mac  frame.MAC
	}{{server, serverMAC}, {client, clientMAC}} {
		h.host.IP(t, "link", "set", "eth0", "address", macText(h.mac))
		for _, key := range []string{"ipv4/conf/all/accept_redirects", "ipv4/conf/eth0/accept_redirects",
			"ipv6/conf/eth0/accept_redirects", "ipv6/conf/eth0/accept_ra", "ipv4/conf/all/rp_filter",
			"ipv4/conf/eth0/rp_filter"} {
			h.host.Sysctl(t, key, "0")
		}
	}
	for _, peer := range []netip.Addr{lab.ClientV4, lab.ClientV6, otherV4, otherV6} {
		server.IP(t, "neigh", "replace", peer.String(), "lladdr", macText(clientMAC), "nud", "permanent", "dev", "eth0")
	}
	server.IP(t, "addr", "add", secondV4.String()+"/24", "dev", "eth0")
	server.IP(t, "addr", "add", secondV6.String()+"/64", "dev", "eth0", "nodad")
	server.IP(t, "addr", "add", linkLocal.String()+"/64", "dev", "eth0", "nodad")
	server.IP(t, "route", "add", "default", "via", lab.ClientV4.String())
	if w.random {
		server.IP(t, "-6", "route", "add", "default", "via", lab.ClientV6.String())
		for _, key := range []string{"ipv4/ipfrag_time", "ipv6/ip6frag_time", "netfilter/nf_conntrack_frag6_timeout"} {
			server.Sysctl(t, key, "1")
		}
		// Behind native XDP each fragment takes a page.
		for _, key := range []string{"ipv4/ipfrag", "ipv6/ip6frag", "netfilter/nf_conntrack_frag6"} {
			server.Sysctl(t, key+"_high_thresh", "67108864")
		}
	}
	server.Run(t, "nft", observers+w.nft)
	s.ip(t, w.before)
	client.Run(t, "nft", muteHost)
	server.Do(t, func() (err error) {
		if s.log, err = nflog.Listen(logGroup, logPatience); err != nil {
			return err
		}
		if s.raw4, err = rawSocket(unix.AF_INET); err != nil {
			return err
		}
		s.raw6, err = rawSocket(unix.AF_INET6)
		return err
	})
	t.Cleanup(func() {
		s.log.Close()
		for _, fd := range []int{s.raw4, s.raw6} {
			unix.Close(fd)
		}
	})
	s.wire = client.Wire(t, "eth0")
	s.hops = []hop{{s.wire, s.log, input}}
	if inside != nil {
		s.observeEnds(t, inside)
	}
	s.cpu = int(sideCount.Add(1))
	return s
}

// ip runs commands of the server's ip.
func (s *side) ip(t testing.TB, commands string) {
	t.Helper()
	for line := range strings.Lines(commands) {
		if words := strings.Fields(line); len(words) > 0 {
			s.lab.Server.IP(t, words...)
		}
	}
}

func macText(m frame.MAC) string {
	return fmt.Sprintf("%02x:%02x:%02x:%02x:%02x:%02x", m[0], m[1], m[2], m[3], m[4], m[5])
}

func rawSocket(family int) (int, error) {
	fd, err := unix.Socket(family, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW)
	if err != nil {
		return 0, fmt.Errorf("open a raw socket: %w", err)
	}
	for _, option := range []int{unix.SO_MARK, unix.SO_BROADCAST} {
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, option, ours); err != nil {
			return 0, err
		}
	}
	if err := unix.SetsockoptString(fd, unix.SOL_SOCKET, unix.SO_BINDTODEVICE, "eth0"); err != nil {
		return 0, err
	}
	return fd, nil
}

// punctual is how much longer than its waits a sequence may take: of the timeouts that it is to beat, the nearest is
// 0.8 s away (see timeoutCases).
const punctual = 500 * time.Millisecond

// decide plays steps from a clean state. What waits, and took so long that timeouts may have passed which it was to
// beat, is played again: the machine was busy elsewhere.
func (s *side) decide(steps []step) (verdicts []verdict, err error) {
	var waits time.Duration
	for _, st := range steps {
		waits += st.wait
	}
	for range 5 {
		if err := s.flush(); err != nil {
			return nil, err
		}
		start := time.Now()
		verdicts, err = s.play(steps)
		if err != nil || waits == 0 || time.Since(start) < waits+punctual {
			break
		}
	}
	return verdicts, err
}

// play plays steps and returns what became of each; a step that goes out has the verdict none.
func (s *side) play(steps []step) ([]verdict, error) {
	unpin, err := pinned(s.cpu)
	if err != nil {
		return nil, err
	}
	defer unpin()
	verdicts := make([]verdict, len(steps))
	of := make(map[uint32]int)
	if err := s.change(closes); err != nil {
		return nil, err
	}
	for i, st := range steps {
		if st.wait > 0 || st.out || i > 0 && st.inside != steps[i-1].inside {
			if err := s.barrier(of, verdicts); err != nil {
				return nil, err
			}
		}
		time.Sleep(st.wait)
		if err := s.change(st.port); err != nil {
			return nil, err
		}
		s.lastMarker++
		if s.lastMarker > 0xffff {
			s.lastMarker = 1
		}
		of[s.lastMarker] = i
		if !st.out {
			verdicts[i] = drop
		}
		for _, f := range st.frames {
			if err := s.send(st, marked(f, s.lastMarker)); err != nil {
				return nil, fmt.Errorf("%s: send %s: %w", s.name, st.name, err)
			}
		}
		if len(of)%512 == 0 { // keeps the reader's buffer from running over
			if err := s.barrier(of, verdicts); err != nil {
				return nil, err
			}
		}
	}
	return verdicts, s.barrier(of, verdicts)
}

// change opens or closes the changing port, unless it is so already.
func (s *side) change(event kind) error {
	if event != opens && event != closes || s.opened == (event == opens) {
		return nil
	}
	s.opened = !s.opened
	if err := s.setPort(s.opened); err != nil {
		return fmt.Errorf("%s: %s: %w", s.name, event, err)
	}
	return nil
}

// send sends a step's frame, and again where a slow machine has a queue full of what came before.
func (s *side) send(st step, f []byte) error {
	var err error
	for range 100 {
		if err = s.sendOnce(st, f); !errors.Is(err, unix.ENOBUFS) {
			return err
		}
		time.Sleep(time.Millisecond)
	}
	return err
}

func (s *side) sendOnce(st step, f []byte) error {
	if !st.out {
		s.afterInbound = true
		if st.inside {
			return s.behind.Send(f)
		}
		return s.wire.Send(f)
	}
	packet := f[frame.EthernetLen:]
	if packet[0]>>4 == 4 {
		return unix.Sendto(s.raw4, packet, 0, &unix.SockaddrInet4{Addr: [4]byte(packet[16:20])})
	}
	to := &unix.SockaddrInet6{Addr: [16]byte(packet[24:40])}
	return unix.Sendto(s.raw6, packet, 0, to)
}

var errBarrier = errors.New("the observer does not see barrier")

// barrier waits until all that went in before is decided, and has arrived where it was let go to, and fills in the
// verdicts.
func (s *side) barrier(of map[uint32]int, verdicts []verdict) error {
	if !s.afterInbound {
		return nil
	}
	s.afterInbound = false
	for _, h := range s.hops {
		s.barriers++
		if err := h.wire.Send(barrierFrame(s.barriers)); err != nil {
			return err
		}
		if err := s.await(h, of, verdicts); err != nil {
			return err
		}
	}
	return nil
}

// await reads what was seen at the end of a hop before the barrier.
func (s *side) await(h hop, of map[uint32]int, verdicts []verdict) error {
	for {
		seen, err := h.log.Next()
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return fmt.Errorf("%s: %w %d", s.name, errBarrier, s.barriers)
		}
		if err != nil {
			return fmt.Errorf("%s: read what the observer saw: %w", s.name, err)
		}
		if seen.Protocol == frame.TypeARP {
			if barrierNumber(seen.Data) == s.barriers {
				return nil
			}
			continue
		}
		marker, ok := markerOf(seen.Data)
		if !ok {
			continue
		}
		if i, ok := of[marker]; ok && verdicts[i] != none {
			verdicts[i] = h.seen
		}
	}
}

// barrierFrame is an ARP reply of no consequence, whose target says which it is. No filter touches ARP.
func barrierFrame(number uint32) []byte {
	arp := make([]byte, 28)
	copy(arp, []byte{0, 1, 8, 0, 6, 4, 0, 2})
	copy(arp[8:], clientMAC[:])
	copy(arp[14:], []byte{10, 9, 8, 7})
	copy(arp[18:], serverMAC[:])
	binary.BigEndian.PutUint32(arp[24:], number)
	return frame.Build(frame.Ethernet{Dst: serverMAC, Src: clientMAC, Type: frame.TypeARP}, frame.Raw(arp))
}

func barrierNumber(arp []byte) uint32 {
	if len(arp) < 28 || [4]byte(arp[14:18]) != [4]byte{10, 9, 8, 7} {
		return 0
	}
	return binary.BigEndian.Uint32(arp[24:])
}

// marked writes a marker where nobody looks: the identification of IPv4, the flow label of IPv6.
func marked(f []byte, marker uint32) []byte {
	f = append([]byte{}, f...)
	kind, at := uint16(0), frame.EthernetLen
	if len(f) >= at {
		kind = binary.BigEndian.Uint16(f[at-2:])
	}
	for (kind == frame.TypeVLAN || kind == frame.TypeQinQ) && len(f) >= at+frame.VLANLen {
		kind = binary.BigEndian.Uint16(f[at+2:])
		at += frame.VLANLen
	}
	ip := f[at:]
	switch {
	case kind == frame.TypeIPv4 && len(ip) >= frame.IPv4Len:
		// The checksum changes by as much (RFC 1624), so that a wrong one stays wrong.
		check := uint32(^binary.BigEndian.Uint16(ip[10:])) +
			uint32(^binary.BigEndian.Uint16(ip[4:])) + marker
		for check > 0xffff {
			check = check>>16 + check&0xffff
		}
		binary.BigEndian.PutUint16(ip[4:], uint16(marker))
		binary.BigEndian.PutUint16(ip[10:], ^uint16(check))
	case kind == frame.TypeIPv6 && len(ip) >= frame.IPv6Len:
		first := binary.BigEndian.Uint32(ip)
		binary.BigEndian.PutUint32(ip, first&^0xfffff|marker)
	}
	return f
}

func markerOf(packet []byte) (uint32, bool) {
	switch {
	case len(packet) >= frame.IPv4Len && packet[0]>>4 == 4:
		return uint32(binary.BigEndian.Uint16(packet[4:])), true
	case len(packet) >= frame.IPv6Len && packet[0]>>4 == 6:
		return binary.BigEndian.Uint32(packet) & 0xfffff, true
	}
	return 0, false
}
