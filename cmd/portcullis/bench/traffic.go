// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"encoding/binary"
	"net"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"
)

// TCP flags.
const (
	flagSYN = 0x02
	flagACK = 0x10
)

// Where frames come from. Random sources are the 2^28 addresses of 16.0.0.0/4, all of them ordinary ones; flow number
// n is with 10.0.0.0 + n.
var (
	firstSource  = netip.MustParseAddr("16.0.0.0")
	firstRemote  = netip.MustParseAddr("10.0.0.0")
	randomSource = uint32(1<<28 - 1) // mask
)

// Ports of frames, where they are not random. The closed one is below all that any policy here opens.
const (
	closedPort = 23
	openPort   = 80
	remotePort = 443
	oneSource  = 40000
)

// The kernel's default range for the local ports of connections (net.ipv4.ip_local_port_range).
const (
	firstFlowPort = 32768
	flowPorts     = 60999 - firstFlowPort + 1
)

// traffic says what is sent. It is what both generators can send, but that pktgen knows no TCP.
type traffic struct {
	protocol      uint8
	flags         byte // of TCP
	port          uint16
	randomSources bool
	anywhere      bool // random sources among all ordinary addresses
	scattered     int  // random sources among so many of those: see scatteredSources
	randomPorts   bool // source and destination, but never openPort
	flows         int  // answers of so many flows, and the rest does not count
	inOrder       bool // each flow once, beginning with the first
}

// flowPort is the local port of a flow, as bench.bpf.c computes it. To pktgen all flows have the same.
func flowPort(number uint32, ports uint32) uint16 {
	return firstFlowPort + uint16((number*40503&0xffff)*ports>>16)
}

// mix and ordinary are those of bench.bpf.c.
func mix(number uint64) uint64 {
	number ^= number >> 33
	number *= 0xff51afd7ed558ccd
	number ^= number >> 33
	number *= 0xc4ceb9fe1a85ec53
	return number ^ number>>33
}

func ordinary(dice uint32) netip.Addr {
	address := uint32(uint64(dice)*(222<<24)>>32) + 1<<24
	if address >= 127<<24 {
		address += 1 << 24
	}
	return addrOf(address)
}

const scattered = 1 << 40 // SCATTERED of bench.bpf.c

// scatteredSources returns the addresses that scattered traffic comes from.
func scatteredSources(n int) []netip.Addr {
	sources := make([]netip.Addr, n)
	for i := range sources {
		sources[i] = ordinary(uint32(mix(scattered+uint64(i)) >> 32))
	}
	return sources
}

// remote is the address at the other end of a flow.
func remote(number uint32) netip.Addr { return addrOf(wordOf(firstRemote) + number) }

func wordOf(a netip.Addr) uint32 { return binary.BigEndian.Uint32(a.AsSlice()) }

func addrOf(word uint32) netip.Addr {
	return netip.AddrFrom4([4]byte(binary.BigEndian.AppendUint32(nil, word)))
}

// burst is what a generator has done.
type burst struct {
	frames uint64
	took   time.Duration
}

// generator sends frames from the outside end of a stand.
type generator interface {
	name() string
	protocol() uint8
	flowPorts() uint32 // among how many local ports flows are
	prepare(*stand, traffic) (sender, error)
}

// sender sends one kind of traffic.
type sender interface {
	send(frames int) (burst, error)
	close() error
}

// Frames are as short as Ethernet has them: 64 bytes with the checksum, which no driver shows.
const frameSize = 60

// Offsets in a frame.
const (
	ipStart        = 14
	transportStart = ipStart + 20
)

// frameOf makes a frame to which the source and the ports are missing, and with them the checksums.
func frameOf(from, to net.HardwareAddr, protocol, flags byte) []byte {
	f := make([]byte, frameSize)
	copy(f, to)
	copy(f[6:], from)
	binary.BigEndian.PutUint16(f[12:], unix.ETH_P_IP)
	f[ipStart] = 0x45
	f[ipStart+6] = 0x40 // don't fragment
	f[ipStart+8] = 64   // time to live
	f[ipStart+9] = protocol
	copy(f[ipStart+16:], insideAddr.AsSlice())
	length := 20
	if protocol == unix.IPPROTO_TCP {
		tcp := f[transportStart:]
		binary.BigEndian.PutUint32(tcp[4:], 1)
		if flags&flagACK != 0 {
			binary.BigEndian.PutUint32(tcp[8:], 1)
		}
		tcp[12] = 5 << 4
		tcp[13] = flags
		binary.BigEndian.PutUint16(tcp[14:], 65535)
	} else {
		length = frameSize - transportStart
		binary.BigEndian.PutUint16(f[transportStart+4:], uint16(length))
	}
	binary.BigEndian.PutUint16(f[ipStart+2:], uint16(20+length))
	return f
}

// sumsOf adds up the words of what does not change from frame to frame: the IP header, and the transport with its
// pseudo-header.
func sumsOf(f []byte) (ip, transport uint32) {
	words := func(b []byte) (sum uint32) {
		for ; len(b) > 1; b = b[2:] {
			sum += uint32(binary.BigEndian.Uint16(b))
		}
		return sum
	}
	length := binary.BigEndian.Uint16(f[ipStart+2:]) - 20
	transport = words(f[transportStart:transportStart+int(length)]) + words(f[ipStart+16:ipStart+20])
	return words(f[ipStart:transportStart]), transport + uint32(f[ipStart+9]) + uint32(length)
}
