// SPDX-License-Identifier: Apache-2.0

package host

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/portcullis-firewall/portcullis/loader"
	"github.com/portcullis-firewall/portcullis/policy"
	"github.com/portcullis-firewall/portcullis/tests/internal/lab"
)

// sendInPieces sends one packet of a raw IPv6 socket so that its buffer holds only the first bytes in its linear part.
func sendInPieces(t *testing.T, from *lab.Host, to netip.Addr, protocol, first int, payload []byte) {
	t.Helper()
	from.Do(t, func() error {
		fd, err := unix.Socket(unix.AF_INET6, unix.SOCK_RAW|unix.SOCK_CLOEXEC, protocol)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		addr := &unix.SockaddrInet6{Addr: to.As16()}
		if err := unix.Sendto(fd, payload[:first], unix.MSG_MORE, addr); err != nil {
			return err
		}
		return unix.Sendto(fd, payload[first:], 0, addr)
	})
}

// quotedTCP is an IPv6 TCP packet as an ICMP error quotes it.
func quotedTCP(src, dst netip.Addr, srcPort, dstPort uint16) []byte {
	var b bytes.Buffer
	b.Write([]byte{0x60, 0, 0, 0, 0, 20, unix.IPPROTO_TCP, 64})
	b.Write(src.AsSlice())
	b.Write(dst.AsSlice())
	binary.Write(&b, binary.BigEndian, []uint16{srcPort, dstPort})
	b.Write(make([]byte, 16))
	return b.Bytes()
}

// What TC finds outside a buffer's linear part is pulled in and read, not dropped and not let through unread.
func TestHeadersOutsideTheLinearPart(t *testing.T) {
	eachMode(t, func(t *testing.T, l *lab.Lab, mode loader.Mode) {
		p := policyOf(t, "80/tcp")
		p.ICMP = policy.ICMP{Mode: policy.ICMPDrop}
		up(t, l, mode, p)

		unreachable := append(make([]byte, 8), quotedTCP(lab.ServerV6, lab.ClientV6, 80, 4000)...)
		unreachable[0] = 1
		sendInPieces(t, l.Client, lab.ServerV6, unix.IPPROTO_ICMPV6, 8, unreachable)
		if got := counter(t, l, "related"); got != 1 {
			t.Errorf("%d related errors counted, want the one about the open port", got)
		}
		unreachable = append(make([]byte, 8), quotedTCP(lab.ServerV6, lab.ClientV6, 81, 4000)...)
		unreachable[0] = 1
		sendInPieces(t, l.Client, lab.ServerV6, unix.IPPROTO_ICMPV6, 8, unreachable)
		if related, dropped := counter(t, l, "related"), counter(t, l, "icmp"); related != 1 {
			t.Errorf("an error about nothing of ours is related (%d; %d dropped)", related, dropped)
		}

		// Out: destination options, of which only two bytes are linear, and behind them UDP.
		options := []byte{unix.IPPROTO_UDP, 0, 1, 4, 0, 0, 0, 0}
		query := binary.BigEndian.AppendUint16(nil, 5000)
		query = binary.BigEndian.AppendUint16(query, 53)
		query = binary.BigEndian.AppendUint16(query, 12)
		query = append(query, 0, 0, 'a', 's', 'k', '?')
		sendInPieces(t, l.Server, lab.ClientV6, unix.IPPROTO_DSTOPTS, 2, append(options, query...))
		found := false
		with(t, l, func(f *loader.Filter) error {
			return f.Flows(func(flow loader.Flow) bool {
				found = found || flow.Protocol == "udp" && flow.Local.Port() == 5000 && flow.Remote.Port() == 53
				return true
			})
		})
		if !found {
			t.Error("the query made no flow")
		}
	})
}
