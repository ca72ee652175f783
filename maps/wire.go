// SPDX-License-Identifier: Apache-2.0

package maps

import (
	"encoding/binary"
	"net/netip"

	"github.com/portcullis-firewall/portcullis/bpf"
)

// Addresses stand in the maps as on the wire. Their words are read in the host's order, so that the bytes stay.

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

func flowKey4(f *Flow) bpf.FirewallFlowKey4 {
	return bpf.FirewallFlowKey4{
		Local:      word4(f.Local.Addr()),
		Remote:     word4(f.Remote.Addr()),
		LocalPort:  f.Local.Port(),
		RemotePort: f.Remote.Port(),
		Protocol:   f.Protocol,
	}
}

func flowKey6(f *Flow) bpf.FirewallFlowKey6 {
	return bpf.FirewallFlowKey6{
		Local:      words6(f.Local.Addr()),
		Remote:     words6(f.Remote.Addr()),
		LocalPort:  f.Local.Port(),
		RemotePort: f.Remote.Port(),
		Protocol:   f.Protocol,
	}
}

func (f *Flow) setKey4(k *bpf.FirewallFlowKey4) {
	f.Protocol = k.Protocol
	f.Local = netip.AddrPortFrom(addr4(k.Local), k.LocalPort)
	f.Remote = netip.AddrPortFrom(addr4(k.Remote), k.RemotePort)
}

func (f *Flow) setKey6(k *bpf.FirewallFlowKey6) {
	f.Protocol = k.Protocol
	f.Local = netip.AddrPortFrom(addr6(k.Local), k.LocalPort)
	f.Remote = netip.AddrPortFrom(addr6(k.Remote), k.RemotePort)
}

func flowValue(f *Flow) bpf.FirewallFlow {
	return bpf.FirewallFlow{Expires: f.Expires, Created: f.Created, State: uint8(f.State)}
}

func (f *Flow) setValue(v *bpf.FirewallFlow) {
	f.Expires, f.Created, f.State = v.Expires, v.Created, FlowState(v.State)
}

func sourceKey4(set uint16, p netip.Prefix) bpf.FirewallSourceKey4 {
	return bpf.FirewallSourceKey4{PrefixLen: 32 + uint32(p.Bits()), Set: uint32(set), Addr: word4(p.Addr())}
}

func sourceKey6(set uint16, p netip.Prefix) bpf.FirewallSourceKey6 {
	return bpf.FirewallSourceKey6{PrefixLen: 32 + uint32(p.Bits()), Set: uint32(set), Addr: words6(p.Addr())}
}

func prefixOf4(k *bpf.FirewallSourceKey4) netip.Prefix {
	return netip.PrefixFrom(addr4(k.Addr), int(k.PrefixLen)-32)
}

func prefixOf6(k *bpf.FirewallSourceKey6) netip.Prefix {
	return netip.PrefixFrom(addr6(k.Addr), int(k.PrefixLen)-32)
}

func localKey4(p netip.Prefix) bpf.FirewallLocalKey4 {
	return bpf.FirewallLocalKey4{PrefixLen: uint32(p.Bits()), Addr: word4(p.Addr())}
}

func localKey6(p netip.Prefix) bpf.FirewallLocalKey6 {
	return bpf.FirewallLocalKey6{PrefixLen: uint32(p.Bits()), Addr: words6(p.Addr())}
}
