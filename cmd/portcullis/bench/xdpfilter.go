// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"encoding/binary"
	"fmt"
	"strconv"
	"unsafe"

	"github.com/cilium/ebpf"
)

// xdpFilter is xdp-filter of xdp-tools, in the build with the least features that will do. It keeps no state, so
// replies are not for it.
type xdpFilter struct{}

const xdpFilterMaps = "/sys/fs/bpf/xdp-filter/"

func stateless(r rules) string {
	if r.flows > 0 {
		return "it keeps no state"
	}
	if r.blocked > 0 {
		return "it is not measured with a block list"
	}
	return r.conditional()
}

func (xdpFilter) install(s *stand, r rules) error {
	proto := r.protocolName()
	if _, err := command("", "xdp-filter", "load", "-m", "native", "-p", "deny", "-f", proto, s.to.name); err != nil {
		return err
	}
	if _, err := command("", "xdp-filter", "port", "-m", "dst", "-p", proto, strconv.Itoa(int(r.ports[0]))); err != nil {
		return err
	}
	return openMore(r.ports)
}

// openMore gives all ports the entry of the first one. A run of the program for each would take 5 ms.
func openMore(ports []uint16) error {
	m, err := ebpf.LoadPinnedMap(xdpFilterMaps+"filter_ports", nil)
	if err != nil {
		return fmt.Errorf("xdp-filter: %w", err)
	}
	defer m.Close()
	var entry []uint64
	if err := m.Lookup(onWire(ports[0]), &entry); err != nil {
		return fmt.Errorf("xdp-filter: read its ports: %w", err)
	}
	for _, port := range ports[1:] {
		if err := m.Put(onWire(port), entry); err != nil {
			return fmt.Errorf("xdp-filter: open port %d: %w", port, err)
		}
	}
	return nil
}

// onWire is a port as a frame has it, read as a number of this machine: xdp-filter's key.
func onWire(port uint16) uint32 {
	return uint32(binary.BigEndian.Uint16((*[2]byte)(unsafe.Pointer(&port))[:]))
}

func (xdpFilter) remove(s *stand) error {
	_, err := command("", "xdp-filter", "unload", s.to.name)
	return err
}

// counted reads the statistics: packets and bytes by action. "xdp-filter status" prints them too, and fails where not
// every feature is built in.
func (xdpFilter) counted(_ *stand, f fate) (n uint64, has bool, err error) {
	m, err := ebpf.LoadPinnedMap(xdpFilterMaps+"xdp_stats_map", nil)
	if err != nil {
		return 0, true, fmt.Errorf("xdp-filter: %w", err)
	}
	defer m.Close()
	action := uint32(xdpDrop)
	if f != dropped {
		action = xdpPass
	}
	var entry []struct{ Packets, Bytes uint64 }
	if err := m.Lookup(action, &entry); err != nil {
		return 0, true, fmt.Errorf("xdp-filter: read its statistics: %w", err)
	}
	for _, cpu := range entry {
		n += cpu.Packets
	}
	return n, true, nil
}
