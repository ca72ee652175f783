// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"fmt"
	"testing"

	"golang.org/x/sys/unix"
)

// Send puts frames on the wire of a host's interface, past its own stack.
func (h *Host) Send(t testing.TB, dev string, frames ...[]byte) {
	t.Helper()
	h.Do(t, func() error {
		// Protocol 0: it sends and hears nothing.
		fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return fmt.Errorf("open a packet socket: %w", err)
		}
		defer unix.Close(fd)
		request, err := unix.NewIfreq(dev)
		if err != nil {
			return err
		}
		if err := unix.IoctlIfreq(fd, unix.SIOCGIFINDEX, request); err != nil {
			return fmt.Errorf("find %s: %w", dev, err)
		}
		for _, f := range frames {
			if err := unix.Sendto(fd, f, 0, &unix.SockaddrLinklayer{Ifindex: int(request.Uint32())}); err != nil {
				return fmt.Errorf("send on %s: %w", dev, err)
			}
		}
		return nil
	})
}
