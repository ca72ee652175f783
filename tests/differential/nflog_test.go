// SPDX-License-Identifier: Apache-2.0

package differential

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// logGroup is the group that the observers log to.
const logGroup = 5

// From linux/netfilter/nfnetlink_log.h.
const (
	nflogSubsystem = unix.NFNL_SUBSYS_ULOG << 8
	messagePacket  = 0
	messageConfig  = 1

	configCommand   = 1
	configMode      = 2
	configThreshold = 5
	commandBind     = 1
	copyPacket      = 2
	copyRange       = 128

	attributeHeader  = 1
	attributePayload = 9
)

// logged is a packet that an observer has seen.
type logged struct {
	protocol uint16 // EtherType
	packet   []byte // from the network header on
}

// logReader is a netlink socket that hears what a log group gets.
type logReader struct {
	fd      int
	buffer  []byte
	waiting []logged
}

// listen makes a reader in the network namespace of the calling thread.
func listen() (*logReader, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_NETFILTER)
	if err != nil {
		return nil, fmt.Errorf("open a netfilter socket: %w", err)
	}
	r := &logReader{fd: fd, buffer: make([]byte, 1<<17)}
	if err := r.configure(); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("listen to log group %d: %w", logGroup, err)
	}
	return r, nil
}

func (r *logReader) Close() { unix.Close(r.fd) }

func (r *logReader) configure() error {
	if err := unix.SetsockoptInt(r.fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 1<<24); err != nil {
		return err
	}
	if err := unix.Bind(r.fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return err
	}
	timeout := unix.NsecToTimeval(int64(5 * time.Second))
	if err := unix.SetsockoptTimeval(r.fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &timeout); err != nil {
		return err
	}
	mode := append(binary.BigEndian.AppendUint32(nil, copyRange), copyPacket, 0)
	for _, attributes := range [][]byte{
		attribute(configCommand, []byte{commandBind}),
		attribute(configMode, mode),
		attribute(configThreshold, binary.BigEndian.AppendUint32(nil, 1)),
	} {
		if err := r.request(attributes); err != nil {
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
func (r *logReader) request(attributes []byte) error {
	b := binary.NativeEndian.AppendUint32(nil, uint32(unix.NLMSG_HDRLEN+4+len(attributes)))
	b = binary.NativeEndian.AppendUint16(b, nflogSubsystem|messageConfig)
	b = binary.NativeEndian.AppendUint16(b, unix.NLM_F_REQUEST|unix.NLM_F_ACK)
	b = append(b, make([]byte, 8)...)
	b = append(b, unix.AF_UNSPEC, 0)
	b = binary.BigEndian.AppendUint16(b, logGroup)
	b = append(b, attributes...)
	if err := unix.Sendto(r.fd, b, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return err
	}
	for {
		done, err := r.receive()
		if err != nil || done {
			return err
		}
	}
}

// next returns the next packet that was logged. It waits for it for some seconds.
func (r *logReader) next() (logged, error) {
	for len(r.waiting) == 0 {
		if _, err := r.receive(); err != nil {
			return logged{}, err
		}
	}
	packet := r.waiting[0]
	r.waiting = r.waiting[1:]
	return packet, nil
}

// receive reads one buffer of messages. It tells whether an acknowledgement was among them.
func (r *logReader) receive() (acknowledged bool, err error) {
	n, _, err := unix.Recvfrom(r.fd, r.buffer, 0)
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
			if code := int32(binary.NativeEndian.Uint32(body)); code != 0 {
				return false, unix.Errno(-code)
			}
			acknowledged = true
		case nflogSubsystem | messagePacket:
			r.waiting = append(r.waiting, readLogged(body[4:]))
		}
		b = b[min((length+3)&^3, len(b)):]
	}
	return acknowledged, nil
}

func readLogged(b []byte) (packet logged) {
	for len(b) >= 4 {
		length, kind := int(binary.NativeEndian.Uint16(b)), binary.NativeEndian.Uint16(b[2:])
		if length < 4 || length > len(b) {
			break
		}
		value := b[4:length]
		switch {
		case kind == attributeHeader && len(value) >= 2:
			packet.protocol = binary.BigEndian.Uint16(value)
		case kind == attributePayload:
			packet.packet = append([]byte{}, value...)
		}
		b = b[min((length+3)&^3, len(b)):]
	}
	return packet
}
