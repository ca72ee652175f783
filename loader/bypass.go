// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/portcullis-firewall/portcullis/host"
	"github.com/portcullis-firewall/portcullis/loader/hook"
	"github.com/portcullis-firewall/portcullis/loader/pin"
	"github.com/portcullis-firewall/portcullis/maps"
	"github.com/portcullis-firewall/portcullis/policy"
	"github.com/portcullis-firewall/portcullis/policy/quote"
)

// What is attached may not be run: a driver that makes its queues anew can forget the program, and the kernel goes on
// to say that it is attached. So the datapath notes when it last ran for each device, and who wants to know compares
// that with what reaches the stack from the device, as a packet socket sees it. The device's own counters would not
// do: drivers count what their filters drop, what they pass on to virtual machines, and drops by XDP or not.

// LookTime is how long a command looks at an interface on which nothing has come in just now.
const LookTime = 250 * time.Millisecond

// transitTime is longer than a packet takes from XDP to the packet sockets: drivers and GRO gather some.
const transitTime = 100 * time.Millisecond

const (
	strikesOut = 2  // packets, each on its own, for which the program did not run: one may have been held up
	runsEnough = 20 // times that the program has run till nobody doubts it
)

// suspect is an interface on which the program has not run lately, and the tap that sees what reaches the stack.
type suspect struct {
	iface         Interface
	slot          uint32
	tap           int
	since         uint32 // jiffies: what the tap gets next has met the program later
	strikes, runs int
}

// Bypassed returns the interfaces from which packets have reached the stack while the program that filters there did
// not run. It looks for as long as patience, and twice as long at most; where packets come in all the time, not at all.
// An interface without any packet proves nothing and is not among them.
func (f *Filter) Bypassed(ctx context.Context, patience time.Duration) (found []Interface, err error) {
	since, err := f.beforeTransit()
	if err != nil {
		return nil, err
	}
	suspects, err := f.suspects(since)
	defer func() {
		for _, s := range suspects {
			unix.Close(s.tap)
		}
	}()
	if err != nil {
		return nil, err
	}
	end, extended := time.Now().Add(patience), false
	for len(suspects) > 0 && len(found) == 0 && ctx.Err() == nil {
		left := time.Until(end)
		if left <= 0 {
			break
		}
		if err := awaitPacket(suspects, min(left, transitTime)); err != nil {
			return nil, err
		}
		before, err := f.beforeTransit()
		if err != nil {
			return nil, err
		}
		for i := range suspects {
			s := &suspects[i]
			if err := f.examine(s, before); err != nil {
				return nil, err
			}
			if s.strikes > 0 && !extended {
				end, extended = end.Add(patience), true
			}
			if s.strikes == strikesOut && f.stillFilters(s.iface) {
				found = append(found, s.iface)
			}
		}
		suspects = slices.DeleteFunc(suspects, func(s suspect) bool {
			over := s.strikes >= strikesOut || s.runs >= runsEnough
			if over {
				unix.Close(s.tap)
			}
			return over
		})
	}
	return found, nil
}

// examine takes what the tap has got, and asks whether the program ran for it. Before is when the program may have met
// what comes to the tap from now on.
func (f *Filter) examine(s *suspect, before uint32) error {
	packet := s.hasPacket()
	if packet {
		time.Sleep(transitTime / 5) // TC comes after packet sockets
	}
	ran, err := f.ranSince(s.slot, s.since)
	if err != nil {
		return err
	}
	switch {
	case ran:
		s.runs++
	case packet:
		s.strikes++
	}
	s.since = before
	return nil
}

// beforeTransit returns the time (jiffies) before which no packet has met the program that is still on its way.
func (f *Filter) beforeTransit() (uint32, error) {
	now, err := f.now()
	return uint32(now) - maps.Jiffies(transitTime, f.running.HZ), err
}

// ranSince reports whether the program that notes it in a slot has run since a time (jiffies).
func (f *Filter) ranSince(slot, since uint32) (bool, error) {
	last, err := f.set.LastRun(slot)
	return int32(last-since) >= 0, err
}

// suspects opens a tap for each interface on which the program has not run since a time.
func (f *Filter) suspects(since uint32) (list []suspect, err error) {
	interfaces, err := f.Interfaces()
	if err != nil {
		return nil, err
	}
	for _, i := range interfaces {
		slot := f.runSlot(i)
		l, err := host.Device(i.Name)
		if err != nil || !i.Present || slot == 0 {
			continue
		}
		ran, err := f.ranSince(slot, since)
		if err != nil {
			return list, err
		}
		if ran {
			continue
		}
		tap, err := openTap(l.Attrs().Index)
		if errors.Is(err, unix.ENODEV) || errors.Is(err, unix.ENXIO) {
			continue // gone a moment ago
		}
		if err != nil {
			return list, fmt.Errorf("%s: look whether the filter sees what comes in: %w", i.Name, err)
		}
		list = append(list, suspect{iface: i, slot: slot, tap: tap, since: since})
	}
	return list, nil
}

