// SPDX-License-Identifier: Apache-2.0

package frame

import (
	"encoding/binary"
	"hash/crc32"
)

// TCP flags.
const (
	FIN = 0x01
	SYN = 0x02
	RST = 0x04
	PSH = 0x08
	ACK = 0x10
	URG = 0x20
	ECE = 0x40
	CWR = 0x80
)

// TCP is the header of RFC 9293.
type TCP struct {
	SrcPort, DstPort uint16
	Seq, Ack         uint32
	Flags            uint8
	Window           uint16  // 0: 65535
	Closed           bool    // the window
	Options          []byte  // whole words
	DataOffset       *uint16 // in words
	Checksum         *uint16
}

func (t TCP) wrap(inner []byte, _ Layer, outer []Layer) []byte {
	header := TCPLen + len(t.Options)
	b := make([]byte, header)
	binary.BigEndian.PutUint16(b, t.SrcPort)
	binary.BigEndian.PutUint16(b[2:], t.DstPort)
	binary.BigEndian.PutUint32(b[4:], t.Seq)
	binary.BigEndian.PutUint32(b[8:], t.Ack)
	b[12] = byte(or(t.DataOffset, header/4) << 4)
	b[13] = t.Flags
	window := t.Window
	if window == 0 && !t.Closed {
		window = 65535
	}
	binary.BigEndian.PutUint16(b[14:], window)
	copy(b[20:], t.Options)
	check := sum(pseudo(outer, ProtoTCP, header+len(inner)), b, inner)
	binary.BigEndian.PutUint16(b[16:], or(t.Checksum, int(check)))
	return append(b, inner...)
}

// UDP is the header of RFC 768.
type UDP struct {
	SrcPort, DstPort uint16
	Length           *uint16
	Checksum         *uint16
}

func (u UDP) wrap(inner []byte, _ Layer, outer []Layer) []byte {
	b := make([]byte, UDPLen)
	binary.BigEndian.PutUint16(b, u.SrcPort)
	binary.BigEndian.PutUint16(b[2:], u.DstPort)
	binary.BigEndian.PutUint16(b[4:], or(u.Length, UDPLen+len(inner)))
	check := sum(pseudo(outer, ProtoUDP, UDPLen+len(inner)), b, inner)
	if check == 0 {
		check = 0xffff
	}
	binary.BigEndian.PutUint16(b[6:], or(u.Checksum, int(check)))
	return append(b, inner...)
}

// UDPLite is the header of RFC 3828; the checksum covers everything.
type UDPLite struct{ SrcPort, DstPort uint16 }

func (u UDPLite) wrap(inner []byte, _ Layer, outer []Layer) []byte {
	b := make([]byte, UDPLen)
	binary.BigEndian.PutUint16(b, u.SrcPort)
	binary.BigEndian.PutUint16(b[2:], u.DstPort)
	check := sum(pseudo(outer, ProtoUDPLite, UDPLen+len(inner)), b, inner)
	if check == 0 {
		check = 0xffff
	}
	binary.BigEndian.PutUint16(b[6:], check)
	return append(b, inner...)
}

// Chunk types of SCTP.
const (
	ChunkData             = 0
	ChunkInit             = 1
	ChunkInitAck          = 2
	ChunkHeartbeat        = 4
	ChunkHeartbeatAck     = 5
	ChunkAbort            = 6
	ChunkShutdown         = 7
	ChunkShutdownAck      = 8
	ChunkError            = 9
	ChunkCookieEcho       = 10
	ChunkCookieAck        = 11
	ChunkShutdownComplete = 14
)

// SCTP is the common header of RFC 9260 and the head of its first chunk.
type SCTP struct {
	SrcPort, DstPort uint16
	Tag              uint32 // of verification
	Chunk            uint8
	Checksum         *uint16 // its first half
}

func (s SCTP) wrap(inner []byte, _ Layer, _ []Layer) []byte {
	b := make([]byte, 16)
	binary.BigEndian.PutUint16(b, s.SrcPort)
	binary.BigEndian.PutUint16(b[2:], s.DstPort)
	binary.BigEndian.PutUint32(b[4:], s.Tag)
	b[12] = s.Chunk
	binary.BigEndian.PutUint16(b[14:], uint16(4+len(inner)))
	b = append(b, inner...)
	check := crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli))
	binary.LittleEndian.PutUint32(b[8:], check)
	if s.Checksum != nil {
		binary.BigEndian.PutUint16(b[8:], *s.Checksum)
	}
	return b
}

// Types of ICMP (RFC 792, RFC 950).
const (
	EchoReply          = 0
	Unreachable        = 3
	SourceQuench       = 4
	Redirect           = 5
	Echo               = 8
	TimeExceeded       = 11
	ParameterProblem   = 12
	Timestamp          = 13
	TimestampReply     = 14
	InformationRequest = 15
	InformationReply   = 16
	MaskRequest        = 17
	MaskReply          = 18
)

// Types of ICMPv6 (RFC 4443, RFC 4861, RFC 3810).
const (
	Unreachable6          = 1
	PacketTooBig6         = 2
	TimeExceeded6         = 3
	ParameterProblem6     = 4
	Echo6                 = 128
	EchoReply6            = 129
	ListenerQuery         = 130
	ListenerReport        = 131
	ListenerDone          = 132
	RouterSolicitation    = 133
	RouterAdvertisement   = 134
	NeighborSolicitation  = 135
	NeighborAdvertisement = 136
	Redirect6             = 137
	ListenerReport2       = 143
)

// ICMPv4 is a message of RFC 792: a query with its identifier, or an error with what it quotes behind it.
type ICMPv4 struct {
	Type, Code uint8
	ID, Seq    uint16
}

func (i ICMPv4) wrap(inner []byte, _ Layer, _ []Layer) []byte {
	b := icmpHeader(i.Type, i.Code, i.ID, i.Seq)
	binary.BigEndian.PutUint16(b[2:], sum(b, inner))
	return append(b, inner...)
}

// ICMPv6 is a message of RFC 4443.
type ICMPv6 struct {
	Type, Code uint8
	ID, Seq    uint16
}

func (i ICMPv6) wrap(inner []byte, _ Layer, outer []Layer) []byte {
	b := icmpHeader(i.Type, i.Code, i.ID, i.Seq)
	binary.BigEndian.PutUint16(b[2:], sum(pseudo(outer, ProtoICMPv6, len(b)+len(inner)), b, inner))
	return append(b, inner...)
}

func icmpHeader(kind, code uint8, id, seq uint16) []byte {
	b := []byte{kind, code, 0, 0}
	return append(append(b, be16(id)...), be16(seq)...)
}
