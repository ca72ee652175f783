// SPDX-License-Identifier: Apache-2.0

package explain

import (
	"encoding/binary"

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
	ip := 0
	if p.Ethernet {
		const addresses, tag = 12, 4
		ip = addresses
		for binary.BigEndian.Uint16(b[ip:]) == 0x8100 || binary.BigEndian.Uint16(b[ip:]) == 0x88a8 {
			if ip += tag; ip > longestRun/2 {
				break
			}
		}
		ip += 2
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
