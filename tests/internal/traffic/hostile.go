// SPDX-License-Identifier: Apache-2.0

package traffic

import (
	"errors"
	"fmt"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"
)

// Talks is how many requests a connection makes before the last: the kernel then no longer acknowledges at once.
const Talks = 30

// dial opens a connection whose reads and writes wait a second at most.
func dial(to netip.AddrPort) (fd int, err error) {
	fd, err = unix.Socket(familyOf(to.Addr()), unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	second := unix.Timeval{Sec: 1}
	err = errors.Join(unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &second),
		unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &second))
	if err == nil {
		_, err = uninterrupted(func() (int, error) { return 0, unix.Connect(fd, sockaddr(to)) })
	}
	if err != nil {
		unix.Close(fd)
		return -1, fmt.Errorf("connect to %s: %w", to, err)
	}
	return fd, nil
}

// uninterrupted repeats a call for as long as a signal of Go's runtime ends it: the kernel does not by itself repeat
// what has a timeout.
func uninterrupted(call func() (int, error)) (int, error) {
	for {
		if n, err := call(); err != unix.EINTR {
			return n, err
		}
	}
}

func read(fd int, to []byte) (int, error) {
	return uninterrupted(func() (int, error) { return unix.Read(fd, to) })
}

func write(fd int, text []byte) (int, error) {
	return uninterrupted(func() (int, error) { return unix.Write(fd, text) })
}

// say makes one request and reads its answer.
func say(fd int, ending Ending) error {
	var answer [200]byte
	if _, err := write(fd, []byte{byte(ending), 'a', 's', 'k'}); err != nil {
		return err
	}
	n, err := read(fd, answer[:])
	if err == nil && n == 0 {
		err = errors.New("closed before the answer")
	}
	return err
}

// Suffer makes connections, one after the other, that the peer ends by a RST while our acknowledgement waits.
func Suffer(to netip.AddrPort, count int, ending Ending) error {
	for range count {
		fd, err := dial(to)
		if err != nil {
			return err
		}
		for range Talks {
			if err = say(fd, Hold); err != nil {
				break
			}
		}
		if err != nil {
			unix.Close(fd)
			return fmt.Errorf("talk to %s: %w", to, err)
		}
		_ = say(fd, ending) // the RST may be here before the answer is read
		var rest [4096]byte
		for {
			if n, err := read(fd, rest[:]); n <= 0 || err != nil {
				break
			}
		}
		unix.Close(fd)
	}
	return nil
}

// Abandoned makes connections whose peer vanishes while data of ours is on its way. For every other one the peer has
// stopped to read before, so that its window is closed. Vanish takes it off the net. It returns when our kernel has
// given all up, which it does after a time.
func Abandoned(to netip.AddrPort, count int, vanish func() error, after time.Duration) error {
	var fds []int
	defer func() {
		for _, fd := range fds {
			unix.Close(fd)
		}
	}()
	for i := range count {
		fd, err := dial(to)
		if err != nil {
			return err
		}
		fds = append(fds, fd)
		err = errors.Join(say(fd, []Ending{Hold, TheyStall}[i%2]), unix.SetNonblock(fd, true),
			unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(after.Milliseconds())))
		if err != nil {
			return err
		}
	}
	for range 20 { // a window closes only when what is queued is acknowledged
		for i := 1; i < count; i += 2 {
			fill(fds[i])
		}
		time.Sleep(20 * time.Millisecond)
	}
	if err := vanish(); err != nil {
		return err
	}
	for _, fd := range fds {
		_, _ = write(fd, []byte("more"))
	}
	deadline := time.Now().Add(3*after + 10*time.Second)
	for _, fd := range fds {
		poll := []unix.PollFd{{Fd: int32(fd)}}
		for poll[0].Revents&(unix.POLLERR|unix.POLLHUP) == 0 {
			if time.Until(deadline) <= 0 {
				return errors.New("the kernel keeps connections of a peer that has vanished")
			}
			if _, err := wait(poll, deadline); err != nil {
				return err
			}
		}
	}
	return nil
}

func fill(fd int) {
	var text [16 << 10]byte
	for {
		if n, err := write(fd, text[:]); n <= 0 || err != nil {
			return
		}
	}
}

// Alive counts the connections that still answer.
func Alive(fds []int, deadline time.Duration) (alive int) {
	for _, fd := range fds {
		_, _ = write(fd, []byte{byte(Hold)})
	}
	return Heard(fds, deadline)
}

// Heard counts the connections on which something comes in, before the deadline.
func Heard(fds []int, deadline time.Duration) (heard int) {
	end := time.Now().Add(deadline)
	for _, fd := range fds {
		poll := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		if n, err := wait(poll, end); n != 1 || err != nil {
			continue
		}
		var text [64]byte
		if n, err := read(fd, text[:]); n > 0 && err == nil {
			heard++
		}
	}
	return heard
}

// wait polls until the deadline. It returns how many descriptors have something to tell.
func wait(poll []unix.PollFd, deadline time.Time) (int, error) {
	return uninterrupted(func() (int, error) {
		return unix.Poll(poll, int(max(0, time.Until(deadline).Milliseconds())))
	})
}