// runSlot returns where the program that filters an interface notes that it runs, or 0 where it cannot tell.
func (f *Filter) runSlot(i Interface) uint32 {
	for _, direction := range []string{pin.In, pin.InFrags} {
		if loaded, err := pin.LoadedWith(pin.Program(f.pins.Policy(), i.Name, direction)); err == nil {
			return loaded.RunSlot
		}
	}
	return 0
}

// stillFilters reports whether an interface is filtered as it was: somebody may have taken the filter off meanwhile.
func (f *Filter) stillFilters(was Interface) bool {
	if !f.isCurrent() {
		return false // the next look tells
	}
	now, err := f.Interfaces()
	return err == nil && slices.Contains(now, was)
}

// openTap opens a packet socket for what comes in on a device. It keeps a byte a packet, and few of them.
func openTap(index int) (int, error) {
	// Of no protocol, so that nothing comes in before it is bound.
	tap, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return -1, err
	}
	onlyLength := []unix.SockFilter{{Code: unix.BPF_RET | unix.BPF_K, K: 1}}
	err = errors.Join(
		unix.SetsockoptInt(tap, unix.SOL_PACKET, unix.PACKET_IGNORE_OUTGOING, 1),
		unix.SetsockoptInt(tap, unix.SOL_SOCKET, unix.SO_RCVBUF, 1),
		unix.SetsockoptSockFprog(tap, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: 1, Filter: &onlyLength[0]}),
	)
	if err == nil {
		err = unix.Bind(tap, &unix.SockaddrLinklayer{Protocol: networkOrder(unix.ETH_P_ALL), Ifindex: index})
	}
	if err != nil {
		unix.Close(tap)
		return -1, err
	}
	return tap, nil
}

// networkOrder turns a number into that of big-endian memory.
func networkOrder(n uint16) uint16 {
	return binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, n))
}

// awaitPacket waits until a tap has one.
func awaitPacket(suspects []suspect, patience time.Duration) error {
	fds := make([]unix.PollFd, len(suspects))
	for i, s := range suspects {
		fds[i] = unix.PollFd{Fd: int32(s.tap), Events: unix.POLLIN}
	}
	if _, err := unix.Poll(fds, int(patience.Milliseconds())+1); err != nil && !errors.Is(err, unix.EINTR) {
		return fmt.Errorf("wait for a packet: %w", err)
	}
	return nil
}

// hasPacket takes all packets that the tap has, and reports whether there was one. That the device went down is none.
func (s *suspect) hasPacket() (had bool) {
	for {
		n, _, err := unix.Recvfrom(s.tap, make([]byte, 1), 0)
		if err != nil {
			return had
		}
		had = had || n > 0
	}
}

// Runner names what is to run the program of an interface.
func (i Interface) Runner() string {
	driver := hook.Driver(i.Name)
	if i.Mode != ModeNative || driver == "" {
		return "the kernel"
	}
	return "the driver " + driver
}

// BypassText returns a sentence for an interface whose program packets bypass, with what to do.
func (i Interface) BypassText() string {
	if i.Mode == ModeTC {
		return fmt.Sprintf("%s: packets reach this host past the filter, and another TC program may take them before it: \"portcullis doctor %s\" lists those", i.Name, quote.Shell(i.Name))
	}
	return fmt.Sprintf("%s: packets reach this host past the filter, as %s does not run the XDP program that is attached: \"portcullis up %s --mode tc\" filters them", i.Name, i.Runner(), quote.Shell(i.Name))
}

// distrust returns why the XDP program of a target is not to stay, or "".
func (c *change) distrust(t *target) string {
	if t.oldIn.Kind == hook.XDP {
		if why := c.distrustDriver(t); why != "" {
			return why
		}
	}
	if t.oldIn.IsXDP() && slices.ContainsFunc(c.bypassed, func(i Interface) bool { return i.Name == t.name() }) {
		return "packets reached this host past its XDP program"
	}
	return ""
}

// distrustDriver returns why auto does not take the native XDP of a target's driver, or "".
func (c *change) distrustDriver(t *target) string {
	inForce := c.options.Policy
	if inForce == nil { // an interface that comes back
		inForce = c.old.running.Policy
	}
	switch driver := hook.Driver(t.name()); {
	case driver == "vmxnet3":
		return "vmxnet3 ceases to run an XDP program when the device is set down and up, or its MTU or rings change"
	case driver == "veth" && inForce.For(t.name()).Input == policy.Reject:
		return "the other end of a veth takes answers of native XDP only where it has GRO or an XDP program"
	}
	return ""
}
