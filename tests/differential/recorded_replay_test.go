// SPDX-License-Identifier: Apache-2.0

package differential

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"slices"
	"testing"

	"github.com/gopacket/gopacket/pcapgo"

	"github.com/portcullis-firewall/portcullis/tests/internal/frame"
	"github.com/portcullis-firewall/portcullis/tests/internal/lab"
)

// recorded is a packet as it went over the wire: one frame, or all that the fragments of one datagram came in.
type recorded struct {
	number int // of the frame in the file, of the last one for fragments
	frames [][]byte
	packet frame.Packet // the first fragment
}

// readRecording reads a pcap file. The fragments of a datagram stand where the last of them stood.
func readRecording(t *testing.T, file string) (packets []recorded) {
	t.Helper()
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	r, err := pcapgo.NewReader(f)
	if err != nil {
		t.Fatalf("%s: %v", file, err)
	}
	for number := 1; ; number++ {
		b, _, err := r.ReadPacketData()
		if errors.Is(err, io.EOF) {
			return packets
		}
		if err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		next := recorded{number, [][]byte{b}, frame.Read(b)}
		if id := fragmentOf(b); id != "" {
			before := slices.IndexFunc(packets, func(r recorded) bool { return fragmentOf(r.frames[0]) == id })
			if before >= 0 {
				next.frames = append(packets[before].frames, b)
				next.packet = packets[before].packet
				packets = slices.Delete(packets, before, before+1)
			}
		}
		packets = append(packets, next)
	}
}

// fragmentOf names the datagram that a frame has a fragment of: its addresses, protocol and identification.
func fragmentOf(f []byte) string {
	p := frame.Read(f)
	ip := f[frame.EthernetLen:]
	switch {
	case ip[0]>>4 == 4 && (ip[6]&0x3f != 0 || ip[7] != 0):
		return fmt.Sprint(ip[4:6], ip[9], ip[12:20])
	case ip[0]>>4 == 6 && (p.First || p.Later):
		return fmt.Sprint(ip[8:40], ip[frame.IPv6Len+4:frame.IPv6Len+8])
	}
	return ""
}

// replay makes steps of a recording: what the server has sent goes out, all else comes in.
//
// A peer that closes while the server speaks may reset twice, as the two happen to meet. Netfilter, which took the first
// RST for the first answer in a flow that it saw begin in its middle, has forgotten the flow at the second.
func replay(packets []recorded, w *world) (steps []step) {
	wasReset := make(map[[2]netip.AddrPort]bool)
	for _, r := range packets {
		s := whole(r.String(), r.frames...)
		if frame.MAC(r.frames[0][6:12]) == serverMAC {
			s = sent(s)
		}
		s = s.but(r.differs(w))
		if flow, is := r.resets(); is {
			if wasReset[flow] && s.differs == nil {
				s = s.mayBut(reset)
			}
			wasReset[flow] = true
		}
		steps = append(steps, s)
	}
	return steps
}

// resets returns the ends of the TCP connection that the packet resets from the peer's side, and whether it is such a packet.
func (r recorded) resets() (ends [2]netip.AddrPort, is bool) {
	p := r.packet
	if frame.MAC(r.frames[0][6:12]) == serverMAC || p.Protocol != frame.ProtoTCP || !p.HasPorts || len(p.Payload) <= 13 {
		return ends, false
	}
	return [2]netip.AddrPort{netip.AddrPortFrom(p.Src, p.SrcPort), netip.AddrPortFrom(p.Dst, p.DstPort)}, p.Payload[13]&frame.RST != 0
}

func (r recorded) String() string {
	p := r.packet
	text := fmt.Sprintf("frame %d, %s > %s protocol %d %s", r.number, p.Src, p.Dst, p.Protocol, p.Fault)
	if p.HasPorts {
		text += fmt.Sprintf(" %d > %d", p.SrcPort, p.DstPort)
	}
	if p.Protocol == frame.ProtoTCP && len(p.Payload) > 13 {
		text += " " + flagNames(p.Payload[13])
	}
	if len(r.frames) > 1 {
		text += fmt.Sprintf(" in %d fragments", len(r.frames))
	}
	return text
}

// solicited is where the server is asked for its MAC address. To other groups, and to the link-local addresses of the
// recording, nobody listens where it is played.
var solicited = netip.MustParseAddr("ff02::1:ff00:1")

// differs is the documented difference that a recorded packet meets.
func (r recorded) differs(w *world) *difference {
	switch p := r.packet; {
	case frame.MAC(r.frames[0][6:12]) == serverMAC:
	case p.Fault == frame.TinyFragment && binary.BigEndian.Uint16(r.frames[0][frame.EthernetLen+frame.IPv4Len+2:]) == 80:
		return splitHeader
	case w == &noICMP && r.discovery() && (p.Dst == lab.ServerV6 || p.Dst == solicited):
		return neighbours
	}
	return nil
}

// discovery tells neighbour discovery and MLD, which belong to no program.
func (r recorded) discovery() bool {
	p := r.packet
	if p.Protocol != frame.ProtoICMPv6 || len(p.Payload) == 0 {
		return false
	}
	kind := p.Payload[0]
	return kind >= frame.ListenerQuery && kind <= frame.Redirect6 || kind == frame.ListenerReport2
}

// count counts what was let in and what was dropped of the packets that came in.
func count(packets []recorded, verdicts []verdict) (letIn, dropped int) {
	for i, r := range packets {
		switch {
		case r.discovery():
		case verdicts[i] == input:
			letIn++
		case verdicts[i] == drop:
			dropped++
		}
	}
	return letIn, dropped
}
