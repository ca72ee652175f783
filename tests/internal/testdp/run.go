// SPDX-License-Identifier: Apache-2.0

package testdp

import (
	"encoding/binary"
	"testing"

	"github.com/cilium/ebpf"

	"github.com/portcullis-firewall/portcullis/bpf"
	"github.com/portcullis-firewall/portcullis/tests/internal/frame"
)

// Path is the way that a frame takes through the datapath.
type Path string

// The paths. XDP and TC decide alike.
const (
	XDP Path = bpf.FirewallProgPortcullisXdp
	TC  Path = bpf.FirewallProgPortcullisIn
	Out Path = bpf.FirewallProgPortcullisOut
)

// Ingress lists the paths that a frame can come in by.
var Ingress = []Path{XDP, TC}

func (p Path) String() string {
	return map[Path]string{XDP: "XDP", TC: "TC", Out: "egress"}[p]
}

// linux/bpf.h and linux/pkt_cls.h
const (
	xdpHasFrags = 1 << 5
	xdpDrop     = 1
	xdpPass     = 2
	xdpTx       = 3
	xdpRedirect = 4
	tcShot      = 2
	tcRedirect  = 7
	tcNext      = ^uint32(0)
)

// From is where a frame comes from. Zero is lo, and for a frame that goes out, a socket of this host.
type From struct {
	Device   uint32 // index of the interface it is seen on
	Routed   uint32 // index of the interface it came in on, of one that goes out
	Segments uint32 // that the kernel has merged into it
}

// xdpMD is struct xdp_md.
type xdpMD struct{ Data, DataEnd, DataMeta, Device, Queue, Egress uint32 }

// skBuff is struct __sk_buff.
type skBuff struct {
	_        [9]uint32
	Routed   uint32
	Device   uint32
	_        [30]uint32
	Segments uint32
	_        [6]uint32
}

func (f From) context(path Path, length int) any {
	switch {
	case f == From{}:
		return nil
	case path == XDP:
		return &xdpMD{DataEnd: uint32(length), Device: f.Device}
	}
	return &skBuff{Routed: f.Routed, Device: f.Device, Segments: f.Segments}
}

// Passes runs a frame and reports whether it passed. An answer that is neither yes nor no ends the test.
func (d *Datapath) Passes(tb testing.TB, path Path, b []byte, from From) bool {
	tb.Helper()
	result, err := d.programs[string(path)].Run(&ebpf.RunOptions{Data: b, Context: from.context(path, len(b))})
	if err != nil {
		tb.Fatalf("run %s: %v", path, err)
	}
	switch result {
	case Verdict(path, true):
		return true
	case Verdict(path, false):
		return false
	}
	tb.Fatalf("%s returned %d", path, int32(result))
	return false
}

// Repeat runs a frame many times and in a row, for benchmarks.
func (d *Datapath) Repeat(tb testing.TB, path Path, b []byte, from From, passes bool, times int) {
	tb.Helper()
	result, err := d.programs[string(path)].Run(&ebpf.RunOptions{Data: b, Context: from.context(path, len(b)), Repeat: uint32(times)})
	if err != nil || result != Verdict(path, passes) {
		tb.Fatalf("%s returned %d, %v", path, int32(result), err)
	}
}

// Answer runs a frame that may not pass and returns the one that goes back for it, or nil.
func (d *Datapath) Answer(tb testing.TB, path Path, b []byte, from From) []byte {
	tb.Helper()
	o := ebpf.RunOptions{Data: b, DataOut: make([]byte, len(b)+256), Context: from.context(path, len(b))}
	result, err := d.programs[string(path)].Run(&o)
	switch {
	case err != nil:
		tb.Fatalf("run %s: %v", path, err)
	case isAnswer(path, result):
		return o.DataOut
	case result != Verdict(path, false):
		tb.Fatalf("%s returned %d", path, int32(result))
	}
	return nil
}

// Verdict returns what a program says of a frame that passes, or does not.
func Verdict(path Path, passes bool) uint32 {
	switch {
	case path == XDP && passes:
		return xdpPass
	case path == XDP:
		return xdpDrop
	case passes:
		return tcNext
	}
	return tcShot
}

// CanRun reports whether the kernel takes a frame for a test run. It wants a whole Ethernet header, and on TC, where
// it looks at the EtherType, a whole IP header behind it. (A tag hides the IP header from it.)
func CanRun(path Path, b []byte) bool {
	if len(b) < frame.EthernetLen {
		return false
	}
	if path == XDP {
		return true
	}
	switch binary.BigEndian.Uint16(b[12:]) {
	case frame.TypeIPv4:
		return len(b) >= frame.EthernetLen+frame.IPv4Len
	case frame.TypeIPv6:
		return len(b) >= frame.EthernetLen+frame.IPv6Len
	}
	return true
}

// Program returns one of the loaded programs, for benchmarks.
func (d *Datapath) Program(path Path) *ebpf.Program { return d.programs[string(path)] }
