// SPDX-License-Identifier: Apache-2.0

package differential

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/portcullis-firewall/portcullis/tests/internal/frame"
	"github.com/portcullis-firewall/portcullis/tests/internal/lab"
)

// patience is how long a test waits for what should come at once, or after a retransmission.
const patience = 3 * time.Second

// conversation is a real socket of the server, and a peer whose every packet is made by hand.
type conversation struct {
	flow
	side     *side
	tap      *tap             // of the client
	listener *net.TCPListener // of the server, on port 80
	app      net.Conn
	protocol uint8
	seq, ack uint32 // what the peer sends next, and waits for
}

// open begins the conversation of a case.
func (c *conversation) open(what socketCase) error {
	switch what.opening {
	case dialled:
		return c.dial(what.before)
	case accepted:
		return c.accept()
	case asked:
		return c.query()
	case pinged:
		return c.ping(unix.SOCK_DGRAM)
	case pingedRaw:
		return c.ping(unix.SOCK_RAW)
	}
	return fmt.Errorf("no conversation opens by %q", what.opening)
}

// play sends packets to the server, and returns when the server's stack has had them.
func (c *conversation) play(steps ...step) error {
	_, err := c.side.play(steps)
	return err
}

// segment is what the peer hears from the server.
type segment struct {
	flags    uint8
	seq, ack uint32
	data     []byte
}

// hear waits for a packet of the conversation, whatever else is heard.
func (c *conversation) hear(wait time.Duration, wanted func(frame.Packet) bool) error {
	for end := time.Now().Add(wait); time.Now().Before(end); {
		b, err := c.tap.next(time.Until(end))
		if err != nil {
			return err
		}
		p := frame.Read(b)
		if p.Protocol == c.protocol && p.Src == c.us && p.Dst == c.peer && wanted(p) {
			return nil
		}
	}
	return fmt.Errorf("%s: the server does not send what the peer waits for: %w", c.side.name, os.ErrDeadlineExceeded)
}

// hearTCP waits for a segment of the connection.
func (c *conversation) hearTCP(wait time.Duration, wanted func(segment) bool) error {
	return c.hear(wait, func(p frame.Packet) bool {
		b := p.Payload
		if len(b) < frame.TCPLen || p.DstPort != c.remote || !wanted(segment{
			flags: b[13], seq: binary.BigEndian.Uint32(b[4:]), ack: binary.BigEndian.Uint32(b[8:]), data: b[b[12]>>4*4:],
		}) {
			return false
		}
		c.local = p.SrcPort
		return true
	})
}

// greeting is the peer's SYN or SYN-ACK, with an MSS for which a path can become too narrow.
func (c *conversation) greeting(flags uint8) step {
	return c.in(frame.TCP{SrcPort: c.remote, DstPort: c.local, Flags: flags, Seq: c.seq, Ack: c.ack, Options: []byte{2, 4, 5, 160}})
}

// dial has the server connect to the peer. The peer answers each SYN, and may do something before it answers the first.
func (c *conversation) dial(before func(c *conversation) step) error {
	c.protocol, c.seq = frame.ProtoTCP, 5000
	connected := make(chan error, 1)
	go func() {
		connected <- c.side.lab.Server.Try(func() (err error) {
			from := net.TCPAddrFromAddrPort(netip.AddrPortFrom(c.us, 0))
			dialer := net.Dialer{LocalAddr: from, Timeout: patience}
			c.app, err = dialer.Dial("tcp", netip.AddrPortFrom(c.peer, c.remote).String())
			return err
		})
	}()
	for {
		select {
		case err := <-connected:
			c.seq++
			return err
		default:
		}
		err := c.hearTCP(10*time.Millisecond, func(s segment) bool {
			if s.flags&frame.SYN == 0 {
				return false
			}
			c.ack = s.seq + 1
			return true
		})
		if errors.Is(err, os.ErrDeadlineExceeded) {
			continue
		}
		if err != nil {
			return err
		}
		steps := []step{c.greeting(frame.SYN | frame.ACK)}
		if before != nil {
			steps = append([]step{before(c)}, steps...)
			before = nil
		}
		if err := c.play(steps...); err != nil {
			return err
		}
	}
}

// accept has the peer connect to the server's open port.
func (c *conversation) accept() error {
	c.protocol, c.local, c.seq = frame.ProtoTCP, 80, 5000
	if err := c.play(c.greeting(frame.SYN)); err != nil {
		return err
	}
	c.seq++
	err := c.hearTCP(patience, func(s segment) bool {
		if s.flags != frame.SYN|frame.ACK || s.ack != c.seq {
			return false
		}
		c.ack = s.seq + 1
		return true
	})
	if err != nil {
		return err
	}
	if err := c.play(c.tcpIn(frame.ACK, c.seq, c.ack)); err != nil {
		return err
	}
	if err := c.listener.SetDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	c.app, err = c.listener.Accept()
	return err
}

// query has the server ask the peer over UDP.
func (c *conversation) query() error {
	c.protocol = frame.ProtoUDP
	err := c.side.lab.Server.Try(func() (err error) {
		from, to := netip.AddrPortFrom(c.us, 0), netip.AddrPortFrom(c.peer, c.remote)
		c.app, err = net.DialUDP("udp", net.UDPAddrFromAddrPort(from), net.UDPAddrFromAddrPort(to))
		return err
	})
	if err != nil {
		return err
	}
	return c.ask("query", func(p frame.Packet) { c.local = p.SrcPort })
}

