// SPDX-License-Identifier: Apache-2.0

package differential

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"

	"github.com/portcullis-firewall/portcullis/tests/internal/frame"
)

const chunkCookieAck = 11

// sctp is a packet with a right checksum. All tags are 0, which netfilter takes for the ones that were agreed on.
func (f flow) sctp(out bool, chunk uint8) step {
	packet := frame.SCTP{SrcPort: f.remote, DstPort: f.local, Chunk: chunk}
	if out {
		packet.SrcPort, packet.DstPort = f.local, f.remote
	}
	body := frame.Raw(make([]byte, 16))
	src, dst := f.peer, f.us
	if out {
		src, dst = f.us, f.peer
	}
	b := transport(src, dst, packet, body)
	binary.LittleEndian.PutUint32(b[8:], crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli)))
	s := whole(fmt.Sprintf("%s > %s SCTP %d > %d chunk %d", src, dst, packet.SrcPort, packet.DstPort, chunk),
		frame.Build(ethernet(dst), ipOf(src, dst, frame.ProtoSCTP), frame.Raw(b)))
	s.out = out
	return s
}

var sctpCases = []testCase{
	{45, "an SCTP association that we begin", nil, 0, one(func(f flow) []step {
		other := f
		other.local++
		return []step{
			f.sctp(false, frame.ChunkInitAck).as("unasked"),
			f.sctp(true, frame.ChunkInit),
			f.sctp(false, frame.ChunkInitAck),
			f.sctp(true, frame.ChunkCookieEcho),
			f.sctp(false, chunkCookieAck),
			f.sctp(false, frame.ChunkData),
			other.sctp(false, frame.ChunkData).as("to another port"),
		}
	})},
	{45, "SCTP that begins no association", nil, 0, func(h hosts) (steps []step) {
		for i, chunk := range []uint8{frame.ChunkAbort, frame.ChunkShutdownComplete} {
			f := flow{h, 40000 + uint16(i), 443}
			steps = append(steps, f.sctp(true, chunk), f.sctp(false, frame.ChunkData))
		}
		return steps
	}},
	{45, "SCTP cut off, in an association", nil, 0, one(func(f flow) []step {
		answer := transport(f.peer, f.us, frame.SCTP{SrcPort: f.remote, DstPort: f.local, Chunk: frame.ChunkInitAck})
		return []step{
			f.sctp(true, frame.ChunkInit),
			f.sctp(false, frame.ChunkInitAck),
			f.raw(frame.ProtoSCTP, answer[:12]),
			f.raw(frame.ProtoSCTP, answer[:8]),
		}
	})},
}
