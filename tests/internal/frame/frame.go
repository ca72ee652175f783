// SPDX-License-Identifier: Apache-2.0

// Package frame builds the frames that tests send, and says what is in a frame.
//
// A frame is written as the list of its headers, the outermost first:
//
//	frame.Build(frame.Ethernet{}, frame.IPv4{Src: peer, Dst: us}, frame.TCP{DstPort: 80, Flags: frame.SYN})
//
// Lengths, checksums and the numbers of the protocols that follow are filled in. A field of type *uint16 is for a
// frame that lies: nil means the truth, and [Exactly] whatever it is given.
//
// [Read] is the other way round: a slow and plain parser, written from the RFCs, that tests hold against the one
// that filters.
package frame

import "encoding/binary"

// Layer is one header, or the bytes behind the last one.
type Layer interface {
	// wrap returns the header and, behind it, inner, which begins with the header next (nil if there is none).
	// outer lists the headers around it, the outermost first.
	wrap(inner []byte, next Layer, outer []Layer) []byte
}

// Build puts layers into one frame.
func Build(layers ...Layer) []byte {
	var b []byte
	for i := len(layers) - 1; i >= 0; i-- {
		var next Layer
		if i+1 < len(layers) {
			next = layers[i+1]
		}
		b = layers[i].wrap(b, next, layers[:i])
	}
	return b
}

// Raw stands for itself.
type Raw []byte

func (r Raw) wrap(inner []byte, _ Layer, _ []Layer) []byte {
	return append(append([]byte{}, r...), inner...)
}

// Text is Raw written as a string.
type Text string

func (t Text) wrap(inner []byte, next Layer, outer []Layer) []byte {
	return Raw(t).wrap(inner, next, outer)
}

// Exactly is the value of a field that is not to be filled in.
func Exactly(value uint16) *uint16 { return &value }

func or(exact *uint16, truth int) uint16 {
	if exact != nil {
		return *exact
	}
	return uint16(truth)
}

// With returns a copy of b in which the bytes from offset on are those of value.
func With(b []byte, offset int, value ...byte) []byte {
	c := append([]byte{}, b...)
	copy(c[offset:], value)
	return c
}

// Cut returns the first n bytes of b.
func Cut(b []byte, n int) []byte { return append([]byte{}, b[:n]...) }

// Padded returns b and n zero bytes, as a driver leaves them behind a short packet.
func Padded(b []byte, n int) []byte { return append(append([]byte{}, b...), make([]byte, n)...) }

func be16(v uint16) []byte { return binary.BigEndian.AppendUint16(nil, v) }

// sum is the Internet checksum (RFC 1071) of parts that follow each other.
func sum(parts ...[]byte) uint16 {
	var total uint32
	odd := false
	for _, part := range parts {
		for _, c := range part {
			if odd {
				total += uint32(c)
			} else {
				total += uint32(c) << 8
			}
			odd = !odd
		}
	}
	for total > 0xffff {
		total = total>>16 + total&0xffff
	}
	return ^uint16(total)
}
