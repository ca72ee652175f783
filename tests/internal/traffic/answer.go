// SPDX-License-Identifier: Apache-2.0

package traffic

import (
	"container/heap"
	"context"
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// Answer is a peer that answers on ports: to a datagram with the same, to a connection's requests as they ask for.
type Answer struct {
	First, Ports int           // 0 ports: one
	From, To     time.Duration // how long answers to datagrams take: every time in between
	Silence      time.Duration // before what TheyRepeat
}

// late is an answer that is not due yet.
type late struct {
	due  time.Time
	fd   int
	to   unix.Sockaddr // nil: a connection's
	text []byte        // nil: forget the connection
}

type lateHeap []late

func (h lateHeap) Len() int           { return len(h) }
func (h lateHeap) Less(i, j int) bool { return h[i].due.Before(h[j].due) }
func (h lateHeap) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }
func (h *lateHeap) Push(x any)        { *h = append(*h, x.(late)) }
func (h *lateHeap) Pop() any {
	last := (*h)[len(*h)-1]
	*h = (*h)[:len(*h)-1]
	return last
}

type answerer struct {
	Answer
	poll      int
	listeners map[int]bool // true: of datagrams
	later     lateHeap
	answers   int
	stalled   []int // connections that are no longer read
}

// Run answers until the context ends. It calls ready when it listens.
func (a Answer) Run(ctx context.Context, ready func()) error {
	poll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return err
	}
	defer unix.Close(poll)
	r := &answerer{Answer: a, poll: poll, listeners: make(map[int]bool)}
	defer r.close()
	for i := range max(a.Ports, 1) {
		for _, kind := range []int{unix.SOCK_DGRAM, unix.SOCK_STREAM} {
			if err := r.listen(kind, a.First+i); err != nil {
				return fmt.Errorf("listen on port %d: %w", a.First+i, err)
			}
		}
	}
	ready()
	events := make([]unix.EpollEvent, 256)
	for ctx.Err() == nil {
		wait := 50
		if len(r.later) > 0 {
			wait = int(max(0, min(time.Until(r.later[0].due).Milliseconds(), 50)))
		}
		n, err := unix.EpollWait(poll, events, wait)
		if err != nil && err != unix.EINTR {
			return err
		}
		for _, event := range events[:max(n, 0)] {
			fd := int(event.Fd)
			switch datagrams, listens := r.listeners[fd]; {
			case datagrams:
				r.receive(fd)
			case listens:
				r.accept(fd)
			default:
				r.serve(fd)
			}
		}
		for now := time.Now(); len(r.later) > 0 && !r.later[0].due.After(now); {
			l := heap.Pop(&r.later).(late)
			// What is lost is counted by who asked.
			switch {
			case l.text == nil:
				forget(l.fd)
			case l.to == nil:
				_, _ = write(l.fd, l.text)
			default:
				_ = unix.Sendto(l.fd, l.text, 0, l.to)
			}
		}
	}
	return nil
}

func (r *answerer) close() {
	for fd := range r.listeners {
		unix.Close(fd)
	}
	for _, fd := range r.stalled {
		unix.Close(fd)
	}
}

func (r *answerer) listen(kind, port int) error {
	fd, err := unix.Socket(unix.AF_INET6, kind|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	r.listeners[fd] = kind == unix.SOCK_DGRAM
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1); err != nil {
		return err
	}
	if kind == unix.SOCK_DGRAM { // as what it loses would count as the filter's
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 16<<20); err != nil {
			return err
		}
	}
	if err := unix.Bind(fd, &unix.SockaddrInet6{Port: port}); err != nil {
		return err
	}
	if kind == unix.SOCK_STREAM {
		if err := unix.Listen(fd, 4096); err != nil {
			return err
		}
	}
	return r.watch(fd)
}

func (r *answerer) watch(fd int) error {
	return unix.EpollCtl(r.poll, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(fd)})
}

func (r *answerer) receive(fd int) {
	var text [2048]byte
	for range 256 { // then those that are due
		n, from, err := unix.Recvfrom(fd, text[:], 0)
		if err != nil {
			return
		}
		if r.To == 0 {
			_ = unix.Sendto(fd, text[:n], 0, from)
			continue
		}
		r.answers++
		delay := r.From + (r.To-r.From)*time.Duration(r.answers*37%100)/100
		heap.Push(&r.later, late{time.Now().Add(delay), fd, from, append([]byte{}, text[:n]...)})
	}
}

func (r *answerer) accept(listener int) {
	for {
		fd, _, err := unix.Accept4(listener, unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC)
		if err != nil {
			return
		}
		if r.watch(fd) != nil {
			unix.Close(fd)
		}
	}
}

// serve answers what a connection asks for.
func (r *answerer) serve(fd int) {
	var text [4096]byte
	n, err := read(fd, text[:])
	if err == unix.EAGAIN {
		return
	}
	if n <= 0 || err != nil {
		unix.Close(fd)
		return
	}
	ending := Ending(text[0])
	_, err = write(fd, text[:min(n, 100)])
	switch ending {
	case TheyResetBehind:
		_, _ = write(fd, text[:])
		fallthrough
	case TheyReset:
		_ = unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
		unix.Close(fd)
		return
	case TheyClose:
		unix.Close(fd)
		return
	case TheyForget:
		err = unix.EpollCtl(r.poll, unix.EPOLL_CTL_DEL, fd, nil)
		heap.Push(&r.later, late{time.Now().Add(time.Second), fd, nil, nil})
	case TheyStall:
		if err = unix.EpollCtl(r.poll, unix.EPOLL_CTL_DEL, fd, nil); err == nil {
			r.stalled = append(r.stalled, fd)
		}
	case TheyRepeat:
		heap.Push(&r.later, late{time.Now().Add(r.Silence), fd, nil, []byte("again")})
	}
	if err != nil {
		unix.Close(fd)
	}
}

// forget closes a connection of which the peer hears nothing, as a host does that has crashed.
func forget(fd int) {
	_ = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_REPAIR, 1)
	unix.Close(fd)
}
