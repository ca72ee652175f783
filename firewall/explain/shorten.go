// SPDX-License-Identifier: Apache-2.0

package explain

import (
	"encoding/binary"

	"golang.org/x/sys/unix"

	"github.com/portcullis-firewall/portcullis/policy"
)

// longestRun is how many bytes of a frame the kernel runs through a program, and less: it has a page for them, and for what
// it keeps beside them.
const longestRun = 3000

// shorten returns the bytes of a packet, without the end of one that is longer than any that comes in by itself: the kernel
// had merged it out of several when it was recorded. What is left says that it is as long as it is.
func shorten(p *Recorded) []byte {
	b := p.Bytes
	if len(b) <= longestRun {
		return b
	}
	const ethernetHeader, tag = 14, 4
	ip, kind := 0, p.Type
	if p.Ethernet {
		ip, kind = ethernetHeader, binary.BigEndian.Uint16(b[ethernetHeader-2:])
	}
	for (kind == unix.ETH_P_8021Q || kind == unix.ETH_P_8021AD) && ip < longestRun/2 {
		ip += tag
		kind = binary.BigEndian.Uint16(b[ip-2:])
	}
	b = append([]byte(nil), b[:longestRun]...)
	var protocol, header int
	switch b[ip] >> 4 {
	case 4:
		header = int(b[ip]&0xf) * 4
		protocol = int(b[ip+9])
		binary.BigEndian.PutUint16(b[ip+2:], uint16(len(b)-ip))
	case 6:
		header = headerIPv6
		protocol = int(b[ip+6])
		binary.BigEndian.PutUint16(b[ip+4:], uint16(len(b)-ip-header))
	}
	if protocol == int(policy.UDP) {
		binary.BigEndian.PutUint16(b[ip+header+4:], uint16(len(b)-ip-header))
	}
	return b
}
