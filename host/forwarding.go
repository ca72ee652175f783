// SPDX-License-Identifier: Apache-2.0

package host

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"syscall"
	"unsafe"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// Forwards reports whether this host forwards packets of any interface, over IPv4 or IPv6. Where files is nil, this host
// is asked.
func Forwards(files fs.FS) bool {
	if files == nil {
		on, err := forwardsByNetlink()
		if err == nil {
			return on
		}
		files = Files
	}
	for _, family := range []string{"ipv4", "ipv6"} {
		if on, _ := Sysctl(files, "net/"+family+"/conf/all/forwarding"); on != "" && on != "0" {
			return true
		}
	}
	for _, family := range []string{"ipv4", "ipv6"} {
		names, _ := fs.Glob(files, "proc/sys/net/"+family+"/conf/*/forwarding")
		for _, name := range names {
			on, err := Sysctl(files, strings.TrimPrefix(name, "proc/sys/"))
			// What new interfaces get forwards nothing yet.
			if err == nil && on != "0" && !strings.HasSuffix(name, "/default/forwarding") {
				return true
			}
		}
	}
	return false
}

// Of struct netconfmsg and its attributes (linux/netconf.h).
const (
	netconfHeader     = 4 // the family, and its padding
	netconfIndex      = 1
	netconfForwarding = 2
	netconfDefault    = -2 // the index of what new interfaces get
)

// forwardsByNetlink is Forwards by a few system calls instead of several for each interface. The socket is a plain one:
// with the library's, which the runtime polls, this takes three times as long, and each open asks.
func forwardsByNetlink() (bool, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
	if err != nil {
		return false, err
	}
	defer unix.Close(fd)
	for _, family := range []byte{unix.AF_INET, unix.AF_INET6} {
		if on, err := familyForwards(fd, family); on || err != nil {
			return on, err
		}
	}
	return false, nil
}

// familyForwards reports whether any interface forwards packets of a family.
func familyForwards(fd int, family byte) (bool, error) {
	request := make([]byte, unix.SizeofNlMsghdr+netconfHeader)
	header := (*unix.NlMsghdr)(unsafe.Pointer(&request[0]))
	*header = unix.NlMsghdr{Len: uint32(len(request)), Type: unix.RTM_GETNETCONF, Flags: unix.NLM_F_REQUEST | unix.NLM_F_DUMP, Seq: uint32(family)}
	request[unix.SizeofNlMsghdr] = family
	if err := unix.Sendto(fd, request, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return false, err
	}
	answer := make([]byte, 32<<10) // the most that a dump sends at once
	for {
		n, from, err := unix.Recvfrom(fd, answer, 0)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return false, err
		}
		if kernel, ok := from.(*unix.SockaddrNetlink); !ok || kernel.Pid != 0 {
			continue
		}
		messages, err := syscall.ParseNetlinkMessage(answer[:n])
		if err != nil {
			return false, err
		}
		for _, m := range messages {
			switch {
			case m.Header.Flags&unix.NLM_F_DUMP_INTR != 0:
				return false, errors.New("interfaces came or went meanwhile")
			case m.Header.Type == unix.NLMSG_DONE:
				return false, nil
			case m.Header.Type == unix.NLMSG_ERROR:
				return false, errors.New("the kernel lists no settings of interfaces")
			}
			if on, err := interfaceForwards(m.Data); on || err != nil {
				return on, err
			}
		}
	}
}

// interfaceForwards reads the settings of one interface.
func interfaceForwards(m []byte) (bool, error) {
	if len(m) < netconfHeader {
		return false, fmt.Errorf("the kernel answers with %d bytes, want %d", len(m), netconfHeader)
	}
	attrs, err := nl.ParseRouteAttr(m[netconfHeader:])
	if err != nil {
		return false, err
	}
	var index, forwarding int32
	for _, a := range attrs {
		switch {
		case len(a.Value) < 4:
		case a.Attr.Type == netconfIndex:
			index = int32(binary.NativeEndian.Uint32(a.Value))
		case a.Attr.Type == netconfForwarding:
			forwarding = int32(binary.NativeEndian.Uint32(a.Value))
		}
	}
	// What new interfaces get forwards nothing yet.
	return forwarding != 0 && index != netconfDefault, nil
}
