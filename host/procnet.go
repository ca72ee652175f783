// SPDX-License-Identifier: Apache-2.0

package host

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Where a kernel has no sock_diag, or cannot load it, /proc lists the same sockets. Not to list them would cut every
// live connection, the administrator's among them.

// eachProcSocket is everySocket from /proc/net.
func eachProcSocket(protocol int, family uint8, each func(*Socket)) error {
	name := "tcp"
	if protocol == unix.IPPROTO_UDP {
		name = "udp"
	}
	if family == unix.AF_INET6 {
		name += "6"
	}
	text, err := os.ReadFile("/proc/thread-self/net/" + name)
	if errors.Is(err, fs.ErrNotExist) && family == unix.AF_INET6 {
		return nil // IPv6 is off
	}
	if err != nil {
		return fmt.Errorf("list sockets: %w", err)
	}
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	for _, line := range lines[1:] {
		k, err := parseProcSocket(line)
		if err != nil {
			return fmt.Errorf("list sockets: /proc/net/%s: %q: %w", name, line, err)
		}
		each(k)
	}
	return nil
}

// Columns of /proc/net/tcp and its like.
const (
	procUID   = 7
	procInode = 9
)

// parseProcSocket reads a line of /proc/net/tcp and its like: number, local end, remote end, state, and later the user
// and the inode.
func parseProcSocket(line string) (*Socket, error) {
	fields := strings.Fields(line)
	if len(fields) <= procInode {
		return nil, errors.New("too few fields")
	}
	local, err := parseProcAddr(fields[1])
	if err != nil {
		return nil, err
	}
	remote, err := parseProcAddr(fields[2])
	if err != nil {
		return nil, err
	}
	state, err := strconv.ParseUint(fields[3], 16, 8)
	if err != nil {
		return nil, err
	}
	inode, err := strconv.ParseUint(fields[procInode], 10, 32)
	if err != nil {
		return nil, err
	}
	uid, err := strconv.ParseUint(fields[procUID], 10, 32)
	if err != nil {
		return nil, err
	}
	return &Socket{local, remote, uint8(state), uint32(inode), uint32(uid)}, nil
}

// parseProcAddr reads ADDRESS:PORT in hexadecimal, the address in words of the host's byte order.
func parseProcAddr(text string) (netip.AddrPort, error) {
	address, port, _ := strings.Cut(text, ":")
	b, err := hex.DecodeString(address)
	if err != nil {
		return netip.AddrPort{}, err
	}
	for i := 0; i+4 <= len(b); i += 4 {
		binary.NativeEndian.PutUint32(b[i:], binary.BigEndian.Uint32(b[i:]))
	}
	addr, ok := netip.AddrFromSlice(b)
	if !ok {
		return netip.AddrPort{}, fmt.Errorf("%q is no address", address)
	}
	number, err := strconv.ParseUint(port, 16, 16)
	if err != nil {
		return netip.AddrPort{}, err
	}
	return netip.AddrPortFrom(addr.Unmap(), uint16(number)), nil
}
