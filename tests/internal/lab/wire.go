// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"fmt"
	"testing"

	"golang.org/x/sys/unix"
)

// Wire is a packet socket at an interface of a host, past the host's own stack. It hears nothing until it is bound.
type Wire struct{ FD, Index int }

// Wire opens the wire of an interface, as long as the test lasts.
func (h *Host) Wire(t testing.TB, dev string) (w Wire) {
	t.Helper()
	h.Do(t, func() (err error) {
		w.FD, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return fmt.Errorf("open a packet socket: %w", err)
		}
		t.Cleanup(func() { unix.Close(w.FD) })
		request, err := unix.NewIfreq(dev)
		if err != nil {
			return err
		}
		if err := unix.IoctlIfreq(w.FD, unix.SIOCGIFINDEX, request); err != nil {
			return fmt.Errorf("find %s: %w", dev, err)
		}
		w.Index = int(request.Uint32())
		return nil
	})
	return w
}

// Send puts a frame on the wire.
func (w Wire) Send(frame []byte) error {
	return unix.Sendto(w.FD, frame, 0, &unix.SockaddrLinklayer{Ifindex: w.Index})
}
