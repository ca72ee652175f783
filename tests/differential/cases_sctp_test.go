// SPDX-License-Identifier: Apache-2.0

package differential

import "github.com/portcullis-firewall/portcullis/tests/internal/frame"

// sctp is a packet whose tags are 0, as all are here: netfilter takes them for the ones that were agreed on.
func (f flow) sctp(out bool, chunk uint8) step {
	body := frame.Raw(make([]byte, 16))
	if out {
		return f.out(frame.SCTP{SrcPort: f.local, DstPort: f.remote, Chunk: chunk}, body)
	}
	return f.in(frame.SCTP{SrcPort: f.remote, DstPort: f.local, Chunk: chunk}, body)
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
			f.sctp(false, frame.ChunkCookieAck),
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
