// SPDX-License-Identifier: Apache-2.0

package traffic

import (
	"context"
	"encoding/binary"
	"errors"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/portcullis-firewall/portcullis/tests/internal/frame"
)

// Impostor is a TCP peer without a kernel, before whose SYN-ACK somebody else's arrives: one that acknowledges what was
// never sent. Its address must be nobody's. FD is a packet socket that is bound to the interface.
type Impostor struct {
	FD, Index int
	From, To  frame.MAC
	Address   netip.Addr

	sync.Mutex
	talks map[netip.AddrPort]*talk
}

// talk is one connection, as the peer knows it.
type talk struct {
	port     uint16 // of the peer
	seq, ack uint32 // what it sends next, and waits for
}

// Run plays the peer until the context ends.
func (p *Impostor) Run(ctx context.Context) error {
	p.talks = make(map[netip.AddrPort]*talk)
	if err := unix.SetsockoptTimeval(p.FD, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Usec: 50000}); err != nil {
		return err
	}
	buffer := make([]byte, 4096)
	for ctx.Err() == nil {
		n, _, err := unix.Recvfrom(p.FD, buffer, 0)
		if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return err
		}
		if err := p.hear(frame.Read(buffer[:n])); err != nil {
			return err
		}
	}
	return nil
}

// hear answers one packet.
func (p *Impostor) hear(in frame.Packet) error {
	if in.Dst != p.Address || in.Protocol != frame.ProtoTCP || len(in.Payload) < frame.TCPLen {
		return nil
	}
	p.Lock()
	defer p.Unlock()
	host := netip.AddrPortFrom(in.Src, in.SrcPort)
	seq, flags := binary.BigEndian.Uint32(in.Payload[4:]), in.Payload[13]
	data := len(in.Payload) - int(in.Payload[12]>>4)*4
	t := p.talks[host]
	switch {
	case flags == frame.SYN|frame.ECE|frame.CWR || flags == frame.SYN:
		t = &talk{in.DstPort, 1000, seq + 1}
		p.talks[host] = t
		forged := *t
		forged.ack += 5000
		if err := p.send(host, &forged, frame.SYN|frame.ACK, ""); err != nil {
			return err
		}
		return p.send(host, t, frame.SYN|frame.ACK, "")
	case t == nil || flags&frame.RST != 0 || data <= 0 || seq != t.ack:
		return nil
	}
	t.ack += uint32(data)
	return p.send(host, t, frame.ACK|frame.PSH, "answer")
}

// Speak sends on every connection.
func (p *Impostor) Speak() error {
	p.Lock()
	defer p.Unlock()
	for host, t := range p.talks {
		if err := p.send(host, t, frame.ACK|frame.PSH, "again"); err != nil {
			return err
		}
	}
	return nil
}

func (p *Impostor) send(host netip.AddrPort, t *talk, flags uint8, text string) error {
	b := frame.Build(frame.Ethernet{Dst: p.To, Src: p.From}, frame.IPv4{Src: p.Address, Dst: host.Addr()},
		frame.TCP{SrcPort: t.port, DstPort: host.Port(), Seq: t.seq, Ack: t.ack, Flags: flags}, frame.Text(text))
	t.seq += uint32(len(text))
	if flags&frame.SYN != 0 {
		t.seq++
	}
	return unix.Sendto(p.FD, b, 0, &unix.SockaddrLinklayer{Ifindex: p.Index})
}

// TalkAndWait opens connections, has one answer on each, is silent, and counts those that what the peer sends after that
// does not reach.
func TalkAndWait(to netip.AddrPort, count int, silence time.Duration, speak func() error) (lost int, err error) {
	var fds []int
	defer func() {
		for _, fd := range fds {
			_ = unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
			unix.Close(fd)
		}
	}()
	for range count {
		fd, err := dial(to)
		if err != nil {
			lost++
			continue
		}
		fds = append(fds, fd)
		if err := say(fd, Hold); err != nil {
			lost++
			unix.Close(fd)
			fds = fds[:len(fds)-1]
		}
	}
	time.Sleep(silence)
	if err := speak(); err != nil {
		return 0, err
	}
	return lost + len(fds) - Heard(fds, time.Second), nil
}