// ping has the server send an echo request from a socket for pings, or a raw one.
func (c *conversation) ping(kind int) error {
	family, protocol := unix.AF_INET, unix.IPPROTO_ICMP
	var from unix.Sockaddr = &unix.SockaddrInet4{Addr: lab.ServerV4.As4()}
	var to unix.Sockaddr = &unix.SockaddrInet4{Addr: lab.ClientV4.As4()}
	if c.six {
		family, protocol = unix.AF_INET6, unix.IPPROTO_ICMPV6
		from = &unix.SockaddrInet6{Addr: lab.ServerV6.As16()}
		to = &unix.SockaddrInet6{Addr: lab.ClientV6.As16()}
	}
	c.protocol = uint8(protocol)
	err := c.side.lab.Server.Try(func() error {
		if err := os.WriteFile("/proc/sys/net/ipv4/ping_group_range", []byte("0 0"), 0); err != nil {
			return err
		}
		fd, err := unix.Socket(family, kind|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, protocol)
		if err != nil {
			return err
		}
		file := os.NewFile(uintptr(fd), "ping")
		defer file.Close()
		if err := errors.Join(unix.Bind(fd, from), unix.Connect(fd, to)); err != nil {
			return err
		}
		c.app, err = net.FileConn(file)
		return err
	})
	if err != nil {
		return err
	}
	// The kernel chooses the identifier of a socket for pings.
	return c.ask("query", func(p frame.Packet) { c.local = binary.BigEndian.Uint16(p.Payload[4:]) })
}

// ask sends a datagram from the server's socket, and waits until the peer hears it.
func (c *conversation) ask(text string, heard func(frame.Packet)) error {
	b := []byte(text)
	if c.protocol != frame.ProtoUDP {
		b = transport(c.us, c.peer, c.echo(c.remote, 1), frame.Text(text))
	}
	if _, err := c.app.Write(b); err != nil {
		return err
	}
	return c.hear(patience, func(p frame.Packet) bool {
		ours := strings.HasSuffix(string(p.Payload), text)
		if ours && heard != nil {
			heard(p)
		}
		return ours
	})
}

// datagram is what a socket that is no TCP socket waits for.
func (c *conversation) datagram(text string) step {
	if c.protocol == frame.ProtoUDP {
		return c.in(frame.UDP{SrcPort: c.remote, DstPort: c.local}, frame.Text(text))
	}
	return c.in(c.echoReply(c.local, 1), frame.Text(text))
}

// next is what the server waits for.
func (c *conversation) next(text string) step {
	if c.protocol != frame.ProtoTCP {
		return c.datagram(text)
	}
	s := c.tcpIn(dataFlags, c.seq, c.ack, frame.Text(text))
	c.seq += uint32(len(text))
	return s
}

// away is a segment that is so many bytes away from the one that the server waits for.
func (c *conversation) away(bytes int32, flags uint8, text string) step {
	return c.tcpIn(flags, c.seq+uint32(bytes), c.ack, frame.Text(text))
}

// end is the last word of the peer.
const end = "end."

// seen is what the application sees.
type seen struct {
	read string
	fate string // of its socket
	mtu  int    // of the path to the peer
}

// look reads until the peer's last word, or what ends the reading otherwise.
func (c *conversation) look() (s seen) {
	buffer := make([]byte, 1<<16)
	c.app.SetReadDeadline(time.Now().Add(patience))
	for {
		n, err := c.app.Read(buffer)
		if n > 0 {
			s.read += c.data(buffer[:n])
		}
		var number syscall.Errno
		switch {
		case errors.As(err, &number):
			s.fate = number.Error()
			return s
		case err != nil:
			s.fate = err.Error()
			return s
		case strings.HasSuffix(s.read, end):
			s.fate = c.alive()
			s.mtu = c.mtu()
			return s
		}
	}
}

// data is what was read, without the headers that a socket shows.
func (c *conversation) data(b []byte) string {
	if c.protocol == frame.ProtoTCP || c.protocol == frame.ProtoUDP {
		return string(b)
	}
	if _, raw := c.app.(*net.IPConn); raw && !c.six {
		b = b[frame.IPv4Len:]
	}
	return string(b[frame.ICMPLen:])
}

// alive tells whether what the application writes comes to the peer.
func (c *conversation) alive() string {
	var err error
	if c.protocol != frame.ProtoTCP {
		err = c.ask("answer", nil)
	} else if _, err = io.WriteString(c.app, "answer"); err == nil {
		err = c.hearTCP(patience, func(s segment) bool { return s.seq == c.ack && string(s.data) == "answer" })
	}
	if err != nil {
		return err.Error()
	}
	return "alive"
}

// mtu is what the server takes the path to the peer for.
func (c *conversation) mtu() (mtu int) {
	raw, err := c.app.(syscall.Conn).SyscallConn()
	if err != nil {
		return 0
	}
	raw.Control(func(fd uintptr) {
		if c.six {
			mtu, _ = unix.GetsockoptInt(int(fd), unix.IPPROTO_IPV6, unix.IPV6_MTU)
		} else {
			mtu, _ = unix.GetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_MTU)
		}
	})
	return mtu
}

// close leaves nothing behind of which the server's stack would speak later.
func (c *conversation) close() {
	if c.app == nil {
		return
	}
	if tcp, ok := c.app.(*net.TCPConn); ok {
		tcp.SetLinger(0)
	}
	c.app.Close()
}
