// SPDX-License-Identifier: Apache-2.0

package explain

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// Recording reads packets out of a file of tcpdump's or Wireshark's: pcap or pcapng. A library for that knows every protocol,
// and every command would start more slowly by it.
type Recording struct {
	r      *bufio.Reader
	order  binary.ByteOrder
	ng     bool
	links  []link
	number int
}

// link is an interface that packets were recorded on.
type link struct {
	kind    linkType
	name    string
	units   uint64 // of time, in a second
	snaplen uint32 // 0: no limit
}

const (
	magicMicro   = 0xa1b2c3d4
	magicNano    = 0xa1b23c4d
	magicNG      = 0x0a0d0d0a
	magicOrder   = 0x1a2b3c4d
	longestBlock = 16 << 20
	longestFrame = 256 << 10
)

var (
	errNoRecording = errors.New("this is no recording: write one with tcpdump -w FILE")
	errEmpty       = errors.New("the recording is empty: whoever writes it has not begun, or had no room")
	errNoHead      = errors.New("the recording was cut off before its first packet")
	errCompressed  = errors.New("the recording is compressed: uncompress it, as in \"zcat FILE | portcullis explain --pcap -\"")
)

// NewRecording reads the head of a recording.
func NewRecording(file io.Reader) (*Recording, error) {
	r := &Recording{r: bufio.NewReader(file)}
	head, err := r.r.Peek(4)
	switch {
	case len(head) == 0 && errors.Is(err, io.EOF):
		return nil, errEmpty
	case err != nil && !errors.Is(err, io.EOF):
		return nil, err
	case len(head) >= 2 && head[0] == 0x1f && head[1] == 0x8b:
		return nil, errCompressed
	case err != nil:
		return nil, errNoRecording
	}
	for _, order := range []binary.ByteOrder{binary.LittleEndian, binary.BigEndian} {
		r.order = order
		switch order.Uint32(head) {
		case magicMicro:
			return r, r.readHead(1e6)
		case magicNano:
			return r, r.readHead(1e9)
		case magicNG:
			r.ng = true
			return r, nil
		}
	}
	return nil, errNoRecording
}

// readHead reads that of a pcap file.
func (r *Recording) readHead(units uint64) error {
	var head [24]byte
	if _, err := io.ReadFull(r.r, head[:]); err != nil {
		return errNoHead
	}
	l := link{kind: linkType(r.order.Uint32(head[20:]) & 0xffff), units: units}
	if why := l.kind.unplayable(); why != "" {
		return errors.New(why)
	}
	r.links = []link{l}
	return nil
}

// Next returns the next packet, or io.EOF.
func (r *Recording) Next() (*Recorded, error) {
	p, err := r.next()
	if errors.Is(err, io.ErrUnexpectedEOF) {
		err = fmt.Errorf("the recording was cut off behind packet %d", r.number)
	}
	return p, err
}

func (r *Recording) next() (*Recorded, error) {
	if r.ng {
		return r.nextBlock()
	}
	var head [16]byte
	if _, err := io.ReadFull(r.r, head[:]); err != nil {
		return nil, err
	}
	at := uint64(r.order.Uint32(head[:]))*r.links[0].units + uint64(r.order.Uint32(head[4:]))
	captured := r.order.Uint32(head[8:])
	if captured > longestFrame {
		return nil, fmt.Errorf("packet %d has %d bytes: the recording is damaged", r.number+1, captured)
	}
	b := make([]byte, captured)
	if _, err := io.ReadFull(r.r, b); err != nil {
		return nil, io.ErrUnexpectedEOF
	}
	return r.recorded(0, at, b, r.order.Uint32(head[12:]), unknown)
}

// Types of blocks of pcapng (draft-ietf-opsawg-pcapng).
const (
	blockSection   = magicNG
	blockInterface = 1
	blockOld       = 2 // a packet, as it was written once
	blockSimple    = 3
	blockPacket    = 6
)

