// SPDX-License-Identifier: Apache-2.0

package explain

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"time"
)

// Recorded is a packet of a recording.
type Recorded struct {
	Number    int // from 1 on
	Time      time.Time
	Bytes     []byte // as long as the packet was: what was not recorded is 0
	Ethernet  bool   // they begin with an Ethernet header, or else with that of IP
	Type      uint16 // that of Ethernet, where the file tells it otherwise; 0: it does not
	Interface string // on which it was recorded; "": the file does not say
	Out       bool   // the file says that this host sent it
}

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
	kind  uint32
	name  string
	units uint64 // of time, in a second
}

// Kinds of links (https://www.tcpdump.org/linktypes.html).
const (
	linkEthernet = 1
	linkRawBSD   = 12
	linkRawOther = 14
	linkRaw      = 101
	linkCooked   = 113
	linkIPv4     = 228
	linkIPv6     = 229
	linkCooked2  = 276
)

const (
	magicMicro   = 0xa1b2c3d4
	magicNano    = 0xa1b23c4d
	magicNG      = 0x0a0d0d0a
	magicOrder   = 0x1a2b3c4d
	longestBlock = 16 << 20
	longestFrame = 256 << 10
)

var errNoRecording = errors.New("this is no recording: write one with tcpdump -w FILE")

// NewRecording reads the head of a recording.
func NewRecording(file io.Reader) (*Recording, error) {
	r := &Recording{r: bufio.NewReader(file)}
	head, err := r.r.Peek(4)
	if err != nil {
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
		return errNoRecording
	}
	r.links = []link{{kind: r.order.Uint32(head[20:]) & 0xffff, units: units}}
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
	return r.recorded(0, at, b, r.order.Uint32(head[12:]))
}

// Types of blocks of pcapng (draft-ietf-opsawg-pcapng).
const (
	blockSection   = magicNG
	blockInterface = 1
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
				return nil, errNoRecording
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
		case blockPacket:
			p, err = r.packetBlock(body)
		case blockSimple:
			p, err = r.simpleBlock(body)
		}
		if p != nil || err != nil {
			return p, err
		}
	}
}

var errBlock = errors.New("a block is too short: the recording is damaged")

// Options of an interface.
const (
	optionEnd        = 0
	optionName       = 2
	optionResolution = 9
)

func (r *Recording) addLink(b []byte) error {
	if len(b) < 8 {
		return errBlock
	}
	l := link{kind: uint32(r.order.Uint16(b)), units: 1e6}
	for rest := b[8:]; len(rest) >= 4; {
		code, length := r.order.Uint16(rest), int(r.order.Uint16(rest[2:]))
		if rest = rest[4:]; length > len(rest) || code == optionEnd {
			break
		}
		value := rest[:length]
		rest = rest[min((length+3)&^3, len(rest)):]
		switch {
		case code == optionName:
			l.name = string(value)
		case code == optionResolution && length == 1:
			l.units = resolution(value[0])
		}
	}
	r.links = append(r.links, l)
	return nil
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

func (r *Recording) packetBlock(b []byte) (*Recorded, error) {
	if len(b) < 20 {
		return nil, errBlock
	}
	captured := int(r.order.Uint32(b[12:]))
	if captured < 0 || captured > len(b)-20 {
		return nil, errBlock
	}
	at := uint64(r.order.Uint32(b[4:]))<<32 | uint64(r.order.Uint32(b[8:]))
	return r.recorded(int(r.order.Uint32(b)), at, b[20:20+captured], r.order.Uint32(b[16:]))
}

func (r *Recording) simpleBlock(b []byte) (*Recorded, error) {
	if len(b) < 4 {
		return nil, errBlock
	}
	length := r.order.Uint32(b)
	return r.recorded(0, 0, b[4:4+min(int(length), len(b)-4)], length)
}

// recorded takes the header of the link off a packet, unless it is Ethernet's.
func (r *Recording) recorded(on int, at uint64, b []byte, length uint32) (*Recorded, error) {
	r.number++
	if on < 0 || on >= len(r.links) {
		return nil, fmt.Errorf("packet %d is of an interface that the recording does not tell of", r.number)
	}
	l := r.links[on]
	if missing := int(min(length, longestFrame)) - len(b); missing > 0 {
		b = append(b[:len(b):len(b)], make([]byte, missing)...)
	}
	p := &Recorded{Number: r.number, Bytes: b, Interface: l.name}
	if at > 0 {
		p.Time = time.Unix(int64(at/l.units), int64(float64(at%l.units)/float64(l.units)*1e9))
	}
	const outgoing = 4   // linux/if_packet.h
	header, kind := 0, 0 // where that of Ethernet stands
	switch l.kind {
	case linkEthernet:
		p.Ethernet = true
	case linkRaw, linkRawBSD, linkRawOther, linkIPv4, linkIPv6:
	case linkCooked:
		header, kind = 16, 14
		p.Out = len(b) >= header && b[1] == outgoing
	case linkCooked2:
		header = 20
		p.Out = len(b) >= header && b[10] == outgoing
	default:
		return nil, fmt.Errorf("packet %d was recorded on a link of kind %d, which cannot be read: only Ethernet, raw IP and Linux's cooked links can", r.number, l.kind)
	}
	if len(b) < header {
		return nil, errBlock
	}
	if p.Bytes = b[header:]; header > 0 {
		p.Type = binary.BigEndian.Uint16(b[kind:])
	}
	return p, nil
}
