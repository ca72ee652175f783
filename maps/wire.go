// SPDX-License-Identifier: Apache-2.0

package maps

import (
	"encoding/binary"
	"net/netip"

	"github.com/portcullis-firewall/portcullis/bpf"
)

// Addresses are in the maps as on the wire: their words are read in the host's byte order, so that the bytes stay.

func word4(a netip.Addr) uint32 {
	b := a.As4()
	return binary.NativeEndian.Uint32(b[:])
}

func words6(a netip.Addr) (words [4]uint32) {
	b := a.As16()
	for i := range words {
		words[i] = binary.NativeEndian.Uint32(b[i*4:])
	}
	return words
}

func addr4(word uint32) netip.Addr {
	var b [4]byte
	binary.NativeEndian.PutUint32(b[:], word)
	return netip.AddrFrom4(b)
}

func addr6(words [4]uint32) netip.Addr {
	var b [16]byte
	for i, w := range words {
		binary.NativeEndian.PutUint32(b[i*4:], w)
	}
	return netip.AddrFrom16(b)
}

// flowKey returns the key of a flow. An IPv4 address is in the first word.
func flowKey(f *Flow) bpf.FirewallFlowKey {
	k := bpf.FirewallFlowKey{
		LocalPort:  f.Local.Port(),
		RemotePort: f.Remote.Port(),
		Protocol:   f.Protocol,
	}
	if f.Local.Addr().Is4() {
		k.Family, k.Local[0], k.Remote[0] = 4, word4(f.Local.Addr()), word4(f.Remote.Addr())
	} else {
		k.Family, k.Local, k.Remote = 6, words6(f.Local.Addr()), words6(f.Remote.Addr())
	}
	return k
}

func (f *Flow) setKey(k *bpf.FirewallFlowKey) {
	local, remote := addr4(k.Local[0]), addr4(k.Remote[0])
	if k.Family == 6 {
		local, remote = addr6(k.Local), addr6(k.Remote)
	}
	f.Protocol = k.Protocol
	f.Local, f.Remote = netip.AddrPortFrom(local, k.LocalPort), netip.AddrPortFrom(remote, k.RemotePort)
}

func flowValue(f *Flow) bpf.FirewallFlow {
	v := bpf.FirewallFlow{Expires: f.Expires, Created: f.Created, State: uint8(f.State)}
	if f.Answered {
		v.Marks |= uint16(bpf.FirewallMarkANSWERED)
	}
	if f.Assured {
		v.Marks |= uint16(bpf.FirewallMarkASSURED)
	}
	return v
}

func (f *Flow) setValue(v *bpf.FirewallFlow) {
	f.Expires, f.Created, f.State = v.Expires, v.Created, FlowState(v.State)
	f.Answered, f.Assured = isAnswered(v), isAssured(v)
}

// isLive reports whether packets may belong to a flow at a time (jiffies).
func isLive(v *bpf.FirewallFlow, now uint64) bool {
	return now < v.Expires && FlowState(v.State) != FlowKilled
}

// isAnswered reports whether something has come in for a flow.
func isAnswered(v *bpf.FirewallFlow) bool { return v.Marks&uint16(bpf.FirewallMarkANSWERED) != 0 }

// isAssured reports whether a flow keeps its place until it closes.
func isAssured(v *bpf.FirewallFlow) bool { return v.Marks&uint16(bpf.FirewallMarkASSURED) != 0 }

func localKey4(p netip.Prefix) bpf.FirewallLocalKey4 {
	return bpf.FirewallLocalKey4{PrefixLen: uint32(p.Bits()), Addr: word4(p.Addr())}
}

func localKey6(p netip.Prefix) bpf.FirewallLocalKey6 {
	return bpf.FirewallLocalKey6{PrefixLen: uint32(p.Bits()), Addr: words6(p.Addr())}
}
