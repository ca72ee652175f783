// SPDX-License-Identifier: Apache-2.0

package differential

import (
	"errors"
	"fmt"
	"math/bits"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/portcullis-firewall/portcullis/tests/internal/lab"
)

// tap hears all that passes the eth0 of a host, in both directions.
type tap struct {
	fd     int
	buffer []byte
}

func newTap(t testing.TB, h *lab.Host) *tap {
	t.Helper()
	p := &tap{buffer: make([]byte, 1<<16)}
	wire := h.Wire(t, "eth0")
	p.fd = wire.FD
	h.Do(t, func() error {
		if err := unix.SetsockoptInt(p.fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 1<<24); err != nil {
			return err
		}
		all := bits.ReverseBytes16(unix.ETH_P_ALL)
		return unix.Bind(p.fd, &unix.SockaddrLinklayer{Protocol: all, Ifindex: wire.Index})
	})
	return p
}

// next returns the next frame, or nil when none comes in time.
func (p *tap) next(wait time.Duration) ([]byte, error) {
	timeout := unix.NsecToTimeval(int64(max(wait, time.Millisecond)))
	if err := unix.SetsockoptTimeval(p.fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &timeout); err != nil {
		return nil, err
	}
	for {
		n, _, err := unix.Recvfrom(p.fd, p.buffer, 0)
		switch {
		case errors.Is(err, unix.EINTR):
		case errors.Is(err, unix.EAGAIN):
			return nil, nil
		case err != nil:
			return nil, fmt.Errorf("listen at eth0: %w", err)
		default:
			return append([]byte{}, p.buffer[:n]...), nil
		}
	}
}

// lost is how many frames there was no room for since it was last asked.
func (p *tap) lost() (uint32, error) {
	stats, err := unix.GetsockoptTpacketStats(p.fd, unix.SOL_PACKET, unix.PACKET_STATISTICS)
	if err != nil {
		return 0, err
	}
	return stats.Drops, nil
}