// nextBlock reads blocks up to the next packet.
func (r *Recording) nextBlock() (*Recorded, error) {
	for {
		var head [12]byte
		if _, err := io.ReadFull(r.r, head[:8]); err != nil {
			return nil, err
		}
		kind, read := r.order.Uint32(head[:]), 8
		if kind == blockSection { // which says its own order of bytes
			if _, err := io.ReadFull(r.r, head[8:]); err != nil {
				return nil, io.ErrUnexpectedEOF
			}
			read = 12
			if r.order = binary.LittleEndian; r.order.Uint32(head[8:]) != magicOrder {
				r.order = binary.BigEndian
			}
			if r.order.Uint32(head[8:]) != magicOrder {
				return nil, errSection
			}
			r.links = nil
		}
		length := int(r.order.Uint32(head[4:]))
		if length < read+4 || length%4 != 0 || length > longestBlock {
			return nil, fmt.Errorf("a block of %d bytes behind packet %d: the recording is damaged", length, r.number)
		}
		body := make([]byte, length-read)
		if _, err := io.ReadFull(r.r, body); err != nil {
			return nil, io.ErrUnexpectedEOF
		}
		body = body[:len(body)-4] // the length once more
		var err error
		var p *Recorded
		switch kind {
		case blockInterface:
			err = r.addLink(body)
		case blockPacket, blockOld:
			p, err = r.packetBlock(body, kind == blockOld)
		case blockSimple:
			p, err = r.simpleBlock(body)
		}
		if p != nil || err != nil {
			return p, err
		}
	}
}

var (
	errBlock   = errors.New("a block is too short: the recording is damaged")
	errSection = errors.New("a section begins in no known order of bytes: the recording is damaged")
)

// Options of an interface, and of a packet.
const (
	optionEnd        = 0
	optionName       = 2
	optionFlags      = 2
	optionResolution = 9
)

func (r *Recording) addLink(b []byte) error {
	if len(b) < 8 {
		return errBlock
	}
	l := link{kind: linkType(r.order.Uint16(b)), units: 1e6, snaplen: r.order.Uint32(b[4:])}
	r.eachOption(b[8:], func(code uint16, value []byte) {
		switch {
		case code == optionName:
			l.name = string(value)
		case code == optionResolution && len(value) == 1:
			l.units = resolution(value[0])
		}
	})
	r.links = append(r.links, l)
	return nil
}

// eachOption calls each for the options at the end of a block.
func (r *Recording) eachOption(b []byte, each func(code uint16, value []byte)) {
	for len(b) >= 4 {
		code, length := r.order.Uint16(b), int(r.order.Uint16(b[2:]))
		if b = b[4:]; length > len(b) || code == optionEnd {
			return
		}
		each(code, b[:length])
		b = b[min((length+3)&^3, len(b)):]
	}
}

// resolution returns the units of time in a second: a power of 10, or with the highest bit, of 2.
func resolution(code byte) uint64 {
	base, power := uint64(10), min(code, 18)
	if code&0x80 != 0 {
		base, power = 2, min(code&0x7f, 63)
	}
	units := uint64(1)
	for range power {
		units *= base
	}
	return units
}

func (r *Recording) packetBlock(b []byte, old bool) (*Recorded, error) {
	if len(b) < 20 {
		return nil, errBlock
	}
	captured := int(r.order.Uint32(b[12:]))
	if captured < 0 || captured > len(b)-20 {
		return nil, errBlock
	}
	on := int(r.order.Uint32(b))
	if old { // and how many were lost before it
		on = int(r.order.Uint16(b))
	}
	at := uint64(r.order.Uint32(b[4:]))<<32 | uint64(r.order.Uint32(b[8:]))
	way := unknown
	r.eachOption(b[min(20+(captured+3)&^3, len(b)):], func(code uint16, value []byte) {
		if code == optionFlags && len(value) == 4 {
			way = direction(r.order.Uint32(value) & 3)
		}
	})
	return r.recorded(on, at, b[20:20+captured], r.order.Uint32(b[16:]), way)
}

func (r *Recording) simpleBlock(b []byte) (*Recorded, error) {
	if len(b) < 4 {
		return nil, errBlock
	}
	length := r.order.Uint32(b)
	captured := min(int(length), len(b)-4)
	if len(r.links) > 0 && r.links[0].snaplen > 0 {
		captured = min(captured, int(r.links[0].snaplen))
	}
	return r.recorded(0, 0, b[4:4+captured], length, unknown)
}
