// SPDX-License-Identifier: Apache-2.0

// Package traffic makes the load under which two filters are compared: exchanges of real sockets, each with a deadline,
// and the attacks beside them. All of it is paced by the clock, so that the same is sent whatever becomes of it.
//
// Everything runs on the thread that calls it, in whose network namespace its sockets are.
package traffic

import (
	"fmt"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"
)

// Ending says how an exchange ends. It is the first byte of a request, so the peer knows.
type Ending byte

// How exchanges end.
const (
	WeClose   Ending = 'w' // our FIN is the first
	TheyClose Ending = 't' // the peer's FIN is
	WeReset   Ending = 'r' // we send a RST
	Hold      Ending = 'h' // not at all
	// The peer sends a RST right behind its answer, or behind more data than was asked for.
	TheyReset       Ending = 'R'
	TheyResetBehind Ending = 'D'
	// The peer neither reads any more, nor closes.
	TheyStall Ending = 'z'
	// The peer does not close, and knows nothing of the connection a second later.
	TheyForget Ending = 'f'
	// The peer answers again after a silence.
	TheyRepeat Ending = 'a'
)

// Ask is a number of exchanges, each from a socket of its own: a query in a datagram, or a connection.
type Ask struct {
	To       netip.AddrPort
	Ports    int    // that many from To on, in turn; 0: one
	From     uint16 // the first local port, the next ones of the others; 0: the kernel's choice
	TCP      bool
	Rate     int // begun in a second
	Count    int
	Deadline time.Duration // of one exchange
	Endings  []Ending      // of connections, in turn; none: WeClose
}

// Result is what became of exchanges.
type Result struct {
	Sent, Answered int
	Refused        int // by our own kernel, of those that were not answered
	Held           []int
}

// Lost returns how many exchanges were not answered in time.
func (r Result) Lost() int { return r.Sent - r.Answered }

func (r Result) String() string {
	return fmt.Sprintf("%d sent, %d lost, %d of them refused by the kernel", r.Sent, r.Lost(), r.Refused)
}

// burst is how much is sent at once when the clock has gone ahead: a native XDP veth has a ring of 256 frames.
const burst = 64

// pace tells how many of something are due.
type pace struct {
	start time.Time
	rate  int
	done  int
}

func newPace(rate int) *pace { return &pace{start: time.Now(), rate: rate} }

// due returns how many are due now and not done, up to a burst.
func (p *pace) due() int {
	return min(int(time.Since(p.start).Seconds()*float64(p.rate))-p.done, burst)
}

// wait sleeps until some are due.
func (p *pace) wait() int {
	for {
		if due := p.due(); due > 0 {
			return due
		}
		time.Sleep(time.Millisecond)
	}
}

// exchange is one that has begun.
type exchange struct {
	fd       int
	deadline time.Time
	ending   Ending
	stage    stage
}

type stage int

const (
	over stage = iota
	connecting
	asked
	leaving // answered; the peer is to close
)

// asker is an Ask that runs.
type asker struct {
	Ask
	poll   int
	byFD   map[int]*exchange
	begun  []*exchange // by deadline
	result Result
}

// Run begins all exchanges and waits for the last.
func (a Ask) Run() (Result, error) {
	poll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return Result{}, err
	}
	defer unix.Close(poll)
	if len(a.Endings) == 0 {
		a.Endings = []Ending{WeClose}
	}
	r := &asker{Ask: a, poll: poll, byFD: make(map[int]*exchange)}
	clock := newPace(a.Rate)
	events := make([]unix.EpollEvent, 256)
	for r.result.Sent < a.Count || len(r.byFD) > 0 {
		for range min(clock.due(), a.Count-r.result.Sent) {
			if err := r.begin(); err != nil {
				return r.result, err
			}
			clock.done++
		}
		n, err := unix.EpollWait(poll, events, 1)
		if err != nil && err != unix.EINTR {
			return r.result, err
		}
		for _, event := range events[:max(n, 0)] {
			if e := r.byFD[int(event.Fd)]; e != nil {
				r.step(e)
			}
		}
		now := time.Now()
		for len(r.begun) > 0 && (r.begun[0].stage == over || now.After(r.begun[0].deadline)) {
			r.end(r.begun[0])
			r.begun = r.begun[1:]
		}
	}
	return r.result, nil
}

