// SPDX-License-Identifier: Apache-2.0

package traffic

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"

	"github.com/portcullis-firewall/portcullis/tests/internal/frame"
)

// nobody is the user and group without rights.
const nobody = 65534

// mixed spreads numbers over 64 bits, a different one for each.
func mixed(n int) uint64 {
	x := uint64(n) * 0x9e3779b97f4a7c15
	return (x ^ x>>32) * 0xd6e8feb86659fd93
}

// within is an address of a prefix: the base, and some bits behind it.
func within(prefix netip.Prefix, bits uint64) netip.Addr {
	base := binary.BigEndian.Uint32(prefix.Addr().AsSlice())
	var a [4]byte
	binary.BigEndian.PutUint32(a[:], base|uint32(bits)&(1<<(32-prefix.Bits())-1))
	return netip.AddrFrom4(a)
}

// Dial begins connections to ever new ports and addresses of an IPv4 prefix, and closes each without waiting, as a user
// without rights may. The calling thread is that user's for ever.
func Dial(ctx context.Context, to netip.Prefix, rate int) (sent int, err error) {
	// For this thread alone, unlike what package unix does.
	for _, call := range []uintptr{unix.SYS_SETRESGID, unix.SYS_SETRESUID} {
		if _, _, errno := unix.RawSyscall(call, nobody, nobody, nobody); errno != 0 {
			return 0, fmt.Errorf("become nobody: %w", errno)
		}
	}
	for clock := newPace(rate); ctx.Err() == nil; {
		for range clock.wait() {
			bits := mixed(clock.done)
			clock.done++
			fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
			if err != nil {
				return sent, err
			}
			peer := netip.AddrPortFrom(within(to, bits), uint16(1024+bits>>40%60000))
			if err := unix.Connect(fd, sockaddr(peer)); errors.Is(err, unix.EINPROGRESS) {
				sent++
			}
			unix.Close(fd)
		}
	}
	return sent, nil
}

// Flood is frames from forged sources.
type Flood struct {
	Wire     func(frame []byte) error
	From, To frame.MAC
	Sources  netip.Prefix
	Target   netip.AddrPort
	TCP      bool // SYNs; otherwise datagrams
	Rate     int  // of sources, a second
	Twice    int  // how many sources later each sends again; 0: not
}

// Run sends until the context ends, and returns how many sources it used.
func (f Flood) Run(ctx context.Context) (sources int, err error) {
	clock := newPace(f.Rate)
	for ctx.Err() == nil {
		for range clock.wait() {
			if err := f.send(clock.done); err != nil {
				return clock.done, err
			}
			if again := clock.done - f.Twice; f.Twice > 0 && again >= 0 {
				if err := f.send(again); err != nil {
					return clock.done, err
				}
			}
			clock.done++
		}
	}
	return clock.done, nil
}

func (f Flood) send(number int) error {
	bits := mixed(number + 1)
	source, port := within(f.Sources, bits), uint16(1024+bits>>40%60000)
	var transport frame.Layer = frame.UDP{SrcPort: port, DstPort: f.Target.Port()}
	if f.TCP {
		transport = frame.TCP{SrcPort: port, DstPort: f.Target.Port(), Seq: uint32(bits), Flags: frame.SYN}
	}
	b := frame.Build(frame.Ethernet{Dst: f.To, Src: f.From}, frame.IPv4{Src: source, Dst: f.Target.Addr()}, transport,
		frame.Text("hello"))
	for range 100 {
		err := f.Wire(b)
		if !errors.Is(err, unix.ENOBUFS) {
			return err
		}
		time.Sleep(time.Millisecond)
	}
	return unix.ENOBUFS
}
