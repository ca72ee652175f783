// SPDX-License-Identifier: Apache-2.0

// Package nflog reads the packets that rules of netfilter log to a group, with -j NFLOG or "log group".
package nflog

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// From linux/netfilter/nfnetlink_log.h.
const (
	subsystem     = unix.NFNL_SUBSYS_ULOG << 8
	messagePacket = 0
	messageConfig = 1

	configCommand   = 1
	configMode      = 2
	configThreshold = 5
	commandBind     = 1
	copyPacket      = 2
	copyRange       = 128

	attributeHeader  = 1
	attributePayload = 9
)

// Packet is one that was logged.
type Packet struct {
	Protocol uint16 // EtherType
	Data     []byte // the first bytes, from the network header on
}

// Reader is a netlink socket that hears what a group gets.
type Reader struct {
	fd      int
	buffer  []byte
	waiting []Packet
}

// Listen returns a reader of a group in the network namespace of the calling thread. To wait for a packet takes no
// longer than patience.
func Listen(group uint16, patience time.Duration) (*Reader, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_NETFILTER)
	if err != nil {
		return nil, fmt.Errorf("open a netfilter socket: %w", err)
	}
	r := &Reader{fd: fd, buffer: make([]byte, 1<<17)}
	if err := r.configure(group, patience); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("listen to log group %d: %w", group, err)
	}
	return r, nil
}

// SetPatience bounds how long Next waits for a packet.
func (r *Reader) SetPatience(patience time.Duration) error {
	timeout := unix.NsecToTimeval(int64(patience))
	return unix.SetsockoptTimeval(r.fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &timeout)
}

// Close ends reading.
func (r *Reader) Close() { unix.Close(r.fd) }

func (r *Reader) configure(group uint16, patience time.Duration) error {
	if err := unix.SetsockoptInt(r.fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 1<<24); err != nil {
		return err
	}
	if err := unix.Bind(r.fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return err
	}
	if err := r.SetPatience(patience); err != nil {
		return err
	}
	mode := append(binary.BigEndian.AppendUint32(nil, copyRange), copyPacket, 0)
	for _, attributes := range [][]byte{
		attribute(configCommand, []byte{commandBind}),
		attribute(configMode, mode),
		attribute(configThreshold, binary.BigEndian.AppendUint32(nil, 1)),
	} {
		if err := r.request(group, attributes); err != nil {
			return err
		}
	}
	return nil
}

func attribute(kind uint16, value []byte) []byte {
	b := binary.NativeEndian.AppendUint16(nil, uint16(4+len(value)))
	b = binary.NativeEndian.AppendUint16(b, kind)
	b = append(b, value...)
	return append(b, make([]byte, -len(b)&3)...)
}

// request sends one configuration message and waits until the kernel has done it.
func (r *Reader) request(group uint16, attributes []byte) error {
	b := binary.NativeEndian.AppendUint32(nil, uint32(unix.NLMSG_HDRLEN+4+len(attributes)))
	b = binary.NativeEndian.AppendUint16(b, subsystem|messageConfig)
	b = binary.NativeEndian.AppendUint16(b, unix.NLM_F_REQUEST|unix.NLM_F_ACK)
	b = append(b, make([]byte, 8)...)
	b = append(b, unix.AF_UNSPEC, 0)
	b = binary.BigEndian.AppendUint16(b, group)
	b = append(b, attributes...)
	if err := unix.Sendto(r.fd, b, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return err
	}
	for {
		done, err := r.receive(0)
		if err != nil || done {
			return err
		}
	}
}

// Next returns the next packet. It waits for one; the error is [os.ErrDeadlineExceeded] if none comes in time.
func (r *Reader) Next() (Packet, error) { return r.next(0) }

// Waiting returns the next packet that is there already; the error is [os.ErrDeadlineExceeded] if none is.
func (r *Reader) Waiting() (Packet, error) { return r.next(unix.MSG_DONTWAIT) }

func (r *Reader) next(flags int) (Packet, error) {
	for len(r.waiting) == 0 {
		if _, err := r.receive(flags); err != nil {
			return Packet{}, err
		}
	}
	packet := r.waiting[0]
	r.waiting = r.waiting[1:]
	return packet, nil
}

// receive reads one buffer of messages. It tells whether an acknowledgement was among them.
func (r *Reader) receive(flags int) (acknowledged bool, err error) {
	n, _, err := unix.Recvfrom(r.fd, r.buffer, flags)
	switch {
	case errors.Is(err, unix.EINTR):
		return false, nil
	case errors.Is(err, unix.EAGAIN):
		return false, os.ErrDeadlineExceeded
	case err != nil:
		return false, err
	}
	for b := r.buffer[:n]; len(b) >= unix.NLMSG_HDRLEN; {
		length := int(binary.NativeEndian.Uint32(b))
		if length < unix.NLMSG_HDRLEN || length > len(b) {
			return false, errors.New("a netlink message of no sense")
		}
		body := b[unix.NLMSG_HDRLEN:length]
		switch binary.NativeEndian.Uint16(b[4:]) {
		case unix.NLMSG_ERROR:
			if len(body) < 4 {
				return false, errors.New("a netlink message of no sense")
			}
			if code := int32(binary.NativeEndian.Uint32(body)); code != 0 {
				return false, unix.Errno(-code)
			}
			acknowledged = true
		case subsystem | messagePacket:
			if len(body) >= 4 {
				r.waiting = append(r.waiting, read(body[4:]))
			}
		}
		b = b[min((length+3)&^3, len(b)):]
	}
	return acknowledged, nil
}

func read(b []byte) (packet Packet) {
	for len(b) >= 4 {
		length, kind := int(binary.NativeEndian.Uint16(b)), binary.NativeEndian.Uint16(b[2:])
		if length < 4 || length > len(b) {
			break
		}
		value := b[4:length]
		switch {
		case kind == attributeHeader && len(value) >= 2:
			packet.Protocol = binary.BigEndian.Uint16(value)
		case kind == attributePayload:
			packet.Data = append([]byte{}, value...)
		}
		b = b[min((length+3)&^3, len(b)):]
	}
	return packet
}