// begin begins the next exchange.
func (r *asker) begin() error {
	number := r.result.Sent
	kind := unix.SOCK_DGRAM
	if r.TCP {
		kind = unix.SOCK_STREAM
	}
	to := netip.AddrPortFrom(r.To.Addr(), r.To.Port()+uint16(number%max(r.Ports, 1)))
	fd, err := unix.Socket(familyOf(to.Addr()), kind|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open a socket: %w", err)
	}
	e := &exchange{fd: fd, deadline: time.Now().Add(r.Deadline), ending: r.Endings[number%len(r.Endings)]}
	r.result.Sent++
	if r.From != 0 {
		if err := bindAgain(fd, familyOf(to.Addr()), int(r.From)+number); err != nil {
			unix.Close(fd)
			return fmt.Errorf("bind to port %d: %w", int(r.From)+number, err)
		}
	}
	if err := unix.Connect(fd, sockaddr(to)); err != nil && err != unix.EINPROGRESS {
		r.result.Refused++
		return unix.Close(fd)
	}
	watch := uint32(unix.EPOLLIN)
	e.stage = asked
	if r.TCP {
		e.stage, watch = connecting, unix.EPOLLOUT
	} else if !r.request(e) {
		return unix.Close(fd)
	}
	r.byFD[fd] = e
	r.begun = append(r.begun, e)
	return unix.EpollCtl(r.poll, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: watch, Fd: int32(fd)})
}

// bindAgain binds to a port that a connection may just have had.
func bindAgain(fd, family, port int) error {
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1); err != nil {
		return err
	}
	if family == unix.AF_INET {
		return unix.Bind(fd, &unix.SockaddrInet4{Port: port})
	}
	return unix.Bind(fd, &unix.SockaddrInet6{Port: port})
}

func (r *asker) request(e *exchange) bool {
	if _, err := write(e.fd, []byte{byte(e.ending), 'a', 's', 'k'}); err != nil {
		r.result.Refused++
		return false
	}
	return true
}

// step takes an exchange on, whose socket has something to tell.
func (r *asker) step(e *exchange) {
	var answer [64]byte
	switch e.stage {
	case connecting:
		if code, err := unix.GetsockoptInt(e.fd, unix.SOL_SOCKET, unix.SO_ERROR); err != nil || code != 0 || !r.request(e) {
			r.end(e)
			return
		}
		e.stage = asked
		watch := unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(e.fd)}
		if unix.EpollCtl(r.poll, unix.EPOLL_CTL_MOD, e.fd, &watch) != nil {
			r.end(e)
		}
	case asked:
		n, err := read(e.fd, answer[:])
		if err == unix.EAGAIN {
			return
		}
		if n <= 0 || err != nil {
			r.end(e)
			return
		}
		if r.TCP && e.ending == TheyClose {
			e.stage = leaving
			return
		}
		r.answered(e)
	case leaving:
		if n, err := read(e.fd, answer[:]); n == 0 && err == nil {
			r.answered(e)
		} else if err != unix.EAGAIN {
			r.end(e)
		}
	}
}

func (r *asker) answered(e *exchange) {
	r.result.Answered++
	switch {
	case r.TCP && (e.ending == Hold || e.ending == TheyRepeat):
		r.result.Held = append(r.result.Held, e.fd)
		_ = unix.EpollCtl(r.poll, unix.EPOLL_CTL_DEL, e.fd, nil)
		delete(r.byFD, e.fd)
		e.stage = over
		return
	case r.TCP && e.ending == WeReset:
		_ = unix.SetsockoptLinger(e.fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
	}
	r.end(e)
}

func (r *asker) end(e *exchange) {
	if e.stage == over {
		return
	}
	e.stage = over
	delete(r.byFD, e.fd)
	unix.Close(e.fd)
}

func familyOf(a netip.Addr) int {
	if a.Is4() {
		return unix.AF_INET
	}
	return unix.AF_INET6
}

func sockaddr(a netip.AddrPort) unix.Sockaddr {
	if a.Addr().Is4() {
		return &unix.SockaddrInet4{Addr: a.Addr().As4(), Port: int(a.Port())}
	}
	return &unix.SockaddrInet6{Addr: a.Addr().As16(), Port: int(a.Port())}
}
