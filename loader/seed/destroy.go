// SPDX-License-Identifier: Apache-2.0

package seed

import (
	"encoding/binary"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/portcullis-firewall/portcullis/maps"
)

const diagRequestLen = 56 // struct inet_diag_req_v2

// destroyRequest is struct inet_diag_req_v2 (linux/inet_diag.h) for SOCK_DESTROY.
type destroyRequest struct {
	flow *maps.Flow
}

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

// DestroySocket closes the socket of a flow; its peer gets a reset. Kernels without CONFIG_INET_DIAG_DESTROY refuse.
func DestroySocket(flow *maps.Flow) error {
	req := nl.NewNetlinkRequest(nl.SOCK_DESTROY, unix.NLM_F_ACK)
	req.AddData(&destroyRequest{flow})
	_, err := req.Execute(unix.NETLINK_INET_DIAG, 0)
	return err
}
