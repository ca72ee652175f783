// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"encoding/binary"
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// beginAtOnce is how many flows are begun before the answers come: fewer than any table keeps of unanswered ones.
const beginAtOnce = 8192

// establish makes flows as a host gets them: it sends a packet of each through its own stack, and the answer comes in.
// So every firewall that keeps state learns of them in its own way. Answered are they in order.
func establish(s *stand, k *sink, g generator, flows int, stop func() error) error {
	t := traffic{protocol: g.protocol(), flags: flagACK, flows: flows, inOrder: true}
	answers, err := g.prepare(s, t)
	if err != nil {
		return err
	}
	defer answers.close()
	if err := k.catch(true); err != nil {
		return err
	}
	for first := 0; first < flows; first += beginAtOnce {
		if err := stop(); err != nil {
			return err
		}
		n := min(beginAtOnce, flows-first)
		if err := s.inside.do(func() error { return begin(t.protocol, g.flowPorts(), first, n) }); err != nil {
			return fmt.Errorf("begin flows: %w", err)
		}
		if err := deliver(answers, k, n); err != nil {
			return fmt.Errorf("answer flows %d to %d: %w", first, first+n-1, err)
		}
	}
	return nil
}

// deliver sends frames, all of which have to reach the sink.
func deliver(from sender, k *sink, frames int) error {
	before, err := k.received()
	if err != nil {
		return err
	}
	b, err := from.send(frames)
	if err != nil {
		return err
	}
	var got uint64
	for start := time.Now(); time.Since(start) < patience; time.Sleep(time.Millisecond) {
		after, err := k.received()
		if got = after - before; err != nil || got == b.frames {
			return err
		}
	}
	return fmt.Errorf("%d of %d were let in", got, b.frames)
}

// begin sends the first packet of some flows, from the host inside.
func begin(protocol uint8, ports uint32, first, n int) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	packet := frameOf(nil, nil, protocol, flagACK)[ipStart:]
	copy(packet[12:], insideAddr.AsSlice())
	transport := packet[transportStart-ipStart : binary.BigEndian.Uint16(packet[2:])]
	for number := uint32(first); number < uint32(first+n); number++ {
		to := remote(number).As4()
		copy(packet[16:], to[:])
		binary.BigEndian.PutUint16(transport, flowPort(number, ports))
		binary.BigEndian.PutUint16(transport[2:], remotePort)
		seal(packet, transport, protocol)
		if err := unix.Sendto(fd, packet[:20+len(transport)], 0, &unix.SockaddrInet4{Addr: to}); err != nil {
			return err
		}
	}
	return nil
}

// seal writes the transport's checksum; that of the IP header is the kernel's work on a raw socket.
func seal(packet, transport []byte, protocol uint8) {
	at := 16
	if protocol == unix.IPPROTO_UDP {
		at = 6
	}
	binary.BigEndian.PutUint16(transport[at:], 0)
	sum := uint32(protocol) + uint32(len(transport))
	for _, part := range [][]byte{packet[12:20], transport} {
		for ; len(part) > 1; part = part[2:] {
			sum += uint32(binary.BigEndian.Uint16(part))
		}
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	binary.BigEndian.PutUint16(transport[at:], ^uint16(sum))
}
