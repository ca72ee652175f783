// SPDX-License-Identifier: Apache-2.0

package host

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Socket is a socket of this host.
type Socket struct {
	Local, Remote netip.AddrPort
	State         uint8  // of enum TCP_* in include/net/tcp_states.h
	inode         uint32 // 0 before it is accepted
	uid           uint32 // of who made it
}

// AddrPort returns the end of a connection; an IPv4 address that is mapped into IPv6 is IPv4.
func AddrPort(ip net.IP, port uint16) netip.AddrPort {
	addr, _ := netip.AddrFromSlice(ip)
	return netip.AddrPortFrom(addr.Unmap(), port)
}

// IsOutside reports whether a connection leaves this host.
func IsOutside(local, remote netip.AddrPort) bool {
	return remote.IsValid() && remote.Port() != 0 && !remote.Addr().IsUnspecified() && !remote.Addr().IsLoopback() &&
		!local.Addr().IsLoopback() && local.Addr() != remote.Addr()
}

// EachSocket calls each for every connected socket of one protocol that talks to another host. One that listens has
// no remote end.
func EachSocket(protocol int, each func(*Socket)) error {
	return everySocket(protocol, func(k *Socket) {
		if IsOutside(k.Local, k.Remote) {
			each(k)
		}
	})
}

// everySocket calls each for every socket of one protocol. The socket is valid until each returns.
func everySocket(protocol int, each func(*Socket)) error {
	const everyState = 0xfff
	for _, family := range []uint8{unix.AF_INET, unix.AF_INET6} {
		err := eachDiagSocket(uint8(protocol), family, everyState, func(k *Socket, _ int) { each(k) })
		if err == nil {
			continue
		}
		if err := eachProcSocket(protocol, family, each); err != nil {
			return err
		}
	}
	return nil
}

const (
	diagByFamily   = 20 // SOCK_DIAG_BY_FAMILY (linux/sock_diag.h)
	diagRequestLen = 56 // struct inet_diag_req_v2
	diagMessageLen = 72 // struct inet_diag_msg
	largestDump    = 32 << 10
)

// eachDiagSocket calls each for the sockets of a protocol in some states (a bit each), as sock_diag lists them; iface is the
// only interface that a socket is bound to, or 0. There may be a hundred thousand, so nothing is kept of one. The socket is
// valid until each returns.
func eachDiagSocket(protocol, family uint8, states uint32, each func(k *Socket, iface int)) error {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_INET_DIAG)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	request := make([]byte, unix.SizeofNlMsghdr+diagRequestLen)
	header := (*unix.NlMsghdr)(unsafe.Pointer(&request[0]))
	*header = unix.NlMsghdr{Len: uint32(len(request)), Type: diagByFamily, Flags: unix.NLM_F_REQUEST | unix.NLM_F_DUMP, Seq: 1}
	asked := request[unix.SizeofNlMsghdr:]
	asked[0], asked[1] = family, protocol
	binary.NativeEndian.PutUint32(asked[4:], states)
	if err := unix.Sendto(fd, request, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return err
	}
	answer := make([]byte, largestDump)
	for {
		n, from, err := unix.Recvfrom(fd, answer, 0)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return err
		}
		if kernel, ok := from.(*unix.SockaddrNetlink); !ok || kernel.Pid != 0 {
			continue
		}
		if done, err := parseDiag(answer[:n], each); done || err != nil {
			return err
		}
	}
}

// parseDiag reads one part of an answer, and reports whether it is the last one.
func parseDiag(answer []byte, each func(k *Socket, iface int)) (done bool, err error) {
	for len(answer) >= unix.SizeofNlMsghdr {
		size := int(binary.NativeEndian.Uint32(answer))
		kind := binary.NativeEndian.Uint16(answer[4:])
		if size < unix.SizeofNlMsghdr || size > len(answer) {
			return true, fmt.Errorf("the kernel answers with a message of %d bytes in %d", size, len(answer))
		}
		m := answer[unix.SizeofNlMsghdr:size]
		if kind == unix.NLMSG_DONE || kind == unix.NLMSG_ERROR {
			if len(m) >= 4 {
				if failed := int32(binary.NativeEndian.Uint32(m)); failed < 0 {
					return true, syscall.Errno(-failed)
				}
			}
			return true, nil
		}
		if len(m) < diagMessageLen {
			return true, fmt.Errorf("the kernel answers with %d bytes, want %d", len(m), diagMessageLen)
		}
		k := Socket{
			Local:  diagEnd(m[0], m[8:24], m[4:]),
			Remote: diagEnd(m[0], m[24:40], m[6:]),
			State:  m[1],
			uid:    binary.NativeEndian.Uint32(m[64:]),
			inode:  binary.NativeEndian.Uint32(m[68:]),
		}
		each(&k, int(binary.NativeEndian.Uint32(m[40:])))
		answer = answer[min((size+3)&^3, len(answer)):]
	}
	return false, nil
}

// diagEnd reads one end of a socket; an IPv4 address that is mapped into IPv6 is IPv4.
func diagEnd(family uint8, addr, port []byte) netip.AddrPort {
	ip := netip.AddrFrom16([16]byte(addr))
	if family == unix.AF_INET {
		ip = netip.AddrFrom4([4]byte(addr))
	}
	return netip.AddrPortFrom(ip.Unmap(), binary.BigEndian.Uint16(port))
}
