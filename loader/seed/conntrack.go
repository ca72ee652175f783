// SPDX-License-Identifier: Apache-2.0

package seed

import (
	"encoding/binary"
	"errors"
	"net/netip"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// entry is a connection that netfilter tracks. The netlink package reads the table, too, but leaves out the status, which
// alone says whether somebody has answered.
type entry struct {
	protocol uint8
	tcpState uint8
	answered bool
	assured  bool
	original tuple
	reply    tuple
}

type tuple struct{ from, to netip.AddrPort }

const seenReply, assured = 1 << 1, 1 << 2 // IPS_SEEN_REPLY and IPS_ASSURED (linux/netfilter/nf_conntrack_common.h)

const nestedMask = ^uint16(unix.NLA_F_NESTED | unix.NLA_F_NET_BYTEORDER)

// tracked returns the entries of the connection tracking table.
func tracked() (entries []entry, err error) {
	req := nl.NewNetlinkRequest(unix.NFNL_SUBSYS_CTNETLINK<<8|nl.IPCTNL_MSG_CT_GET, unix.NLM_F_DUMP)
	req.AddData(&nl.Nfgenmsg{NfgenFamily: unix.AF_UNSPEC, Version: nl.NFNETLINK_V0})
	messages, err := req.Execute(unix.NETLINK_NETFILTER, 0)
	if err != nil && !errors.Is(err, netlink.ErrDumpInterrupted) {
		return nil, err
	}
	for _, m := range messages {
		if e, ok := parseEntry(m); ok {
			entries = append(entries, e)
		}
	}
	return entries, err
}

// parseEntry reads a message about an entry; one of a kind that this does not know is not ok.
func parseEntry(message []byte) (e entry, ok bool) {
	if len(message) < nl.SizeofNfgenmsg {
		return e, false
	}
	top := attributes(message[nl.SizeofNfgenmsg:])
	var replied uint8
	if e.original, e.protocol, ok = parseTuple(top[nl.CTA_TUPLE_ORIG]); !ok {
		return e, false
	}
	if e.reply, replied, ok = parseTuple(top[nl.CTA_TUPLE_REPLY]); !ok || replied != e.protocol {
		return e, false
	}
	if s := top[nl.CTA_STATUS]; len(s) >= 4 {
		status := binary.BigEndian.Uint32(s)
		e.answered, e.assured = status&seenReply != 0, status&assured != 0
	}
	info := attributes(top[nl.CTA_PROTOINFO])
	tcp := attributes(info[nl.CTA_PROTOINFO_TCP])
	if state := tcp[nl.CTA_PROTOINFO_TCP_STATE]; len(state) > 0 {
		e.tcpState = state[0]
	}
	return e, true
}

func parseTuple(b []byte) (t tuple, protocol uint8, ok bool) {
	parts := attributes(b)
	addrs, proto := attributes(parts[nl.CTA_TUPLE_IP]), attributes(parts[nl.CTA_TUPLE_PROTO])
	number := proto[nl.CTA_PROTO_NUM]
	from, isV4 := netip.AddrFromSlice(addrs[nl.CTA_IP_V4_SRC])
	to, _ := netip.AddrFromSlice(addrs[nl.CTA_IP_V4_DST])
	if !isV4 {
		from, _ = netip.AddrFromSlice(addrs[nl.CTA_IP_V6_SRC])
		to, _ = netip.AddrFromSlice(addrs[nl.CTA_IP_V6_DST])
	}
	if !from.IsValid() || !to.IsValid() || len(number) == 0 {
		return t, 0, false
	}
	port := func(kind int) uint16 {
		if b := proto[kind]; len(b) >= 2 {
			return binary.BigEndian.Uint16(b)
		}
		return 0
	}
	return tuple{netip.AddrPortFrom(from, port(nl.CTA_PROTO_SRC_PORT)), netip.AddrPortFrom(to, port(nl.CTA_PROTO_DST_PORT))}, number[0], true
}

// attributes returns netlink attributes by their type. There may be millions of entries, so nothing is allocated.
func attributes(b []byte) (out [32][]byte) {
	for len(b) >= unix.SizeofNlAttr {
		length := int(binary.NativeEndian.Uint16(b))
		if length < unix.SizeofNlAttr || length > len(b) {
			break
		}
		if kind := binary.NativeEndian.Uint16(b[2:]) & nestedMask; int(kind) < len(out) {
			out[kind] = b[unix.SizeofNlAttr:length]
		}
		b = b[min((length+3)&^3, len(b)):]
	}
	return out
}
