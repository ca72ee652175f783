// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"encoding/binary"
	"testing"

	"golang.org/x/sys/unix"
)

// onesSum adds up words as the Internet checksum does (RFC 1071).
func onesSum(parts ...[]byte) uint16 {
	var sum uint32
	for _, b := range parts {
		for ; len(b) > 1; b = b[2:] {
			sum += uint32(binary.BigEndian.Uint16(b))
		}
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return uint16(sum)
}

// A frame that is completed with the sums has right checksums: all its words add up to 0xffff.
func TestSums(t *testing.T) {
	mac := []byte{2, 0, 0, 0, 0, 1}
	for _, protocol := range []uint8{unix.IPPROTO_TCP, unix.IPPROTO_UDP} {
		f := frameOf(mac, mac, protocol, flagACK)
		ip, transport := sumsOf(f)
		const from, to = 443, 40001
		source := remote(70000).As4()
		copy(f[ipStart+12:], source[:])
		binary.BigEndian.PutUint16(f[transportStart:], from)
		binary.BigEndian.PutUint16(f[transportStart+2:], to)
		address := uint32(onesSum(source[:]))
		fold := func(sum uint32) uint16 {
			for sum > 0xffff {
				sum = sum>>16 + sum&0xffff
			}
			return ^uint16(sum)
		}
		at := map[uint8]int{unix.IPPROTO_TCP: 16, unix.IPPROTO_UDP: 6}[protocol]
		binary.BigEndian.PutUint16(f[ipStart+10:], fold(ip+address))
		binary.BigEndian.PutUint16(f[transportStart+at:], fold(transport+address+from+to))

		segment := f[transportStart : ipStart+int(binary.BigEndian.Uint16(f[ipStart+2:]))]
		pseudo := []byte{0, protocol, 0, byte(len(segment))}
		if sum := onesSum(f[ipStart:transportStart]); sum != 0xffff {
			t.Errorf("protocol %d: the IP header adds up to %#x", protocol, sum)
		}
		if sum := onesSum(f[ipStart+12:ipStart+20], pseudo, segment); sum != 0xffff {
			t.Errorf("protocol %d: the segment adds up to %#x", protocol, sum)
		}
	}
}

func TestRulesOfScenes(t *testing.T) {
	for _, w := range packetWorks() {
		r := w.scene.rules(unix.IPPROTO_TCP)
		seen := make(map[uint16]bool)
		for _, p := range r.ports {
			if seen[p] || p == closedPort {
				t.Fatalf("%s: port %d is open twice, or is the closed one", w.key, p)
			}
			seen[p] = true
		}
		if len(r.ports) != w.scene.ports || r.ports[0] != openPort {
			t.Errorf("%s: %d ports are open, the first is %d", w.key, len(r.ports), r.ports[0])
		}
	}
}

func TestFlowPortsAreEphemeral(t *testing.T) {
	used := make(map[uint16]bool)
	for n := range uint32(200000) {
		p := flowPort(n, flowPorts)
		if p < firstFlowPort || p > 60999 {
			t.Fatalf("flow %d has port %d", n, p)
		}
		used[p] = true
	}
	if len(used) < flowPorts*9/10 {
		t.Errorf("200,000 flows use %d of %d ports", len(used), flowPorts)
	}
}
