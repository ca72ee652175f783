// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"encoding/binary"
	"errors"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/portcullis-firewall/portcullis/maps"
)

// socket is one connected socket.
type socket struct {
	local, remote netip.AddrPort
	state         uint8
	inode         uint32 // 0 before it is accepted
}

func addrPort(ip net.IP, port uint16) netip.AddrPort {
	addr, _ := netip.AddrFromSlice(ip)
	return netip.AddrPortFrom(addr.Unmap(), port)
}

// isOutside tells that a connection leaves this host.
func isOutside(local, remote netip.AddrPort) bool {
	return remote.IsValid() && remote.Port() != 0 && !remote.Addr().IsUnspecified() && !remote.Addr().IsLoopback() &&
		!local.Addr().IsLoopback() && local.Addr() != remote.Addr()
}

// eachSocket calls each for every connected socket of one protocol that talks to another host. One that listens has
// no remote end.
func eachSocket(protocol int, each func(*socket)) error {
	return everySocket(protocol, func(k *socket) {
		if isOutside(k.local, k.remote) {
			each(k)
		}
	})
}

// everySocket calls each for every socket of one protocol.
func everySocket(protocol int, each func(*socket)) error {
	list := netlink.SocketDiagTCP
	if protocol == unix.IPPROTO_UDP {
		list = netlink.SocketDiagUDP
	}
	for _, family := range []uint8{unix.AF_INET, unix.AF_INET6} {
		sockets, err := list(family)
		if err != nil && !errors.Is(err, netlink.ErrDumpInterrupted) {
			if err := eachProcSocket(protocol, family, each); err != nil {
				return err
			}
			continue
		}
		for _, s := range sockets {
			each(&socket{addrPort(s.ID.Source, s.ID.SourcePort), addrPort(s.ID.Destination, s.ID.DestinationPort), s.State, s.INode})
		}
	}
	return nil
}

// destroyRequest is struct inet_diag_req_v2 (linux/inet_diag.h) for SOCK_DESTROY.
type destroyRequest struct {
	flow *maps.Flow
}

const diagRequestLen = 56 // struct inet_diag_req_v2

// Len implements nl.NetlinkRequestData.
func (r *destroyRequest) Len() int { return diagRequestLen }

// Serialize implements nl.NetlinkRequestData.
func (r *destroyRequest) Serialize() []byte {
	b := make([]byte, diagRequestLen)
	b[0] = unix.AF_INET
	if r.flow.Local.Addr().Is6() {
		b[0] = unix.AF_INET6
	}
	b[1] = r.flow.Protocol
	binary.NativeEndian.PutUint32(b[4:], ^uint32(0)) // every state
	binary.BigEndian.PutUint16(b[8:], r.flow.Local.Port())
	binary.BigEndian.PutUint16(b[10:], r.flow.Remote.Port())
	copy(b[12:28], r.flow.Local.Addr().AsSlice())
	copy(b[28:44], r.flow.Remote.Addr().AsSlice())
	binary.NativeEndian.PutUint32(b[48:], ^uint32(0)) // no cookie: the addresses tell
	binary.NativeEndian.PutUint32(b[52:], ^uint32(0))
	return b
}

// destroySocket closes the socket of a flow; its peer gets a reset. Kernels without CONFIG_INET_DIAG_DESTROY refuse.
func destroySocket(flow *maps.Flow) error {
	req := nl.NewNetlinkRequest(nl.SOCK_DESTROY, unix.NLM_F_ACK)
	req.AddData(&destroyRequest{flow})
	_, err := req.Execute(unix.NETLINK_INET_DIAG, 0)
	return err
}
