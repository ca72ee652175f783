// SPDX-License-Identifier: Apache-2.0

package explain

import (
	"encoding/binary"
	"fmt"
	"time"

	"github.com/portcullis-firewall/portcullis/loader"
)

// Recorded is a packet of a recording.
type Recorded struct {
	Number    int // from 1 on
	Time      time.Time
	Bytes     []byte // as long as the packet was: what was not recorded is 0
	Captured  int    // how many of them were recorded
	Ethernet  bool   // they begin with an Ethernet header, or else with that of IP
	Type      uint16 // that of Ethernet, where the file tells it otherwise; 0: it does not
	To        loader.Destination
	Interface string // on which it was recorded; "": the file does not say
	Index     int    // that of the interface, where the file has it for a name
	Out       bool   // the file says that this host sent it
	In        bool   // the file says that it came in
	Loopback  bool   // it came by the loopback interface
	Problem   string // why it cannot be played, or ""
}

// linkType is a kind of link (https://www.tcpdump.org/linktypes.html).
type linkType uint32

const (
	linkEthernet linkType = 1
	linkRawBSD   linkType = 12
	linkRawOther linkType = 14
	linkRaw      linkType = 101
	linkCooked   linkType = 113
	linkIPv4     linkType = 228
	linkIPv6     linkType = 229
	linkCooked2  linkType = 276
)

// String returns the number, and the name of what one may meet.
func (l linkType) String() string {
	name, ok := map[linkType]string{
		0: "BSD loopback", 9: "PPP", 50: "PPP with HDLC", 51: "PPPoE", 105: "802.11", 108: "OpenBSD loopback", 127: "802.11 with radiotap",
		189: "USB", 195: "802.15.4", 220: "USB", 239: "NFLOG", 249: "USB", 253: "netlink",
	}[l]
	if !ok {
		return fmt.Sprintf("link type %d", uint32(l))
	}
	return fmt.Sprintf("link type %d (%s)", uint32(l), name)
}

// unplayable says why packets of a link cannot be played, or "".
func (l linkType) unplayable() string {
	switch l {
	case linkEthernet, linkRaw, linkRawBSD, linkRawOther, linkIPv4, linkIPv6, linkCooked, linkCooked2:
		return ""
	}
	return fmt.Sprintf("recorded on %s, which cannot be played: only Ethernet, raw IP and Linux's cooked links can", l)
}

// direction is what a file says of the way of a packet (draft-ietf-opsawg-pcapng, epb_flags).
type direction uint32

const (
	unknown direction = iota
	inbound
	outbound
)

// Of the headers of cooked links (linux/if_packet.h, linux/if_arp.h).
const (
	cookedHeader, cooked2Header = 16, 20

	toBroadcast, toGroup, toOther, fromHere = 1, 2, 3, 4
	loopback                                = 772
)

// lastSecond is that of the year 9999. What is later was never meant, and cannot be written as JSON.
const lastSecond = 253402300800

// recorded makes a packet of what the file has, and takes the header of the link off, unless it is Ethernet's.
func (r *Recording) recorded(on int, at uint64, b []byte, length uint32, way direction) (*Recorded, error) {
	r.number++
	if on < 0 || on >= len(r.links) {
		return nil, fmt.Errorf("packet %d is of an interface that the recording does not tell of: it is damaged", r.number)
	}
	l := r.links[on]
	p := &Recorded{Number: r.number, Interface: l.name, Out: way == outbound, In: way == inbound, Problem: l.kind.unplayable()}
	if at > 0 && at/l.units < lastSecond {
		p.Time = time.Unix(int64(at/l.units), int64(float64(at%l.units)/float64(l.units)*1e9))
	}
	if p.Problem != "" {
		return p, nil
	}
	header := 0
	switch l.kind {
	case linkEthernet:
		p.Ethernet = true
	case linkCooked:
		header = cookedHeader
	case linkCooked2:
		header = cooked2Header
	}
	if len(b) < header {
		p.Problem = fmt.Sprintf("%d bytes of it were recorded, which do not even hold the header of the link", len(b))
		return p, nil
	}
	switch l.kind {
	case linkCooked:
		p.Type = binary.BigEndian.Uint16(b[14:])
		p.cook(binary.BigEndian.Uint16(b), binary.BigEndian.Uint16(b[2:]))
	case linkCooked2:
		p.Type, p.Index = binary.BigEndian.Uint16(b), int(binary.BigEndian.Uint32(b[4:]))
		p.cook(uint16(b[10]), binary.BigEndian.Uint16(b[8:]))
	}
	b = b[header:]
	p.Captured = len(b)
	if missing := int(min(length, longestFrame)) - header - len(b); missing > 0 {
		b = append(b[:len(b):len(b)], make([]byte, missing)...)
	}
	p.Bytes = b
	if !p.isWhole() {
		p.Problem = fmt.Sprintf("%d of its %d bytes were recorded, and these do not hold all that decides: record more of each packet, as with tcpdump -s 0", p.Captured, len(b))
	}
	return p, nil
}

// cook reads what the header of a cooked link says: for whom the frame was, and the kind of the device.
func (p *Recorded) cook(kind, device uint16) {
	p.In = true
	switch kind {
	case toBroadcast:
		p.To = loader.ToAll
	case toGroup:
		p.To = loader.ToGroup
	case toOther:
		p.Problem = "it went to another MAC address than that of the interface, which a recording of all interfaces does not keep: record on the interface, as with tcpdump -i eth0"
	case fromHere:
		p.In, p.Out = false, true
	}
	p.Loopback = device == loopback
}
