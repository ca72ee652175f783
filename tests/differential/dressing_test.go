// SPDX-License-Identifier: Apache-2.0

package differential

import (
	"encoding/binary"
	"net/netip"
	"slices"

	"github.com/portcullis-firewall/portcullis/tests/internal/frame"
)

// dressing is what a packet wears beside what matters most. The zero value is nothing.
type dressing struct {
	data     uint16 // bytes of payload
	bits     uint8  // of TCP: flags beside the others
	seq, ack uint32 // of TCP: how far they are from what is expected; of SCTP: how far the tag is
	options  string // of TCP
	ip       string // options of IPv4, extension headers of IPv6
	tos, ttl uint8
	tags     string // of VLAN
	padding  uint8  // bytes behind the packet
	cut      string // into fragments
	pieces   uint8  // how many
	lie      string // what is malformed
}

var tcpOptions = map[string][]byte{
	"MSS":            {2, 4, 5, 180},
	"SACK permitted": {4, 2, 1, 1},
	"SACK":           {1, 1, 5, 10, 0, 0, 3, 233, 0, 0, 4, 0},
	"timestamps":     {1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2},
	"window scale":   {3, 3, 14, 0},
	"of a SYN":       {2, 4, 5, 180, 4, 2, 8, 10, 0, 0, 0, 1, 0, 0, 0, 0, 1, 3, 3, 7},
	"unknown":        {200, 8, 1, 2, 3, 4, 5, 6},
	"no operation":   {1, 1, 1, 1},
	"all there can":  slices.Repeat([]byte{1}, 40),
	// Malformed.
	"length 0":   {2, 0, 0, 0},
	"length 1":   {8, 1, 0, 0},
	"beyond end": {8, 40, 0, 0},
	"half":       {1, 1, 1, 8},
}

// malformed options of TCP are not sent by this host.
var malformedOptions = []string{"length 0", "length 1", "beyond end", "half"}

var ipOptions = map[string][]byte{
	"no operation": {1, 1, 1, 0},
	"record route": {7, 7, 4, 0, 0, 0, 0, 0},
	"timestamp":    {68, 12, 5, 0, 0, 0, 0, 0, 0, 0, 0, 0},
	"router alert": {148, 4, 0, 0},
	"unknown":      {158, 4, 0, 0},
	// The stack takes none of these.
	"source route": {131, 7, 4, 192, 0, 2, 1, 0},
	"nonsense":     {200, 1, 0, 0},
}

// extension is an IPv6 extension header behind its first byte, which names the next one.
type extension struct {
	protocol uint8
	rest     []byte
}

var (
	hopByHop     = extension{frame.ProtoHopByHop, []byte{0, 1, 4, 0, 0, 0, 0}}
	destination  = extension{frame.ProtoDestOptions, []byte{0, 1, 4, 0, 0, 0, 0}}
	routing      = extension{frame.ProtoRouting, append([]byte{2, 0, 0}, make([]byte, 20)...)}
	ipExtensions = map[string][]extension{
		"hop-by-hop":          {hopByHop},
		"destination options": {destination},
		"routing":             {routing},
		"several":             {hopByHop, destination, routing, destination},
		"atomic fragment":     {{frame.ProtoFragment, []byte{0, 0, 0, 0, 0, 0, 1}}},
		"unknown option":      {{frame.ProtoDestOptions, []byte{0, 0x1e, 4, 0, 0, 0, 0}}},
		"many":                slices.Repeat([]extension{destination}, frame.MaxExtensions-1), // and one of a fragment
		// The stack takes none of these, not even as far as netfilter.
		longPadding: {{frame.ProtoHopByHop, append([]byte{9, 1, 76}, make([]byte, 76)...)}},
		toDiscard:   {{frame.ProtoHopByHop, []byte{0, 0x5e, 4, 0, 0, 0, 0}}},
	}
)

// unfit are options of IP for which the stack drops a packet. This host does not send them.
var unfit = []string{"source route", "nonsense", toDiscard, longPadding}

const (
	toDiscard   = "option to discard"
	longPadding = "padding of more than 7 bytes"
)

var vlanTags = map[string][]frame.Layer{
	"0":             {frame.VLAN{}},
	"priority":      {frame.VLAN{ID: 5 << 13}},
	"service 0":     {frame.VLAN{Service: true}},
	"service 0, 0":  {frame.VLAN{Service: true}, frame.VLAN{}},
	"service 0, 0p": {frame.VLAN{Service: true}, frame.VLAN{ID: 3 << 13}},
}

// What fragments a packet comes in.
const (
	inOrder      = "in order"
	reversed     = "reversed"
	doubled      = "doubled"
	firstOnly    = "first only"
	lastMissing  = "last missing"
	firstMissing = "first missing"
)

// What is malformed.
const (
	lieVersion  = "IP version"
	lieHeader   = "IP header length"
	lieLonger   = "IP length beyond the frame"
	lieShorter  = "IP length within the transport header"
	lieOffset4  = "data offset 4"
	lieOffset15 = "data offset beyond the packet"
	lieUDP7     = "UDP length 7"
	lieUDPLong  = "UDP length beyond the packet"
	lieChecksum = "checksum"
	noChecksum  = "no UDP checksum"
)

// unseen tells that the stack drops the packet or a fragment of it, or waits for the rest, before netfilter sees it,
// although it can be read.
func (d dressing) unseen() bool {
	return d.cut == doubled || d.cut == firstOnly || d.cut == lastMissing || d.ip == toDiscard || d.ip == longPadding
}

// incomplete tells that fragments are missing.
func (d dressing) incomplete() bool {
	return d.cut == firstOnly || d.cut == lastMissing || d.cut == firstMissing
}

// headers is how long the extension headers of IPv6 are.
func (d dressing) headers() (bytes int) {
	for _, e := range ipExtensions[d.ip] {
		bytes += 1 + len(e.rest)
	}
	return bytes
}

// hopByHop tells that a hop-by-hop header comes first in IPv6.
func (d dressing) hopByHop() bool {
	headers := ipExtensions[d.ip]
	return len(headers) > 0 && headers[0].protocol == frame.ProtoHopByHop
}

// checksumAt is where the checksum stands in a transport header.
var checksumAt = map[kind]int{tcp: 16, udp: 6, udpLite: 6, sctp: 8, ping: 2, pong: 2, message: 2, about: 2}

// frames are the frames of a packet with these bytes behind the IP header.
func (d dressing) frames(k kind, src, dst netip.Addr, protocol uint8, b []byte) (frames [][]byte) {
	switch d.lie {
	case lieOffset4:
		b[12] = 4<<4 | b[12]&15
	case lieOffset15:
		b = b[:min(len(b), 59)]
		b[12] = 15<<4 | b[12]&15
	case lieUDP7:
		b[4], b[5] = 0, 7
	case lieUDPLong:
		binary.BigEndian.PutUint16(b[4:], uint16(len(b)+1))
	case lieChecksum:
		b[checksumAt[k]] ^= 0x55
	case noChecksum:
		b[6], b[7] = 0, 0
	}
	if d.cut == "" {
		return [][]byte{d.frame(src, dst, protocol, b, nil)}
	}
	id, size := fragmentID.Add(1), d.pieceSize(k, len(b))
	for at := 0; at < len(b); at += size {
		piece := b[at:min(at+size, len(b))]
		frames = append(frames, d.frame(src, dst, protocol, piece,
			&frame.Fragment{Offset: uint16(at / 8), MoreFragments: at+size < len(b), ID: id}))
	}
	last := len(frames) - 1
	switch d.cut {
	case reversed:
		slices.Reverse(frames)
	case doubled:
		frames = append(frames[:last:last], frames[0], frames[last])
	case firstOnly:
		frames = frames[:1]
	case lastMissing:
		frames = frames[:max(last, 1)]
	case firstMissing:
		frames = frames[min(last, 1):]
	}
	return frames
}

// pieceSize is that of a fragment: what has to be read stands in the first one, or else it is a documented difference.
func (d dressing) pieceSize(k kind, length int) int {
	least := 8
	switch k {
	case tcp:
		least = 24
	case sctp:
		least = 16
	case about:
		least = frame.ICMPLen + frame.IPv6Len + frame.TCPLen + 4
	}
	return max(least, (length/max(int(d.pieces), 2)+8)&^7)
}

// frame is one frame, which holds all of the packet or a fragment.
func (d dressing) frame(src, dst netip.Addr, protocol uint8, b []byte, fragment *frame.Fragment) []byte {
	layers := append([]frame.Layer{ethernet(dst)}, vlanTags[d.tags]...)
	if dst.Is4() {
		layers = append(layers, d.ipv4(src, dst, protocol, len(b), fragment))
	} else {
		layers = append(layers, d.ipv6(src, dst, protocol, len(b), fragment)...)
	}
	return frame.Padded(frame.Build(append(layers, frame.Raw(b))...), int(d.padding))
}

func (d dressing) ipv4(src, dst netip.Addr, protocol uint8, length int, fragment *frame.Fragment) frame.IPv4 {
	ip := frame.IPv4{Src: src, Dst: dst, Protocol: protocol, TTL: d.ttl, TOS: d.tos, Options: ipOptions[d.ip]}
	header := frame.IPv4Len + len(ip.Options)
	switch d.lie {
	case lieVersion:
		ip.Version = frame.Exactly(6)
	case lieHeader:
		ip.HeaderLength = frame.Exactly(4)
	case lieLonger:
		ip.TotalLength = frame.Exactly(uint16(header + length + int(d.padding) + 100))
	case lieShorter:
		ip.TotalLength = frame.Exactly(uint16(header + min(length, 12)))
	}
	if fragment != nil {
		ip.Offset, ip.MoreFragments = fragment.Offset, fragment.MoreFragments
	}
	return ip
}

func (d dressing) ipv6(src, dst netip.Addr, protocol uint8, length int, fragment *frame.Fragment) []frame.Layer {
	headers := slices.Clone(ipExtensions[d.ip])
	if fragment != nil {
		rest := binary.BigEndian.AppendUint16([]byte{0}, fragment.Offset<<3)
		if fragment.MoreFragments {
			rest[2] |= 1
		}
		headers = append(headers, extension{frame.ProtoFragment, binary.BigEndian.AppendUint32(rest, fragment.ID)})
	}
	ip := frame.IPv6{Src: src, Dst: dst, HopLimit: d.ttl, TrafficClass: d.tos}
	next, behind := protocol, []frame.Layer(nil)
	for _, e := range slices.Backward(headers) {
		behind = append([]frame.Layer{frame.Raw(append([]byte{next}, e.rest...))}, behind...)
		next = e.protocol
		length += 1 + len(e.rest)
	}
	ip.NextHeader = frame.Exactly(uint16(next))
	switch d.lie {
	case lieVersion:
		ip.Version = frame.Exactly(4)
	case lieHeader:
		ip.PayloadLength = frame.Exactly(0)
	case lieLonger:
		ip.PayloadLength = frame.Exactly(uint16(length + int(d.padding) + 100))
	case lieShorter:
		ip.PayloadLength = frame.Exactly(uint16(min(length, 12)))
	}
	return append([]frame.Layer{ip}, behind...)
}
